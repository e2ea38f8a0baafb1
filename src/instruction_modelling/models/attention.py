"""Attention over packed examples: each attends to itself alone.

Three ways to compute it, registered with transformers under names of their own and chosen by
`models.loading.pick_attention`. Each takes the boundaries of the examples from the batch and refuses to run
without them, so a model that does not hand them on cannot leak."""

import contextlib
import importlib.util
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.models import attention_op, block_attention
from instruction_modelling.models.block_attention import in_chunks
from instruction_modelling.models.configurations import import_models_alone

if TYPE_CHECKING:
    import torch

PER_EXAMPLE, VARLEN, EFFICIENT = "sdpa_per_example", "torch_varlen", "torch_efficient"
WORDS = {
    PER_EXAMPLE: "one example at a time",
    VARLEN: "torch's FlashAttention, all examples at once",
    EFFICIENT: "torch's memory-efficient attention, all examples at once",
}
LENGTHS = "example_lengths"
"""The keyword that hands the tokens of each example to an attention, as numbers."""

# What FlashAttention's kernels take: heads of a multiple of so many numbers, and of no more than so many.
_FLASH_MULTIPLE, _FLASH_WIDEST = 8, 256
# The first GPUs with bfloat16 (Ampere).
_FLASH_CAPABILITY = (8, 0)
# Up to so many tokens a row SDPA is quicker without oneDNN (docs/LOG.md has the figures).
SHORT = 256
_SHORT = {"tokens": 0}
# The memory-efficient kernel's number for "a token sees those before it in its example".
_CAUSAL = 1
# Whether this torch's varlen_attn has an argument; a compiled layer must not look it up. torch 2.11 takes
# fewer key heads than query heads as they are, later ones want it said.
_ARGUMENTS = {"enable_gqa": True}


def register() -> None:
    """Make the packed attentions known to transformers, and that of few tokens in SDPA's place, and keep
    cuDNN's out; a second call does nothing.

    cuDNN's builds a plan for every new size and stride, about half a second each, and sizes of examples
    hardly ever repeat: neither in training nor in generation."""
    import_models_alone()
    import torch
    from transformers import AttentionInterface

    torch.backends.cuda.enable_cudnn_sdp(False)
    if importlib.util.find_spec("torch.nn.attention.varlen"):
        from torch.nn.attention.varlen import varlen_attn

        _ARGUMENTS["enable_gqa"] = "enable_gqa" in inspect.signature(varlen_attn).parameters
    AttentionInterface.register(PER_EXAMPLE, per_example_attention)
    AttentionInterface.register(VARLEN, varlen_attention)
    AttentionInterface.register(EFFICIENT, efficient_attention)
    # Not under a name of its own: some models ask whether theirs is "sdpa".
    AttentionInterface.register("sdpa", short_attention)


@contextlib.contextmanager
def generating() -> Iterator[None]:
    """Have SDPA compute the attention of few tokens without oneDNN in the block, where
    `cpu.use_quicker_float32` has it multiply (`short_attention`)."""
    _SHORT["tokens"] = SHORT
    try:
        yield
    finally:
        _SHORT["tokens"] = 0


def short_attention(
    module: "torch.nn.Module", query: "torch.Tensor", *rest: Any, **kwargs: Any
) -> tuple["torch.Tensor", None]:
    """Compute transformers' SDPA.

    On a CPU it multiplies for each row and head by itself, and asks oneDNN anew for each: for one new token
    of 32 rows of SmolLM2 that takes as long as all other products of the token. Elsewhere than in generation
    its sums keep their order."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    chosen = torch.get_float32_matmul_precision()
    if query.shape[2] > _SHORT["tokens"] or query.device.type != "cpu" or chosen == "highest":
        return sdpa_attention_forward(module, query, *rest, **kwargs)
    torch.set_float32_matmul_precision("highest")
    try:
        return sdpa_attention_forward(module, query, *rest, **kwargs)
    finally:
        torch.set_float32_matmul_precision(chosen)


def packed_kernel(cuda: bool, half_precision: bool) -> str:
    """Return the name of the quickest packed attention that device and number format have.

    FlashAttention takes 16 bits alone, and a GPU that multiplies in bfloat16; torch has it over examples of
    any length since 2.10."""
    if not cuda:
        return PER_EXAMPLE
    if not half_precision:
        return EFFICIENT
    import torch

    if torch.cuda.get_device_capability() < _FLASH_CAPABILITY:
        return PER_EXAMPLE
    return VARLEN if importlib.util.find_spec("torch.nn.attention.varlen") else EFFICIENT


def per_example_attention(  # noqa: PLR0913 (the arguments that transformers calls an attention with)
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple["torch.Tensor", None]:
    """Compute causal attention within each example, one at a time.

    Args:
        query: [1, heads, tokens, width]; `key` and `value` may have another number of heads.
        attention_mask: not used; the boundaries say what a token may see.
        scaling: of the products of queries and keys; None for 1 / sqrt(width).
        kwargs: `cu_seq_lens_q`, int[examples + 1], where each example begins, with the lengths as numbers
            (`LENGTHS`) or, where reading a tensor costs nothing, without; `sliding_window` where the layer
            has one. A layer whose attention stays within chunks (Llama-4's) is known by its configuration.

    Returns:
        [1, tokens, heads, width], and None for the attention weights.

    Raises:
        ValueError: the boundaries are missing, or the layer needs what SDPA does not have (soft caps, sinks,
            biases by position).
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    _require_plain(kwargs)
    window, chunk, half = kwargs.get("sliding_window"), _chunk_of(module), _in_half_precision(query)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if torch.compiler.is_compiling() and not dropout:
        numbers = (scale, window or 0, chunk or 0, half or query.dtype)
        return attention_op.packed_attention(query, key, value, kwargs["cu_seq_lens_q"], *numbers), None
    lengths = in_chunks(_lengths(kwargs), chunk)
    products = half or query.dtype
    if query.device.type == "cpu" and not dropout and block_attention.is_quicker(products):
        return block_attention.packed_attention(query, key, value, lengths, scale, window, products), None
    outputs = []
    # Not slices: the gradient of each would be as large as the whole, to be added up.
    parts = (states.split(lengths, dim=2) for states in (query, key, value))
    for length, q, k, v in zip(lengths, *parts, strict=True):
        mask = None
        if window is not None and length > window:
            columns = torch.arange(length, device=query.device)
            distance = columns[:, None] - columns[None, :]
            mask = ((distance >= 0) & (distance < window))[None, None]
        output, _ = sdpa_attention_forward(
            module, q, k, v, mask, dropout=dropout, scaling=scaling, is_causal=mask is None
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def varlen_attention(  # noqa: PLR0913 (see per_example_attention)
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple["torch.Tensor", None]:
    """Compute what `per_example_attention` does, by one call of FlashAttention for all examples.

    Passes in float32, as the check before a run makes them, go to `efficient_attention`, and layers of a
    form that the kernel does not have to `per_example_attention`."""
    from torch.nn.attention.varlen import varlen_attn

    dtype, width = _in_half_precision(query), query.shape[-1]
    arguments: Any = (module, query, key, value, attention_mask, scaling, dropout)
    if dtype is None:
        return efficient_attention(*arguments, **kwargs)
    if dropout or width != value.shape[-1] or width % _FLASH_MULTIPLE or width > _FLASH_WIDEST:
        return per_example_attention(*arguments, **kwargs)
    _require_plain(kwargs)
    edges, longest = _edges(module, kwargs)
    # Rotary embeddings leave queries and keys in float32.
    q, k, v = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
    window = kwargs.get("sliding_window")
    # A window here counts the tokens before a token, and not itself; -1 is no window.
    named: dict[str, Any] = {"scale": scaling, "window_size": (window - 1 if window else -1, 0)}
    if q.shape[1] != k.shape[1] and _ARGUMENTS["enable_gqa"]:
        named["enable_gqa"] = True
    out: Any = varlen_attn(q, k, v, edges, edges, longest, longest, **named)
    return out[None], None


def efficient_attention(  # noqa: PLR0913 (see per_example_attention)
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple["torch.Tensor", None]:
    """Compute what `per_example_attention` does, by one call of the memory-efficient kernel for all examples.

    Layers with a sliding window, of which torch's backward pass does not hear (derivatives.yaml, 2.13), and
    those with dropout go to `per_example_attention`."""
    window, dtype = kwargs.get("sliding_window"), _in_half_precision(query) or query.dtype
    if dropout or dtype.itemsize > 4 or (window and window < _longest(kwargs)):
        arguments: Any = (module, query, key, value, attention_mask, scaling, dropout)
        return per_example_attention(*arguments, **kwargs)
    _require_plain(kwargs)
    edges, longest = _edges(module, kwargs)
    groups = query.shape[1] // key.shape[1]
    q, k, v = (states.transpose(1, 2).to(dtype) for states in (query, key, value))
    if groups > 1:
        k, v = (states.repeat_interleave(groups, dim=2) for states in (k, v))
    sizes = (edges, edges, longest, longest)
    out, *_ = _efficient_kernel()(q, k, v, None, *sizes, 0.0, _CAUSAL, True, scale=scaling)
    return out, None


def _efficient_kernel() -> Any:
    """Return torch's memory-efficient attention over examples of any length, with its backward pass."""
    import torch

    return torch.ops.aten._efficient_attention_forward


def _require_plain(kwargs: dict[str, Any]) -> None:
    """Refuse a call without boundaries, and one that asks for more than softmax(q k) v."""
    if kwargs.get("cu_seq_lens_q") is None:
        raise ValueError(
            "the model does not hand the boundaries of packed examples to its attention: train it "
            "without --packing"
        )
    if any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ValueError(
            "the model's attention has soft caps, sinks or biases by position, which SDPA does not compute "
            "for packed examples: train it without --packing"
        )


def _in_half_precision(query: "torch.Tensor") -> "torch.dtype | None":
    """Return the format of 16 bits that this attention is to be computed in; None for a wider one."""
    import torch

    kind = query.device.type
    autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast and query.dtype != torch.float64 else query.dtype
    return dtype if dtype in (torch.bfloat16, torch.float16) else None


def _lengths(kwargs: dict[str, Any]) -> list[int]:
    """Return the tokens of each example."""
    known = kwargs.get(LENGTHS)
    if known is not None:
        return list(known)
    return [end - start for start, end in itertools.pairwise(kwargs["cu_seq_lens_q"].tolist())]


def _longest(kwargs: dict[str, Any]) -> int:
    """Return the tokens of the longest example."""
    known = kwargs.get("max_length_q")
    return max(_lengths(kwargs)) if known is None else known


def _edges(module: "torch.nn.Module", kwargs: dict[str, Any]) -> tuple["torch.Tensor", int]:
    """Return where each example, or each of its chunks, begins, int32 on the device, and the longest."""
    import torch

    edges, chunk = kwargs["cu_seq_lens_q"], _chunk_of(module)
    if chunk is None or chunk >= _longest(kwargs):
        return edges, _longest(kwargs)
    lengths = in_chunks(_lengths(kwargs), chunk)
    starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return starts.to(edges.device, non_blocking=True), chunk


def _chunk_of(module: "torch.nn.Module") -> int | None:
    """Return the tokens of a chunk that a layer's attention does not look beyond; None where it does."""
    config = getattr(module, "config", None)
    chunk = getattr(config, "attention_chunk_size", None)
    kinds: Sequence[str] | None = getattr(config, "layer_types", None)
    # Asked for last: a compiled layer that reads its number is compiled again for each.
    if chunk is None or not kinds or kinds[getattr(module, "layer_idx", 0)] != "chunked_attention":
        return None
    return int(chunk)
