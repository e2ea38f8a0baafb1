"""Packed attention in bfloat16 on a CPU: FlashAttention's sums (arXiv 2205.14135), made of matrix products.

torch's own SDPA on a CPU runs its backward pass at a third of what products in bfloat16 reach, whatever the
length (docs/LOG.md has the figures). Here too logits and softmax are float32, products of probabilities and
of gradients bfloat16, and nothing is computed for keys that no query of a block may see."""

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


def supported() -> bool:
    """Return whether this processor multiplies matrices in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Block(NamedTuple):
    """Queries `first` to `end` of a pack, and the first key that one of them may see."""

    first_key: int
    first: int
    end: int
    kept: bool


class _Shape(NamedTuple):
    """What a call computes, beside its tensors."""

    lengths: tuple[int, ...]
    scale: float
    window: int | None
    groups: int
    """Query heads of each key head."""


def packed_attention(  # noqa: PLR0913 (what an attention takes)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    scale: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Compute causal attention within each example, in bfloat16.

    Args:
        query: [1, heads, tokens, width] in any format; `key` and `value` may have fewer heads, by a whole
            factor.
        lengths: tokens of each example, which add up to `tokens`.
        scale: of the products of queries and keys; None for 1 / sqrt(width).
        window: tokens that a token sees, itself counted; None for all before it.

    Returns:
        bfloat16[1, tokens, heads, width of value].
    """
    groups = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    shape = _Shape(tuple(lengths), scale, window, groups)
    return _PackedAttention.apply(query, key, value, shape)  # type: ignore[no-untyped-call, no-any-return]


class _PackedAttention(torch.autograd.Function):
    """Queries lie as [key heads, tokens x groups, width], so that a block of them is one matrix for each key
    head."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: _Shape
    ) -> torch.Tensor:
        """Compute `packed_attention`, block by block."""
        heads, tokens = query.shape[1:3]
        ctx.shape, ctx.dtypes = shape, (query.dtype, key.dtype, value.dtype)
        with torch.autocast("cpu", enabled=False):
            q = _by_key_head(query[0].transpose(0, 1), shape.groups)
            k, v = (states[0].to(torch.bfloat16).contiguous() for states in (key, value))
            out, kept = q.new_empty(*q.shape[:2], v.shape[-1]), []
            for block in _blocks(shape):
                probabilities = _probabilities(q, k, block, shape)
                out[:, _rows(block, shape)] = torch.bmm(probabilities, v[:, block.first_key : block.end])
                if block.kept:
                    kept.append(probabilities)
            ctx.save_for_backward(q, k, v, out, *kept)
            return _by_token(out, shape.groups).reshape(1, tokens, heads, -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        shape: _Shape = ctx.shape
        q, k, v, out, *kept = ctx.saved_tensors
        saved = iter(kept)
        with torch.autocast("cpu", enabled=False):
            grad = _by_key_head(grad[0], shape.groups)
            # The softmax's gradient is p x (grad . v - grad . out). The second product rides along in the
            # first, as two further columns (its first and its next digits) beside ones: so the difference is
            # rounded once, and no pass over all logits is needed for it.
            minus = -(grad.float() * out).sum(dim=-1, keepdim=True)
            first_digits = minus.bfloat16()
            grad_and_minus = torch.cat([grad, first_digits, (minus - first_digits).bfloat16()], dim=-1)
            v_and_ones = torch.cat([v, v.new_ones(*v.shape[:2], 2)], dim=-1)
            # Several blocks add to one key.
            dq, dk, dv = torch.empty_like(q), torch.zeros_like(k, dtype=torch.float32), v.float().zero_()
            for block in _blocks(shape):
                rows, keys = _rows(block, shape), slice(block.first_key, block.end)
                p = next(saved) if block.kept else _probabilities(q, k, block, shape)
                dv[:, keys] += torch.bmm(p.transpose(1, 2), grad[:, rows])
                ds = torch.bmm(grad_and_minus[:, rows], v_and_ones[:, keys].transpose(1, 2)).mul_(p)
                dq[:, rows] = torch.bmm(ds, k[:, keys])
                dk[:, keys] += torch.bmm(ds.transpose(1, 2), q[:, rows])
            by_token = _by_token(dq, shape.groups).to(ctx.dtypes[0]) * shape.scale
            of_query = by_token.flatten(1, 2).transpose(0, 1)[None]
            of_key, of_value = (dk * shape.scale)[None], dv[None]
            return of_query, of_key.to(ctx.dtypes[1]), of_value.to(ctx.dtypes[2]), None


def _blocks(shape: _Shape) -> Iterator[_Block]:
    start = 0
    for length in shape.lengths:
        for first in range(0, length, ROWS):
            seen = max(0, first - shape.window + 1) if shape.window else 0
            end = min(length, first + ROWS)
            yield _Block(start + seen, start + first, start + end, length <= KEPT_LENGTH)
        start += length


def _rows(block: _Block, shape: _Shape) -> slice:
    return slice(block.first * shape.groups, block.end * shape.groups)


def _by_key_head(states: torch.Tensor, groups: int) -> torch.Tensor:
    """Return [tokens, heads, width] as bfloat16[key heads, tokens x groups, width]."""
    tokens, heads, width = states.shape
    split = states.unflatten(1, (heads // groups, groups)).transpose(0, 1)
    out = states.new_empty(split.shape, dtype=torch.bfloat16).copy_(split)
    return out.view(heads // groups, tokens * groups, width)


def _by_token(states: torch.Tensor, groups: int) -> torch.Tensor:
    """Return [key heads, tokens x groups, width] as a view [tokens, key heads, groups, width]."""
    return states.unflatten(1, (-1, groups)).transpose(0, 1)


def _probabilities(q: torch.Tensor, k: torch.Tensor, block: _Block, shape: _Shape) -> torch.Tensor:
    """Return the attention of a block's queries, bfloat16[key heads, queries x groups, keys]."""
    queries, before = block.end - block.first, block.first - block.first_key
    logits = torch.bmm(
        q[:, _rows(block, shape)].float() * shape.scale,
        k[:, block.first_key : block.end].float().transpose(1, 2),
    )
    if shape.window and shape.window < before + queries:
        logits += _mask(queries, before, shape.groups, shape.window)
    else:
        # Keys before the block are seen by all of it.
        logits[:, :, before:] += _mask(ROWS, 0, shape.groups)[: queries * shape.groups, :queries]
    return torch.softmax(logits, dim=-1).bfloat16()


@functools.lru_cache(maxsize=64)
def _mask(queries: int, before: int, groups: int, window: int | None = None) -> torch.Tensor:
    """Return what is added to the logits of queries that have `before` keys before them: 0, or -inf for what
    they may not see; float32[queries x groups, before + queries]."""
    places = torch.arange(queries).repeat_interleave(groups)[:, None]
    distance = places - (torch.arange(before + queries)[None] - before)
    seen = distance >= 0
    if window:
        seen &= distance < window
    return torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
