"""Losses of rows, as a measurement leaves them, and as an interval takes them: rows that say nearly the same
are one."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from instruction_modelling.rows.json_lines import read_appended


def losses_in(path: Path, measure: str = "nll") -> dict[int, float]:
    """Return what a losses.jsonl has of each row with a response, per response token."""
    lines = (line for _, line in read_appended(path).records)
    return {line["row"]: line[measure]["response"] for line in lines if "response" in line[measure]}


def units_of(losses: Sequence[dict[int, float]], alike: Sequence[Sequence[int]] = ()) -> list[list[int]]:
    """Return the rows that all of these have, in order, those that say nearly the same together: copies of a
    row are no more evidence than the row."""
    shared = sorted(set.intersection(*(set(of_run) for of_run in losses)))
    first = {row: min(group) for group in alike for row in group}
    units = defaultdict[int, list[int]](list)
    for row in shared:
        units[first.get(row, row)].append(row)
    return list(units.values())


def matrix_of(losses: Sequence[dict[int, float]], units: Sequence[Sequence[int]]) -> np.ndarray:
    """Return float64[seeds, units] of losses by row, the mean over the rows of each unit."""
    return np.array([[fmean(of_seed[row] for row in unit) for unit in units] for of_seed in losses])


def mean_of(losses: Sequence[dict[int, float]], units: Sequence[Sequence[int]]) -> float:
    """Return the mean over seeds and units."""
    return float(matrix_of(losses, units).mean())
