"""The paper's table from results: categories, their mean, and several seeds as mean and deviation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from instruction_modelling.benchmark_results import Results, Score
from instruction_modelling.benchmark_suite import CATEGORIES, JUDGED, OF_CATEGORY
from instruction_modelling.report_statistics import mean_and_sd

COLUMNS = (*CATEGORIES, "mean", *JUDGED)
TITLES = {**CATEGORIES, "mean": "Mean", **JUDGED}
SEED = r"[-_.]?seed[-_]?\d+"


@dataclass
class Cell:
    """A number of the table: `error` is its standard error (one run) or its deviation over `runs`; `missing` names the benchmarks
    without which it was computed, or because of which there is no value."""

    value: float | None
    error: float | None = None
    runs: int = 1
    missing: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


def cells(results: Results, partial: bool) -> dict[str, Cell]:
    """A model's row: every column of the table. A category without one of its benchmarks has no value, unless `partial`."""
    row: dict[str, Cell] = {}
    for category in CATEGORIES:
        there = {key: results.scores[key] for key in OF_CATEGORY[category] if key in results.scores}
        missing = [key for key in OF_CATEGORY[category] if key not in there or not there[key].whole]
        value = _mean([one.value for one in there.values()]) if there and (partial or not missing) else None
        differs = [f"{key}: {', '.join(one.differs)}" for key, one in there.items() if one.differs]
        row[category] = Cell(value, _error(list(there.values())) if value is not None else None, 1, missing, differs)
    values = [row[category].value for category in CATEGORIES]
    whole = [value for value in values if value is not None]
    errors = [row[category].error for category in CATEGORIES if row[category].value is not None]
    complete = len(whole) == len(values)
    row["mean"] = Cell(_mean(whole) if whole and (partial or complete) else None,
                       math.sqrt(sum((one or 0) ** 2 for one in errors)) / len(errors) if complete and all(
                           one is not None for one in errors) else None,
                       1, [category for category in CATEGORIES if row[category].value is None or row[category].missing])
    for name in JUDGED:
        score = results.scores.get(name)
        row[name] = Cell(score.value, score.error, 1, [], score.differs) if score else Cell(None, missing=[name])
    return row


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _error(scores: Sequence[Score]) -> float | None:
    if any(score.error is None for score in scores):
        return None
    return math.sqrt(sum((score.error or 0) ** 2 for score in scores)) / len(scores)


def group_name(name: str, pattern: str = SEED) -> str:
    """What the runs of one arm with several seeds have in common: the name without what the pattern matches."""
    return re.sub(pattern, "", name)


def grouped(rows: dict[str, dict[str, Cell]], pattern: str = SEED) -> dict[str, dict[str, Cell]]:
    """Rows whose names differ in the seed alone as one: mean and sample standard deviation of each column over the runs that have
    a value; a row on its own stays as it is."""
    groups: dict[str, list[dict[str, Cell]]] = {}
    for name, row in rows.items():
        groups.setdefault(group_name(name, pattern), []).append(row)
    merged: dict[str, dict[str, Cell]] = {}
    for name, own in groups.items():
        if len(own) == 1:
            merged[name] = own[0]
            continue
        merged[name] = {}
        for column in COLUMNS:
            values = [row[column].value for row in own]
            there = [value for value in values if value is not None]
            over = mean_and_sd(there)
            merged[name][column] = Cell(
                float(over["mean"]) if over else None, over["sd"] if over else None, len(there),  # type: ignore[arg-type]
                sorted({one for row in own for one in row[column].missing}), sorted({one for row in own for one in row[column].differs}))
    return merged
