"""How full the micro-batches of one epoch are, packed and padded, for the steps that training would take."""

from dataclasses import dataclass

import numpy as np

from instruction_modelling.tokens.quotas import Quotas
from instruction_modelling.training.plan import StepPlan, groups_by_length, pack


@dataclass(frozen=True)
class PackingFill:
    """The layout of one epoch; shares are tokens of rows over positions computed (1: no padding)."""

    batch_size: int
    """Examples a step."""
    steps: int
    packed_micro_batches: int
    packed: float
    """Packed micro-batches of the capacity."""
    padded_by_length: float
    """Padded micro-batches of rows of similar length."""
    padded_as_they_come: float
    """Padded micro-batches of rows in the order of the step."""


def _padded(lengths: np.ndarray, groups: list[np.ndarray]) -> float:
    return sum(int(lengths[g].sum()) for g in groups) / sum(len(g) * int(lengths[g].max()) for g in groups)


def packing_fill(
    lengths: np.ndarray,
    batch_size: int,
    capacity: int,
    padded_size: int,
    order: tuple[int, Quotas | None] = (0, None),
) -> PackingFill:
    """Lay out one epoch, and return how full its micro-batches are.

    Args:
        lengths: int64[rows], tokens a row, none above the capacity.
        batch_size: examples a step.
        capacity: tokens of a packed micro-batch.
        padded_size: examples of a padded micro-batch.
        order: the seed of the order of examples, and how many of each of several files the epoch has.
    """
    seed, quotas = order
    plan = StepPlan(len(lengths), batch_size, seed, 0, quotas)
    steps = [plan.batch(step) for step in range(plan.steps_per_epoch)]
    bins = sum(len(pack(lengths[batch].tolist(), capacity)) for batch in steps)
    by_length = [batch[g] for batch in steps for g in groups_by_length(lengths[batch].tolist(), padded_size)]
    as_they_come = [batch[i : i + padded_size] for batch in steps for i in range(0, len(batch), padded_size)]
    return PackingFill(
        batch_size,
        len(steps),
        bins,
        int(lengths[np.concatenate(steps)].sum()) / (bins * capacity),
        _padded(lengths, by_length),
        _padded(lengths, as_they_come),
    )
