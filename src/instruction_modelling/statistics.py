"""Means over seeds, and paired differences over rows with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
BOOTSTRAP_SEED = 0
# Row indices drawn at once: memory does not grow with the number of rows.
_INDICES_AT_ONCE = 4_000_000

# The runs of an arm: the seed of each (None for an untuned model), and a value by row.
RowsBySeed = Sequence[tuple[object, dict[int, float]]]


def mean_and_sample_sd(values: Sequence[float]) -> dict[str, float | int | None] | None:
    """Return {"mean", "sd", "n"} of a sample, the standard deviation with n - 1 (None for one value); None
    for no values."""
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "n": len(values)}


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval (Efron 1979) of the mean of paired differences, float[rows];
    None for fewer than two rows.

    Rows are drawn with replacement, `RESAMPLES` times, from a fixed seed.
    """
    rows = len(differences)
    if rows < 2:
        return None
    from scipy.stats import bootstrap

    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _INDICES_AT_ONCE // rows),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PairedDifference:
    """An arm's mean minus the reference's over the rows both have; each row is first averaged over the seeds.

    `low` and `high` are the ends of the interval, None for fewer than two rows. `by_row` holds the
    differences behind it; `by_seed` the mean difference of each seed that both arms have.
    """

    mean: float
    low: float | None
    high: float | None
    by_row: dict[int, float]
    by_seed: dict[str, float]

    @property
    def covers_zero(self) -> bool | None:
        """Return whether the interval covers 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """Return `lower`, `higher`, or `no clear difference` where the interval covers 0 or there is none."""
        if self.high is None or self.covers_zero:
            return "no clear difference"
        return "lower" if self.high < 0 else "higher"

    @property
    def seeds_agree(self) -> bool | None:
        """Return whether every seed's difference has the sign of the mean; None with fewer than two shared
        seeds."""
        if len(self.by_seed) < 2:
            return None
        return all(value * self.mean > 0 for value in self.by_seed.values())

    def as_dict(self) -> dict[str, object]:
        """Return the difference as results.json holds it."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "rows": len(self.by_row),
            "covers_zero": self.covers_zero,
            "verdict": self.verdict,
            "by_seed": self.by_seed,
            "seeds_agree": self.seeds_agree,
        }


def row_means(runs: RowsBySeed) -> dict[int, float]:
    """Return each row's mean over the runs, for the rows that every run has a value for."""
    if not runs:
        return {}
    shared = set.intersection(*(set(rows) for _, rows in runs))
    return {row: float(np.mean([rows[row] for _, rows in runs])) for row in sorted(shared)}


def paired_difference(arm: RowsBySeed, reference: RowsBySeed) -> PairedDifference | None:
    """Return arm minus reference over the rows that all runs of both have; None where there is no such
    row."""
    arm_means, reference_means = row_means(arm), row_means(reference)
    by_row = {row: value - reference_means[row] for row, value in arm_means.items() if row in reference_means}
    if not by_row:
        return None
    by_seed = {}
    rows_of_seed = dict(reference)
    for seed, rows in arm:
        # An untuned model has no seed to pair by.
        if seed is not None and seed in rows_of_seed:
            by_seed[str(seed)] = float(np.mean([rows[row] - rows_of_seed[seed][row] for row in by_row]))
    differences = np.array(list(by_row.values()))
    low, high = bootstrap_interval(differences) or (None, None)
    return PairedDifference(float(differences.mean()), low, high, by_row, by_seed)
