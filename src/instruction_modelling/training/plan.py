"""Which examples meet in a step, and how that step is laid out as micro-batches.

The first is a pure function of (seed, step). The second (packed or padded, how many micro-batches, on how
many ranks) only decides how the step's sum is computed, never what it is."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from instruction_modelling.tokens.quotas import Quotas


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the examples in an epoch, int64[examples]: a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


@dataclass(frozen=True)
class GlobalBatch:
    """The examples of one optimiser step, over all ranks."""

    step: int
    examples: np.ndarray
    """int64[E], indices into the data."""
    full_batch_examples: int | None = None
    """Divide by this number of examples and not by E: the released code's way with an epoch's last, partial
    step."""


@dataclass(frozen=True)
class StepPlan:
    """Which examples meet in every step."""

    examples: int
    batch_size: int
    """Examples a step: per-device size x accumulation x processes."""
    seed: int
    total_steps: int
    quotas: Quotas | None = None
    """What an epoch takes of each of several files (`examples` in all); None where it takes every example
    once."""

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps of an epoch: its last may have fewer examples; none crosses into the next epoch."""
        return -(-self.examples // self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """Return the examples of step `step`, counted from 0: int64[at most batch_size]."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.batch_size
        order = (
            self.quotas.order(self.seed, epoch)
            if self.quotas
            else epoch_order(self.examples, self.seed, epoch)
        )
        return order[start : start + self.batch_size]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return indices into `lengths` in bins of at most `capacity` tokens each, by best-fit decreasing
    (Johnson et al., SIAM J. Comput. 3(4), 1974): the longest first, each into the fullest bin it fits.

    Raises:
        ValueError: a length above the capacity.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    # Sorted (tokens free, number of the bin): of bins equally full the earlier one is taken.
    free_tokens: list[tuple[int, int]] = []
    for index in order:
        length = int(lengths[index])
        if length > capacity:
            raise ValueError(f"an example of {length} tokens does not fit {capacity}")
        fullest = bisect.bisect_left(free_tokens, (length, -1))
        if fullest < len(free_tokens):
            free, number = free_tokens.pop(fullest)
            bins[number].append(index)
        else:
            free, number = capacity, len(bins)
            bins.append([index])
        bisect.insort(free_tokens, (free - length, number))
    return bins


def groups_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return indices into `lengths` in groups of `size`, the longest together, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def share_out(groups: Sequence[list[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """Deal the groups to ranks by size, back and forth (0 1 2, 2 1 0, ...), so that loads are even.

    Returns:
        for each rank its groups; ranks with fewer get empty ones, so that all have as many.
    """
    by_size = sorted(groups, key=lambda group: -sum(lengths[i] for i in group))
    dealt: list[list[list[int]]] = [[] for _ in range(ranks)]
    for number, group in enumerate(by_size):
        turn, rank = divmod(number, ranks)
        dealt[rank if turn % 2 == 0 else ranks - 1 - rank].append(group)
    most = max(1, *(len(of_rank) for of_rank in dealt))
    return [of_rank + [[] for _ in range(most - len(of_rank))] for of_rank in dealt]


@dataclass(frozen=True)
class Layout:
    """How a step is computed; nothing here changes its result."""

    packing: bool
    per_device_batch_size: int
    """Examples of a padded micro-batch."""
    max_tokens: int
    """Tokens of a packed micro-batch, at most."""
    padding_side: str = "right"
    multiple: int = 1
    """A packed micro-batch is filled up to a multiple of so many tokens, by a further example of padding."""

    def micro_batches(self, lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
        """Return, for each rank, its micro-batches as indices into `lengths`."""
        groups = (
            pack(lengths, self.max_tokens)
            if self.packing
            else groups_by_length(lengths, self.per_device_batch_size)
        )
        return share_out(groups, lengths, ranks)
