"""What a report says of the training data: the length ratio, and the span kinds that the loss falls on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.words import counting_note, row_lengths, word_statistics
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.runs import finite, read_json
from instruction_modelling.comparison.row_counts import left_out_lines
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.mixture import row_files

# Share of the loss by arm and span kind, from 0 to 1.
Shares = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TrainingData:
    """What is known of the training data besides the runs' own records, by the name of the data set."""

    ratios: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Length ratios (`length_ratios`)."""
    shares: Mapping[str, Shares] = field(default_factory=dict)
    """The inspector's shares of the loss; of a data set that has none here, those that its runs recorded
    count."""
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    """Sentences on rows that no arm was trained on (`rows_left_out`)."""


def file_length_ratio(path: Path) -> dict[str, Any]:
    """Return the words of a training file as the paper's Table 5 counts them (`rows.words`): instruction
    against response, means and population SDs over usable rows, and the ratio of the two means (None without
    responses).

    Raises:
        UserError: the file cannot be read, or none of its rows can be used.
    """
    file = read_conversations(row_files([str(path)]))
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
        "counting": counting_note(words),
    }


def length_ratios(paths: Sequence[Path], sets: Sequence[ReportedDataSet]) -> dict[str, dict[str, Any]]:
    """Return the length ratio of each training file, by the data set it belongs to: the same bytes, else the
    same name (then `changed` is true).

    Raises:
        UserError: a file belongs to none of the data sets.
    """
    ratios: dict[str, dict[str, Any]] = {}
    for path in paths:
        ratio = file_length_ratio(path)
        same_bytes = [data for data in sets if data.sha256 == ratio["sha256"]]
        same_name = [data for data in sets if data.runs[0].data_stem == path.stem]
        if not same_bytes and not same_name:
            files = ", ".join(str(data.runs[0].data.get("path") or data.name) for data in sets)
            raise UserError(
                f"{path}: no run was trained on this file (--train_file); the runs' files are: {files}"
            )
        for data in same_bytes or same_name:
            ratios[data.name] = ratio | {"changed": not same_bytes and data.sha256 is not None}
    return ratios


def rows_left_out(paths: Sequence[Path], sets: Sequence[ReportedDataSet]) -> dict[str, list[str]]:
    """Return what src/compare.py left out of every arm, in sentences, by the data set it belongs to: the one
    that was trained on the file that is named there.

    Raises:
        UserError: a file is missing, or no data set was trained on its rows.
    """
    lines: dict[str, list[str]] = {}
    for path in paths:
        record = read_json(path)
        counts = (record or {}).get("train")
        if not isinstance(counts, dict):
            raise UserError(f"{path}: is not what src/compare.py writes of its rows (--rows_json)")
        names = [data.name for data in sets if data.sha256 == counts.get("sha256")]
        if not names:
            raise UserError(f"{path}: no run was trained on the rows it names (--rows_json)")
        parts = {
            part: record[part] for part in ("train", "test") if record and _has_own_rows(record.get(part))
        }
        lines |= dict.fromkeys(names, left_out_lines(parts))
    return lines


def _has_own_rows(counts: Any) -> bool:
    """Return whether a part has a file of its own: what was held out of another is counted there."""
    return isinstance(counts, dict) and not counts.get("held_out_of_train")


def recorded_shares(data: ReportedDataSet) -> Shares:
    """Return the shares of the loss that the run.json of each arm's first run holds; arms without any are
    left out."""
    shares: Shares = {}
    for arm in data.trained:
        kinds = arm.runs[0].data.get("by_kind") or {}
        of_kind = {kind: finite((counts or {}).get("loss_share")) for kind, counts in kinds.items()}
        if any(of_kind.values()):
            shares[arm.name] = {kind: share or 0.0 for kind, share in of_kind.items()}
    return shares


def read_loss_shares(path: Path) -> tuple[str | None, Shares]:
    """Return the hash of the inspected file, and the shares of the loss, from a summary of
    src/inspect_weights.py.

    Raises:
        UserError: the file is missing, has no arms, or an arm's shares are not shares of one whole.
    """
    summary = read_json(path)
    if summary is None:
        raise UserError(f"{path}: there is no such file; check --weights_json")
    arms = summary.get("arms")
    if not isinstance(arms, dict) or not arms or not all(isinstance(kinds, dict) for kinds in arms.values()):
        raise UserError(f'{path}: needs "arms": {{"IT": {{span kind: share of the loss}}, ...}}')
    return summary.get("sha256"), {name: _checked_shares(path, name, kinds) for name, kinds in arms.items()}


def _checked_shares(path: Path, arm: str, kinds: dict[str, Any]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for kind, value in kinds.items():
        share = finite(value)
        if share is None or share < 0:
            raise UserError(
                f"{path}: the share of {kind!r} in arm {arm!r} is {value!r}; a share is a number from 0 to 1"
            )
        shares[kind] = share
    total = sum(shares.values())
    if abs(total - 1) > 0.01:
        raise UserError(f"{path}: the shares of arm {arm!r} add up to {total:.3g}; they must add up to 1")
    return shares


def given_shares(paths: Sequence[Path], sets: Sequence[ReportedDataSet]) -> dict[str, Shares]:
    """Return the inspector's shares of the loss by the data set they belong to; a summary without a hash
    belongs to the only one.

    Raises:
        UserError: a summary belongs to none of the data sets.
    """
    by_name: dict[str, Shares] = {}
    for path in paths:
        sha256, shares = read_loss_shares(path)
        names = [data.name for data in sets if (len(sets) == 1 if sha256 is None else data.sha256 == sha256)]
        if not names:
            raise UserError(
                f"{path}: it is not clear to which runs these shares belong (--weights_json): its sha256 is "
                "not that of a file that a run was trained on; inspect the training file again"
            )
        by_name |= dict.fromkeys(names, shares)
    return by_name
