"""Which runs are recorded, which are to come, and running these."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instruction_modelling.comparison.jobs import Job, Started, run_job, waiting_jobs
from instruction_modelling.comparison.timing import expected_seconds
from instruction_modelling.comparison.warm_start import WarmProcess
from instruction_modelling.decision.protocol import PROTOCOL
from instruction_modelling.decision.runs import BASE
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import TimeRange
from instruction_modelling.study.cells import PreparedCell
from instruction_modelling.study.grid import SEEDS
from instruction_modelling.study.records import (
    groups_of,
    keep_tuned,
    key_of,
    make_record,
    other_facts,
    read_record,
    restore_tuned,
    write_record,
)

logger = logging.getLogger(__name__)
Others = Literal["refuse", "keep", "redo"]


@dataclass(frozen=True)
class StudyRun:
    """An arm and a seed; None is the untuned model's."""

    arm: str
    seed: int | None


@dataclass(frozen=True)
class CellPlan:
    """A cell, the key of its runs, and which of them are to come."""

    cell: PreparedCell
    key: dict[str, Any]
    recorded: int
    to_come: list[StudyRun]
    is_tuned: bool = True
    """Whether the settings of its tuned arms are known, where it has such arms."""

    def jobs(self, run: StudyRun) -> list[Job]:
        """Return the jobs of a run."""
        return self.cell.jobs(run.arm, run.seed)

    def seconds(self, rate: float) -> float:
        """Return what the runs to come take at so many token-passes a second."""
        tuning = [] if self.is_tuned else waiting_jobs(self.cell.runs.tuning_jobs())
        return expected_seconds([*tuning, *(job for run in self.to_come for job in self.jobs(run))], rate)


def plan_cell(cell: PreparedCell, results: Path, others: Others) -> CellPlan:
    """Return which runs of a cell are to come.

    All arms of a seed are of one key: where some are recorded with another one, that seed is run anew as a
    whole (`redo`), or, where it has all its arms, stays as it is (`keep`).

    Raises:
        UserError: runs are recorded with another key, and `others` is `refuse`.
    """
    key, recorded, to_come, problems = key_of(cell), 0, list[StudyRun](), list[str]()
    is_tuned = not cell.prepared.protocol.trials or restore_tuned(cell, results, key, others == "keep")
    flags = {BASE: "", **{arm: " ".join(of_arm) for arm, of_arm in cell.runs.arms().items()}}
    for group in _groups(cell):
        found = {run: read_record(results, cell.cell.name, run.arm, run.seed) for run in group}
        other = {
            run: differs
            for run, record in found.items()
            if record and (differs := other_facts(record, key, flags[run.arm]))
        }
        missing = [run for run, record in found.items() if record is None]
        if not other:
            to_come += missing
            recorded += len(group) - len(missing)
        elif others == "keep" and not missing and len({str(r.key) for r in found.values() if r}) == 1:
            recorded += len(group)
        else:
            to_come += group
            problems += [f"{run.arm} seed {run.seed}: another {', '.join(of)}" for run, of in other.items()]
    if problems and others == "refuse":
        raise UserError(
            f"{cell.cell.name}: {len(problems)} runs are recorded that something else made:\n"
            + "\n".join(f"  - {problem}" for problem in problems[:5])
            + "\nGive --other_keys keep (seeds that are whole stay) or --other_keys redo (all are run anew)"
        )
    # In the order of what is confirmed, where there may be no time for all arms.
    order = [name for h in cell.cell.hypotheses for name in (h.reference, h.arm)]
    ranks = {BASE: -1, **{arm: order.index(arm) // 2 for arm in order}}
    to_come.sort(key=lambda run: ranks.get(run.arm, len(order)))
    return CellPlan(cell, key, recorded, to_come, is_tuned)


def _groups(cell: PreparedCell) -> Iterator[list[StudyRun]]:
    """Yield the runs that must have one key: the untuned model's, and those of a seed that are compared."""
    yield [StudyRun(BASE, None)]
    for seed in range(SEEDS):
        for arms in groups_of(list(cell.runs.arms())):
            yield [StudyRun(arm, seed) for arm in arms]


def run_cell(
    plan: CellPlan, results: Path, stop: StopSignals, start: Callable[..., Started] = WarmProcess
) -> None:
    """Run what is to come of a cell, seed by seed, and record each run as it ends; returns early when `stop`
    has received a signal.

    Raises:
        UserError: a job failed; what is recorded stays.
    """
    if not plan.to_come:
        return
    name, begin = plan.cell.cell.name, time.monotonic()
    plan.cell.begin()
    # What the records' losses belong to, before the first of them is there.
    write_json(results / "runs" / name / PROTOCOL, plan.cell.prepared.protocol.as_dict())
    if not plan.is_tuned:
        _do(waiting_jobs(plan.cell.runs.tuning_jobs()), name, stop, start)
        if stop.received:
            return
        plan.cell.runs.choose_tuned()
        keep_tuned(plan.cell, results, plan.key)
    for number, run in enumerate(plan.to_come, start=1):
        _do(waiting_jobs(plan.jobs(run)), name, stop, start)
        if stop.received:
            return
        write_record(results, make_record(plan.cell, run.arm, run.seed, plan.key))
        left = (time.monotonic() - begin) / number * (len(plan.to_come) - number)
        logger.info(
            "%s: %d of %d: %s seed %s is recorded; about %s left of this cell",
            *(name, number, len(plan.to_come), run.arm, run.seed, TimeRange.around(left)),
        )


def _do(jobs: Sequence[Job], cell: str, stop: StopSignals, start: Callable[..., Started]) -> None:
    """Do jobs in order until `stop` has received a signal.

    Raises:
        UserError: one failed.
    """
    for job in jobs:
        code = run_job(job, stop, start)
        if stop.received:
            return
        if code:
            raise UserError(f"{cell}: {job.name}: failed with exit code {code}; see above")
        job.mark_done()
