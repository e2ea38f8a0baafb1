"""The numbers of a report, as results.json holds them: unrounded, null for what was not measured."""

import json
import math
from collections.abc import Sequence
from typing import Any

from instruction_modelling.comparison.report.answer import answer_lines
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
    warnings = left_out + data.warnings + _not_finite(data, measures)
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
    differences = {
        measure.key: paired_difference(arm.rows(measure), other.rows(measure)) if other else None
        for measure in measures
        if measure.row_key
    }
    return {key: difference.as_dict() if difference else None for key, difference in differences.items()}


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
