"""Every model family packed and padded against plain transformers, and what is refused before a run."""

from pathlib import Path
from typing import Any

import model_families
import numpy as np
import pytest
import torch
import transformers
from model_families import FAMILIES, GEMMA2
from step_samples import (
    LENGTHS,
    PER_EXAMPLE,
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

from instruction_modelling.errors import UserError
from instruction_modelling.models import block_attention, loading
from instruction_modelling.models.adapters import add_lora
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.model_check import Rounding, check_model
from instruction_modelling.training.plan import GlobalBatch, Layout

# The fixture of this module.
warnings_said = model_families.warnings_said

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
        tuned = add_lora(own, 4, 8, 0.0)
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
    tuned = add_lora(tiny_llama(), 4, 8, 0.0)
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


def test_soft_caps_of_the_logits_and_of_the_attention(tmp_path: Path, warnings_said: list[str]) -> None:
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
    assert len(warnings_said) == 2 and "SDPA does not compute the attention" in warnings_said[0]
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


def test_a_leak_of_the_kernel_for_bfloat16_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that trains is not the one that float32 runs."""
    real, model = block_attention.packed_attention, tiny_llama(PER_EXAMPLE)

    def leaky(q: Any, k: Any, v: Any, lengths: Any, *rest: Any) -> Any:
        return real(q, k, v, [sum(lengths)], *rest)

    with torch.autocast("cpu", torch.bfloat16):
        check_model(model, True, "cpu")
    monkeypatch.setattr(block_attention, "packed_attention", leaky)
    check_model(model, True, "cpu")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match="LlamaForCausalLM lets packed examples see each other"),
    ):
        check_model(model, True, "cpu")


# -- leaks against rounding --------------------------------------------------------------------------------


def lfm2(spread: float) -> transformers.Lfm2Config:
    """A tiny LFM2: its short convolutions reach over the bounds of packed examples."""
    return transformers.Lfm2Config(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        layer_types=["conv", "full_attention", "conv"],
        initializer_range=spread,
    )


@pytest.mark.parametrize(
    ("spread", "dtype", "autocast"),
    [
        (0.02, torch.float32, False),
        (0.02, torch.float32, True),
        (0.15, torch.float32, False),
        (0.15, torch.bfloat16, False),
    ],
    ids=str,
)
def test_a_leak_is_refused_however_small_the_logits(
    spread: float, dtype: torch.dtype, autocast: bool
) -> None:
    """A fresh LFM2's logits change by 4e-5, a hundred times what rounding does."""
    model = random_model(lfm2(spread), PER_EXAMPLE, dtype=dtype)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        pytest.raises(UserError, match="Lfm2ForCausalLM lets packed examples see each other"),
    ):
        check_model(model, True, "cpu")
    check_model(random_model(lfm2(spread), "sdpa", dtype=dtype), False, "cpu")


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_rounding_is_no_leak(family: Any, dtype: torch.dtype, autocast: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        check_model(random_model(family(), PER_EXAMPLE, dtype=dtype), True, "cpu")


def test_experts_that_round_by_their_number_of_tokens_are_no_leak() -> None:
    config = transformers.Qwen3MoeConfig(
        **{**model_families.SIZES, "num_hidden_layers": 3},
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    for dtype in (torch.float32, torch.bfloat16):
        check_model(random_model(config, PER_EXAMPLE, dtype=dtype), True, "cpu")


def test_rounding_is_measured_only_where_what_it_makes_in_any_case_does_not_explain_a_difference() -> None:
    measured = []

    def measure() -> float:
        measured.append(1)
        return 3e-5

    rounding = Rounding(1e-6, measure)
    assert rounding.explains(9e-6) and not measured
    assert rounding.explains(2.9e-4) and not rounding.explains(3.1e-4)
    assert measured == [1] and rounding.size == 3e-5 and Rounding(4e-5, measure).size == 4e-5
