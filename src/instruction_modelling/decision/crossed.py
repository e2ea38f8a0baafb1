"""A mean over seeds and rows that are crossed: every seed's model is measured on the same rows.

Neither the seeds nor the rows are the ones of interest: both are samples. An interval over rows alone says
what another test set would give with the same few models; one over seeds alone counts each seed's mean as if
the rows were all there are. Here both vary (a two-way random-effects layout without repeats):

    d[s, r] = mean + seed_s + row_r + rest_sr

with mean squares MS over seeds, rows and the rest, the mean's variance is

    max(MS_seed + MS_row - MS_rest, MS_seed, MS_row) / (S R)

and Satterthwaite's degrees of freedom (Biometrics Bulletin 2(6), 1946) say which t quantile it takes. A
bootstrap of five seeds is too narrow by far: it cannot draw a seed that it has not seen."""

import math
from dataclasses import dataclass, replace

import numpy as np

# Beyond these a plan is of no help to anybody.
MOST_SEEDS, MOST_ROWS = 200, 1_000_000


@dataclass(frozen=True)
class CrossedMean:
    """The mean of S seeds x R rows with what its variance is made of."""

    mean: float
    seeds: int
    rows: int
    seed_ms: float
    """Mean square over seeds: R x the variance of the seeds' means."""
    row_ms: float
    """Mean square over rows: S x the variance of the rows' means."""
    rest_ms: float
    """Mean square of what neither explains."""

    @property
    def _sum_ms(self) -> float:
        return self.seed_ms + self.row_ms - self.rest_ms

    @property
    def standard_error(self) -> float:
        """Return the standard error of the mean."""
        return math.sqrt(max(self._sum_ms, self.seed_ms, self.row_ms) / (self.seeds * self.rows))

    @property
    def degrees_of_freedom(self) -> float:
        """Return Satterthwaite's degrees of freedom of the standard error; those of seeds or rows alone where
        one of these is the larger estimate."""
        of_seeds, of_rows = self.seeds - 1, self.rows - 1
        total = self._sum_ms
        if total <= max(self.seed_ms, self.row_ms):
            return of_seeds if self.seed_ms >= self.row_ms else of_rows
        parts = self.seed_ms**2 / of_seeds + self.row_ms**2 / of_rows + self.rest_ms**2 / (of_seeds * of_rows)
        return total**2 / parts

    @property
    def variances(self) -> tuple[float, float, float]:
        """Return the variances of seeds, rows and the rest that the mean squares estimate, at least 0."""
        seed = max(0.0, (self.seed_ms - self.rest_ms) / self.rows)
        row = max(0.0, (self.row_ms - self.rest_ms) / self.seeds)
        return seed, row, self.rest_ms

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided t interval of the mean at a confidence within (0, 1)."""
        half = self.half_width(confidence)
        return self.mean - half, self.mean + half

    def half_width(self, confidence: float) -> float:
        """Return half the length of the interval."""
        return _quantile(confidence, self.degrees_of_freedom) * self.standard_error

    def half_width_over_pools(self, shared: float, confidence: float) -> float:
        """Return half the length of an interval that holds for other pools of rows of the kind, at most.

        Seeds that draw from one pool share some of their training rows, a part `shared` within [0, 1), and
        so differ by less than seeds of other pools. Were a seed's effect the mean of its rows' effects, two
        seeds would have a correlation of `shared`: they show 1 - shared of a seed's variance, and the mean of
        S has (1 + (S - 1) shared)/S of it, which is 1 + S shared/(1 - shared) times what they show. The order
        of rows varies as well, which pools do not share, and the mean square over seeds, which is multiplied
        as a whole, holds the rest too: so it is less.
        """
        times = 1 + self.seeds * shared / (1 - shared)
        return replace(self, seed_ms=times * self.seed_ms).half_width(confidence)

    def p_value(self, null: float = 0.0) -> float:
        """Return the two-sided p-value of the mean being `null`."""
        from scipy.stats import t

        if self.standard_error == 0:
            return 1.0 if self.mean == null else 0.0
        return float(2 * t.sf(abs(self.mean - null) / self.standard_error, self.degrees_of_freedom))

    def half_width_at(self, seeds: int, rows: int, confidence: float) -> float:
        """Return the half width to expect of another number of seeds and rows, with the same variances."""
        return expected_half_width(self.variances, seeds, rows, confidence)


def crossed_mean(values: np.ndarray) -> CrossedMean:
    """Return the mean of float[seeds, rows] with its mean squares.

    Raises:
        ValueError: fewer than two seeds or two rows, or a value that is not finite.
    """
    seeds, rows = values.shape
    if seeds < 2 or rows < 2:
        raise ValueError(f"{seeds} seeds x {rows} rows: an interval takes two of each")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    mean = float(values.mean())
    of_seed, of_row = values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seed[:, None] - of_row[None, :] + mean
    return CrossedMean(
        mean,
        seeds,
        rows,
        float(rows * of_seed.var(ddof=1)),
        float(seeds * of_row.var(ddof=1)),
        float((rest**2).sum() / ((seeds - 1) * (rows - 1))),
    )


def expected_half_width(
    variances: tuple[float, float, float], seeds: int, rows: int, confidence: float
) -> float:
    """Return the half width of the interval that these variances of seeds, rows and the rest lead to."""
    seed, row, rest = variances
    expected = CrossedMean(0.0, seeds, rows, rest + rows * seed, rest + seeds * row, rest)
    return expected.half_width(confidence)


def seeds_needed(
    variances: tuple[float, float, float], rows: int, half_width: float, confidence: float
) -> int | None:
    """Return the fewest seeds whose interval on so many rows is expected to be no wider than 2 x
    `half_width`; None where no number up to `MOST_SEEDS` is enough."""
    return _least(lambda n: expected_half_width(variances, n, rows, confidence) <= half_width, 2, MOST_SEEDS)


def rows_needed(
    variances: tuple[float, float, float], seeds: int, half_width: float, confidence: float
) -> int | None:
    """Return the fewest rows, as `seeds_needed` returns seeds; None where not even `MOST_ROWS` are enough."""
    return _least(lambda n: expected_half_width(variances, seeds, n, confidence) <= half_width, 2, MOST_ROWS)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values adjusted for their number (Holm, Scand. J. Statist. 6(2), 1979), in their order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _least(is_enough, low: int, high: int) -> int | None:  # type: ignore[no-untyped-def]
    """Return the least number of low to high that is enough, where all larger ones are too."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _quantile(confidence: float, degrees: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, degrees))
