"""Run the study of docs/results.md, or what is missing of it, and write its page.

    python src/study.py --dolly dolly_3k_data.jsonl --lima lima_data.jsonl [--only CELL] [--dry_run]

Cells of rows, ratio of lengths and size, the four arms of {a loss on instructions: no, yes} x {a response
token's coefficient: as under IT, as under IM}, five seeds each with training rows of their own. Each run
leaves a small record in docs/results/: the losses of its rows, and the key of what made it. A recorded run is
not made again. It can be stopped at any time: the same command goes on."""

import logging
import shlex
import sys
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.study.options import StudyOptions


def main() -> int:
    """Print grid, power and time, run what is missing cell by cell, and write the page."""
    options = parse_options(StudyOptions)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    from instruction_modelling.study.grid import GRID, MORE_ARMS
    from instruction_modelling.study.words import grid_lines, plan_lines, status_lines

    results = Path(options.results_dir)
    if options.write_page:
        write_page(options)
        return 0
    from instruction_modelling.study.cells import prepare_cell
    from instruction_modelling.study.running import plan_cell, run_cell

    cells = [cell for cell in GRID if not options.only or cell.name in options.only]
    print("\n".join(grid_lines(cells)), flush=True)
    more = MORE_ARMS if options.more_arms else ()
    plans = [
        plan_cell(prepare_cell(cell, options, more if cell is GRID[0] else ()), results, options.other_keys)
        for cell in cells
    ]
    print("\n".join(status_lines(plans) if options.status else plan_lines(plans, options)), flush=True)
    if options.status or options.dry_run:
        return 0
    with StopSignals() as stop:
        for plan in plans:
            run_cell(plan, results, stop)
            if stop.received:
                print(f"stopped; the same command goes on: {shlex.join([sys.executable, *sys.argv])}")
                return 128 + stop.received
            write_page(options)
    return 0


def write_page(options: StudyOptions) -> None:
    """Write the page and its picture from the records."""
    from instruction_modelling.study.page import write_results

    print(write_results(Path(options.results_dir), Path(options.page)))


if __name__ == "__main__":
    run_main(main)
