"""Packed attention by matrix products over blocks of queries: FlashAttention's sums (arXiv 2205.14135).

torch's own SDPA on a CPU runs its backward pass at a third of what products in bfloat16 reach, whatever the
length (docs/LOG.md has the figures). Here too logits and softmax are float32, products of probabilities and
of gradients in the format asked for, and nothing is computed for keys that no query of a block may see."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

# Queries whose logits are held at once: their rows then stay in a core's cache.
ROWS = 128
# Examples up to this length keep their probabilities for the backward pass, heads x length bytes a token and
# layer; longer ones compute them again.
KEPT_LENGTH = 1024


def is_quicker(dtype: torch.dtype) -> bool:
    """Return whether a CPU computes this attention quicker than SDPA, for products of a format: in bfloat16
    where it multiplies matrices in that, in float32 where oneDNN multiplies (`cpu.use_quicker_float32`): SDPA
    then asks it for each of its small products anew, which takes longer than the product."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"


class _Block(NamedTuple):
    """Queries `first` to `end` of a pack, and the first key that one of them may see."""

    first_key: int
    first: int
    end: int
    kept: bool


class Shape(NamedTuple):
    """What a call computes, beside its tensors."""

    lengths: tuple[int, ...]
    scale: float
    window: int | None
    groups: int
    """Query heads of each key head."""
    dtype: torch.dtype
    """Of the products."""
    kept_length: int = KEPT_LENGTH


class Saved(NamedTuple):
    """What the backward pass needs: queries and output as [key heads, tokens x groups, width], so that a
    block of them is one matrix for each key head, and keys and values as [key heads, tokens, width]."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor
    probabilities: Sequence[torch.Tensor] = ()


def packed_attention(  # noqa: PLR0913 (what an attention takes)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scale: float,
    window: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """Compute causal attention within each example.

    Args:
        query: [1, heads, tokens, width] in any format; `key` and `value` may have fewer heads, by a whole
            factor.
        lengths: tokens of each example, which add up to `tokens`.
        scale: of the products of queries and keys.
        window: tokens that a token sees, itself counted; None for all before it.
        dtype: of the products.

    Returns:
        [1, tokens, heads, width of value] of that format.
    """
    shape = Shape(tuple(lengths), scale, window, query.shape[1] // key.shape[1], dtype)
    return _PackedAttention.apply(query, key, value, shape)  # type: ignore[no-untyped-call, no-any-return]


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
    ) -> torch.Tensor:
        """Compute `packed_attention`, block by block."""
        ctx.shape, ctx.dtypes = shape, (query.dtype, key.dtype, value.dtype)
        out, saved = forward_pass(query, key, value, shape)
        ctx.save_for_backward(*saved[:4], *saved.probabilities)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        q, k, v, out, *kept = ctx.saved_tensors
        grads = backward_pass(grad, Saved(q, k, v, out, kept), ctx.shape)
        return *(one.to(dtype) for one, dtype in zip(grads, ctx.dtypes, strict=True)), None


def forward_pass(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
) -> tuple[torch.Tensor, Saved]:
    """Return the output of `packed_attention`, and what its backward pass needs."""
    heads, tokens = query.shape[1:3]
    kept = []
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = laid_out(query, key, value, shape)
        out = q.new_empty(*q.shape[:2], v.shape[-1])
        for block in _blocks(shape):
            p = _probabilities(q, k, block, shape)
            out[:, _rows(block, shape)] = torch.bmm(p, v[:, block.first_key : block.end])
            if block.kept:
                kept.append(p)
        by_token = _by_token(out, shape).reshape(1, tokens, heads, -1)
    return by_token, Saved(q, k, v, out, kept)


def backward_pass(grad: torch.Tensor, saved: Saved, shape: Shape) -> tuple[torch.Tensor, ...]:
    """Return the gradients of query, key and value from that of the output, [1, tokens, heads, width], as
    float32 or wider."""
    q, k, v, out, kept = saved
    probabilities, wide = iter(kept), torch.promote_types(shape.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        grad = by_key_head(grad[0], shape)
        # The softmax's gradient is p x (grad . v - grad . out). The second product rides along in the first,
        # as two further columns (its first and its next digits) beside ones: so the difference is rounded
        # once, and no pass over all logits is needed for it.
        minus = -(grad.to(wide) * out).sum(dim=-1, keepdim=True)
        first_digits = minus.to(shape.dtype)
        grad_and_minus = torch.cat([grad, first_digits, (minus - first_digits).to(shape.dtype)], dim=-1)
        v_and_ones = torch.cat([v, v.new_ones(*v.shape[:2], 2)], dim=-1)
        # Several blocks add to one key.
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k, dtype=wide), torch.zeros_like(v, dtype=wide)
        for block in _blocks(shape):
            rows, keys = _rows(block, shape), slice(block.first_key, block.end)
            p = next(probabilities) if block.kept else _probabilities(q, k, block, shape)
            dv[:, keys] += torch.bmm(p.transpose(1, 2), grad[:, rows])
            ds = torch.bmm(grad_and_minus[:, rows], v_and_ones[:, keys].transpose(1, 2)).mul_(p)
            dq[:, rows] = torch.bmm(ds, k[:, keys])
            dk[:, keys] += torch.bmm(ds.transpose(1, 2), q[:, rows])
        of_query = _by_token(dq, shape).to(wide) * shape.scale
        return of_query.flatten(1, 2).transpose(0, 1)[None], (dk * shape.scale)[None], dv[None]


def in_chunks(lengths: list[int], chunk: int | None) -> list[int]:
    """Return the lengths of what a token sees nothing outside of: examples, or their chunks."""
    if chunk is None:
        return lengths
    return [min(chunk, length - start) for length in lengths for start in range(0, length, chunk)]


def _blocks(shape: Shape) -> Iterator[_Block]:
    start = 0
    for length in shape.lengths:
        for first in range(0, length, ROWS):
            seen = max(0, first - shape.window + 1) if shape.window else 0
            end = min(length, first + ROWS)
            yield _Block(start + seen, start + first, start + end, length <= shape.kept_length)
        start += length


def _rows(block: _Block, shape: Shape) -> slice:
    return slice(block.first * shape.groups, block.end * shape.groups)


def laid_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value as `Saved` has them."""
    k, v = (states[0].to(shape.dtype).contiguous() for states in (key, value))
    return by_key_head(query[0].transpose(0, 1), shape), k, v


def by_key_head(states: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return [tokens, heads, width] as [key heads, tokens x groups, width] of the products' format."""
    tokens, heads, width = states.shape
    split = states.unflatten(1, (heads // shape.groups, shape.groups)).transpose(0, 1)
    out = states.new_empty(split.shape, dtype=shape.dtype).copy_(split)
    return out.view(heads // shape.groups, tokens * shape.groups, width)


def _by_token(states: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return [key heads, tokens x groups, width] as a view [tokens, key heads, groups, width]."""
    return states.unflatten(1, (-1, shape.groups)).transpose(0, 1)


def _probabilities(q: torch.Tensor, k: torch.Tensor, block: _Block, shape: Shape) -> torch.Tensor:
    """Return the attention of a block's queries, [key heads, queries x groups, keys]."""
    queries, before = block.end - block.first, block.first - block.first_key
    wide = torch.promote_types(shape.dtype, torch.float32)
    logits = torch.bmm(
        q[:, _rows(block, shape)].to(wide) * shape.scale,
        k[:, block.first_key : block.end].to(wide).transpose(1, 2),
    )
    if shape.window and shape.window < before + queries:
        logits += _mask(queries, before, shape.groups, shape.window, q.device)
    else:
        # Keys before the block are seen by all of it.
        own = _mask(ROWS, 0, shape.groups, None, q.device)
        logits[:, :, before:] += own[: queries * shape.groups, :queries]
    return torch.softmax(logits, dim=-1).to(shape.dtype)


@functools.lru_cache(maxsize=64)
def _mask(queries: int, before: int, groups: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Return what is added to the logits of queries that have `before` keys before them: 0, or -inf for what
    they may not see; float32[queries x groups, before + queries]."""
    places = torch.arange(queries, device=device).repeat_interleave(groups)[:, None]
    distance = places - (torch.arange(before + queries, device=device)[None] - before)
    seen = distance >= 0
    if window:
        seen &= distance < window
    return torch.zeros(seen.shape, device=device).masked_fill_(~seen, -torch.inf)
