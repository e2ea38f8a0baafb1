"""What a run leaves behind: metrics, run.json, the card, and a model that plain transformers opens."""

import json
import shutil
from pathlib import Path
from typing import Any

import finetune_runs
import pytest
import torch
from finetune_runs import ROWS, STEPS, tune
from tiny import make_tiny_model
from training_runs import SAMPLE, finetune, losses, metrics, record, run, sample_rows, weights, write_rows

# The fixtures of this module.
place, it = (finetune_runs.place, finetune_runs.it)


def test_metrics_by_value(it: Path) -> None:
    lines = [line for line in metrics(it) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["examples"] for line in lines] == [8, 8, 4] * 2
    # 0.03 of 6 steps is no warm-up.
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3 * (1 - i / 6) for i in range(6)])
    assert [line["epoch"] for line in lines] == pytest.approx([(i + 1) / 3 for i in range(6)])
    data = record(it)["data"]
    for epoch in (lines[:3], lines[3:]):
        assert sum(line["tokens"] for line in epoch) == data["tokens"]
        assert sum(line["tokens_with_loss"] for line in epoch) == sum(
            data["by_kind"][kind]["tokens_with_loss"] for kind in data["by_kind"]
        )
    for line in lines:
        assert set(line["nll"]) == {"assistant", "end"}
        assert 0 <= line["padding_fraction"] < 1 and line["grad_norm"] > 0
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
    measured = [line for line in metrics(it) if "eval_rows" in line]
    assert [line["step"] for line in measured] == [3, 6]
    assert all(line["eval_rows"] == 64 and line["eval_response_nll"] > 0 for line in measured)


def test_the_measured_loss_is_that_of_compute_loss(it: Path, tmp_path: Path) -> None:
    outcome = run(
        "compute_loss",
        "--model_name_or_path",
        it,
        "--eval_file",
        SAMPLE / "brief_answers_test.jsonl",
        "--output_dir",
        tmp_path,
    )
    assert outcome.code == 0, outcome.err
    summary, last = json.loads((tmp_path / "summary.json").read_text()), metrics(it)[-1]
    assert summary["mean_over_examples"]["response"] == pytest.approx(last["eval_response_nll"], abs=1e-5)
    assert summary["mean_over_tokens"]["response"] == pytest.approx(
        last["eval_response_nll_per_token"], abs=1e-5
    )


def test_run_json_by_value(place: Path, it: Path) -> None:
    import hashlib

    written = record(it)
    assert written["finished"] is True and written["arm"] == "IT"
    assert (written["steps"], written["examples_per_step"], written["epochs"]) == (6, 8, 2)
    data = written["data"]
    assert data["sha256"] == hashlib.sha256((place / "rows.jsonl").read_bytes()).hexdigest()
    assert (data["rows"], data["used"], data["bad_rows"], data["dropped"]) == (ROWS, ROWS, {}, {})
    assert data["tokens"] == sum(kind["tokens"] for kind in data["by_kind"].values())
    assert sum(kind["loss_share"] for kind in data["by_kind"].values()) == pytest.approx(1)
    assert data["by_kind"]["user"]["loss_share"] == 0
    assert written["options"]["adam_beta2"] == 0.98 and written["options"]["mask_style"] == "exact"
    assert written["options"]["learning_rate"] == 1e-3 and written["options"]["seed"] == 0
    assert {"torch", "transformers", "python"} <= set(written["versions"])
    assert (
        written["model"]["parameters"]
        == written["model"]["trainable_parameters"]
        == sum(weight.numel() for weight in weights(place / "model").values())
    )
    assert written["model"]["chat_format"] == "tulu"
    assert "step 6/6" in (it / "train.log").read_text()
    assert (it / "bad_rows.jsonl").read_text() == ""
    log = (it / "train.log").read_text()
    assert "IT: 6 steps of up to 8 examples (1 process), cpu" in log
    assert f"{ROWS} rows, {ROWS} used, {data['tokens']:,} tokens; 0 rows cut" in log
    assert "share of the loss: assistant " in log
    card = (it / "README.md").read_text()
    assert "| with a loss | share of the loss |\n" in card
    assert data["sha256"] in card and "## Warning" not in card


def test_the_card_of_an_instruction_modelling_run_warns(place: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, "--use_lm_loss", "--max_train_steps", 1)
    assert "## Warning" in (folder / "README.md").read_text()
    share = record(folder)["data"]["by_kind"]
    assert share["user"]["tokens_with_loss"] == share["user"]["tokens"] and share["user"]["loss_share"] > 0.5
    assert record(folder)["arm"] == "IM"


def test_what_was_measured_of_an_overwritten_model_is_moved_aside(place: Path, tmp_path: Path) -> None:
    """Else a report would show it beside the new model's settings."""
    same = ("--max_train_steps", 1, "--overwrite_output")
    folder = tune(place, tmp_path, *same)
    measured = folder / "eval" / "test" / "summary.json"
    measured.parent.mkdir(parents=True)
    measured.write_text("{}")
    # The same training makes the same model.
    assert tune(place, tmp_path, *same) == folder and measured.exists()
    tune(place, tmp_path, *same, "--learning_rate", 1e-5)
    assert not measured.exists() and (folder / "eval-before-1" / "test" / "summary.json").exists()
    assert "eval-before-1" in (folder / "train.log").read_text()


LM = ("--use_lm_modelling", "--block_size", 100, "--max_train_steps", 1)


def test_the_card_of_blocks_says_what_was_used(place: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, *LM)
    blocks = record(folder)["data"]["used"]
    card, log = (folder / "README.md").read_text(), (folder / "train.log").read_text()
    assert f", {blocks} blocks of {ROWS} rows, sha256" in card
    assert f"{ROWS} rows, {blocks} blocks used, {100 * blocks:,} tokens" in log


def test_the_card_of_blocks_without_weights(place: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, *LM)
    card = (folder / "README.md").read_text()
    assert "| loss weight of every token | 1 |\n" in card and "template loss weight" not in card
    assert "| loss normalisation, denominator | example, nonzero |\n" in card


def test_the_card_of_blocks_that_keep_their_weights(place: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, *LM, "--response_loss_weight", 0.5, "--loss_denominator", "response")
    card = (folder / "README.md").read_text()
    assert "| instruction / response / template loss weight | 0 / 0.5 / 0 |\n" in card
    assert "| loss normalisation, denominator | example, response |\n" in card


def test_the_model_opens_in_plain_transformers(place: Path, it: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from instruction_modelling.chat.formats import load_chat_format
    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.tokens.collector import collect
    from instruction_modelling.tokens.row_encoder import RowEncoder

    tokenizer: Any = AutoTokenizer.from_pretrained(it)
    model = AutoModelForCausalLM.from_pretrained(it)
    assert model.dtype == torch.float32 and model.config.use_cache
    assert GenerationConfig.from_pretrained(it).eos_token_id == tokenizer.eos_token_id
    original = AutoTokenizer.from_pretrained(place / "model")
    file = read_conversations(place / "rows.jsonl")
    trained = collect(
        RowEncoder(original, load_chat_format("auto", original), 2048).encode(file.conversations)
    )
    for index, row in enumerate(sample_rows(ROWS)):
        ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        assert ids == trained.ids[trained.span(index)].tolist()
        prompt = tokenizer.apply_chat_template(
            row["messages"][:-1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert ids[: len(prompt)] == prompt
    logits = model(input_ids=torch.tensor([ids])).logits
    assert torch.isfinite(logits).all()


def test_stop_ids_of_a_format_with_another_end_token(tmp_path: Path) -> None:
    """A template that ends responses with its own token: both it and the model's EOS stop generation."""
    from transformers import AutoTokenizer, GenerationConfig
    from transformers import PreTrainedTokenizerBase as Base

    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + "
        "'<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    make_tiny_model(tmp_path / "model", chat_template=template)
    tokenizer: Base = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(tmp_path / "model")
    folder = finetune(
        tmp_path / "model",
        write_rows(tmp_path / "rows.jsonl", sample_rows(4)),
        tmp_path / "run",
        "--max_train_steps",
        1,
    )
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [
        tokenizer.convert_tokens_to_ids("<|im_end|>"),
        tokenizer.eos_token_id,
    ]
    # The two tokens the model had no embeddings for were added.
    assert weights(folder)["model.embed_tokens.weight"].shape[0] >= len(tokenizer)


def test_lora_is_saved_merged_and_by_itself(place: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = tune(place, tmp_path, "--use_lora", "--lora_rank", 4, "--learning_rate", 1e-2)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    ids = torch.arange(5, 30)[None]
    plain = base(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()(input_ids=ids).logits
    logits = merged(input_ids=ids).logits
    torch.testing.assert_close(logits, adapted, atol=1e-4, rtol=1e-4)
    assert (logits - plain).abs().max() > 1e-2
    counts = record(folder)["model"]
    assert 0 < counts["trainable_parameters"] < 0.1 * counts["parameters"]
    assert torch.equal(weights(folder)["lm_head.weight"], weights(place / "model")["lm_head.weight"])


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        (("--save_dtype", "bfloat16"), torch.bfloat16),
        (("--mixed_precision", "bf16"), torch.bfloat16),
        (("--mixed_precision", "bf16", "--save_dtype", "float32"), torch.float32),
    ],
    ids=str,
)
def test_number_formats(
    place: Path, it: Path, tmp_path: Path, arguments: tuple[str, ...], dtype: torch.dtype
) -> None:
    folder = tune(place, tmp_path, *arguments)
    assert {weight.dtype for weight in weights(folder).values()} == {dtype}
    assert json.loads((folder / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    exact = "--mixed_precision" not in arguments
    assert losses(folder) == pytest.approx(losses(it), rel=1e-7 if exact else 0.02)
    assert (losses(folder) == losses(it)) == exact
    said = f"| weights saved as | {str(dtype).removeprefix('torch.')} |"
    assert said in (folder / "README.md").read_text(encoding="utf-8")


def test_a_base_model_in_bfloat16_is_saved_in_it_and_trained_in_float32(
    place: Path, it: Path, tmp_path: Path
) -> None:
    shutil.copytree(place, tmp_path / "half")
    config = tmp_path / "half" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "bfloat16"}))
    folder = tune(tmp_path / "half", tmp_path / "runs", "--checkpointing_steps", 1)
    assert {weight.dtype for weight in weights(folder).values()} == {torch.bfloat16}
    assert losses(folder) == losses(it)
