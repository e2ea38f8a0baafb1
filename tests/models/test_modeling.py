"""The way through a model, from a micro-batch to NLLs and gradients, against transformers' own forward; on
many families."""

import itertools
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from step_samples import (
    LENGTHS,
    PER_EXAMPLE,
    VOCABULARY,
    flat_gradient,
    random_data,
    random_model,
    relative,
    run_step,
    tiny_llama,
    token_nlls,
    weigh,
    wrap,
)
from tiny import make_tiny_model, make_tiny_tokenizer

from instruction_modelling.errors import UserError
from instruction_modelling.models import loading
from instruction_modelling.models.attention import per_example_attention
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.hidden_states import output_head
from instruction_modelling.training.model_check import check_model
from instruction_modelling.training.plan import GlobalBatch, Layout

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
}
NO_DROPOUT: dict[str, Any] = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
FAMILIES: dict[str, Any] = {
    "llama tied": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=6),
    "mistral, window 5": lambda: transformers.MistralConfig(**SIZES, sliding_window=5),
    "cohere, logits scaled": lambda: transformers.CohereConfig(
        **SIZES, logit_scale=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "granite, logits divided": lambda: transformers.GraniteConfig(
        **SIZES,
        logits_scaling=3.0,
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
        attention_multiplier=0.3,
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        ffn_dim=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        init_std=0.15,
        dropout=0.0,
        word_embed_proj_dim=24,
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**{**SIZES, "num_key_value_heads": 4}, **NO_DROPOUT),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=24,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.15,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
}
GEMMA2: dict[str, Any] = dict(
    **SIZES,
    head_dim=6,
    final_logit_softcapping=1.5,
    attn_logit_softcapping=2.0,
    sliding_window=5,
    query_pre_attn_scalar=6,
)
PACKED, LEFT, RIGHT = Layout(True, 1, 40), Layout(False, 3, 0, "left"), Layout(False, 8, 0)


def plain_step(
    model: Any, weighted: WeightedData, examples: list[int]
) -> tuple[dict[int, np.ndarray], torch.Tensor]:
    """NLLs of weighted tokens and the gradient of the mean over examples, by the model's own forward on one
    at a time."""
    model.zero_grad(set_to_none=True)
    nlls = {}
    for example in examples:
        at = weighted.data.span(example)
        ids, weights = (
            torch.from_numpy(weighted.data.ids[at].astype(np.int64)),
            torch.from_numpy(weighted.weights[at]),
        )
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
        nlls[example] = nll[weights[1:] != 0].detach().numpy()
        ((nll * weights[1:]).sum() / (weights[1:] != 0).sum() / len(examples)).backward()
    return nlls, flat_gradient(model)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_packed_and_padded(family: Any) -> None:
    weighted, examples = weigh(random_data()), list(range(len(LENGTHS)))
    expected, gradient = plain_step(random_model(family(), "sdpa"), weighted, examples)
    for layout in (PACKED, RIGHT, LEFT):
        model = wrap(random_model(family(), PER_EXAMPLE if layout.packing else "sdpa"))
        check_model(model.model, layout.packing, "cpu")
        found = token_nlls(model, weighted, layout, examples)
        for example in examples:
            np.testing.assert_allclose(found[example], expected[example], atol=1e-5)
        _, own = run_step(model, step_micro_batches(weighted, GlobalBatch(0, np.array(examples)), layout))
        assert relative(own, gradient) < 2e-6


def test_the_families_are_a_test() -> None:
    """The window is shorter than the examples, and scales and caps of logits change the losses."""
    assert max(LENGTHS) > 5
    weighted = weigh(random_data())
    for name, setting, without in (
        ("cohere, logits scaled", "logit_scale", 1.0),
        ("granite, logits divided", "logits_scaling", 1.0),
        ("mistral, window 5", "sliding_window", None),
    ):
        config, other = FAMILIES[name](), FAMILIES[name]()
        setattr(other, setting, without)
        one, two = (
            token_nlls(wrap(random_model(c, PER_EXAMPLE)), weighted, PACKED, [4])[4] for c in (config, other)
        )
        assert np.abs(one - two).max() > 1e-3


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_gradient_checkpointing_and_lora(packing: bool) -> None:
    weighted, examples = weigh(random_data()), list(range(len(LENGTHS)))
    layout, attention = (PACKED, PER_EXAMPLE) if packing else (RIGHT, "sdpa")
    plain = tiny_llama()
    _, gradient = plain_step(plain, weighted, examples)
    model = tiny_llama(attention)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    batches = step_micro_batches(weighted, GlobalBatch(0, np.array(examples)), layout)
    assert relative(run_step(wrap(model), batches)[1], gradient) < 1e-6

    adapters = []
    for with_checkpointing, own in (
        (False, tiny_llama()),
        (False, tiny_llama(attention)),
        (True, tiny_llama(attention)),
    ):
        if with_checkpointing:
            own.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            own.enable_input_require_grads()
        tuned = loading.add_lora(own, 4, 8, 0.0)
        with torch.no_grad():
            for name, weight in tuned.named_parameters():
                if "lora_" in name:
                    weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
        adapters.append(tuned)
    _, expected = plain_step(adapters[0], weighted, examples)
    for tuned in adapters[1:]:
        check_model(tuned, packing, "cpu")
        assert relative(run_step(wrap(tuned), batches)[1], expected) < 1e-6


def test_adapters_are_on_every_linear_layer_but_the_head() -> None:
    tuned = loading.add_lora(tiny_llama(), 4, 8, 0.0)
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    targets = {name.split("model.layers.")[1].split(".lora_")[0] for name in trained}
    assert targets == {
        f"{i}.{name}"
        for i in range(2)
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    }


# -- refusals ----------------------------------------------------------------------------------------------


class LoudLlama(transformers.LlamaForCausalLM):
    """Does to its logits what no one knows of."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        out = super().forward(*arguments, **named)
        out.logits = out.logits * 1.1
        return out


@pytest.mark.parametrize("packing", [True, False])
def test_a_head_that_is_not_known_is_refused(packing: bool) -> None:
    model = LoudLlama(tiny_llama(PER_EXAMPLE if packing else "sdpa").config)
    with pytest.raises(UserError, match=r"LoudLlama makes its logits in a way that is not known here"):
        check_model(model, packing, "cpu")


def test_an_attention_that_leaks_is_refused() -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def leaky(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any) -> Any:
        return sdpa_attention_forward(
            module, query, key, value, None, scaling=named.get("scaling"), is_causal=True
        )

    AttentionInterface.register("leaky", leaky)
    check_model(tiny_llama("leaky"), False, "cpu")
    with pytest.raises(UserError, match="lets packed examples see each other"):
        check_model(tiny_llama("leaky"), True, "cpu")


def test_checking_leaves_the_mode_as_it_was() -> None:
    model = tiny_llama()
    check_model(model, False, "cpu")
    assert model.training
    check_model(model.eval(), False, "cpu")
    assert not model.training


def test_soft_caps_of_the_logits_and_of_the_attention(tmp_path: Path, said: list[str]) -> None:
    """Gemma 2 has both: it is trained padded, by transformers' own attention, and refused packed."""
    plain = random_model(transformers.Gemma2Config(**GEMMA2), "eager")
    plain.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="without --packing"):
        loading.load_model(str(tmp_path), torch.float32, PER_EXAMPLE)
    weighted, examples = weigh(random_data()), list(range(len(LENGTHS)))
    expected, gradient = plain_step(plain, weighted, examples)
    for layout in (LEFT, RIGHT):
        model = wrap(loading.load_model(str(tmp_path), torch.float32, "sdpa").train())
        check_model(model.model, False, "cpu")
        found = token_nlls(model, weighted, layout, examples)
        for example in examples:
            np.testing.assert_allclose(found[example], expected[example], atol=1e-5)
        batches = step_micro_batches(weighted, GlobalBatch(0, np.array(examples)), layout)
        assert relative(run_step(model, batches)[1], gradient) < 2e-6
    assert len(said) == 2 and "SDPA does not compute the attention" in said[0]
    plain.config.final_logit_softcapping = None
    other, _ = plain_step(plain, weighted, examples)
    assert np.abs(other[4] - expected[4]).max() > 1e-3


def test_a_model_that_keeps_the_boundaries_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loading.causal_model

    class Deaf(torch.nn.Module):
        def __init__(self, decoder: Any):
            super().__init__()
            self.decoder = decoder

        def forward(self, **named: Any) -> Any:
            return self.decoder(**{name: value for name, value in named.items() if "seq_lens" not in name})

    model = tiny_llama(PER_EXAMPLE)
    monkeypatch.setattr(model, "get_decoder", lambda: Deaf(real(model).model))
    with pytest.raises(UserError, match=r"LlamaForCausalLM.*boundaries.*without --packing"):
        check_model(model, True, "cpu")


# -- packed attention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "mistral, window 5", "opt", "gpt-neox"])
def test_examples_do_not_see_each_other(family: str) -> None:
    """Other tokens in one example change no bit of the others."""
    data, model = random_data(), wrap(random_model(FAMILIES[family](), PER_EXAMPLE))
    weighted, layout = weigh(data), Layout(True, 1, 1000)
    before = token_nlls(model, weighted, layout, range(8))
    for changed in (0, 3, 7):
        other = random_data()
        other.ids[other.span(changed)] = (other.ids[other.span(changed)] + 7) % VOCABULARY
        after = token_nlls(model, WeightedData(other, weighted.weights), layout, range(8))
        for example in range(8):
            if example == changed:
                assert np.abs(after[example] - before[example]).max() > 1e-3
            else:
                np.testing.assert_array_equal(after[example], before[example])


def naive_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, edges: list[int], window: int | None
) -> Any:
    """[tokens, heads, width] in loops over queries."""
    heads, tokens, width = query.shape[1:]
    out = torch.zeros(tokens, heads, width)
    for start, end in itertools.pairwise(edges):
        for t in range(start, end):
            first = max(start, t - window + 1) if window else start
            for h in range(heads):
                k = h * key.shape[1] // heads
                scores = key[0, k, first : t + 1] @ query[0, h, t] * 0.3
                out[t, h] = torch.softmax(scores, 0) @ value[0, k, first : t + 1]
    return out


@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_attention_by_loops(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 17, 6, generator=generator)
    key, value = (torch.randn(1, 2, 17, 6, generator=generator) for _ in range(2))
    module: Any = torch.nn.Module()
    module.num_key_value_groups = 2
    module.is_causal = True
    edges = [0, 1, 9, 17]
    out, weights = per_example_attention(
        module,
        query,
        key,
        value,
        None,
        scaling=0.3,
        sliding_window=window,
        cu_seq_lens_q=torch.tensor(edges, dtype=torch.int32),
    )
    assert weights is None and out.shape == (1, 17, 4, 6)
    torch.testing.assert_close(
        out[0], naive_attention(query, key, value, edges, window), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("named", "words"), [({}, "boundaries"), ({"softcap": 30.0}, "soft caps"), ({"s_aux": 1.0}, "sinks")]
)
def test_attention_refuses_what_it_cannot_do(named: dict[str, Any], words: str) -> None:
    states = torch.zeros(1, 2, 3, 4)
    if named:
        named = {**named, "cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32)}
    with pytest.raises(ValueError, match=words):
        per_example_attention(torch.nn.Module(), states, states, states, None, **named)


# -- loading -----------------------------------------------------------------------------------------------


def test_loading_by_value_and_what_is_not_there(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m")
    model = loading.load_model(str(tmp_path / "m"), torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.config.use_cache is False
    (tmp_path / "empty").mkdir()
    for name, words in (("absent", "there is no such folder"), ("empty", "no causal language model at")):
        with pytest.raises(UserError, match=words):
            loading.load_model(str(tmp_path / name), torch.float32)
    for name, words in (("absent", "there is no such folder"), ("empty", "--tokenizer_name")):
        with pytest.raises(UserError, match=words):
            loading.load_tokenizer(str(tmp_path / name))


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What loading.py warns of, whatever other tests did to the log."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loading.logger.addHandler(handler)
    yield messages
    loading.logger.removeHandler(handler)


def test_attention_falls_back_with_one_warning(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.pick_attention(True, False, False, False) == PER_EXAMPLE
    assert loading.pick_attention(False, False, True, True) == "sdpa"
    assert said == []
    assert loading.pick_attention(True, True, False, False) == PER_EXAMPLE
    assert len(said) == 1 and "using SDPA instead" in said[0]
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert loading.pick_attention(True, True, True, True) == "flash_attention_2"
    assert loading.pick_attention(False, True, True, False) == "sdpa"


def test_embeddings_grow_to_the_tokenizer_and_never_shrink(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m", vocab=512)
    tokenizer = make_tiny_tokenizer()
    model: Any = loading.load_model(str(tmp_path / "m"), torch.float32)
    rows = model.get_input_embeddings().weight.shape[0]
    loading.fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == rows == 512
    before = model.get_input_embeddings().weight[:rows].detach().clone()
    tokenizer.add_tokens([f"<{i}>" for i in range(512 - len(tokenizer) + 3)])
    loading.fit_embeddings(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 515
    assert model.get_output_embeddings().weight.shape[0] == output_head(model).vocabulary == 515
    assert torch.equal(model.get_input_embeddings().weight[:rows], before)


def test_fused_layers_are_used_on_a_gpu_only_and_never_with_their_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    fake = types.ModuleType("liger_kernel.transformers")
    fake.__dict__["_apply_liger_kernel_to_instance"] = lambda model, **keywords: calls.append(
        (model, keywords)
    )
    monkeypatch.setitem(sys.modules, "liger_kernel", types.ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object())
    model = object()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loading.use_fused_layers(model)  # type: ignore[arg-type]
    assert calls == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loading.use_fused_layers(model)  # type: ignore[arg-type]
    assert calls == [(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})]


def test_a_model_that_draws_dropout_is_known(tmp_path: Path) -> None:
    """OPT's own configuration has dropout; Llama's has none; adapters may."""
    from transformers import OPTConfig, OPTForCausalLM

    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=64,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
        )
    )
    make_tiny_model(tmp_path)
    llama = loading.load_model(str(tmp_path), torch.float32, "sdpa")
    assert loading.draws_dropout(opt) and not loading.draws_dropout(llama)
    assert not loading.draws_dropout(loading.add_lora(llama, 2, 4, 0.0))
    assert loading.draws_dropout(
        loading.add_lora(loading.load_model(str(tmp_path), torch.float32, "sdpa"), 2, 4, 0.1)
    )
