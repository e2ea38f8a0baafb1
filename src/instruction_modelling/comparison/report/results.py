"""The numbers of a report, as results.json holds them: unrounded, null for what was not measured."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.words import row_lengths, word_statistics
from instruction_modelling.comparison.report.groups import Arm, DataSet
from instruction_modelling.comparison.report.measures import Measure, measures_of
from instruction_modelling.comparison.report.runs import Run, finite, read_json
from instruction_modelling.comparison.report.words import lowered
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES, mean_and_sd

Results = dict[str, Any]
Shares = dict[str, dict[str, float]]


def report_results(
    title: str,
    note: str | None,
    command: str,
    sets: Sequence[DataSet],
    ratios: Mapping[str, Results],
    shares: Mapping[str, Shares],
) -> Results:
    """Everything a report says in numbers; `ratios` and `shares` are the length ratios and the inspector's
    shares of the loss by data set name (shares of others are what the runs recorded)."""
    return {
        "title": title,
        "note": note,
        "command": command,
        "statistics": {
            "difference": "an arm's value minus the reference arm's on the same rows, each row averaged over "
            "seeds first; "
            "negative: the arm's value is lower",
            "interval": "paired bootstrap over rows, percentile",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": BOOTSTRAP_SEED,
            "sd": "sample standard deviation over seeds, null for one seed",
        },
        "datasets": {
            data.name: _data_set_results(data, ratios.get(data.name), shares.get(data.name)) for data in sets
        },
        "runs": [
            _run_results(run, data)
            for data in sets
            for run in [*(data.base.runs if data.base else []), *data.runs]
        ],
    }


def _data_set_results(data: DataSet, ratio: Results | None, shares: Shares | None) -> Results:
    measures = measures_of(run for arm in data.arms for run in arm.runs)
    differences = {}
    for arm in data.arms:
        if arm is not data.reference:
            found = {measure.key: data.difference(arm, measure) for measure in measures if measure.row_key}
            differences[arm.name] = {key: known.as_dict() if known else None for key, known in found.items()}
    arms = {arm.name: _arm_results(arm) | _stats(arm, measures) for arm in data.arms}
    warnings = data.warnings + _not_finite(data, measures)
    if ratio and ratio["changed"]:
        warnings.append(
            f"The length ratio is of {ratio['file']}, which has changed since the runs were trained on it."
        )
    return {
        "length_ratio": ratio,
        "reference": data.reference.name if data.reference else None,
        "contrast": data.contrast.name if data.contrast else None,
        "arms": arms,
        "differences": differences,
        "loss_shares": shares or recorded_shares(data),
        "warnings": warnings,
    }


def _arm_results(arm: Arm) -> Results:
    return {"arm": arm.family, "seeds": arm.seeds, "runs": [str(run.folder) for run in arm.runs]}


def _stats(arm: Arm, measures: Sequence[Measure]) -> Results:
    stats = {}
    for measure in measures:
        values = [measure.value(run) for run in arm.runs]
        stats[measure.key] = mean_and_sd(
            [value for value in values if value is not None and math.isfinite(value)]
        )
    return stats


def _not_finite(data: DataSet, measures: Sequence[Measure]) -> list[str]:
    """A line for each value that is NaN or infinite: such a run is left out of that mean."""
    warnings = []
    for run in (run for arm in data.arms for run in arm.runs):
        for measure in measures:
            value = measure.value(run)
            if value is not None and not math.isfinite(value):
                warnings.append(
                    f"{run.folder}: {lowered(measure.label)} is {value}; it is left out of the mean."
                )
    return warnings


def _run_results(run: Run, data: DataSet) -> Results:
    values = (
        {measure.key: finite(measure.value(run)) for measure in measures_of([run])} if run.finished else {}
    )
    # JSON has no NaN or infinity: an option that is one is kept as text.
    kept = {
        name: run.record.get(name)
        for name in (
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
    }
    return {
        "folder": str(run.folder),
        "dataset": data.name,
        "arm": run.arm,
        "seed": run.seed,
        "finished": run.finished,
        "measures": values,
        **json.loads(json.dumps(kept), parse_constant=str),
    }


def recorded_shares(data: DataSet) -> Shares:
    """Share of the loss by arm and span kind, from the run.json of each arm's first run; arms that say
    nothing are left out."""
    shares: Shares = {}
    for arm in data.trained:
        kinds = arm.runs[0].data.get("by_kind") or {}
        known = {kind: finite((counts or {}).get("loss_share")) for kind, counts in kinds.items()}
        if any(known.values()):
            shares[arm.name] = {kind: share or 0.0 for kind, share in known.items()}
    return shares


def read_loss_shares(path: Path) -> tuple[str | None, Shares]:
    """The hash of the inspected file, and the share of the loss by arm and span kind, from the inspector's
    summary.

    Raises:
        UserError: the file is missing, has no arms, or an arm's shares are not shares of one whole.
    """
    summary = read_json(path)
    if summary is None:
        raise UserError(f"{path}: there is no such file; check --weights_json")
    arms = summary.get("arms")
    if not isinstance(arms, dict) or not arms or not all(isinstance(kinds, dict) for kinds in arms.values()):
        raise UserError(f'{path}: needs "arms": {{"IT": {{span kind: share of the loss}}, ...}}')
    shares: Shares = {}
    for name, kinds in arms.items():
        known = {kind: finite(share) for kind, share in kinds.items()}
        wrong = [kind for kind, share in known.items() if share is None or share < 0]
        if wrong:
            raise UserError(
                f"{path}: the share of {wrong[0]!r} in arm {name!r} is {kinds[wrong[0]]!r}; a share is a "
                "number from 0 to 1"
            )
        shares[name] = {kind: share or 0.0 for kind, share in known.items()}
        total = sum(shares[name].values())
        if abs(total - 1) > 0.01:
            raise UserError(
                f"{path}: the shares of arm {name!r} add up to {total:.3g}; they must add up to 1"
            )
    return summary.get("sha256"), shares


def given_shares(paths: Sequence[Path], sets: Sequence[DataSet]) -> dict[str, Shares]:
    """The inspector's shares of the loss by the data set they belong to; a summary without a hash belongs to
    the only one.

    Raises:
        UserError: a summary belongs to none of the data sets.
    """
    by_name: dict[str, Shares] = {}
    for path in paths:
        digest, shares = read_loss_shares(path)
        names = [data.name for data in sets if (len(sets) == 1 if digest is None else data.sha256 == digest)]
        if not names:
            raise UserError(
                f"{path}: it is not clear to which runs these shares belong (--weights_json): its sha256 is "
                "not that of a file that a run was trained on; inspect the training file again"
            )
        by_name |= dict.fromkeys(names, shares)
    return by_name


def length_ratio(path: Path) -> Results:
    """Return the words of a training file as the paper's Table 5 counts them (`rows.words`): instruction against
    response, means and population SDs over usable rows, and the ratio of the two means (None without responses).

    Raises:
        UserError: the file cannot be read, or none of its rows can be used.
    """
    file = read_conversations(path)
    if not file.conversations:
        raise UserError(f"{path}: none of its {file.rows} rows can be used; is this the training file?")
    words = word_statistics(row_lengths(file.conversations))
    return {
        "file": str(path),
        "sha256": file.sha256,
        "rows": len(file.conversations),
        "bad_rows": len(file.bad_rows),
        "instruction_words": {"mean": words["instruction"], "sd": words["instruction_sd"]},
        "response_words": {"mean": words["output"], "sd": words["output_sd"]},
        "ratio": words["instruction_to_output"],
    }


def length_ratios(paths: Sequence[Path], sets: Sequence[DataSet]) -> dict[str, Results]:
    """The length ratio of each training file, by the data set it belongs to: the same bytes, else the same
    name (then `changed` is true).

    Raises:
        UserError: a file belongs to none of the data sets.
    """
    ratios: dict[str, Results] = {}
    for path in paths:
        ratio = length_ratio(path)
        same = [data for data in sets if data.sha256 == ratio["sha256"]]
        named = [data for data in sets if data.runs[0].data_stem == path.stem]
        if not same and not named:
            known = ", ".join(str(data.runs[0].data.get("path") or data.name) for data in sets)
            raise UserError(
                f"{path}: no run was trained on this file (--train_file); the runs' files are: {known}"
            )
        for data in same or named:
            ratios[data.name] = ratio | {"changed": not same and data.sha256 is not None}
    return ratios
