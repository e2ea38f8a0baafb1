"""What is printed before the study runs: its grid, what it can decide, and what it takes."""

from collections.abc import Sequence

from instruction_modelling.comparison import timing
from instruction_modelling.decision.answer import EXPECTED_VARIANCES
from instruction_modelling.decision.crossed import expected_half_width
from instruction_modelling.progress import counted
from instruction_modelling.study.grid import GRID, MARGIN, SEEDS, StudyCell, confidence, family_size
from instruction_modelling.study.options import StudyOptions
from instruction_modelling.study.running import CellPlan


def grid_lines(cells: Sequence[StudyCell]) -> list[str]:
    """Return what is asked, in lines."""
    lines = [
        f"The study: {counted(len(GRID), 'cell')}, {SEEDS} seeds, each with training rows of its own; "
        f"{family_size()} comparisons are confirmed, each with an interval of {confidence():.2%} so that all "
        f"hold together with 95%; what matters is {MARGIN:g} nats a response token. The runs of a cell are "
        "read once, when all are there."
    ]
    for cell in cells:
        ratio = f"instruction/response words {cell.least_ratio:g} to {cell.below_ratio:g}"
        confirmed = ", ".join(f"{h.name}: {h.arm} against {h.reference}" for h in cell.hypotheses)
        confirmed = confirmed or "exploratory"
        size = f"{cell.train_rows} training rows, {cell.all_steps} steps"
        lines.append(
            f"  {cell.name}: {cell.corpus}, rows of at most {cell.max_tokens} tokens, {ratio}; {size}; "
            f"arms {', '.join(cell.arms)}; {confirmed}"
        )
    return lines


def decidable(test_rows: int) -> float:
    """Return the smallest gain that a cell is expected to tell from none by so many test rows, nats a token,
    by the variances that are guessed before anything is measured."""
    return expected_half_width(EXPECTED_VARIANCES, SEEDS, test_rows, confidence())


def status_lines(plans: Sequence[CellPlan]) -> list[str]:
    """Return how many runs of each cell are recorded, and which are to come."""
    lines = []
    for plan in plans:
        waiting = ", ".join(f"{run.arm} seed {run.seed}" for run in plan.to_come)
        lines.append(
            f"  {plan.cell.cell.name}: {plan.recorded} recorded" + (f"; to come: {waiting}" * bool(waiting))
        )
    return lines


def plan_lines(plans: Sequence[CellPlan], options: StudyOptions) -> list[str]:
    """Return what each cell can decide and takes, in lines."""
    for plan in plans:
        plan.cell.begin()
    rate = options.rate
    if rate is None:
        rate = timing.calibrate(job for plan in plans for run in plan.to_come for job in plan.jobs(run))
    lines, total = [], 0.0
    for plan in plans:
        protocol, cell = plan.cell.prepared.protocol, plan.cell.cell
        seconds = plan.seconds(rate or 1.0)
        total += seconds
        lines.append(
            f"  {cell.name}: {protocol.test_rows} test rows, {protocol.pool_rows:,} to train from; a gain of "
            f"about {decidable(protocol.test_rows):.3f} nats can be told from none (by guessed variances); "
            f"{len(plan.to_come)} of {plan.recorded + len(plan.to_come)} runs to come, "
            f"about {timing.guessed_time(seconds)}"
        )
    if rate is not None:
        lines.append(f"in all about {timing.guessed_time(total)} at {rate:,.0f} token-passes a second")
    return lines
