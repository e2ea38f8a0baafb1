"""Runs grouped by data set and arm, with the base model's evaluations that belong to each data set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.comparison.report.measures import Measure
from instruction_modelling.comparison.report.runs import BASE, SPLITS, Evaluation, Run
from instruction_modelling.errors import UserError
from instruction_modelling.statistics import Difference, paired_difference, row_means

# Options that do not change what is learnt: runs that differ in nothing else are seeds of one arm.
_BOOKKEEPING = frozenset(
    (
        "seed",
        "output_dir",
        "logging_steps",
        "with_tracking",
        "report_to",
        "checkpointing_steps",
        "save_total_limit",
        "resume_from_checkpoint",
        "eval_file",
        "eval_steps",
        "overwrite_cache",
        "preprocessing_num_workers",
        "packing",
        "max_tokens_per_device",
        "padding_side",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "train_file",
        "save_dtype",
        "max_bad_rows",
        "low_cpu_mem_usage",
        "gradient_checkpointing",
    )
)
_SOURCES = {"summary": "losses", "generation": "responses"}
# What must agree for two evaluations to be compared, by record.
_SETTINGS = {
    "summary": ("chat_format", "max_seq_length", "dtype"),
    "generation": ("num_rows", "max_new_tokens", "temperature", "top_p", "dtype"),
    "bleu": ("signature",),
}


@dataclass(frozen=True)
class Arm:
    """The finished runs of one way to train (its seeds), or the base model. `family` is the arm that run.json
    names."""

    name: str
    family: str
    runs: list[Run]

    @property
    def is_base(self) -> bool:
        """Whether this is the untuned model."""
        return self.family == BASE

    @property
    def seeds(self) -> list[Any]:
        """The seeds of the runs; empty for the base model."""
        return [] if self.is_base else [run.seed for run in self.runs]

    def rows(self, measure: Measure) -> list[tuple[object, dict[int, float]]]:
        """(seed, value by row) of each run that has values by row."""
        pairs = [(run.seed, measure.row_values(run)) for run in self.runs]
        return [(seed, values) for seed, values in pairs if values]

    def row_means(self, measure: Measure) -> dict[int, float]:
        """The value by row, averaged over the seeds."""
        return row_means(self.rows(measure))


@dataclass(frozen=True)
class DataSet:
    """All arms trained on one file, in the order of the report; `reference` is the arm the others are held
    against."""

    name: str
    arms: list[Arm]
    unfinished: list[Run]
    reference: Arm | None
    warnings: list[str] = field(default_factory=list)

    @property
    def base(self) -> Arm | None:
        """The untuned model, where it was measured."""
        return next((arm for arm in self.arms if arm.is_base), None)

    @property
    def trained(self) -> list[Arm]:
        """The arms without the base model."""
        return [arm for arm in self.arms if not arm.is_base]

    @property
    def runs(self) -> list[Run]:
        """Every training run, the finished ones first."""
        return [run for arm in self.trained for run in arm.runs] + self.unfinished

    @property
    def sha256(self) -> str | None:
        """The hash of the training file, where the runs recorded it."""
        return self.runs[0].data.get("sha256")

    @property
    def contrast(self) -> Arm | None:
        """The arm that answers the question: IM where there is one, else the first that is not the
        reference."""
        others = [arm for arm in self.trained if arm is not self.reference]
        return next((arm for arm in others if arm.family == "IM"), others[0] if others else None)

    def difference(self, arm: Arm, measure: Measure) -> Difference | None:
        """The arm minus the reference by paired rows, None where that cannot be had."""
        if self.reference is None or arm is self.reference:
            return None
        return paired_difference(arm.rows(measure), self.reference.rows(measure))


def group_runs(runs: Sequence[Run], bases: Sequence[Run]) -> list[DataSet]:
    """The data sets in the order their runs were given.

    Raises:
        UserError: no run finished; one arm holds a seed twice; runs of a data set were evaluated on different
        files.
    """
    if not any(run.finished for run in runs):
        raise UserError(
            "no run has finished, so there is nothing to report: "
            + ", ".join(str(run.folder) for run in runs)
            + "; go on with one: src/finetune.py "
            "--resume_from_checkpoint latest"
        )
    by_file: dict[tuple[str, Any], list[Run]] = {}
    for run in sorted(runs, key=lambda run: not run.finished):
        by_file.setdefault(_file_key(run, list(by_file)), []).append(run)
    stems = [stem for stem, _ in by_file]
    sets = []
    for (stem, digest), members in by_file.items():
        # Two files of one name are two data sets.
        name = stem if stems.count(stem) == 1 else f"{stem}@{str(digest)[:8]}"
        sets.append(_data_set(name, members, bases, only=len(by_file) == 1))
    return sets


def _file_key(run: Run, known: Sequence[tuple[str, Any]]) -> tuple[str, Any]:
    """The (name, hash) of a run's data; a run that stopped before it recorded them is named beside the
    others."""
    stem, digest = run.data_stem, run.data.get("sha256")
    if not run.finished and not run.record:
        return known[0]
    if not run.finished and digest is None:
        return next((key for key in known if key[0] == stem), (stem, None))
    return stem, digest


def _data_set(name: str, runs: Sequence[Run], bases: Sequence[Run], only: bool) -> DataSet:
    finished = [run for run in runs if run.finished]
    arms = sorted(_split_by_options(name, finished), key=_place)
    files = {
        (split, source): _evaluated_file(name, finished, split, source)
        for split in SPLITS
        for source in _SOURCES
    }
    base = _base_run(bases, files, only)
    measured = finished + ([base] if base else [])
    warnings = [
        problem for run in measured for split in SPLITS for problem in run.evaluations[split].problems
    ]
    warnings += _setting_warnings(measured)
    for split in SPLITS:
        expected = any(files[split, source] for source in _SOURCES)
        if bases and expected and (base is None or base.evaluations[split].is_empty):
            warnings.append(
                f"The base model's {split} evaluation is missing: no --base folder was evaluated on the file "
                "that the runs were."
            )
    for run in (run for run in runs if not run.finished):
        seed = "" if run.seed is None else f", seed {run.seed}"
        warnings.append(f"Left out, because it did not finish: {run.folder} ({run.arm}{seed}).")
    unfinished = [run for run in runs if not run.finished]
    return DataSet(
        name, ([Arm(BASE, BASE, [base])] if base else []) + arms, unfinished, _reference(arms), warnings
    )


def meaningful_options(run: Run) -> dict[str, Any]:
    """What makes an arm what it is: the options that are set, bookkeeping and layout aside, and the global
    batch."""
    options = run.options | {"examples_per_step": run.record.get("examples_per_step")}
    return {name: value for name, value in options.items() if name not in _BOOKKEEPING and value is not None}


def option_text(value: Any) -> str:
    """An option's value, written out."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def differing_options(runs: Sequence[Run]) -> list[str]:
    """Names of the meaningful options that are not the same in all runs."""
    options = [meaningful_options(run) for run in runs]
    names = sorted({name for given in options for name in given})
    return [name for name in names if len({option_text(given.get(name)) for given in options}) > 1]


def _split_by_options(name: str, runs: Sequence[Run]) -> list[Arm]:
    """Runs of one arm that differ in an option (a learning rate, say) become arms of their own, named by
    it."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(run.arm, []).append(run)
    arms = []
    for family, members in families.items():
        varied = differing_options(members)
        variants: dict[str, list[Run]] = {}
        for run in members:
            options = meaningful_options(run)
            label = ", ".join(f"{option} {option_text(options.get(option))}" for option in varied)
            variants.setdefault(label, []).append(run)
        for label, seeds in variants.items():
            arm = Arm(
                f"{family} ({label})" if label else family,
                family,
                sorted(seeds, key=lambda run: str(run.seed)),
            )
            _check_seeds(name, arm)
            arms.append(arm)
    return arms


def _check_seeds(name: str, arm: Arm) -> None:
    for before, run in zip(arm.runs, arm.runs[1:], strict=False):
        if before.seed == run.seed:
            raise UserError(
                f"{before.folder} and {run.folder}: both are {arm.name} with seed {run.seed} on {name}; one "
                "run would count as two seeds: leave one of them out of --runs"
            )


def _place(arm: Arm) -> tuple[int, float, str]:
    """IT, then IM, then IM with smaller weights before larger ones, then the rest by name."""
    if arm.family in ("IT", "IM"):
        return ("IT", "IM").index(arm.family), 0.0, arm.name
    try:
        return 2, float(arm.family.removeprefix("IM w=")), arm.name
    except ValueError:
        return 3, 0.0, arm.name


def _reference(arms: Sequence[Arm]) -> Arm | None:
    """The IT arm; of several, the one whose options differ least from the other arms'."""
    candidates = [arm for arm in arms if arm.family == "IT"]
    others = [arm for arm in arms if arm.family != "IT"]

    def distance(candidate: Arm) -> int:
        return sum(len(differing_options([candidate.runs[0], other.runs[0]])) for other in others)

    return min(candidates, key=distance, default=None)


def _evaluated_file(name: str, runs: Sequence[Run], split: str, source: str) -> str | None:
    """The file that the runs' losses or responses of a split were made from; None where none were made."""
    found: dict[str, Path] = {}
    for run in runs:
        evaluation = run.evaluations[split]
        measured = evaluation.measured_file(source)
        if measured:
            found.setdefault(measured, evaluation.folder)
    if len(found) > 1:
        places = "; ".join(f"{folder}: {measured[:12]}" for measured, folder in found.items())
        raise UserError(
            f"the {split} {_SOURCES[source]} of the runs on {name} come from different files, so they cannot "
            f"be compared ({places}); evaluate all of them on one file"
        )
    return next(iter(found), None)


def _base_run(bases: Sequence[Run], files: dict[tuple[str, str], str | None], only: bool) -> Run | None:
    """The base model's evaluations that were made on the runs' files; a folder may serve more than one data
    set."""
    chosen: dict[str, Evaluation] = {}
    for base in bases:
        for split, evaluation in base.evaluations.items():
            pairs = [(evaluation.measured_file(source), files[split, source]) for source in _SOURCES]
            known = [(ours, theirs) for ours, theirs in pairs if ours and theirs]
            if evaluation.is_empty or split in chosen:
                continue
            if all(a == b for a, b in known) if known else only:
                chosen[split] = evaluation
    if not chosen:
        return None
    folder = next(iter(chosen.values())).folder.parent.parent
    empty = {split: Evaluation(folder / "eval" / split) for split in SPLITS}
    return Run(folder, BASE, finished=True, evaluations=empty | chosen)


def _setting_warnings(runs: Sequence[Run]) -> list[str]:
    """A line for each evaluation setting that is not the same in all runs."""
    warnings = []
    for split in SPLITS:
        for source, names in _SETTINGS.items():
            records = [(run, getattr(run.evaluations[split], source)) for run in runs]
            for name in names:
                values = {
                    json.dumps(record[name]): run.folder
                    for run, record in records
                    if record and name in record
                }
                if len(values) > 1:
                    shown = ", ".join(f"{value} ({folder})" for value, folder in values.items())
                    warnings.append(
                        f"The runs' {split} evaluations differ in {name}: {shown}; "
                        "compare their values with care."
                    )
    return warnings
