"""Attention over packed examples: each by itself, as loops compute it."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_families import FAMILIES
from step_samples import PER_EXAMPLE, VOCABULARY, random_data, random_model, relative, token_nlls, weigh, wrap

from instruction_modelling.models import packed_bfloat16
from instruction_modelling.models.attention import per_example_attention
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.plan import Layout


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


def attend(
    states: Sequence[torch.Tensor], edges: Sequence[int], window: int | None = None, **named: Any
) -> Any:
    """The packed attention's output, [tokens, heads, width], and the states' gradients from `grad`."""
    grad, module = named.pop("grad"), named.pop("module", SimpleNamespace())
    module.num_key_value_groups = states[0].shape[1] // states[1].shape[1]
    leaves = [one.clone().requires_grad_() for one in states]
    boundaries = torch.tensor(edges, dtype=torch.int32)
    layer: Any = per_example_attention
    named |= {"scaling": 0.3, "sliding_window": window, "cu_seq_lens_q": boundaries}
    out, _ = layer(module, *leaves, None, **named)
    out.backward(grad.to(out.dtype))
    return [out[0].detach(), *(one.grad for one in leaves)]


def states_of(
    tokens: int, heads: int, key_heads: int, widths: tuple[int, int]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries, keys (of the first width) and values, float32 numbers that bfloat16 holds, as a layer lays
    them, and a gradient."""
    draw = torch.Generator().manual_seed(1)
    shapes = ((heads, widths[0]), (key_heads, widths[0]), (key_heads, widths[1]))
    states = [torch.randn(1, tokens, *shape, generator=draw).bfloat16().float() for shape in shapes]
    grad = torch.randn(1, tokens, heads, widths[1], generator=draw).bfloat16()
    return [one.transpose(1, 2) for one in states], grad


@pytest.mark.parametrize("window", [None, 2, 4, 130, 5000])
@pytest.mark.parametrize(("heads", "key_heads", "wide"), [(4, 4, 16), (6, 2, 16), (4, 1, 8)])
def test_bfloat16_gives_the_float64_attention_and_gradients_to_rounding(
    heads: int, key_heads: int, wide: int, window: int | None
) -> None:
    """Over lengths about the sizes of its blocks, and one too long to keep its probabilities, no further off
    than torch's own attention in bfloat16."""
    edges = [0, 1, 3, 130, 258, 515, 1700]
    states, grad = states_of(edges[-1], heads, key_heads, (16, wide))
    exact = attend([one.double() for one in states], edges, window, grad=grad)
    with torch.autocast("cpu", torch.bfloat16):
        half = attend(states, edges, window, grad=grad)
    with torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_bfloat16, "supported", lambda: False)
        by_sdpa = attend(states, edges, window, grad=grad)
    assert half[0].dtype == torch.bfloat16
    assert [one.dtype for one in half[1:]] == [torch.float32] * 3
    for name, own, sdpa, right in zip(["output", "q", "k", "v"], half, by_sdpa, exact, strict=True):
        error, of_sdpa = relative(own, right), relative(sdpa, right)
        assert error < 0.008 and error < 1.5 * of_sdpa + 1e-12, (name, error, of_sdpa)


def test_float32_gradients_are_those_of_slices_to_the_bit() -> None:
    """Split in place of slices: another sum of zeros, no other number."""
    edges = [0, 1, 9, 17, 80]
    states, grad = states_of(edges[-1], 4, 2, (8, 8))
    sdpa: Any = torch.nn.functional.scaled_dot_product_attention
    leaves: list[Any] = [one.clone().requires_grad_() for one in states]
    parts = [
        sdpa(*(one[:, :, start:end] for one in leaves), is_causal=True, scale=0.3, enable_gqa=True)
        for start, end in itertools.pairwise(edges)
    ]
    out = torch.cat(parts, dim=2).transpose(1, 2)
    out.backward(grad.float())
    ours = attend(states, edges, grad=grad)
    for own, right in zip(ours, [out[0].detach(), *(one.grad for one in leaves)], strict=True):
        assert torch.equal(own, right)


@pytest.mark.parametrize("half", [False, True])
def test_no_token_sees_beyond_its_chunk(half: bool) -> None:
    """As examples of the chunks' lengths, to the bit; Llama-4's layers."""
    states, grad = states_of(17, 4, 2, (8, 8))
    kinds = ["full_attention", "chunked_attention"]
    config = SimpleNamespace(layer_types=kinds, attention_chunk_size=4)
    module = SimpleNamespace(layer_idx=1, config=config)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        chunks = attend(states, [0, 1, 10, 17], grad=grad, module=module)
        examples = attend(states, [0, 1, 5, 9, 10, 14, 17], grad=grad)
        module.layer_idx = 0
        full = attend(states, [0, 1, 10, 17], grad=grad, module=module)
    for own, right in zip(chunks, examples, strict=True):
        assert torch.equal(own, right)
    assert relative(full[0], chunks[0]) > 0.1


def test_bfloat16_examples_do_not_see_each_other_to_the_bit() -> None:
    """Neither forwards nor backwards: other numbers in one change no bit of the others."""
    edges = [0, 5, 140, 150, 300]
    states, grad = states_of(edges[-1], 6, 2, (16, 16))
    states = [one.bfloat16() for one in states]
    before = attend(states, edges, grad=grad)
    other, other_grad = [one.clone() for one in states], grad.clone()
    for changed in (*other, other_grad.transpose(1, 2)):
        changed[:, :, 5:140] += 1
    after = attend(other, edges, grad=other_grad)
    kept = torch.ones(300, dtype=torch.bool)
    kept[5:140] = False
    assert torch.equal(before[0][kept], after[0][kept]) and not torch.equal(before[0], after[0])
    for one, two in zip(before[1:], after[1:], strict=True):
        assert torch.equal(one[:, :, kept], two[:, :, kept]) and not torch.equal(one, two)


@pytest.mark.parametrize(
    ("named", "words"), [({}, "boundaries"), ({"softcap": 30.0}, "soft caps"), ({"s_aux": 1.0}, "sinks")]
)
def test_attention_refuses_what_it_cannot_do(named: dict[str, Any], words: str) -> None:
    states = torch.zeros(1, 2, 3, 4)
    if named:
        named = {**named, "cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32)}
    with pytest.raises(ValueError, match=words):
        per_example_attention(torch.nn.Module(), states, states, states, None, **named)
