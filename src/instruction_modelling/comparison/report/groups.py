"""Runs grouped by data set and arm, with the base model's evaluations that belong to each data set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from instruction_modelling.comparison.report.arms import ReportedArm, arms_of_runs, nearest_arm
from instruction_modelling.comparison.report.runs import BASE, SPLITS, ReportedRun, SplitEvaluation
from instruction_modelling.errors import UserError
from instruction_modelling.generation.faults import count_faults, fault_warnings
from instruction_modelling.generation.responses import response_from

# What a record of an evaluation is about: the record's name, and the word for what was measured.
_SOURCES = {"summary": "losses", "generation": "responses"}
# What must agree for two evaluations to be compared, by record.
_COMPARED_SETTINGS = {
    "summary": ("chat_format", "max_seq_length", "dtype"),
    "generation": ("num_rows", "max_new_tokens", "temperature", "top_p", "dtype"),
    "bleu": ("signature",),
}
# The file (its hash, else its path) that a split's losses or responses were made from; None where none were
# made.
EvaluatedFiles = dict[tuple[str, str], str | None]


@dataclass(frozen=True)
class ReportedDataSet:
    """All arms trained on one file, in the order of the report; `reference` is the arm the others are held
    against."""

    name: str
    arms: list[ReportedArm]
    unfinished: list[ReportedRun]
    reference: ReportedArm | None
    warnings: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Jobs of the comparison that failed."""

    @property
    def base(self) -> ReportedArm | None:
        """Return the untuned model, where it was measured."""
        return next((arm for arm in self.arms if arm.is_base), None)

    @property
    def trained(self) -> list[ReportedArm]:
        """Return the arms without the base model."""
        return [arm for arm in self.arms if not arm.is_base]

    @property
    def compared(self) -> list[ReportedArm]:
        """Return the arms that are held against the reference: all but the reference itself."""
        return [arm for arm in self.arms if arm is not self.reference]

    @property
    def runs(self) -> list[ReportedRun]:
        """Return every training run, the finished ones first."""
        return [run for arm in self.trained for run in arm.runs] + self.unfinished

    @property
    def sha256(self) -> str | None:
        """Return the hash of the training file, where the runs recorded it."""
        return self.runs[0].data.get("sha256")

    @property
    def contrast(self) -> ReportedArm | None:
        """Return the arm that answers the question: IM where there is one (of several, the one whose options
        differ least from the reference's), else the first that is not the reference."""
        others = [arm for arm in self.trained if arm is not self.reference]
        return self.instruction_arm or next(iter(others), None)

    @property
    def instruction_arm(self) -> ReportedArm | None:
        """Return IM; of several, the one whose options differ least from the reference's."""
        others = [arm for arm in self.trained if arm is not self.reference]
        return nearest_arm(others, "IM", [self.reference] if self.reference else [])


def group_runs(
    runs: Sequence[ReportedRun], bases: Sequence[ReportedRun], failed: Sequence[str] = ()
) -> list[ReportedDataSet]:
    """Return the data sets in the order their runs were given.

    Args:
        failed: jobs that failed; each set has all of them.

    Raises:
        UserError: no run finished; one arm holds a seed twice; runs of a data set were evaluated on different
            files.
    """
    if not any(run.finished for run in runs):
        raise UserError(
            "no run has finished, so there is nothing to report: "
            + ", ".join(str(run.folder) for run in runs)
            + "; go on with one: src/finetune.py --resume_from_checkpoint latest"
        )
    by_file: dict[tuple[str, Any], list[ReportedRun]] = {}
    for run in sorted(runs, key=lambda run: not run.finished):
        by_file.setdefault(_file_key(run, list(by_file)), []).append(run)
    stems = [stem for stem, _ in by_file]
    sets = []
    for (stem, sha256), members in by_file.items():
        # Two files of one name are two data sets.
        name = stem if stems.count(stem) == 1 else f"{stem}@{str(sha256)[:8]}"
        sets.append(replace(_data_set(name, members, bases, len(by_file) == 1), failed=[*failed]))
    return sets


def _file_key(run: ReportedRun, earlier_keys: Sequence[tuple[str, Any]]) -> tuple[str, Any]:
    """Return the (name, hash) of a run's data; a run that stopped before it recorded them joins the
    others."""
    stem, sha256 = run.data_stem, run.data.get("sha256")
    if not run.finished and not run.record:
        return earlier_keys[0]
    if not run.finished and sha256 is None:
        return next((key for key in earlier_keys if key[0] == stem), (stem, None))
    return stem, sha256


def _data_set(
    name: str, runs: Sequence[ReportedRun], bases: Sequence[ReportedRun], is_only_one: bool
) -> ReportedDataSet:
    finished = [run for run in runs if run.finished]
    unfinished = [run for run in runs if not run.finished]
    arms = arms_of_runs(name, finished)
    files: EvaluatedFiles = {
        (split, source): _evaluated_file(name, finished, split, source)
        for split in SPLITS
        for source in _SOURCES
    }
    base = _base_run(bases, files, is_only_one)
    measured = finished + ([base] if base else [])
    warnings = [
        *row_warnings(arms),
        *(problem for run in measured for split in SPLITS for problem in run.evaluations[split].problems),
        *_setting_warnings(measured),
        *_fault_warnings(finished),
        *(_missing_base_warnings(base, files) if bases else []),
    ]
    for run in unfinished:
        seed = "" if run.seed is None else f", seed {run.seed}"
        warnings.append(f"Left out, because it did not finish: {run.folder} ({run.arm}{seed}).")
    base_arms = [ReportedArm(BASE, BASE, [base])] if base else []
    reference = nearest_arm(arms, "IT", [arm for arm in arms if arm.family != "IT"])
    return ReportedDataSet(name, base_arms + arms, unfinished, reference, warnings)


def _fault_warnings(measured: Sequence[ReportedRun]) -> Iterator[str]:
    """Yield what is plainly wrong with the test answers of a run, and how often it is with the references."""
    for run in measured:
        rows = run.evaluations["test"].responses
        if rows:
            seed = "" if run.seed is None else f", seed {run.seed}"
            counts = count_faults([response_from(row, number) for number, row in rows.items()])
            yield from fault_warnings(counts, f"Test answers of {run.arm}{seed}")


def _evaluated_file(name: str, runs: Sequence[ReportedRun], split: str, source: str) -> str | None:
    """Return the file that the runs' losses or responses of a split were made from; None where none were
    made."""
    folder_of_file: dict[str, Path] = {}
    for run in runs:
        evaluation = run.evaluations[split]
        file = evaluation.measured_file(source)
        if file:
            folder_of_file.setdefault(file, evaluation.folder)
    if len(folder_of_file) > 1:
        files = "; ".join(f"{folder}: {file[:12]}" for file, folder in folder_of_file.items())
        raise UserError(
            f"the {split} {_SOURCES[source]} of the runs on {name} come from different files, so they cannot "
            f"be compared ({files}); evaluate all of them on one file"
        )
    return next(iter(folder_of_file), None)


def _base_run(bases: Sequence[ReportedRun], files: EvaluatedFiles, is_only_one: bool) -> ReportedRun | None:
    """Return the base model's evaluations that were made on the runs' files; a folder may serve several data
    sets.

    Evaluations of unknown files belong to the data set only where it is the only one.
    """
    chosen: dict[str, SplitEvaluation] = {}
    for base in bases:
        for split, evaluation in base.evaluations.items():
            if evaluation.is_empty or split in chosen:
                continue
            pairs = [(evaluation.measured_file(source), files[split, source]) for source in _SOURCES]
            matches = [base_file == run_file for base_file, run_file in pairs if base_file and run_file]
            if all(matches) if matches else is_only_one:
                chosen[split] = evaluation
    if not chosen:
        return None
    folder = next(iter(chosen.values())).folder.parent.parent
    empty = {split: SplitEvaluation(folder / "eval" / split) for split in SPLITS}
    return ReportedRun(folder, BASE, finished=True, evaluations=empty | chosen)


def _missing_base_warnings(base: ReportedRun | None, files: EvaluatedFiles) -> Iterator[str]:
    """Yield a line for each split that the runs were evaluated on and the base model was not."""
    for split in SPLITS:
        is_measured = any(files[split, source] for source in _SOURCES)
        if is_measured and (base is None or base.evaluations[split].is_empty):
            yield (
                f"The base model's {split} evaluation is missing: no --base folder was evaluated on the file "
                "that the runs were."
            )


def row_warnings(arms: Sequence[ReportedArm]) -> Iterator[str]:
    """Yield a line where the arms were trained on different numbers of rows: then they differ in more than
    their loss."""
    used = {arm.name: run.data.get("used") for arm in arms for run in arm.runs}
    if len(set(used.values()) - {None}) > 1:
        shown = ", ".join(f"{name} on {count}" for name, count in used.items())
        yield (
            f"The arms were not trained on the same rows ({shown}): what they differ in may be the rows and "
            "the steps, not the loss. src/compare.py trains all arms on the rows with a response."
        )


def _setting(run: ReportedRun, record: Mapping[str, Any], name: str) -> Any:
    """Return a setting of an evaluation; of a model that was tuned in a chat format that was named, which is
    its own from then on, that name."""
    trained_in = run.options.get("chat_format")
    is_its_own = name == "chat_format" and record[name] in ("auto", "tokenizer")
    return trained_in if is_its_own and trained_in not in (None, "auto") else record[name]


def _setting_warnings(runs: Sequence[ReportedRun]) -> Iterator[str]:
    """Yield a line for each evaluation setting that is not the same in all runs."""
    settings = [
        (split, source, name)
        for split in SPLITS
        for source, names in _COMPARED_SETTINGS.items()
        for name in names
    ]
    for split, source, name in settings:
        records = [(run, getattr(run.evaluations[split], source)) for run in runs]
        folder_of_value = {
            json.dumps(_setting(run, record, name)): run.folder
            for run, record in records
            if record and name in record
        }
        if len(folder_of_value) > 1:
            shown = ", ".join(f"{value} ({folder})" for value, folder in folder_of_value.items())
            yield f"The runs' {split} evaluations differ in {name}: {shown}; compare their values with care."
