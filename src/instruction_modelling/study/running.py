"""Which runs are recorded, which are to come, and running these."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from instruction_modelling.comparison.jobs import Job, waiting_jobs
from instruction_modelling.comparison.timing import expected_seconds
from instruction_modelling.decision.protocol import PROTOCOL
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json
from instruction_modelling.study.cells import PreparedCell
from instruction_modelling.study.grid import MATCHED, SEEDS
from instruction_modelling.study.records import (
    groups_of,
    keep_matches,
    keep_tuned,
    key_of,
    make_record,
    other_facts,
    read_record,
    restore_matches,
    restore_tuned,
    write_record,
)
from instruction_modelling.study.side_by_side import QueuedWork, SideBySide

_TUNED = (TUNED_REFERENCE, TUNED_TREATMENT)
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
    is_matched: bool = True
    """Whether the steps of its arms that stop where another one ends are known, where it has such arms."""

    def jobs(self, run: StudyRun) -> list[Job]:
        """Return the jobs of a run."""
        return self.cell.jobs(run.arm, run.seed)

    def seconds(self, rate: float) -> float:
        """Return what the runs to come take at so many token-passes a second."""
        runs, jobs = self.cell.runs, list[Job]()
        jobs += [] if self.is_tuned else waiting_jobs(runs.tuning_jobs())
        jobs += [] if self.is_matched else waiting_jobs(runs.matching_jobs(SEEDS))
        return expected_seconds([*jobs, *(job for run in self.to_come for job in self.jobs(run))], rate)


def plan_cell(cell: PreparedCell, results: Path, others: Others) -> CellPlan:
    """Return which runs of a cell are to come.

    All arms of a seed are of one key: where some are recorded with another one, that seed is run anew as a
    whole (`redo`), or, where it has all its arms, stays as it is (`keep`).

    Raises:
        UserError: runs are recorded with another key, and `others` is `refuse`.
    """
    key, recorded, to_come, problems = key_of(cell), 0, list[StudyRun](), list[str]()
    is_tuned = not cell.prepared.protocol.trials or restore_tuned(cell, results, key, others == "keep")
    is_matched = restore_matches(cell, results, key, others == "keep")
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
    # There may be no time for all arms: in the order of what is confirmed, then arm by arm, since an arm is
    # read once it has every seed.
    confirmed, arms = _confirmed(cell), list(cell.runs.arms())
    ranks = {BASE: -1, **{arm: len(confirmed) + at for at, arm in enumerate(arms)}}
    ranks |= {arm: confirmed.index(arm) // 2 for arm in confirmed}
    to_come.sort(key=lambda run: ranks[run.arm])
    return CellPlan(cell, key, recorded, to_come, is_tuned, is_matched)


def _confirmed(cell: PreparedCell) -> list[str]:
    """Return the arms of what a cell confirms, two by two in its order."""
    return [name for h in cell.cell.hypotheses for name in (h.reference, h.arm)]


def _groups(cell: PreparedCell) -> Iterator[list[StudyRun]]:
    """Yield the runs that must have one key: the untuned model's, and those of a seed that are compared."""
    yield [StudyRun(BASE, None)]
    not_had = cell.runs.not_reached(SEEDS)
    for seed in range(SEEDS):
        for arms in groups_of([arm for arm in cell.runs.arms() if arm not in not_had]):
            yield [StudyRun(arm, seed) for arm in arms]


def works_of(plan: CellPlan, results: Path) -> list[QueuedWork]:
    """Return the work of a plan's runs to come, in order: what is compared first, then the trials and the
    tuned arms that follow from them. Each run is recorded as it ends."""
    cell, name = plan.cell, plan.cell.cell.name
    confirmed = {BASE, *_confirmed(cell)}

    def work_of(run: StudyRun) -> QueuedWork:
        def record() -> None:
            if run.arm not in cell.runs.not_reached(SEEDS):
                write_record(results, make_record(cell, run.arm, run.seed, plan.key))

        needs = frozenset[str]()
        if run.arm in _TUNED and not plan.is_tuned:
            needs = frozenset([chosen])
        if run.arm in MATCHED and not plan.is_matched:
            needs = frozenset([_steps_name(plan)])
        jobs = _waiting_of(partial(plan.jobs, run))
        return QueuedWork(_title(plan, run), jobs, record, needs, run.arm not in confirmed)

    def choose() -> None:
        cell.runs.choose_tuned()
        keep_tuned(cell, results, plan.key)

    chosen, tuning = f"{name} settings", list[QueuedWork]()
    if not plan.is_tuned and any(run.arm in _TUNED for run in plan.to_come):
        for trial in cell.prepared.protocol.trials:
            of_trial = partial(cell.runs.jobs_of_trial, trial)
            tuning.append(QueuedWork(f"{name} {trial.name}", _waiting_of(of_trial), lambda: None))
        tuning.append(QueuedWork(chosen, list, choose, frozenset(work.name for work in tuning)))
    runs = [(run, work_of(run)) for run in plan.to_come]
    return [
        *(work for run, work in runs if run.arm not in _TUNED),
        *([] if plan.is_matched else _matching_works(plan, results)),
        *tuning,
        *(work for run, work in runs if run.arm in _TUNED),
    ]


def _title(plan: CellPlan, run: StudyRun) -> str:
    return f"{plan.cell.cell.name} {run.arm}" + ("" if run.seed is None else f" seed {run.seed}")


def _steps_name(plan: CellPlan) -> str:
    return f"{plan.cell.cell.name} steps"


def _matching_works(plan: CellPlan, results: Path) -> list[QueuedWork]:
    """Return what finds the steps of the arms that stop where another one ends: for each seed that one, and a
    trial run; then the choice."""
    cell, to_come, works = plan.cell, {_title(plan, run) for run in plan.to_come}, list[QueuedWork]()
    gone_by = {rules.stop_at.of for rules in cell.prepared.protocol.rules.values() if rules.stop_at}
    for seed in range(SEEDS):
        # Both would train into the same folder.
        needs = {_title(plan, StudyRun(arm, seed)) for arm in gone_by} & to_come
        jobs = _waiting_of(partial(cell.runs.matching_jobs_of, seed))
        seed_name = f"{_steps_name(plan)} seed {seed}"
        works.append(QueuedWork(seed_name, jobs, lambda: None, frozenset(needs), is_exploratory=True))

    def choose() -> None:
        cell.runs.choose_steps(SEEDS)
        keep_matches(cell, results, plan.key)

    of_seeds = frozenset(work.name for work in works)
    return [*works, QueuedWork(_steps_name(plan), list, choose, of_seeds, is_exploratory=True)]


def _waiting_of(jobs: Callable[[], list[Job]]) -> Callable[[], list[Job]]:
    return lambda: waiting_jobs(jobs())


def run_plans(plans: Sequence[CellPlan], results: Path, side_by_side: SideBySide) -> list[str]:
    """Run what is to come of all cells, in one queue, and record each run as it ends; return the names of
    what is left where it was stopped.

    What is confirmed comes before what is exploratory, of all cells; then a cell's work before that of the
    cells after it. What fails is left out, and `side_by_side.failed` says why.
    """
    works = list[QueuedWork]()
    for plan in (plan for plan in plans if plan.to_come):
        plan.cell.begin()
        # What the records' losses belong to, before the first of them is there.
        protocol = plan.cell.prepared.protocol.as_dict()
        write_json(results / "runs" / plan.cell.cell.name / PROTOCOL, protocol)
        works += works_of(plan, results)
    return side_by_side.run(sorted(works, key=lambda work: work.is_exploratory))
