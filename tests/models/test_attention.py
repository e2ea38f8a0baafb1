"""Attention over packed examples: each by itself, as loops compute it."""

import importlib.util
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_families import FAMILIES
from step_samples import (
    LENGTHS,
    PER_EXAMPLE,
    VOCABULARY,
    random_data,
    random_model,
    relative,
    run_step,
    token_nlls,
    weigh,
    wrap,
)

from instruction_modelling.models import attention, block_attention, loading
from instruction_modelling.models.attention import per_example_attention
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.hidden_states import PackedRow, hidden_states
from instruction_modelling.training.model_check import check_model
from instruction_modelling.training.plan import GlobalBatch, Layout


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
        patch.setattr(block_attention, "is_quicker", lambda dtype: False)
        by_sdpa = attend(states, edges, window, grad=grad)
    assert half[0].dtype == torch.bfloat16
    assert [one.dtype for one in half[1:]] == [torch.float32] * 3
    for name, own, sdpa, right in zip(["output", "q", "k", "v"], half, by_sdpa, exact, strict=True):
        error, of_sdpa = relative(own, right), relative(sdpa, right)
        assert error < 0.008 and error < 1.5 * of_sdpa + 1e-12, (name, error, of_sdpa)


@pytest.mark.parametrize("window", [None, 4, 130])
@pytest.mark.parametrize(("heads", "key_heads", "wide"), [(4, 4, 16), (6, 2, 8)])
def test_float32_where_onednn_multiplies_gives_what_sdpa_gives(
    monkeypatch: pytest.MonkeyPatch, heads: int, key_heads: int, wide: int, window: int | None
) -> None:
    edges = [0, 1, 3, 130, 258, 515, 1700]
    states, grad = states_of(edges[-1], heads, key_heads, (16, wide))
    exact = attend([one.double() for one in states], edges, window, grad=grad)
    by_sdpa = attend(states, edges, window, grad=grad)
    monkeypatch.setattr(block_attention, "is_quicker", lambda dtype: dtype == torch.float32)
    ours = attend(states, edges, window, grad=grad)
    assert [one.dtype for one in ours] == [torch.float32] * 4
    for name, own, sdpa, right in zip(["output", "q", "k", "v"], ours, by_sdpa, exact, strict=True):
        error, of_sdpa = relative(own, right), relative(sdpa, right)
        assert error < 1e-6 and error < 3 * of_sdpa, (name, error, of_sdpa)


def test_float32_is_computed_in_blocks_where_onednn_multiplies() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert not block_attention.is_quicker(torch.float32)
        torch.set_float32_matmul_precision("medium")
        assert block_attention.is_quicker(torch.float32) and not block_attention.is_quicker(torch.float64)
    finally:
        torch.set_float32_matmul_precision(before)


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
    ("named", "words"),
    [
        ({}, "boundaries"),
        ({"softcap": 30.0}, "soft caps"),
        ({"s_aux": 1.0}, "sinks"),
        ({"position_bias": 1.0}, "biases"),
    ],
)
def test_attention_refuses_what_it_cannot_do(named: dict[str, Any], words: str) -> None:
    states = torch.zeros(1, 2, 3, 4)
    if named:
        named = {**named, "cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32)}
    with pytest.raises(ValueError, match=words):
        per_example_attention(torch.nn.Module(), states, states, states, None, **named)


# -- one call for all examples, on a GPU -------------------------------------------------------------------


def loop_of_kernel(states: Sequence[Any], edges: Any, scale: float, left: int) -> Any:
    """What the kernels compute, [tokens, heads, width], from as many key heads: `left` tokens before each at
    most, all where -1."""
    parts, (q, k, v) = [], states
    for start, end in itertools.pairwise(edges.tolist()):
        places = torch.arange(end - start)
        distance = places[:, None] - places[None]
        seen = (distance >= 0) & ((distance <= left) if left >= 0 else True)
        scores = torch.einsum("qhw,khw->hqk", q[start:end].double(), k[start:end].double()) * scale
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        parts.append(torch.einsum("hqk,khw->qhw", weights, v[start:end].double()))
    return torch.cat(parts)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.dtype, int]]:
    """Stand-ins for the two kernels with their signatures; returns the calls made: which, in what, how
    long the longest example was said to be."""
    calls: list[tuple[str, torch.dtype, int]] = []

    def varlen(  # noqa: PLR0913 (the kernel's)
        q: Any,
        k: Any,
        v: Any,
        edges: Any,
        edges_k: Any,
        longest: int,
        longest_k: int,
        *,
        scale: float,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> Any:
        assert edges is edges_k and edges.dtype == torch.int32 and longest == longest_k
        assert window_size[1] == 0 and enable_gqa == (q.shape[1] != k.shape[1])
        assert (
            q.dtype == k.dtype == v.dtype and q.dim() == 3 and all(one.stride(-1) == 1 for one in (q, k, v))
        )
        calls.append(("varlen", q.dtype, longest))
        k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], dim=1) for one in (k, v))
        return loop_of_kernel((q, k, v), edges, scale, window_size[0]).to(q.dtype)

    def efficient(  # noqa: PLR0913 (the kernel's)
        q: Any, k: Any, v: Any, bias: None, edges: Any, edges_k: Any, *rest: Any, scale: float
    ) -> Any:
        longest, longest_k, dropout, causal, keeps_sums = rest
        assert bias is None and edges is edges_k and edges.dtype == torch.int32 and longest == longest_k
        assert (dropout, causal, keeps_sums) == (0.0, 1, True) and q.shape == k.shape and q.dim() == 4
        calls.append(("efficient", q.dtype, longest))
        return (loop_of_kernel((q[0], k[0], v[0]), edges, scale, -1)[None].to(q.dtype),)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen)
    monkeypatch.setattr(attention, "_efficient_kernel", lambda: efficient)
    # The tiny models' heads are 6 wide.
    monkeypatch.setattr(attention, "_FLASH_MULTIPLE", 2)
    return calls


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", [attention.VARLEN, attention.EFFICIENT])
@pytest.mark.parametrize("family", ["qwen2", "mistral, window 5", "opt", "gpt-neox"])
def test_one_call_a_layer_gives_what_one_example_at_a_time_does(
    family: str, name: str, half: bool, kernels: list[tuple[str, torch.dtype, int]]
) -> None:
    """Losses and gradients of a step; the kernel is told the longest example, and in float32, as the check
    before a run computes, it is the other one."""
    data = random_data()
    batches = step_micro_batches(weigh(data), GlobalBatch(0, np.arange(8)), Layout(True, 1, 60))
    steps = []
    for implementation in (PER_EXAMPLE, name):
        model = wrap(random_model(FAMILIES[family](), implementation))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            check_model(model.model, True, "cpu")
            kernels.clear()
            steps.append(run_step(model, batches))
    (loss, gradient), (loss_by_kernel, by_kernel) = steps
    assert loss_by_kernel == pytest.approx(loss, rel=3e-3 if half else 1e-6)
    assert relative(by_kernel, gradient) < (0.03 if half else 2e-6)
    expected = "varlen" if half and name == attention.VARLEN else "efficient"
    if "window" in family and expected == "efficient":
        assert kernels == []
        return
    assert {call[:2] for call in kernels} == {(expected, torch.bfloat16 if half else torch.float32)}
    longest = [max(batch.lengths or ()) for batch in batches]
    assert [call[2] for call in kernels[:: len(kernels) // len(batches)]] == longest


def test_a_torch_that_takes_fewer_key_heads_as_they_are_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 has no argument for it."""

    def older(q: Any, k: Any, v: Any, *sizes: Any, scale: float, window_size: tuple[int, int]) -> Any:
        assert q.shape[1] > k.shape[1]
        return q

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", older)
    monkeypatch.setattr(attention, "_ARGUMENTS", {})
    attention.register()
    q, k, v = (torch.zeros(1, heads, 3, 8, dtype=torch.bfloat16) for heads in (4, 2, 2))
    packed: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32), "max_length_q": 3}
    out, _ = attention.varlen_attention(torch.nn.Identity(), q, k, v, None, 1.0, **packed)
    assert out.shape == (1, 3, 4, 8)


@pytest.mark.parametrize("name", [attention.VARLEN, attention.EFFICIENT])
def test_layers_that_a_kernel_does_not_have_are_computed_one_example_at_a_time(
    name: str, kernels: list[tuple[str, torch.dtype, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout; for FlashAttention widths that are no multiple of 8, too wide, or another of values."""
    by_example: Any = per_example_attention
    run: Any = {
        attention.VARLEN: attention.varlen_attention,
        attention.EFFICIENT: attention.efficient_attention,
    }
    monkeypatch.setattr(attention, "_FLASH_MULTIPLE", 8)
    cases = [
        ((16, 16), 0.5, 0),
        ((20, 20), 0.0, 1),
        ((264, 264), 0.0, 1),
        ((16, 8), 0.0, 1),
        ((16, 16), 0.0, 2),
    ]
    for widths, dropout, kernel in cases:
        states, _ = states_of(17, 4, 2, widths)
        named = {"cu_seq_lens_q": torch.tensor([0, 3, 17], dtype=torch.int32), "max_length_q": 14}
        kernels.clear()
        half = [one.bfloat16() for one in states]
        torch.manual_seed(0)
        out, _ = run[name](SimpleNamespace(num_key_value_groups=2), *half, None, 0.3, dropout, **named)
        assert len(kernels) == (kernel == 2 or (kernel == 1 and name == attention.EFFICIENT))
        torch.manual_seed(0)
        right, _ = by_example(SimpleNamespace(num_key_value_groups=2), *half, None, 0.3, dropout, **named)
        torch.testing.assert_close(out.float(), right.float(), atol=0.02, rtol=0.02)


def test_chunks_are_further_boundaries_of_the_one_call(kernels: list[tuple[str, torch.dtype, int]]) -> None:
    states, _ = states_of(17, 4, 2, (8, 8))
    config = SimpleNamespace(layer_types=["chunked_attention"], attention_chunk_size=4)
    named = {
        "cu_seq_lens_q": torch.tensor([0, 1, 10, 17], dtype=torch.int32),
        "max_length_q": 9,
        attention.LENGTHS: (1, 9, 7),
    }
    module: Any = SimpleNamespace(layer_idx=0, config=config, num_key_value_groups=2)
    by_example: Any = per_example_attention
    right, _ = by_example(module, *states, None, 0.3, **named)
    run: Any = attention.efficient_attention
    out, _ = run(module, *states, None, 0.3, **named)
    assert kernels == [("efficient", torch.float32, 4)]
    torch.testing.assert_close(out, right, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [PER_EXAMPLE, attention.VARLEN, attention.EFFICIENT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_layer_reads_a_number_from_its_device(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device there are shapes and no numbers: whoever asks for one fails. Both passes, but
    for the memory-efficient kernel's backward, which torch 2.13 does not know there."""
    family = "qwen2" if name == attention.EFFICIENT else "mistral, window 5"
    monkeypatch.setattr(attention, "_FLASH_MULTIPLE", 2)
    model = wrap(random_model(FAMILIES[family](), name, dtype=dtype).to("meta"))
    (batch,) = step_micro_batches(weigh(random_data()), GlobalBatch(0, np.arange(8)), Layout(True, 1, 1000))
    on_device = batch.to("meta")
    assert on_device.boundaries is not None and on_device.boundaries.is_meta
    packed = PackedRow(on_device.boundaries, on_device.lengths or ())
    states = hidden_states(model.model, on_device.input_ids, on_device.position_ids, None, packed)
    if name != attention.EFFICIENT:
        states.sum().backward()
    assert states.shape == (1, sum(LENGTHS), 24)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        on_device.boundaries.tolist()


@pytest.mark.parametrize(
    ("cuda", "half", "capability", "torch_has_it", "chosen"),
    [
        (False, True, (9, 0), True, PER_EXAMPLE),
        (True, True, (9, 0), True, attention.VARLEN),
        (True, True, (8, 0), False, attention.EFFICIENT),
        (True, True, (7, 5), True, PER_EXAMPLE),
        (True, False, (9, 0), True, attention.EFFICIENT),
    ],
)
def test_the_quickest_attention_that_is_there_is_chosen_once_and_said(  # noqa: PLR0913 (a table's columns)
    cuda: bool,
    half: bool,
    capability: tuple[int, int],
    torch_has_it: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: real(name) if torch_has_it or "varlen" not in name else None
    )
    with caplog.at_level("INFO"):
        assert loading.pick_attention(True, False, cuda, half) == chosen
    assert [chosen in record.message for record in caplog.records] == [True]


def test_cudnn_plans_no_attention_once_a_model_is_loaded() -> None:
    """Neither in training nor in generation, which load by one function."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    random_model(FAMILIES["qwen2"](), PER_EXAMPLE)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_generation_attends_few_tokens_without_asking_onednn_for_each_small_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AttentionInterface
    from transformers.integrations import sdpa_attention

    attention.register()
    by_name, computed, asked = AttentionInterface()["sdpa"], sdpa_attention.sdpa_attention_forward, []

    def noted(*arguments: Any, **named: Any) -> Any:
        asked.append(torch.get_float32_matmul_precision())
        return computed(*arguments, **named)

    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", noted)
    draw = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, heads, 9, 8, generator=draw) for heads in (4, 2, 2))
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    torch.set_float32_matmul_precision("medium")
    with attention.generating():
        last, _ = by_name(module, query[:, :, -1:], key, value, None)
        long = torch.zeros(1, 4, 257, 8)
        by_name(module, long, long[:, :2], long[:, :2], None)
    whole, _ = by_name(module, query, key, value, None)
    assert asked == ["highest", "medium", "medium"] and torch.get_float32_matmul_precision() == "medium"
    keys, values = (states.repeat_interleave(2, dim=1) for states in (key, value))
    shares = torch.softmax(query[:, :, -1:] @ keys.transpose(2, 3) / 8**0.5, dim=-1)
    torch.testing.assert_close(last, (shares @ values).transpose(1, 2))
    torch.testing.assert_close(last, whole[:, -1:])
    with attention.generating(), pytest.raises(ValueError, match="softcap"):
        by_name(module, query[:, :, -1:], key, value, None, softcap=30.0)
    assert torch.get_float32_matmul_precision() == "medium"
