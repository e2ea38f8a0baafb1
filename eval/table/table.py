"""The paper's table from results: categories, their mean, and several seeds as mean and deviation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.table.results import Results, sample_deviation
from eval.table.suite import CATEGORIES, JUDGED, OF_CATEGORY

COLUMNS = (*CATEGORIES, "mean", *JUDGED)
TITLES = {**CATEGORIES, "mean": "Mean", **JUDGED}
# For tables that are to fit a terminal.
SHORT = {
    "understanding": "U&K",
    "multilinguality": "Multi",
    "commonsense": "CSR",
    "math": "M&C",
    "bbh": "BBH",
    "safety": "S&H",
    "mean": "Mean",
    "mt_bench": "MT-Bench",
    "alpaca_eval_1": "AE 1",
    "alpaca_eval_2": "AE 2",
}
SEED = r"[-_.]?seed[-_]?\d+"


@dataclass
class Cell:
    """A number of the table: `error` is its standard error over items (one run) or its standard deviation
    over `runs`, those of `of_runs` that have a value; `missing` names the benchmarks without which it was
    computed, or because of which there is no value."""

    value: float | None
    error: float | None = None
    runs: int = 1
    of_runs: int = 1
    missing: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


def cells(results: Results, partial: bool) -> dict[str, Cell]:
    """A model's row: every column of the table. A category without one of its benchmarks has no value, unless
    `partial`."""
    row: dict[str, Cell] = {}
    for category in CATEGORIES:
        there = {key: results.scores[key] for key in OF_CATEGORY[category] if key in results.scores}
        missing = [
            key if key not in there else f"{key} (in part)"
            for key in OF_CATEGORY[category]
            if key not in there or not there[key].whole
        ]
        value = _mean([one.value for one in there.values()]) if there and (partial or not missing) else None
        differs = [f"{key}: {', '.join(one.differs)}" for key, one in there.items() if one.differs]
        row[category] = Cell(
            value,
            _error([one.error for one in there.values()]) if value is not None else None,
            missing=missing,
            differs=differs,
        )
    there_are = [row[category] for category in CATEGORIES if row[category].value is not None]
    shown = bool(there_are) and (partial or len(there_are) == len(CATEGORIES))
    row["mean"] = Cell(
        _mean([cell.value for cell in there_are if cell.value is not None]) if shown else None,
        _error([cell.error for cell in there_are]) if shown else None,
        missing=[category for category in CATEGORIES if row[category].missing],
        differs=[category for category in CATEGORIES if row[category].differs],
    )
    for name in JUDGED:
        score = results.scores.get(name)
        row[name] = (
            Cell(score.value, score.error, differs=score.differs) if score else Cell(None, missing=[name])
        )
    return row


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _error(errors: Sequence[float | None]) -> float | None:
    """The standard error of the mean of independent scores, None if one of theirs is not known."""
    known = [error for error in errors if error is not None]
    return math.sqrt(sum(error**2 for error in known)) / len(known) if len(known) == len(errors) else None


def group_name(name: str, pattern: str = SEED) -> str:
    """What the runs of one arm with several seeds have in common: the name without what the pattern
    matches."""
    return re.sub(pattern, "", name) or name


def grouped(rows: dict[str, dict[str, Cell]], pattern: str = SEED) -> dict[str, dict[str, Cell]]:
    """Rows whose names differ in the seed alone as one: mean and sample standard deviation of each column
    over the runs that have a value; a row on its own stays as it is."""
    groups: dict[str, list[str]] = {}
    for name in rows:
        groups.setdefault(group_name(name, pattern), []).append(name)
    return {
        name if len(own) > 1 else own[0]: _over_seeds([rows[one] for one in own])
        for name, own in groups.items()
    }


def _over_seeds(own: Sequence[dict[str, Cell]]) -> dict[str, Cell]:
    if len(own) == 1:
        return own[0]
    merged = {}
    for column in COLUMNS:
        there = [row[column].value for row in own]
        values = [value for value in there if value is not None]
        mean = sum(values) / len(values) if values else None
        merged[column] = Cell(
            mean,
            sample_deviation(values),
            len(values),
            len(own),
            sorted({one for row in own for one in row[column].missing}),
            sorted({one for row in own for one in row[column].differs}),
        )
    return merged
