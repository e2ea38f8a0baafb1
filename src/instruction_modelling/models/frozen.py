"""Weights that are not trained, in two bytes a number where that loses nothing."""

import logging
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


def hold_in_half(model: nn.Module, saved: bool = True) -> None:
    """Hold the frozen linear layers of a model that computes in bfloat16 in two bytes a number, not four.

    Autocast rounds a layer's weights to bfloat16 at every use, so what is computed is the same to the bit:
    of a weight that is rounded once for all, and of one in float16 that was a float16 number in float32.

    Args:
        saved: whether the weights are saved, merged with adapters, say. Then only those are held so that are
            numbers of bfloat16 or float16 to begin with, as those of nearly all published models are.
    """
    layers = _frozen_linears(model)
    before = _bytes(layers)
    for layer in layers:
        if dtype := _half_of(layer) if saved else torch.bfloat16:
            layer.to(dtype)
    now, left = _bytes(layers), [layer for layer in layers if layer.weight.dtype == torch.float32]
    if now < before:
        logger.info(
            "frozen linear layers take %.2f GB in two bytes a number (%.2f GB in float32); computed in "
            "bfloat16, they are the same",
            now / 1e9,
            before / 1e9,
        )
    if left:
        logger.info(
            "%d of %d frozen linear layers stay in float32: they have digits that two bytes lack, and the "
            "saved model keeps them",
            len(left),
            len(layers),
        )


def _frozen_linears(model: nn.Module) -> list[Any]:
    """Return the plain linear layers in float32 without a trained weight, but for what is another module's
    too (embeddings), and what peft's rows of tokens are put into."""
    own = {
        id(weight)
        for module in model.modules()
        if not isinstance(module, nn.Linear)
        for weight in module._parameters.values()
    }
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and ".token_adapter." not in f".{name}."
        and all(
            not w.requires_grad and w.dtype == torch.float32 and id(w) not in own for w in module.parameters()
        )
    ]


def _half_of(layer: nn.Linear) -> torch.dtype | None:
    """Return the two-byte format that holds a layer's numbers exactly; None where there is none."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in layer.parameters()):
            return dtype
    return None


def _bytes(layers: list[Any]) -> int:
    return sum(weight.nbytes for layer in layers for weight in layer.parameters())
