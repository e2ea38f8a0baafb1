"""Packed attention as one operation that torch.compile does not look into: the number of examples and their
lengths, which differ from batch to batch, stay in its tensor of boundaries, so nothing is compiled again for
them."""

import itertools
from typing import Any

import torch

from instruction_modelling.models.block_attention import (
    Saved,
    Shape,
    backward_pass,
    by_key_head,
    forward_pass,
    in_chunks,
    laid_out,
)

_NAME = "instruction_modelling::packed_attention"


@torch.library.custom_op(_NAME, mutates_args=())
def packed_attention(  # noqa: PLR0913 (what an attention takes)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float,
    window: int,
    chunk: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Compute `block_attention.packed_attention`; the backward pass computes all probabilities again.

    Args:
        boundaries: int32[examples + 1], where each example begins, and the end.
        window: 0 for none.
        chunk: tokens that a token sees nothing outside of, 0 for none.
    """
    shape = _shape(query, key, boundaries, scale, window, chunk, dtype)
    return forward_pass(query, key, value, shape)[0]


@packed_attention.register_fake
def _(query: torch.Tensor, key: Any, value: torch.Tensor, *rest: Any) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3], dtype=rest[-1])


@torch.library.custom_op(f"{_NAME}_backward", mutates_args=())
def packed_attention_backward(  # noqa: PLR0913 (what an attention takes)
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float,
    window: int,
    chunk: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of `packed_attention`'s query, key and value, in their formats."""
    shape = _shape(query, key, boundaries, scale, window, chunk, dtype)
    with torch.autocast(query.device.type, enabled=False):
        saved = Saved(*laid_out(query, key, value, shape), by_key_head(out[0], shape))
    grads = backward_pass(grad, saved, shape)
    inputs = (query, key, value)
    of_query, of_key, of_value = (
        one.to(states.dtype).contiguous() for one, states in zip(grads, inputs, strict=True)
    )
    return of_query, of_key, of_value


@packed_attention_backward.register_fake
def _(grad: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any) -> Any:
    return tuple(states.new_empty(states.shape) for states in (query, key, value))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, scale, window, chunk, dtype = inputs
    query, key, value, boundaries = tensors
    ctx.save_for_backward(query, key, value, output, boundaries)
    ctx.rest = (scale, window, chunk, dtype)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return *packed_attention_backward(grad, *ctx.saved_tensors, *ctx.rest), *(None,) * 5


packed_attention.register_autograd(_gradients, setup_context=_keep)


def _shape(  # noqa: PLR0913 (what an attention takes)
    query: torch.Tensor,
    key: torch.Tensor,
    boundaries: torch.Tensor,
    scale: float,
    window: int,
    chunk: int,
    dtype: torch.dtype,
) -> Shape:
    ends = boundaries.tolist()
    lengths = in_chunks([end - start for start, end in itertools.pairwise(ends)], chunk or None)
    return Shape(tuple(lengths), scale, window or None, query.shape[1] // key.shape[1], dtype, kept_length=0)
