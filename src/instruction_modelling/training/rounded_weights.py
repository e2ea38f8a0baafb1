"""Weights that are rounded to bfloat16 once a step, not once a micro-batch.

Autocast rounds a layer's float32 weights at every use and gives their gradient back in float32: on a GPU that
reads and writes as much as a product of two thousand tokens. Here a layer keeps its rounded weights until the
optimiser has moved them, and a micro-batch's gradient, in bfloat16, is added to the float32 one at once. The
numbers are autocast's to the bit."""

from typing import Any

import torch
from torch import nn

from instruction_modelling.models.loading import causal_model


class RoundedLinear(nn.Linear):
    """A linear layer that computes with `rounded` in training, and with its own weights else."""

    rounded: torch.Tensor | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Compute what a linear layer computes under autocast."""
        if self.rounded is None or not self.training:
            return super().forward(input)
        return nn.functional.linear(input, self.rounded, self.bias)


def round_once_a_step(model: nn.Module) -> list[RoundedLinear]:
    """Turn the decoder layers' trained float32 linear layers into `RoundedLinear`s; return them.

    Where a step is more than one process's, or weights are sharded, gradients travel as torch's own: not for
    those."""
    causal = causal_model(model)
    kinds = set(getattr(causal, "_no_split_modules", None) or ())
    found: list[Any] = []
    for layer in causal.modules():
        if type(layer).__name__ in kinds:
            found += [module for module in layer.modules() if _is_plain(module)]
    for linear in found:
        linear.__class__ = RoundedLinear
    return found


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module is a linear layer that nobody has changed, trained in float32."""
    return (
        type(module) is nn.Linear
        and module.weight.dtype == torch.float32
        and module.weight.requires_grad
        and "forward" not in vars(module)
    )


@torch.no_grad()
def round_weights(layers: list[RoundedLinear]) -> None:
    """Round the weights as they are now; before the first micro-batch of a step."""
    for layer in layers:
        if layer.rounded is None or layer.rounded.device != layer.weight.device:
            layer.rounded = layer.weight.to(torch.bfloat16).requires_grad_()
            layer.rounded.register_post_accumulate_grad_hook(_Adding(layer.weight))
        else:
            layer.rounded.copy_(layer.weight)


class _Adding:
    """Adds the gradient of rounded weights to that of the weights."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight

    def __call__(self, rounded: torch.Tensor) -> None:
        assert rounded.grad is not None
        if self._weight.grad is None:
            self._weight.grad = rounded.grad.float()
        else:
            self._weight.grad += rounded.grad
        rounded.grad = None
