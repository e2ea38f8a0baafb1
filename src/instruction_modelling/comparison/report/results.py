"""The numbers of a report, as results.json holds them: unrounded, null for what was not measured."""

import json
import math
from collections.abc import Sequence
from typing import Any

from instruction_modelling.comparison.report.answer import ANSWERING, answer_lines
from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.measures import Measure, measures_of
from instruction_modelling.comparison.report.runs import ReportedRun, finite
from instruction_modelling.comparison.report.training_data import TrainingData, recorded_shares
from instruction_modelling.statistics import (
    BOOTSTRAP_SEED,
    CONFIDENCE,
    RESAMPLES,
    mean_and_sample_sd,
    paired_difference,
)

Results = dict[str, Any]
_STATISTICS = {
    "difference": "an arm's value minus the reference arm's on the same rows, each row averaged over seeds "
    "first; negative: the arm's value is lower",
    "interval": "paired bootstrap over rows, percentile",
    "confidence": CONFIDENCE,
    "resamples": RESAMPLES,
    "seed": BOOTSTRAP_SEED,
    "sd": "sample standard deviation over seeds, null for one seed",
}
_RUN_FIELDS = (
    "options",
    "versions",
    "git_commit",
    "machine",
    "data",
    "model",
    "steps",
    "epochs",
    "examples_per_step",
    "seconds",
)


def report_results(sets: Sequence[ReportedDataSet], training_data: TrainingData) -> Results:
    """Return everything a report says in numbers."""
    return {
        "statistics": _STATISTICS,
        "datasets": {data.name: _data_set_results(data, training_data) for data in sets},
        "runs": [
            _run_results(run, data)
            for data in sets
            for run in [*(data.base.runs if data.base else []), *data.runs]
        ],
    }


def _data_set_results(data: ReportedDataSet, training_data: TrainingData) -> Results:
    measures = measures_of(run for arm in data.arms for run in arm.runs)
    # Rows first: what is compared on other rows is another comparison.
    left_out = [f"{line}." for line in training_data.left_out.get(data.name, [])]
    warnings = [f"Failed, and not in this report: {job}." for job in data.failed]
    warnings += left_out + data.warnings + _not_finite(data, measures) + _other_rows(data)
    ratio, shares = training_data.ratios.get(data.name), training_data.shares.get(data.name)
    if ratio and ratio["changed"]:
        warnings.append(
            f"The length ratio is of {ratio['file']}, which has changed since the runs were trained on it."
        )
    results = {
        "length_ratio": ratio,
        "reference": data.reference.name if data.reference else None,
        "contrast": data.contrast.name if data.contrast else None,
        "arms": {arm.name: _arm_results(arm, measures) for arm in data.arms},
        "differences": {arm.name: _differences(arm, data.reference, measures) for arm in data.compared},
        "differences_from_base": {
            arm.name: _differences(arm, data.base, measures) for arm in data.trained if data.base
        },
        "loss_shares": shares or recorded_shares(data),
        "warnings": warnings,
    }
    return {"answer": answer_lines(data, results), **results}


def _differences(arm: ReportedArm, other: ReportedArm | None, measures: Sequence[Measure]) -> Results:
    """Return an arm minus another by paired rows, by measure; None where there is nothing to pair."""
    by_row = [measure for measure in measures if measure.row_key]
    return {measure.key: _difference(arm, other, measure) if other else None for measure in by_row}


def _difference(arm: ReportedArm, other: ReportedArm, measure: Measure) -> Results | None:
    """Return one of these, with both means over the rows that are paired, and the runs that have a value that
    is no number: what they would do to the mean nobody knows."""
    difference = paired_difference(arm.rows(measure), other.rows(measure))
    if difference is None:
        return None
    means = [of.row_means(measure) for of in (arm, other)]
    values = [sum(of[row] for row in difference.by_row) / len(difference.by_row) for of in means]
    diverged = [
        f"{of.name} seed {run.seed}" if run.seed is not None else of.name
        for of in (arm, other)
        for run in of.runs
        if (value := measure.value(run)) is not None and not math.isfinite(value)
    ]
    return {**difference.as_dict(), "values": values, "not_finite": diverged}


def _other_rows(data: ReportedDataSet) -> list[str]:
    """Return a line for each run that has the test losses, or scores, of fewer rows than others: what it is
    compared with is compared on its rows alone."""
    lines = []
    for measure in (measure for measure in ANSWERING if measure.key in ("test_response_nll", "exact_match")):
        rows = {run.folder: set(measure.row_values(run)) for arm in data.arms for run in arm.runs}
        rows = {folder: of_run for folder, of_run in rows.items() if of_run}
        every = set().union(*rows.values())
        lines += [
            f"{folder}: {measure.lowered_label} is of {len(of_run)} of {len(every)} test rows; differences "
            "of its arm are on these only."
            for folder, of_run in rows.items()
            if len(of_run) < len(every)
        ]
    return lines


def _arm_results(arm: ReportedArm, measures: Sequence[Measure]) -> Results:
    results: Results = {"arm": arm.family, "seeds": arm.seeds, "runs": [str(run.folder) for run in arm.runs]}
    for measure in measures:
        values = [finite(measure.value(run)) for run in arm.runs]
        results[measure.key] = mean_and_sample_sd([value for value in values if value is not None])
    return results


def _not_finite(data: ReportedDataSet, measures: Sequence[Measure]) -> list[str]:
    """Return a line for each value that is NaN or infinite: such a run is left out of that mean."""
    warnings = []
    for run in (run for arm in data.arms for run in arm.runs):
        for measure in measures:
            value = measure.value(run)
            if value is not None and not math.isfinite(value):
                warnings.append(
                    f"{run.folder}: {measure.lowered_label} is {value}; it is left out of the mean."
                )
    return warnings


def _run_results(run: ReportedRun, data: ReportedDataSet) -> Results:
    measures = measures_of([run]) if run.finished else []
    # JSON has no NaN or infinity: an option that is one is kept as text.
    record = json.dumps({name: run.record.get(name) for name in _RUN_FIELDS})
    return {
        "folder": str(run.folder),
        "dataset": data.name,
        "arm": run.arm,
        "seed": run.seed,
        "finished": run.finished,
        "measures": {measure.key: finite(measure.value(run)) for measure in measures},
        **json.loads(record, parse_constant=str),
    }
