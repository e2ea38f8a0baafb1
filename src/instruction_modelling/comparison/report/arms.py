"""Arms: the finished runs of one way to train, told apart by the options that change what is learnt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instruction_modelling.comparison.report.measures import Measure
from instruction_modelling.comparison.report.runs import BASE, ReportedRun
from instruction_modelling.errors import UserError
from instruction_modelling.statistics import row_means

# Options that do not change what is learnt: runs that differ in nothing else are seeds of one arm.
_BOOKKEEPING = frozenset(
    (
        "seed",
        "output_dir",
        "overwrite_output",
        "dry_run",
        "logging_steps",
        "with_tracking",
        "report_to",
        "checkpointing_steps",
        "save_total_limit",
        "resume_from_checkpoint",
        "lost_after",
        "eval_file",
        "eval_steps",
        "eval_kl",
        "sample_file",
        "sample_steps",
        "sample_tokens",
        "overwrite_cache",
        "preprocessing_num_workers",
        "packing",
        "max_tokens_per_device",
        "padding_side",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "train_file",
        "columns",
        "save_dtype",
        "max_bad_rows",
        "low_cpu_mem_usage",
        "gradient_checkpointing",
    )
)


@dataclass(frozen=True)
class ReportedArm:
    """The finished runs of one way to train (its seeds), or the base model. `family` is the arm that run.json
    names."""

    name: str
    family: str
    runs: list[ReportedRun]

    @property
    def is_base(self) -> bool:
        """Return whether this is the untuned model."""
        return self.family == BASE

    @property
    def seeds(self) -> list[Any]:
        """Return the seeds of the runs; none for the base model."""
        return [] if self.is_base else [run.seed for run in self.runs]

    def rows(self, measure: Measure) -> list[tuple[object, dict[int, float]]]:
        """Return (seed, value by row) of each run that has values by row."""
        pairs = [(run.seed, measure.row_values(run)) for run in self.runs]
        return [(seed, values) for seed, values in pairs if values]

    def row_means(self, measure: Measure) -> dict[int, float]:
        """Return the value by row, averaged over the seeds."""
        return row_means(self.rows(measure))


def meaningful_options(run: ReportedRun) -> dict[str, Any]:
    """Return what makes an arm what it is: the options that are set, without bookkeeping and layout, and the
    global batch."""
    # By flags or in a mixture's file.
    shares = [of_file["proportion"] for of_file in run.data.get("files", []) if "proportion" in of_file]
    options = run.options | {
        "examples_per_step": run.record.get("examples_per_step"),
        "proportions": shares or None,
    }
    return {name: value for name, value in options.items() if name not in _BOOKKEEPING and value is not None}


def option_text(value: Any) -> str:
    """Return an option's value, written out."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def differing_options(runs: Sequence[ReportedRun]) -> list[str]:
    """Return the names of the meaningful options that are not the same in all runs."""
    options = [meaningful_options(run) for run in runs]
    names = sorted({name for of_run in options for name in of_run})
    return [name for name in names if len({option_text(of_run.get(name)) for of_run in options}) > 1]


def arms_of_runs(data_set: str, runs: Sequence[ReportedRun]) -> list[ReportedArm]:
    """Return the arms of a data set's finished runs in the order of the report: IT, then IM, then IM with
    smaller weights before larger ones, then the rest by name.

    Runs of one arm that differ in an option (a learning rate, say) become arms of their own, named by it.

    Raises:
        UserError: an arm has one seed twice.
    """
    families: dict[str, list[ReportedRun]] = {}
    for run in runs:
        families.setdefault(run.arm, []).append(run)
    arms = []
    for family, members in families.items():
        varied = differing_options(members)
        variants: dict[str, list[ReportedRun]] = {}
        for run in members:
            options = meaningful_options(run)
            label = ", ".join(f"{option} {option_text(options.get(option))}" for option in varied)
            variants.setdefault(label, []).append(run)
        for label, seeds in variants.items():
            name = f"{family} ({label})" if label else family
            arms.append(ReportedArm(name, family, sorted(seeds, key=lambda run: str(run.seed))))
            _check_seeds(data_set, arms[-1])
    return sorted(arms, key=_order)


def _check_seeds(data_set: str, arm: ReportedArm) -> None:
    for before, run in zip(arm.runs, arm.runs[1:], strict=False):
        if before.seed == run.seed:
            raise UserError(
                f"{before.folder} and {run.folder}: both are {arm.name} with seed {run.seed} on {data_set}; "
                "one run would count as two seeds: leave one of them out of --runs"
            )


def _order(arm: ReportedArm) -> tuple[int, float, str]:
    if arm.family in ("IT", "IM"):
        return ("IT", "IM").index(arm.family), 0.0, arm.name
    try:
        return 2, float(arm.family.removeprefix("IM w=")), arm.name
    except ValueError:
        return 3, 0.0, arm.name


def nearest_arm(
    arms: Sequence[ReportedArm], family: str, others: Sequence[ReportedArm]
) -> ReportedArm | None:
    """Return the arm of a family; of several, the one whose options differ least from the other arms'."""

    def distance(candidate: ReportedArm) -> int:
        return sum(len(differing_options([candidate.runs[0], other.runs[0]])) for other in others)

    return min((arm for arm in arms if arm.family == family), key=distance, default=None)
