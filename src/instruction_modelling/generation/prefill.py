"""The first pass over a batch of prompts, by groups of like length: padded to the longest of all, the short
ones would cost as much."""

import inspect
from typing import Any

import torch

# Rows that are padded to one length; a batch comes sorted by it.
ROWS = 8
# What a model has to take.
_ARGUMENTS = {
    *("input_ids", "attention_mask", "position_ids", "past_key_values"),
    *("use_cache", "logits_to_keep"),
}


def prefilled(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> Any:
    """Return the keys and values of every column but the last, as `generate` takes them; None where all of
    the first pass is left to it: it would save nothing, or the model keeps something else.

    In float32 on a CPU alone: there the pass takes long, and products of other shapes are rounded too little
    to change an answer.

    Args:
        ids: int64[R, L], prompts padded on the left.
        mask: int64[R, L], 0 on padding.
    """
    from transformers import DynamicCache

    width, config = ids.shape[1], model.config
    lengths = [int(mask[first : first + ROWS].sum(dim=1).max()) for first in range(0, len(ids), ROWS)]
    if not _is_plain(model, ids.device) or min(lengths) in (1, width):
        return None
    parts = []
    for group, length in enumerate(lengths):
        rows, columns = slice(group * ROWS, (group + 1) * ROWS), slice(width - length, width - 1)
        own, cache = mask[rows, columns], DynamicCache(config=config)
        model(
            input_ids=ids[rows, columns],
            attention_mask=own,
            position_ids=(own.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if cache.get_seq_length() != length - 1:
            return None
        kept: Any = cache.layers
        parts.append([(layer.keys, layer.values) for layer in kept])
    of_layers = zip(*parts, strict=True)
    return DynamicCache([tuple(_joined(kind, width) for kind in zip(*own, strict=True)) for own in of_layers])


def _is_plain(model: Any, device: torch.device) -> bool:
    """Return whether the model computes in float32 on a CPU, and keeps of a text the keys and values of each
    token, in every layer, and nothing else."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = model.config
    # Models of images and text have positions of their own.
    if device.type != "cpu" or model.dtype != torch.float32 or config.get_text_config() is not config:
        return False
    layers = DynamicCache(config=config).layers
    takes = inspect.signature(model.forward).parameters.keys()
    return {type(layer) for layer in layers} == {DynamicLayer} and takes >= _ARGUMENTS


def _joined(states: Any, width: int) -> torch.Tensor:
    """Return groups of states, [rows, heads, columns, n] each, one below the other, zeros before short ones,
    [R, heads, width - 1, n]."""
    return torch.cat([torch.nn.functional.pad(own, (0, 0, width - 1 - own.shape[2], 0)) for own in states])
