"""How many examples of each of several files an epoch has, where they have proportions.

An epoch has as many examples as all files together, N. Each file gets its share of N, rounded by largest
remainders (Hamilton's method), and goes through its rows in passes, each in an order of its own: an epoch
goes on where the one before stopped, so a file that is larger than its quota gives another part each epoch,
and of one that is smaller no row is seen twice more often than another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import ConversationFile


@dataclass(frozen=True)
class Quotas:
    """What an epoch takes of sets of examples that follow one another in the data."""

    sizes: tuple[int, ...]
    """Examples of each set."""
    an_epoch: tuple[int, ...]
    """How many of them an epoch takes, the same one more than once where the set has fewer."""

    @property
    def passes(self) -> tuple[float, ...]:
        """Return how often an epoch goes through each set."""
        return tuple(quota / size for quota, size in zip(self.an_epoch, self.sizes, strict=True))

    def times(self) -> np.ndarray:
        """Return float64[examples]: how often an epoch has each example, on average."""
        return np.repeat(self.passes, self.sizes)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the examples of an epoch in its order, int64[sum of quotas]: a pure function of the
        arguments."""
        return _order(self, seed, epoch)


@lru_cache(maxsize=2)
def _order(quotas: Quotas, seed: int, epoch: int) -> np.ndarray:
    taken, first = [], 0
    for number, (size, quota) in enumerate(zip(quotas.sizes, quotas.an_epoch, strict=True), start=1):
        begin, end = epoch * quota, (epoch + 1) * quota
        for turn in range(begin // size, -(-end // size)):
            # Another stretch of the stream than the order of whole epochs and than those of other sets.
            stream = np.random.Philox(key=[seed, turn], counter=[0, 0, 0, number])
            part = slice(max(begin - turn * size, 0), end - turn * size)
            taken.append(first + np.random.Generator(stream).permutation(size)[part])
        first += size
    mixed = np.concatenate(taken)
    return mixed[np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(len(mixed))]


def largest_remainders(total: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Return whole numbers that add up to `total`, in these shares of 1: each rounded down, and one more for
    those with the largest remainders (the earlier of equal ones)."""
    exact = [total * share for share in shares]
    # What is a whole number but for the rounding of its share is one.
    whole = [math.floor(number + 1e-9 * max(number, 1)) for number in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for index in by_remainder[: total - sum(whole)]:
        whole[index] += 1
    return tuple(whole)


def quotas_of(file: ConversationFile, rows: np.ndarray) -> Quotas | None:
    """Return what an epoch takes of each of several files; None where it takes all rows once.

    Args:
        rows: int64[examples], the rows that have a loss, in order, by their numbers in `file`.

    Raises:
        UserError: a file has proportions and no row with a loss, or its share is less than one example.
    """
    if file.proportions is None:
        return None
    edges = [*np.searchsorted(rows, [member.first_row for member in file.members]).tolist(), len(rows)]
    sizes = tuple(end - start for start, end in pairwise(edges))
    an_epoch = largest_remainders(len(rows), file.proportions)
    for member, share, size, quota in zip(file.members, file.proportions, sizes, an_epoch, strict=True):
        if not size:
            raise UserError(
                f"{member.path}: none of its rows has a loss, so it cannot be {share:.1%} of an epoch"
            )
        if not quota:
            raise UserError(
                f"{member.path}: its share, {share:.2g} of an epoch of {len(rows):,} examples, is less than "
                "one; give it a larger one, or leave the file out"
            )
    return Quotas(sizes, an_epoch)
