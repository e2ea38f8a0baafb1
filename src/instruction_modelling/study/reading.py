"""From records to what they say: each confirmed comparison, and beside it what is exploratory.

A comparison is read once both its arms have every seed, and not before: reading after each run and stopping
when it pleases finds differences that are not there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from instruction_modelling.decision.crossed import CrossedMean, crossed_mean, holm
from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.decision.protocol import ERROR, Hypothesis
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.verdict import Decision, Verdict, decide, verdict_of
from instruction_modelling.errors import UserError
from instruction_modelling.study.checks import check_alike, check_cell
from instruction_modelling.study.grid import (
    ELSEWHERE,
    GRID,
    MARGIN,
    SEEDS,
    TEST,
    TRAIN,
    StudyCell,
    confidence,
)
from instruction_modelling.study.records import Record, groups_of, read_record

EXPLORATORY = 1 - ERROR
# Behind the name of a cell whose models were measured otherwise than they were trained.
DAGGER = "†"


@dataclass(frozen=True)
class Contrast:
    """A mean difference with an interval; exploratory."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class CellReading:
    """The records of a cell."""

    cell: StudyCell
    records: dict[str, list[Record | None]]
    """By arm, one of each seed; of the untuned model one."""
    protocol: dict[str, Any] | None
    """What all of them keep; None where nothing is recorded."""

    @property
    def recorded(self) -> int:
        """Return the number of runs that are recorded."""
        return sum(record is not None for of_arm in self.records.values() for record in of_arm)

    @property
    def is_measured_otherwise(self) -> bool:
        """Return whether models were measured by other weights than their training's products saw: trained
        in bfloat16, which rounds the weights, and saved in float32."""
        otherwise = ("--mixed_precision bf16", "--save_dtype float32")
        return any(
            record is not None and arm != BASE and all(words in record.key["flags"] for words in otherwise)
            for arm, of_arm in self.records.items()
            for record in of_arm
        )

    @property
    def shared_rows(self) -> float:
        """Return the share of a seed's training rows that another seed is expected to have too, since all
        draw from one pool; 0 where nothing is recorded."""
        return self.protocol["train_rows"] / self.protocol["pool_rows"] if self.protocol else 0.0

    @property
    def label(self) -> str:
        """Return the cell's name, with a dagger where its models were measured otherwise."""
        return self.cell.name + (DAGGER if self.is_measured_otherwise else "")

    @property
    def whole(self) -> list[str]:
        """Return the arms that have every seed, the untuned model among them."""
        return [arm for arm, of_arm in self.records.items() if all(of_arm)]

    def can_compare(self, *arms: str) -> bool:
        """Return whether all of these have every seed."""
        return set(arms) <= set(self.whole)

    def losses(self, arm: str, part: str) -> np.ndarray:
        """Return float64[seeds, rows] of an arm on a part, nats a response token, without the rows that have
        no response token; of the untuned model one seed."""
        of_seeds = [record.losses[part] for record in self.records[arm] if record]
        found = np.array(of_seeds, dtype=np.float64)
        return found[:, ~np.isnan(found).any(axis=0)]

    def decision(self, arm: str, reference: str, part: str = TEST, sure: float = EXPLORATORY) -> Decision:
        """Return the decision about an arm against another one on a part whose rows all seeds share."""
        of_arm, of_reference = self.losses(arm, part), self.losses(reference, part)
        return decide((arm, reference), of_arm, of_reference, MARGIN, sure)

    def trained(self, arm: str) -> np.ndarray:
        """Return float64[seeds]: the mean loss on rows that the seed's models were trained on."""
        rows = [record.losses[TRAIN] for record in self.records[arm] if record]
        return np.array([np.nanmean(np.array(of_seed, dtype=np.float64)) for of_seed in rows])


@dataclass(frozen=True)
class Confirmed:
    """One of the study's confirmed comparisons; without a decision where it has not all its runs."""

    reading: CellReading
    hypothesis: Hypothesis
    decision: Decision | None
    p_value: float | None = None
    """Adjusted for all comparisons of the study (Holm), those without runs counted."""


def read_cells(results: Path, grid: Sequence[StudyCell] = GRID) -> list[CellReading]:
    """Return the records of every cell.

    Raises:
        UserError: arms of one seed were made by different code, versions, machine or settings; a record is
            not what its cell's protocol says.
    """
    readings = []
    for cell in grid:
        arms = [*cell.arms, *(name for h in cell.hypotheses for name in (h.arm, h.reference))]
        records: dict[str, list[Record | None]] = {BASE: [read_record(results, cell.name, BASE, None)]}
        for arm in dict.fromkeys(arms):
            records[arm] = [read_record(results, cell.name, arm, seed) for seed in range(SEEDS)]
        groups = groups_of([arm for arm in records if arm != BASE])
        for seed, group in product(range(SEEDS), groups):
            keys = {str(record.key) for arm in group if (record := records[arm][seed])}
            if len(keys) > 1:
                raise UserError(
                    f"{results}: {cell.name}, seed {seed}: its arms were made by different code, versions, "
                    "machines or settings, and cannot be compared: run the study with --other_keys redo"
                )
        readings.append(CellReading(cell, records, check_cell(results, cell, records)))
    check_alike(results, [(reading.cell, reading.records) for reading in readings])
    return readings


def confirm(readings: Sequence[CellReading]) -> list[Confirmed]:
    """Return the confirmed comparisons of all cells, in the order of the grid."""
    found = []
    for reading in readings:
        for hypothesis in reading.cell.hypotheses:
            arm, reference = hypothesis.arm, hypothesis.reference
            decision = None
            if reading.can_compare(arm, reference):
                decision = reading.decision(arm, reference, sure=confidence())
            found.append(Confirmed(reading, hypothesis, decision))
    # What is not run yet counts as if nothing were found there, which adjusts the others the most.
    values = [c.decision.gain.p_value() if c.decision and c.decision.gain else 1.0 for c in found]
    return [
        Confirmed(c.reading, c.hypothesis, c.decision, value if c.decision else None)
        for c, value in zip(found, holm(values), strict=True)
    ]


def for_other_data(one: Confirmed) -> tuple[float, Verdict]:
    """Return the largest half-width to expect of a comparison for other data of the kind, and what it says of
    the same gain; of one that is read."""
    assert one.decision and one.decision.gain
    half = one.decision.gain.half_width_over_pools(one.reading.shared_rows, one.decision.confidence)
    return half, verdict_of((one.decision.mean - half, one.decision.mean + half), MARGIN)


def trained_difference(reading: CellReading) -> Contrast:
    """Return how much higher the loss on training rows is under IM than under IT, with an interval over
    seeds, whose rows are the same under both."""
    from scipy.stats import t

    differences = reading.trained(TREATMENT) - reading.trained(REFERENCE)
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    half = float(t.ppf((1 + EXPLORATORY) / 2, len(differences) - 1) * error)
    mean = float(differences.mean())
    return Contrast(mean, mean - half, mean + half)


def made_anew(readings: Sequence[CellReading]) -> list[tuple[CellReading, CellReading]]:
    """Return the pairs of cells with the same rows, steps and settings whose IT and IM are there twice, the
    one that was made first before the other."""

    def setting(cell: StudyCell) -> tuple[str, int, int, bool]:
        return cell.rows_name, cell.train_rows, cell.all_steps, cell.with_clipping

    return [
        (first, second)
        for first, second in combinations(readings, 2)
        if setting(first.cell) == setting(second.cell)
        and all(of.can_compare(REFERENCE, TREATMENT) for of in (first, second))
    ]


def loss_contrast(arm: str, first: CellReading, second: CellReading) -> Contrast:
    """Return how much higher an arm's loss is in one cell than in another one of the same test rows."""
    difference = crossed_mean(first.losses(arm, TEST) - second.losses(arm, TEST))
    return Contrast(difference.mean, *difference.interval(EXPLORATORY))


def gain_contrast(first: CellReading, second: CellReading, part: str = TEST) -> Contrast:
    """Return how much more IM gains over IT in one cell than in another.

    Cells with the same test rows are compared row by row and seed by seed: of cells of one size a seed has
    the same training rows in both, of others it is an independent draw, so that any pairing would do. Cells
    without common rows are independent: Welch's interval."""
    gains = [reading.losses(REFERENCE, part) - reading.losses(TREATMENT, part) for reading in (first, second)]
    if first.cell.rows_name == second.cell.rows_name and gains[0].shape == gains[1].shape:
        difference = crossed_mean(gains[0] - gains[1])
        return Contrast(difference.mean, *difference.interval(EXPLORATORY))
    return _welch(crossed_mean(gains[0]), crossed_mean(gains[1]))


def _welch(first: CrossedMean, second: CrossedMean) -> Contrast:
    from scipy.stats import t

    variances = first.standard_error**2, second.standard_error**2
    degrees = sum(variances) ** 2 / sum(
        variance**2 / mean.degrees_of_freedom
        for variance, mean in zip(variances, (first, second), strict=True)
    )
    half = float(t.ppf((1 + EXPLORATORY) / 2, degrees)) * sum(variances) ** 0.5
    mean = first.mean - second.mean
    return Contrast(mean, mean - half, mean + half)


def elsewhere_decision(reading: CellReading) -> Decision:
    """Return the decision about IM against IT on rows of another corpus."""
    return reading.decision(TREATMENT, REFERENCE, ELSEWHERE)


def verdict_of_contrast(contrast: Contrast) -> Verdict:
    """Return what a contrast's interval says, as a gain's is read."""
    return verdict_of((contrast.low, contrast.high), MARGIN)
