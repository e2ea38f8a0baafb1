"""Which examples meet in a step, and how that step is laid out as micro-batches.

The first is a pure function of (seed, step). The second (packed or padded, how many micro-batches, on how
many ranks) only decides how the step's sum is computed, never what it is."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the examples in an epoch, int64[examples]: a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


@dataclass(frozen=True)
class StepPlan:
    """The global batch of every step."""

    examples: int
    batch_size: int
    """Examples a step: per-device size x accumulation x processes."""
    seed: int
    total_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer examples; no step crosses into the next epoch."""
        return -(-self.examples // self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """int64[<= batch_size]: the examples of step `step` (counted from 0)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.batch_size
        return epoch_order(self.examples, self.seed, epoch)[start : start + self.batch_size]


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit-decreasing: indices into `lengths` in bins that hold at most `capacity` tokens each.

    Raises:
        ValueError: a length above the capacity.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    # Bins by the room left in them; a bin is (room, number), so equal rooms go to the earlier bin.
    rooms: list[tuple[int, int]] = []
    for index in order:
        length = int(lengths[index])
        if length > capacity:
            raise ValueError(f"an example of {length} tokens does not fit {capacity}")
        place = bisect.bisect_left(rooms, (length, -1))
        if place < len(rooms):
            room, number = rooms.pop(place)
            bins[number].append(index)
        else:
            room, number = capacity, len(bins)
            bins.append([index])
        bisect.insort(rooms, (room - length, number))
    return bins


def groups_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in groups of `size`, the longest together, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def share_out(groups: Sequence[list[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """The groups dealt to ranks back and forth by size; ranks with fewer get empty ones, so all have as
    many."""
    by_size = sorted(groups, key=lambda group: -sum(lengths[i] for i in group))
    dealt: list[list[list[int]]] = [[] for _ in range(ranks)]
    for number, group in enumerate(by_size):
        turn, place = divmod(number, ranks)
        dealt[place if turn % 2 == 0 else ranks - 1 - place].append(group)
    most = max(1, *(len(own) for own in dealt))
    return [own + [[] for _ in range(most - len(own))] for own in dealt]


@dataclass(frozen=True)
class Layout:
    """How a step is computed; nothing here changes its result."""

    packing: bool
    per_device_batch_size: int
    max_tokens: int
    padding_side: str = "right"

    def micro_batches(self, lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
        """For each rank, its micro-batches as indices into `lengths`."""
        groups = (
            pack(lengths, self.max_tokens)
            if self.packing
            else groups_by_length(lengths, self.per_device_batch_size)
        )
        return share_out(groups, lengths, ranks)
