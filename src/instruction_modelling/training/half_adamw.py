"""AdamW over weights in bfloat16 with states of one byte a number: six bytes a weight in place of sixteen,
for models that would not fit otherwise.

An update is far smaller than half the distance between two bfloat16 numbers, so that rounding to the nearest
would lose nearly all of them. Weights and states are rounded up or down by chance, in proportion to the
distance: what is lost in one step is made up for in others (Zamirai et al., arXiv 2010.06192). States are
float8 numbers (1 + 4 + 3 bits) with a scale for each block of 128, as in torchao's AdamWFp8; of the second
moment the root is kept, whose range is half as wide. torchao itself compiles a kernel for every shape, and
its states are no plain tensors, as a checkpoint by name holds them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from instruction_modelling.training.seeding import derived_seed

BLOCK = 128
# Numbers of a weight that are stepped at once: what is computed of them is in float32.
AT_ONCE = BLOCK * 2**17
_FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FLOAT8).max
# Bits of a float32's fraction that the two formats have not.
_FRACTION_LOST = {torch.bfloat16: 16, _FLOAT8: 20}


def rounded_by_chance(values: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Return float32 numbers in `dtype`, bfloat16 or float8: each the next one below or above, so that its
    expectation is the number (float8's subnormal ones, 2^-15 of the largest and less: the nearest)."""
    lost = _FRACTION_LOST[dtype]
    chance = torch.randint(
        0, 1 << lost, values.shape, generator=generator, device=values.device, dtype=torch.int32
    )
    # A carry out of the fraction raises the exponent: the next number.
    bits = values.float().view(torch.int32).add(chance).bitwise_and_(-(1 << lost))
    return bits.view(torch.float32).to(dtype)


class HalfAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) for weights in bfloat16.

    The chance is a function of (seed, step), so a continued run draws the same; every process draws the same
    too, so that their weights stay the same.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], seed: int, **defaults: Any):
        """Take groups of weights, and `lr`, `betas`, `eps` as torch's AdamW has them."""
        super().__init__(groups, {"weight_decay": 0.0, **defaults})
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state.update(_empty_state(weight))
                state["step"] += 1
                if weight.device not in generators:
                    seed = derived_seed(self._seed, int(state["step"]))
                    generators[weight.device] = torch.Generator(weight.device).manual_seed(seed)
                _update(weight, state, group, generators[weight.device])


def _empty_state(weight: torch.Tensor) -> dict[str, Any]:
    blocks = math.ceil(weight.numel() / BLOCK)
    state: dict[str, Any] = {"step": 0}
    for name in ("exp_avg", "exp_avg_sq"):
        # float8's bits in bytes, which every file format knows.
        state[name] = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
        state[f"{name}_scale"] = torch.zeros(blocks, dtype=torch.float32, device=weight.device)
    return state


def _update(
    weight: torch.Tensor, state: dict[str, Any], group: dict[str, Any], generator: torch.Generator
) -> None:
    (beta1, beta2), step = group["betas"], state["step"]
    rate, root = group["lr"] / (1 - beta1**step), math.sqrt(1 - beta2**step)
    values, gradient = weight.detach().view(-1), weight.grad.reshape(-1)  # type: ignore[union-attr]
    for start in range(0, len(values), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        blocks = slice(start // BLOCK, math.ceil(min(start + AT_ONCE, len(values)) / BLOCK))
        grad = gradient[part].float()
        mean = _read(state, "exp_avg", part, blocks).lerp_(grad, 1 - beta1)
        square = _read(state, "exp_avg_sq", part, blocks).square_().mul_(beta2)
        deviation = square.addcmul_(grad, grad, value=1 - beta2).sqrt_()
        new = values[part].float().mul_(1 - group["lr"] * group["weight_decay"])
        new.addcdiv_(mean, (deviation / root).add_(group["eps"]), value=-rate)
        values[part] = rounded_by_chance(new, torch.bfloat16, generator)
        _write(state, "exp_avg", part, blocks, mean, generator)
        _write(state, "exp_avg_sq", part, blocks, deviation, generator)


def _read(state: dict[str, Any], name: str, part: slice, blocks: slice) -> torch.Tensor:
    """Return a part of a state in float32; of the second moment its root."""
    codes = state[name].view(-1)[part].view(_FLOAT8).float()
    return codes.mul_(_spread(state[f"{name}_scale"][blocks], len(codes)))


def _write(  # noqa: PLR0913 (where to, what, and by what chance)
    state: dict[str, Any],
    name: str,
    part: slice,
    blocks: slice,
    values: torch.Tensor,
    generator: torch.Generator,
) -> None:
    count = len(values)
    padded = torch.nn.functional.pad(values.abs(), (0, -count % BLOCK))
    scale = padded.view(-1, BLOCK).amax(dim=1).div_(_LARGEST)
    # A block of zeros is 0 / 1; the largest number, whose scaled value is _LARGEST to rounding, stays it.
    scaled = values / _spread(torch.where(scale > 0, scale, 1.0), count)
    codes = rounded_by_chance(scaled.clamp_(-_LARGEST, _LARGEST), _FLOAT8, generator)
    state[name].view(-1)[part] = codes.view(torch.uint8)
    state[f"{name}_scale"][blocks] = scale


def _spread(scale: torch.Tensor, count: int) -> torch.Tensor:
    """Return the scale of each of `count` numbers."""
    return scale[:, None].expand(-1, BLOCK).reshape(-1)[:count]
