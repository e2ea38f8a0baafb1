"""Where a data set stands on the paper's two axes, and what the published points say of such a place.

A prediction is what those points say on average, with a 95 % interval for one further set; it is of one model
(LLaMA-2-7B), one judge and one run a point, and no promise. Both axes are natural logarithms, as in Figure
2."""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Of scipy.stats, which takes a second of processor time to import.
from scipy.special import stdtrit

from instruction_modelling.analysis.literature import (
    CORRECTED_SETS,
    FIGURE_2,
    PAPER_SETS,
    TABLES,
    PaperSet,
    gains_by_ratio,
    gains_by_rows,
    printed_line,
)

# Ratios at which the paper's subsets of different sizes speak for a set.
NEAR_TEN = (5.0, 20.0)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Line:
    """A least-squares line through points, and what a prediction from it needs."""

    slope: float
    intercept: float
    r_squared: float
    residual_sd: float
    """Square root of the residual sum of squares over n - 2."""
    points: int
    mean_x: float
    squares_x: float
    """Sum of squared distances of the points' x from their mean."""
    least_x: float
    most_x: float

    def slope_interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval of the slope (Student's t, n - 2 degrees of freedom)."""
        quantile = float(stdtrit(self.points - 2, (1 + _CONFIDENCE) / 2))
        half = quantile * self.residual_sd / math.sqrt(self.squares_x)
        return self.slope - half, self.slope + half

    def predict(self, x: float) -> tuple[float, float, float]:
        """Return y at x, and the lower and upper ends of the 95 % interval for one further point."""
        y = self.slope * x + self.intercept
        spread = 1.0 + 1.0 / self.points + (x - self.mean_x) ** 2 / self.squares_x
        quantile = float(stdtrit(self.points - 2, (1 + _CONFIDENCE) / 2))
        half = quantile * self.residual_sd * math.sqrt(spread)
        return y, y - half, y + half


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Return the least-squares line of y on x through (x, y) points."""
    x, y = np.array(points).T
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - (slope * x + intercept)
    return Line(
        slope=float(slope),
        intercept=float(intercept),
        r_squared=float(np.corrcoef(x, y)[0, 1] ** 2),
        residual_sd=math.sqrt(float(residuals @ residuals) / (len(points) - 2)),
        points=len(points),
        mean_x=float(x.mean()),
        squares_x=float(((x - x.mean()) ** 2).sum()),
        least_x=float(x.min()),
        most_x=float(x.max()),
    )


def ratio_points(corrected: Collection[str] = CORRECTED_SETS) -> list[tuple[float, float]]:
    """Return (ln ratio, AE1 gain in %) of Figure 2, left; the sets named in `corrected` by the paper's
    tables."""
    return [(math.log(ratio), gain) for ratio, gain in gains_by_ratio(corrected)]


def size_points() -> list[tuple[float, float]]:
    """Return (ln rows, AE1 gain in %) of Figure 2, right."""
    return [(math.log(rows), gain) for rows, gain in gains_by_rows()]


def position(log_ratio: float, log_rows: float) -> dict[str, Any]:
    """Return a set's coordinates, and whether they lie within those of the paper's sets."""
    ratios = [known.ratio for known in PAPER_SETS]
    rows = [*(known.rows for known in PAPER_SETS), *(rows for rows, _ in gains_by_rows())]
    ratio, count = math.exp(log_ratio), round(math.exp(log_rows))
    # Table 5 is rounded: a set of the paper itself must not fall out of its range.
    within = min(ratios) * 0.999 <= ratio <= max(ratios) * 1.001
    return {
        "ratio": ratio,
        "log_ratio": log_ratio,
        "rows": count,
        "log_rows": log_rows,
        "ratio_in_paper_range": within,
        "rows_in_paper_range": min(rows) <= count <= max(rows),
        "paper_ratio_range": [min(ratios), max(ratios)],
        "paper_rows_range": [min(rows), max(rows)],
    }


def predictions(log_ratio: float, log_rows: float) -> list[dict[str, Any]]:
    """Return the AE1 gains that the length ratio and the rows predict; the latter applies only near the ratio
    of the subsets that its points are."""
    least, most = NEAR_TEN
    return [
        {
            "name": "by length ratio, points corrected by the paper's tables",
            **_prediction(fit_line(ratio_points()), log_ratio),
            "by_printed_line": None,
            "applies": True,
            "source": f"{FIGURE_2}, left; WizardLM's ratio by Table 5, Dolly 9k's and Less Tydiqa's gains "
            "by Table 1",
        },
        {
            "name": "by length ratio, points as drawn",
            **_prediction(fit_line(ratio_points(())), log_ratio),
            "by_printed_line": _on_printed_line("by_ratio", log_ratio),
            "applies": True,
            "source": f"{FIGURE_2}, left",
        },
        {
            "name": "by rows, for sets of a ratio near 10",
            **_prediction(fit_line(size_points()), log_rows),
            "by_printed_line": _on_printed_line("by_rows", log_rows),
            "applies": math.log(least) <= log_ratio <= math.log(most),
            "source": f"{FIGURE_2}, right",
        },
    ]


def _prediction(line: Line, x: float) -> dict[str, Any]:
    gain, low, high = line.predict(x)
    return {
        "ae1_gain_percent": gain,
        "low": low,
        "high": high,
        "fit": asdict(line),
        "extrapolated": not line.least_x - 1e-3 <= x <= line.most_x + 1e-3,
    }


def _on_printed_line(axis: str, x: float) -> float:
    slope, intercept = printed_line(axis)
    return slope * x + intercept


def nearest_sets(log_ratio: float, log_rows: float, count: int = 3) -> list[dict[str, Any]]:
    """Return the paper's tuned sets nearest to a position, each axis in standard deviations over all its
    sets."""
    ratio_unit = float(np.std([math.log(known.ratio) for known in PAPER_SETS]))
    rows_unit = float(np.std([math.log(known.rows) for known in PAPER_SETS]))

    def distance(known: PaperSet) -> float:
        return math.hypot(
            (math.log(known.ratio) - log_ratio) / ratio_unit, (math.log(known.rows) - log_rows) / rows_unit
        )

    tuned = sorted((known for known in PAPER_SETS if known.scores), key=distance)
    return [_neighbour(known, distance(known)) for known in tuned[:count]]


def _neighbour(known: PaperSet, distance: float) -> dict[str, Any]:
    it, im = asdict(known.scores["IT"]), asdict(known.scores["IM"])
    return {
        "name": known.name,
        "distance": distance,
        "rows": known.rows,
        "ratio": known.ratio,
        "it": it,
        "im": im,
        "difference": {key: im[key] - it[key] for key in it},
        "ae1_gain_percent": known.ae1_gain_percent,
        "source": TABLES,
    }
