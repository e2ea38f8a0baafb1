"""Means over seeds, and paired differences over rows with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
BOOTSTRAP_SEED = 0
# Indices drawn at once, so that memory does not grow with the number of rows.
_DRAWS = 4_000_000


def mean_and_sd(values: Sequence[float]) -> dict[str, float | int | None] | None:
    """Mean and sample standard deviation (ddof 1, None for one value) over n runs; None for no values."""
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "n": len(values)}


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of the mean of paired differences, shape (rows,); None for fewer than two rows.

    Rows are resampled with replacement, `RESAMPLES` times, from a fixed seed.
    """
    rows = len(differences)
    if rows < 2:
        return None
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    means = np.empty(RESAMPLES)
    step = max(1, _DRAWS // rows)
    for start in range(0, RESAMPLES, step):
        stop = min(start + step, RESAMPLES)
        means[start:stop] = differences[generator.integers(0, rows, (stop - start, rows))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """An arm's mean minus the reference's over the rows both have; each row is first averaged over the seeds.

    `by_row` holds the differences behind it; `by_seed` the mean difference of each seed that both arms have.
    """

    mean: float
    low: float | None
    high: float | None
    by_row: dict[int, float]
    by_seed: dict[str, float]

    @property
    def verdict(self) -> str:
        """`lower`, `higher`, or `no clear difference` where the interval covers 0 or could not be had."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "no clear difference"
        return "lower" if self.high < 0 else "higher"

    @property
    def seeds_agree(self) -> bool | None:
        """Whether every seed's difference has the sign of the mean; None with fewer than two shared seeds."""
        if len(self.by_seed) < 2:
            return None
        return all(value * self.mean > 0 for value in self.by_seed.values())

    def as_dict(self) -> dict[str, object]:
        """For results.json."""
        covers = None if self.low is None or self.high is None else self.low <= 0 <= self.high
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "rows": len(self.by_row),
            "covers_zero": covers,
            "verdict": self.verdict,
            "by_seed": self.by_seed,
            "seeds_agree": self.seeds_agree,
        }


RowsBySeed = Sequence[tuple[object, dict[int, float]]]


def row_means(runs: RowsBySeed) -> dict[int, float]:
    """Each row's mean over the runs, for the rows that every run has a value for."""
    if not runs:
        return {}
    shared = set.intersection(*(set(rows) for _, rows in runs))
    return {row: float(np.mean([rows[row] for _, rows in runs])) for row in sorted(shared)}


def paired_difference(arm: RowsBySeed, reference: RowsBySeed) -> Difference | None:
    """Arm minus reference, from (seed, value by row) of each run; None where they share no row."""
    ours, theirs = row_means(arm), row_means(reference)
    by_row = {row: value - theirs[row] for row, value in ours.items() if row in theirs}
    if not by_row:
        return None
    by_seed = {}
    reference_seeds = dict(reference)
    for seed, rows in arm:
        # An unseeded model (the base) has no seed to pair by.
        if seed is not None and seed in reference_seeds:
            by_seed[str(seed)] = float(np.mean([rows[row] - reference_seeds[seed][row] for row in by_row]))
    interval = bootstrap_interval(np.array(list(by_row.values())))
    low, high = interval if interval else (None, None)
    return Difference(float(np.mean(list(by_row.values()))), low, high, by_row, by_seed)
