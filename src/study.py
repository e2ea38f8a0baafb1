"""Run the study of docs/results.md, or what is missing of it, and write its page.

    python src/study.py --dolly dolly_3k_data.jsonl --lima lima_data.jsonl [--only CELL] [--dry_run]

Cells of rows, ratio of lengths and size, the four arms of {a loss on instructions: no, yes} x {a response
token's coefficient: as under IT, as under IM}, five seeds each with training rows of their own. Each run
leaves a small record in docs/results/: the losses of its rows, and the key of what made it. A recorded run is
not made again. It can be stopped at any time: the same command goes on. On a GPU, --at_once 8 keeps it
busy."""

import logging
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import counted
from instruction_modelling.study.options import StudyOptions

if TYPE_CHECKING:
    from instruction_modelling.study.running import CellPlan


def main() -> int:
    """Print grid, power and time, run what is missing, and write the page."""
    options = parse_options(StudyOptions)
    until = time.monotonic() + (options.stop_after or math.inf)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    from instruction_modelling.study.grid import GRID
    from instruction_modelling.study.words import grid_lines, plan_lines, status_lines

    results = Path(options.results_dir)
    if options.write_page:
        write_page(options)
        return 0
    from instruction_modelling.study.cells import prepare_cell
    from instruction_modelling.study.running import plan_cell

    cells = [
        cell
        for cell in GRID
        if (cell.name in options.only if options.only else options.more_arms or not cell.is_extra)
    ]
    print("\n".join(grid_lines(cells)), flush=True)
    plans = [plan_cell(prepare_cell(cell, options), results, options.other_keys) for cell in cells]
    print("\n".join(status_lines(plans) if options.status else plan_lines(plans, options)), flush=True)
    if options.status or options.dry_run:
        return 0
    with StopSignals() as stop:
        left, failed = run_side_by_side(plans, options, until, stop)
        if not stop.received:
            write_page(options)
    if failed:
        said = "\n".join(f"  - {name}: {why}" for name, why in failed.items())
        raise UserError(f"{counted(len(failed), 'run')} failed:\n{said}")
    if left:
        goes_on = f"the same command goes on: {shlex.join([sys.executable, *sys.argv])}"
        print(f"stopped, {counted(len(left), 'run')} left; {goes_on}")
    return 128 + stop.received if stop.received else 0


def run_side_by_side(
    plans: "list[CellPlan]", options: StudyOptions, until: float, stop: StopSignals
) -> tuple[list[str], dict[str, str]]:
    """Run what is to come, some runs side by side; return the names of what is left where it was stopped, and
    why others failed, by name."""
    from instruction_modelling.comparison.warm_start import SharedProcess, can_start_warm
    from instruction_modelling.study.running import run_plans
    from instruction_modelling.study.side_by_side import SideBySide

    shared = [SharedProcess(keeps_models=False) for _ in range(options.at_once)] if can_start_warm() else []
    logs = Path(options.output_dir) / "logs" if options.at_once > 1 else None
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
        print(f"what the runs say: {logs}", flush=True)
    side_by_side = SideBySide([one.start for one in shared] or [None] * options.at_once, stop, until, logs)
    try:
        return run_plans(plans, Path(options.results_dir), side_by_side), side_by_side.failed
    finally:
        for one in shared:
            one.close()


def write_page(options: StudyOptions) -> None:
    """Write the page and its picture from the records."""
    from instruction_modelling.study.page import write_results

    print(write_results(Path(options.results_dir), Path(options.page)))


if __name__ == "__main__":
    run_main(main)
