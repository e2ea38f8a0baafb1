"""The paper's table from results: categories, their mean, and several seeds as mean and deviation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval.table.scores import Results
from eval.table.suite import CATEGORIES, JUDGED, OF_CATEGORY
from instruction_modelling.statistics import mean_and_sample_sd

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
    """A number of the table.

    `error` is its standard error over items (one run) or its standard deviation over `runs`, those of
    `of_runs` that have a value; `missing` names the benchmarks without which it was computed, or because of
    which there is no value; `incomplete` says that the value, or one of a run in it, was computed without a
    benchmark; `part` names those that are of a part of their items; `differs` says what was not done as in
    the paper."""

    value: float | None
    error: float | None = None
    runs: int = 1
    of_runs: int = 1
    missing: list[str] = field(default_factory=list)
    incomplete: bool = False
    part: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


Rows = dict[str, dict[str, Cell]]
"""By the model's name (or the arm's, where its seeds are one row) and column."""


def cells(results: Results, partial: bool) -> dict[str, Cell]:
    """Return a model's row: every column of the table.

    A category without one of its benchmarks, or with a score of a part of its items, has no value, unless
    `partial`; where such a score is the whole category, it stands there marked, and there is no mean."""
    row = {category: _category(results, category, partial) for category in CATEGORIES}
    known = [
        row[category]
        for category in CATEGORIES
        if row[category].value is not None and (partial or not row[category].part)
    ]
    has_mean = bool(known) and (partial or len(known) == len(CATEGORIES))
    without = [name for name in CATEGORIES if row[name].missing or (row[name].part and not partial)]
    row["mean"] = Cell(
        _mean([cell.value for cell in known if cell.value is not None]) if has_mean else None,
        _error([cell.error for cell in known]) if has_mean else None,
        missing=without,
        incomplete=has_mean and bool(without),
        part=[name for name in CATEGORIES if row[name].part] if partial else [],
        differs=[category for category in CATEGORIES if row[category].differs],
    )
    for name in JUDGED:
        score = results.scores.get(name)
        row[name] = (
            Cell(
                score.value,
                score.error,
                part=[f"{name} {score.part}"] * bool(score.part),
                differs=score.differs,
            )
            if score
            else Cell(None, missing=[name])
        )
    return row


def _category(results: Results, category: str, partial: bool) -> Cell:
    keys = OF_CATEGORY[category]
    scores = {key: results.scores[key] for key in keys if key in results.scores}
    missing = [
        key if key not in scores else f"{key} (in part)"
        for key in keys
        if key not in scores or not scores[key].whole
    ]
    part = [f"{key} {score.part}" for key, score in scores.items() if score.part]
    differs = [f"{key}: {', '.join(score.differs)}" for key, score in scores.items() if score.differs]
    if part and len(keys) > 1 and not partial:
        return Cell(None, missing=missing + part, part=part, differs=differs)
    if not scores or (missing and not partial):
        return Cell(None, missing=missing, differs=differs)
    return Cell(
        _mean([score.value for score in scores.values()]),
        _error([score.error for score in scores.values()]),
        missing=missing,
        incomplete=bool(missing),
        part=part,
        differs=differs,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _error(errors: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean of independent scores, None if one of theirs is not known."""
    known = [error for error in errors if error is not None]
    return math.sqrt(sum(error**2 for error in known)) / len(known) if len(known) == len(errors) else None


def group_name(name: str, pattern: str = SEED) -> str:
    """Return what the runs of one arm with several seeds have in common: the name without what the pattern
    matches."""
    return re.sub(pattern, "", name) or name


def grouped(rows: Rows, pattern: str = SEED, partial: bool = False) -> Rows:
    """Return rows whose names differ in the seed alone as one row.

    It holds mean and sample standard deviation of each column over the runs that have a value, one of all
    items unless `partial` or where none has; a row on its own stays as it is."""
    groups: dict[str, list[str]] = {}
    for name in rows:
        groups.setdefault(group_name(name, pattern), []).append(name)
    return {
        name if len(members) > 1 else members[0]: _over_seeds([rows[member] for member in members], partial)
        for name, members in groups.items()
    }


def _over_seeds(rows: Sequence[dict[str, Cell]], partial: bool) -> dict[str, Cell]:
    if len(rows) == 1:
        return rows[0]
    merged = {}
    for column in COLUMNS:
        known = [row[column] for row in rows if row[column].value is not None]
        counted = known if partial else [cell for cell in known if not cell.part] or known
        values = [cell.value for cell in counted if cell.value is not None]
        spread = mean_and_sample_sd(values)
        merged[column] = Cell(
            spread["mean"] if spread else None,
            spread["sd"] if spread else None,
            len(values),
            len(rows),
            sorted({name for row in rows for name in row[column].missing}),
            any(cell.incomplete for cell in counted),
            sorted({note for cell in counted for note in cell.part}),
            sorted({note for row in rows for note in row[column].differs}),
        )
    return merged
