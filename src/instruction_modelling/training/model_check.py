"""The check, before a run, that decoder and head in two parts give the model's own logits, packed or not.

What may differ by rounding alone is held against rounding: the largest difference between the logits of an
example by itself and the same with tokens behind it, which a causal model cannot see from there. An absolute
limit would let a small leak of a model with small logits pass."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import causal_model
from instruction_modelling.training.hidden_states import (
    PackedRow,
    hidden_states,
    output_head,
    packed_keywords,
)

# So many times the rounding measured is a difference that is not rounding.
NOT_ROUNDING = 10.0
# Rounding is at least so many units in the last place of the largest logit: two runs may agree by chance.
LEAST_ULPS = 4.0
# What configurations call the number of experts of a mixture.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass
class Rounding:
    """What rounding makes of logits."""

    least: float
    """What it may make in any case."""
    measure: Callable[[], float]
    """Measures it, which takes passes of the model."""

    @cached_property
    def size(self) -> float:
        """Return the largest difference that it makes."""
        return max(self.least, self.measure())

    def explains(self, difference: float) -> bool:
        """Return whether a difference may be rounding."""
        return difference <= NOT_ROUNDING * self.least or difference <= NOT_ROUNDING * self.size


@torch.no_grad()
def check_model(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    """Compare the logits of decoder and head with the model's own, on two short made-up examples; with
    `packing`, those of the two packed too.

    Raises:
        UserError: the logits differ from the model's own, or packed examples see each other.
    """
    training = model.training
    model.eval()
    try:
        _compare(model, packing, device)
    except ValueError as error:
        # A refusal of the packed attention, ours or transformers'.
        why = str(error).rstrip(".")
        remedy = ": train it without --packing" if packing and "--packing" not in why else ""
        raise UserError(f"{type(causal_model(model)).__name__}: {why}{remedy}") from error
    finally:
        model.train(training)


def _compare(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    logits_of = _Logits(model, packing, device)
    ids = (torch.arange(23, device=device) * 37 + 5) % min(output_head(model).vocabulary, 1000)
    examples = [ids[:9], ids[9:]]
    with logits_of.full_precision():
        alone, rounding = _compare_with_whole(logits_of, examples)
        if packing:
            _compare_packed(logits_of, examples, alone, rounding)
    if packing and logits_of.trains_in_bfloat16:
        # Another kernel, which the passes in float32 have not seen.
        alone = [logits_of(example) for example in examples]
        _compare_packed(logits_of, examples, alone, logits_of.rounding(examples, alone))


def _compare_with_whole(
    logits_of: "_Logits", examples: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], Rounding]:
    """Return the logits of each example alone, compared with the model's own, and what rounding makes of
    them."""
    alone = [logits_of(example) for example in examples]
    _require_finite(logits_of, alone)
    rounding = logits_of.rounding(examples, alone)
    for example, logits in zip(examples, alone, strict=True):
        difference = _largest(logits, logits_of.whole_model(example))
        if not rounding.explains(difference):
            raise UserError(
                f"{logits_of.name} makes its logits in a way that is not known here (largest difference "
                f"{difference:.3g}); it cannot be trained with this loss"
            )
    return alone, rounding


def _require_finite(logits_of: "_Logits", alone: Sequence[torch.Tensor]) -> None:
    """Refuse a model that gives no numbers.

    Raises:
        UserError: it does; the message names weights that are none.
    """
    if all(bool(logits.isfinite().all()) for logits in alone):
        return
    names = logits_of.weights_not_finite()
    shown = ", ".join(names[:3]) + (", and more" if len(names) > 3 else "")
    where = f"its weights {shown} hold NaN or infinities" if names else "its weights are finite"
    raise UserError(
        f"{logits_of.name}: its logits are no finite numbers ({where}); take the model's files anew, or, of "
        "a run, an earlier checkpoint"
    )


def _compare_packed(
    logits_of: "_Logits", examples: Sequence[torch.Tensor], alone: Sequence[torch.Tensor], rounding: Rounding
) -> None:
    """Compare the logits of packed examples with those of each alone, and with those beside another."""
    packed = logits_of(*examples)
    difference = _largest(packed, torch.cat(list(alone)))
    if rounding.explains(difference):
        # Where rounding is coarse, a leak may be finer: what an example sees of the one before it shows
        # in its logits when that one changes.
        others = logits_of((examples[0] + 1) % min(logits_of.vocabulary, 1000), examples[1])
        behind = len(examples[0])
        difference = _largest(others[behind:], packed[behind:])
        if difference == 0:
            return
        # The sizes of what an expert computes depend on all tokens, and rounding on the sizes.
        if logits_of.has_experts:
            again = rounding.size
        else:
            again = _largest(logits_of(*examples), packed)
        if difference <= NOT_ROUNDING * again:
            return
    raise UserError(
        f"{logits_of.name} lets packed examples see each other (largest difference {difference:.3g}, and "
        f"rounding makes {rounding.size:.1g}): train it without --packing"
    )


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference; a number that is not finite in both is none."""
    return float((one - other).nan_to_num(0.0).abs().max())


class _Logits:
    """The logits of made-up examples, packed as training packs them or as plain rows."""

    def __init__(self, model: nn.Module, packing: bool, device: torch.device | str):
        self._model, self._packing, self._device = model, packing, device
        self._head = output_head(model)
        causal = causal_model(model)
        config, kind = causal.config.get_text_config(), torch.device(device).type
        self.name, self.vocabulary = type(causal).__name__, self._head.vocabulary
        self.has_experts = any(getattr(config, name, 0) for name in _EXPERTS)
        flash = "flash" in str(getattr(causal.config, "_attn_implementation", ""))
        dtypes = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
        self._has_full = dtypes == {torch.float32} and not flash
        self.trains_in_bfloat16 = self._has_full and torch.is_autocast_enabled(kind)

    def full_precision(self) -> contextlib.AbstractContextManager:
        """Return the context in which float32 weights compute in float32, in which a leak shows best."""
        if not self._has_full:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self._device).type, enabled=False)

    def __call__(self, *examples: torch.Tensor) -> torch.Tensor:
        """Return the logits of examples end to end, float32[tokens, vocabulary]; of several where packed."""
        row, positions, mask, packed = self._inputs(examples)
        states = hidden_states(self._model, row, positions, mask, packed)
        return self._head.logits_of(states).float()[0]

    def weights_not_finite(self) -> list[str]:
        """Return the names of weights that hold NaN or infinities."""
        return [name for name, weight in self._model.named_parameters() if not bool(weight.isfinite().all())]

    def whole_model(self, example: torch.Tensor) -> torch.Tensor:
        """Return an example's logits as transformers' own forward gives them."""
        row, positions, mask, packed = self._inputs([example])
        return causal_model(self._model)(
            input_ids=row,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            **packed_keywords(packed),
        ).logits.float()[0]

    def rounding(self, examples: Sequence[torch.Tensor], alone: Sequence[torch.Tensor]) -> Rounding:
        """Return what rounding makes of the logits of examples whose rows have another length."""
        largest = max(float(logits.nan_to_num(0.0).abs().max()) for logits in alone)
        precise = torch.float32
        half = torch.is_autocast_enabled(torch.device(self._device).type)
        if next(self._model.parameters()).dtype != precise or half:
            precise = torch.bfloat16
        behind = torch.cat(list(examples))

        def measure() -> float:
            longer = [self(torch.cat([example, behind]))[: len(example)] for example in examples]
            return max(_largest(one, other) for one, other in zip(alone, longer, strict=True))

        return Rounding(LEAST_ULPS * torch.finfo(precise).eps * largest, measure)

    def _inputs(
        self, examples: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, PackedRow | None]:
        row = torch.cat(list(examples))[None]
        positions = torch.cat([torch.arange(len(e), device=self._device) for e in examples])[None]
        if not self._packing:
            return row, positions, torch.ones_like(row), None
        lengths = tuple(len(e) for e in examples)
        boundaries = torch.tensor([0, *lengths]).cumsum(0).to(self._device, torch.int32)
        return row, positions, None, PackedRow(boundaries, lengths)
