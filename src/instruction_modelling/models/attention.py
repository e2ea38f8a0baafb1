"""Attention over packed examples: each attends to itself alone.

Registered with transformers under a name of its own. It takes the boundaries of the examples from the batch
and runs SDPA on one example at a time; without boundaries it refuses, so a model that does not hand them on
cannot leak."""

import itertools
from typing import TYPE_CHECKING, Any

from instruction_modelling.models import packed_bfloat16

if TYPE_CHECKING:
    import torch

PER_EXAMPLE = "sdpa_per_example"


def register() -> None:
    """Make `attn_implementation=PER_EXAMPLE` known to transformers; a second call does nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(PER_EXAMPLE, per_example_attention)


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
    """Compute causal attention within each example.

    Args:
        query: [1, heads, tokens, width]; `key` and `value` may have another number of heads.
        attention_mask: not used; the boundaries say what a token may see.
        scaling: of the products of queries and keys; None for 1 / sqrt(width).
        kwargs: `cu_seq_lens_q`, int[examples + 1], where each example begins; `sliding_window` where the
            layer has one. A layer whose attention stays within chunks (Llama-4's) is known by its
            configuration.

    Returns:
        [1, tokens, heads, width], and None for the attention weights.

    Raises:
        ValueError: the boundaries are missing, or the layer needs what SDPA does not have (soft caps, sinks).
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    boundaries = kwargs.get("cu_seq_lens_q")
    if boundaries is None:
        raise ValueError(
            "the model does not hand the boundaries of packed examples to its attention: train it "
            "without --packing"
        )
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(
            "the model's attention has soft caps or sinks, which SDPA does not compute: train it "
            "without --packing"
        )
    window, half = kwargs.get("sliding_window"), _in_bfloat16(query)
    lengths = _lengths(boundaries, _chunk_of(module))
    if half and not dropout and packed_bfloat16.supported():
        return packed_bfloat16.packed_attention(query, key, value, lengths, scaling, window), None
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


def _in_bfloat16(query: "torch.Tensor") -> bool:
    """Return whether this attention is to be computed in bfloat16, on a CPU."""
    import torch

    if query.device.type != "cpu":
        return False
    autocast = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if autocast else query.dtype) == torch.bfloat16


def _lengths(boundaries: "torch.Tensor", chunk: int | None) -> list[int]:
    """Return the tokens of each example; where no token sees beyond its chunk, those of each chunk of it."""
    lengths = [end - start for start, end in itertools.pairwise(boundaries.tolist())]
    if chunk is None:
        return lengths
    return [min(chunk, length - start) for length in lengths for start in range(0, length, chunk)]


def _chunk_of(module: "torch.nn.Module") -> int | None:
    """Return the tokens of a chunk that a layer's attention does not look beyond; None where it does."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds or layer is None or kinds[layer] != "chunked_attention":
        return None
    return getattr(config, "attention_chunk_size", None)
