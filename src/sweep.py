"""Runs the rows of a sweep one after another; scripts/train_*.sh call it with the paper's rows.

    python src/sweep.py --name it --model_path M --model_name llama2_7b --data_names lima_data
    alpagasus_3k_dolly [-- FLAGS]

What stands after -- goes to src/finetune.py as it is. A finished row is skipped, an interrupted one goes on
from its last checkpoint, and after a failure comes the next row. On SIGTERM, SIGINT or SIGUSR1 the row at
hand saves, and the sweep ends; the same command goes on. Exit codes: 0 every row is done, 1 a row failed, 2
something to mend, 75 told to stop."""

import contextlib
import io
import logging
import shlex
import sys
from collections.abc import Sequence

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.processes.signals import EXIT_STOPPED, StopSignals
from instruction_modelling.sweeps.options import AllSweepOptions
from instruction_modelling.sweeps.readiness import gpu_problem, model_problem
from instruction_modelling.sweeps.rows import SweepRow, make_rows, select
from instruction_modelling.sweeps.runner import RowResult, results_table, run_row, show_rows, write_table


def main() -> int:
    """Run the rows in turn, and print the table of what became of each."""
    arguments, extra = split_arguments(sys.argv[1:])
    options = parse_options(AllSweepOptions, arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    if problems := options.extra_problems(extra):
        raise UserError("\n  ".join(problems))
    rows = make_rows(options, extra)
    check_flags(rows)
    rows = select(rows, options.rows, options.shard)
    if options.list or options.dry_run:
        show_rows(options, rows)
        return 0
    # Before anything is loaded: what no row could start without.
    if problems := [
        text for text in (gpu_problem(options.num_gpus), model_problem(options.model_path)) if text
    ]:
        raise UserError("\n  ".join(problems))
    results: list[RowResult] = []
    with StopSignals() as stop:
        for row in rows:
            results.append(run_row(options, row, stop))
            write_table(options, results)
            if stop.received or results[-1].status == "stopped":
                break
    print(results_table(results))
    if len(results) < len(rows) or results[-1].status == "stopped":
        print(f"stopped with {len(rows) - len(results)} rows not begun; the same command goes on")
        return EXIT_STOPPED
    return 1 if any(result.status in ("failed", "refused", "busy") for result in results) else 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sweep's own arguments, and those after -- for the training script."""
    if "--" not in arguments:
        return list(arguments), []
    dashes = list(arguments).index("--")
    return list(arguments[:dashes]), list(arguments[dashes + 1 :])


def check_flags(rows: Sequence[SweepRow]) -> None:
    """Refuse a sweep of which the training script would refuse a row, before hours of those before it.

    Raises:
        UserError: it would refuse a row's flags.
    """
    for row in rows:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                row.options()
        except (SystemExit, UserError) as refused:
            # argparse has printed its usage, and then what is wrong.
            why = (
                refused
                if isinstance(refused, UserError)
                else said.getvalue().rpartition("error: ")[2].strip()
            )
            raise UserError(
                f"row {row.number}, {row.folder}: src/finetune.py would refuse it: {why}\n"
                f"  {shlex.join(row.flags)}"
            ) from None


if __name__ == "__main__":
    run_main(main, goes_on=True)
