"""Adapters: which layers they are on, new tokens that are trained with them, and the weights they become."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from step_samples import VOCABULARY, random_data, random_model, run_step, tiny_llama, weigh, wrap
from tiny import make_tiny_model
from training_runs import Outcome, finetune, record, run, weights, write_rows

from instruction_modelling.errors import UserError
from instruction_modelling.models.adapters import AdapterReach, adapter_layers, add_lora, merge_adapters
from instruction_modelling.models.loading import fit_embeddings, load_tokenizer, tokens_unknown_to
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout

IDS = torch.tensor([[3, 56, 59, 7, 12, 59, 1]])
# Tokens that the rows of chance have several times.
NEW = (56, 59)


def trained(model: Any, reach: AdapterReach) -> Any:
    """The model with adapters after three steps of plain descent."""
    tuned = wrap(add_lora(model, 4, 8.0, 0.0, reach))
    rows = weigh(random_data())
    for _ in range(3):
        run_step(
            tuned, step_micro_batches(rows, GlobalBatch(0, torch.arange(8).numpy()), Layout(False, 8, 0))
        )
        with torch.no_grad():
            for weight in tuned.parameters():
                if weight.grad is not None:
                    weight.sub_(0.5 * weight.grad)
    return tuned.model.eval()


def merged(tuned: Any, plain: Any) -> Any:
    """`plain` with the weights that the adapters make."""
    state = merge_adapters(dict(tuned.state_dict()), adapter_layers(tuned))
    plain.load_state_dict(state)
    return plain.eval()


GPT2 = transformers.GPT2Config(
    vocab_size=VOCABULARY,
    n_embd=24,
    n_layer=2,
    n_head=4,
    n_positions=128,
    initializer_range=0.15,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
PHI = transformers.PhiConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    initializer_range=0.15,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attention_dropout=0.0,
)
MODELS = {
    "llama": lambda: tiny_llama(),
    "llama tied": lambda: tiny_llama(tie_word_embeddings=True),
    "gpt2, weights transposed and tied": lambda: random_model(GPT2),
    "phi, a head with a bias": lambda: random_model(PHI),
}
REACHES = {
    "usual": AdapterReach(),
    "dora": AdapterReach(dora=True),
    "new tokens": AdapterReach(new_tokens=NEW),
    "dora and new tokens": AdapterReach(dora=True, new_tokens=NEW),
}


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES.keys())
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_the_merged_weights_compute_what_was_trained(make: Any, reach: AdapterReach) -> None:
    before = {name: weight.clone() for name, weight in make().state_dict().items()}
    tuned = trained(make(), reach)
    with torch.no_grad():
        expected = tuned(input_ids=IDS).logits
        plain = merged(tuned, make())
        found = plain(input_ids=IDS).logits
        untuned = make().eval()(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - untuned).abs().max() > 1e-2
    moved = (plain.get_input_embeddings().weight - make().get_input_embeddings().weight).abs().amax(1) > 0
    whole = isinstance(make(), transformers.PhiForCausalLM)
    if not reach.new_tokens:
        assert not moved.any()
    elif not whole:
        assert moved.nonzero().flatten().tolist() == [*NEW]
    else:
        assert moved[[*NEW]].all()
    assert before.keys() == plain.state_dict().keys()


def test_layers_by_name_and_layers_trained_whole() -> None:
    reach = AdapterReach(("q_proj", "v_proj"), ("lm_head", "embed_tokens"))
    tuned = trained(tiny_llama(), reach)
    names = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert {name.split(".")[-4] for name in names if "lora_" in name} == {"q_proj", "v_proj"}
    assert sum("modules_to_save" in name for name in names) == 2
    with torch.no_grad():
        expected, found = tuned(input_ids=IDS).logits, merged(tuned, tiny_llama())(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("new_tokens", [(), (3, 7)], ids=["", "new tokens"])
@pytest.mark.parametrize("whole", [("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head")], ids=str)
def test_tied_embeddings_trained_whole_stay_tied(whole: tuple[str, ...], new_tokens: tuple[int, ...]) -> None:
    """By either of their names: rows of new tokens are among those of the one weight."""
    reach = AdapterReach(modules_to_save=whole, new_tokens=new_tokens)
    tuned = trained(tiny_llama(tie_word_embeddings=True), reach)
    assert not adapter_layers(tuned).token_rows
    state = merge_adapters(dict(tuned.state_dict()), adapter_layers(tuned))
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    with torch.no_grad():
        plain = merged(tuned, tiny_llama(tie_word_embeddings=True))
        torch.testing.assert_close(
            plain(input_ids=IDS).logits, tuned(input_ids=IDS).logits, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (AdapterReach(("no_proj",)), "--lora_target_modules no_proj: the model has no layer of this name"),
        (AdapterReach(modules_to_save=("nothing",)), "--lora_modules_to_save nothing: the model has no"),
        (AdapterReach(("embed_tokens",)), "adapters go on linear layers, and this is a Embedding"),
        (AdapterReach(("all-linear", "q_proj")), "all-linear stands alone"),
        (AdapterReach(("q_proj", "lm_head")), "the head is the embeddings' weight"),
    ],
    ids=str,
)
def test_layers_that_adapters_do_not_fit_are_refused(reach: AdapterReach, words: str) -> None:
    with pytest.raises(UserError, match=words):
        add_lora(tiny_llama(tie_word_embeddings=True), 4, 8.0, 0.0, reach)


def test_the_kl_terms_anchor_is_the_head_before_tuning() -> None:
    """New rows of the head are trained; the anchor keeps the old ones."""
    tuned = add_lora(tiny_llama(), 4, 8.0, 0.0, AdapterReach(new_tokens=NEW))
    model = wrap(tuned, kl_weight=1.0)
    rows = weigh(random_data())
    batches = step_micro_batches(rows, GlobalBatch(0, torch.arange(8).numpy()), Layout(False, 8, 0))
    for batch in batches:
        assert float(model(**batch.tensors())["kl"]) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lm_head" in name and "trainable_tokens_delta" in name:
                weight += 1.0
    assert all(float(model(**batch.tensors())["kl"]) > 1e-3 for batch in batches)


# -- whole runs --------------------------------------------------------------------------------------------

TOKENS = ["<call>", "</call>"]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Add {i} and 2."},
            {"role": "assistant", "content": f"<call>add({i}, 2)</call>"},
        ]
    }
    for i in range(8)
]


def with_new_tokens(model: Path, folder: Path) -> Path:
    """The model's tokenizer with two tokens more, in a folder of its own."""
    tokenizer = load_tokenizer(str(model))
    tokenizer.add_tokens(TOKENS)
    tokenizer.save_pretrained(folder)
    return folder


def lora_run(model: Path, tokenizer: Path, tmp_path: Path, *arguments: object) -> Path:
    """Three steps of LoRA on rows that write the new tokens."""
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    options = ("--use_lora", "--lora_rank", 4, "--learning_rate", 1e-2, "--max_train_steps", 3)
    return finetune(model, rows, tmp_path / "run", "--tokenizer_name", tokenizer, *options, *arguments)


@pytest.mark.parametrize("vocab", [300, 512], ids=["the embeddings grow", "the rows are padding"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_new_tokens_are_trained_and_saved_merged_and_by_themselves(
    tmp_path: Path, vocab: int, tied: bool
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = make_tiny_model(tmp_path / "model", vocab=vocab)
    if tied:
        config = transformers.AutoConfig.from_pretrained(model)
        config.tie_word_embeddings = True
        transformers.LlamaForCausalLM(config).save_pretrained(model)
    tokenizer = load_tokenizer(str(with_new_tokens(model, tmp_path / "tokenizer")))
    new: Any = tokenizer.convert_tokens_to_ids(TOKENS)
    folder = lora_run(model, tmp_path / "tokenizer", tmp_path)
    assert record(folder)["model"]["trained_tokens"] == 2
    assert "2 tokens that the model has not learnt are trained" in (folder / "train.log").read_text()

    base = AutoModelForCausalLM.from_pretrained(model)
    fit_embeddings(base, tokenizer)
    names = ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"])
    for name in names:
        moved = (weights(folder)[name] - base.state_dict()[name]).abs().amax(1) > 1e-6
        assert moved.nonzero().flatten().tolist() == sorted(new), name
    assert ("lm_head.weight" in weights(folder)) != tied
    ids = torch.tensor([[5, 9, *new, 30]])
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()(input_ids=ids).logits
    torch.testing.assert_close(found, adapted, atol=1e-4, rtol=1e-4)


def test_a_run_with_new_tokens_goes_on_as_it_was(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", vocab=300)
    tokenizer = with_new_tokens(model, tmp_path / "tokenizer")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    arm = ("--lora_dropout", 0, "--use_dora", "--checkpointing_steps", 1)
    whole = lora_run(model, tokenizer, tmp_path / "whole", *arm)
    cut = lora_run(model, tokenizer, tmp_path / "cut", *arm)
    import shutil

    shutil.rmtree(cut / "step_3")
    again = lora_run(model, tokenizer, tmp_path / "cut", *arm, "--resume_from_checkpoint", "latest")
    assert weights(whole).keys() == weights(again).keys()
    assert all(torch.equal(weights(whole)[name], weights(again)[name]) for name in weights(whole))


def test_the_tokens_that_a_model_does_not_know(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    tokenizer = load_tokenizer(str(with_new_tokens(model, tmp_path / "tokenizer")))
    assert tokens_unknown_to(str(model), tokenizer) == tokenizer.convert_tokens_to_ids(TOKENS)
    assert tokens_unknown_to(str(model), load_tokenizer(str(model))) == []
    assert tokens_unknown_to(str(tmp_path), tokenizer) == []


def attempt(tmp_path: Path, *arguments: object) -> Outcome:
    """A run that is refused."""
    model, rows = make_tiny_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", ROWS)
    return run(
        "finetune",
        "--model_name_or_path",
        model,
        "--train_file",
        rows,
        "--output_dir",
        tmp_path / "run",
        *arguments,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--use_dora",), "--use_dora: give --use_lora or --use_qlora too"),
        (("--lora_target_modules", "q_proj"), "--lora_target_modules: give --use_lora"),
        (
            ("--use_lora", "--lora_target_modules", "q_prj"),
            "--lora_target_modules q_prj: the model has no layer",
        ),
        (("--use_lora", "--lora_alpha", "-1"), "--lora_alpha -1.0: must be a finite number"),
    ],
    ids=str,
)
def test_flags_of_adapters_that_do_not_fit(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    outcome = attempt(tmp_path, *arguments)
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err
