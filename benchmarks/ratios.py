"""Paired ratios: contenders take turns, so that what disturbs the machine disturbs all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The median of some readings and their range."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one reading or more."""
        return cls(median(values), min(values), max(values), len(values))


def paired_ratios(ours: Sequence[float], theirs: Sequence[float], higher_is_better: bool) -> list[float]:
    """Return, turn by turn, how many times as good ours is: above 1 we are ahead.

    Args:
        ours, theirs: readings of the same turns, in order; where one has fewer, the rest is left out.
        higher_is_better: of a rate; False for a cost.
    """
    pairs = zip(ours, theirs, strict=False)
    return [one / other if higher_is_better else other / one for one, other in pairs]


def verdict(ratios: Spread) -> str:
    """Return `ahead` or `behind` where all turns agree with the median, else `level`."""
    if ratios.low > 1:
        return "ahead"
    return "behind" if ratios.high < 1 else "level"
