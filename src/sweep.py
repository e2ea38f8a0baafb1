"""Runs the rows of a sweep one after another; scripts/train_*.sh call it with the paper's rows.

    python src/sweep.py --name it --model_path M --model_name llama2_7b --data_names lima_data
    alpagasus_3k_dolly [-- FLAGS]

What stands after -- goes to src/finetune.py as it is. A finished row is skipped, an interrupted one goes on
from its last checkpoint, and after a failure comes the next row. On SIGTERM, SIGINT or SIGUSR1 the row at
hand saves, and the sweep ends; the same command goes on. Exit codes: 0 every row is done, 1 a row failed, 2
something to mend, 75 told to stop."""

import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.files.durable import replace_file
from instruction_modelling.processes.running import training_processes
from instruction_modelling.processes.signals import EXIT_STOPPED, StopSignals
from instruction_modelling.sweeps.estimates import Estimate, Hardware, estimate, model_size, tokens_in
from instruction_modelling.sweeps.rows import (
    CHECKPOINTS_KEPT,
    ROOT,
    AllSweepOptions,
    Row,
    differences,
    last_metrics,
    locked,
    make_rows,
    read_record,
    select,
)

logger = logging.getLogger("instruction_modelling.sweep")


@dataclass
class Result:
    """What became of a row."""

    row: int
    folder: str
    status: str
    """finished, resumed, skipped, stopped, failed, refused or busy"""
    reason: str = ""
    steps: int = 0
    loss: float | None = None
    hours: float = 0.0


def main() -> int:
    """Options, rows, each row in turn, table."""
    arguments, extra = split_arguments(sys.argv[1:])
    options = parse_options(AllSweepOptions, arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout
    )
    rows = select(make_rows(options, extra), options.rows, options.shard)
    check_flags(rows)
    if options.list or options.dry_run:
        show(options, rows)
        return 0
    results: list[Result] = []
    with StopSignals() as stop:
        for row in rows:
            results.append(run_row(options, row, stop))
            write_table(options, results)
            if stop.received or results[-1].status == "stopped":
                break
    print(table(results))
    if len(results) < len(rows) or results[-1].status == "stopped":
        print(f"stopped with {len(rows) - len(results)} rows not begun; the same command goes on")
        return EXIT_STOPPED
    return 1 if any(result.status in ("failed", "refused", "busy") for result in results) else 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's own arguments, and those after -- for the training script."""
    if "--" not in arguments:
        return list(arguments), []
    at = list(arguments).index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


def check_flags(rows: Sequence[Row]) -> None:
    """Raises:
    UserError: the training script would refuse the rows' flags.
    """
    for row in rows[:1]:
        try:
            row.options()
        except SystemExit:
            raise UserError(f"src/finetune.py does not take these flags: {shlex.join(row.flags)}") from None


# -- what a row will need ----------------------------------------------------------------------------------


def plan(options: AllSweepOptions, row: Row) -> Estimate | None:
    """What the row will need; None for a model of unknown size or without its data."""
    size = model_size(options.model_path)
    try:
        rows, tokens = tokens_in(row.data, options.max_length)
    except OSError:
        return None
    if size is None:
        return None
    hardware = Hardware(options.num_gpus, options.gpu_tflops, options.utilisation, options.gpu_memory)
    return estimate(
        size,
        rows,
        tokens,
        row.epochs,
        options.max_length,
        options.batch_size_per_gpu,
        hardware,
        CHECKPOINTS_KEPT,
        "--apply_kl_div_loss" in row.flags,
    )


def needs(options: AllSweepOptions, row: Row) -> str:
    """A line of what the row will need, with a warning where a GPU is too small."""
    absent = "" if row.data.is_file() else f"; {row.data} is not there yet"
    found = plan(options, row)
    if found is None:
        return absent.removeprefix("; ") or (
            f"needs: not known for {options.model_path} (neither one of the paper's models nor a "
            "folder with a config.json)"
        )
    line = f"needs, by estimate: {found.line(options.num_gpus)}{absent}"
    if options.num_gpus and found.memory > options.gpu_memory:
        line += (
            f"; more than a GPU's {options.gpu_memory:.0f} GB: use more GPUs, -- --gradient_checkpointing, "
            "or the offloading "
            "configuration"
        )
    return line


def show(options: AllSweepOptions, rows: Sequence[Row]) -> None:
    """The rows, for --list and --dry_run."""
    for row in rows:
        record = read_record(row.folder)
        state = "finished" if record.get("finished") else "begun" if record else "not begun"
        print(f"{row.number:3d}  {row.folder}  ({state})")
        if options.dry_run:
            print(f"     {needs(options, row)}")
            print(f"     {shlex.join(row.command)}")


# -- running -----------------------------------------------------------------------------------------------


def run_row(options: AllSweepOptions, row: Row, stop: StopSignals) -> Result:
    """Runs a row where it is not done, and says what became of it."""
    logger.info("row %d: %s", row.number, row.folder)
    logger.info("%s", needs(options, row))
    result = Result(row.number, str(row.folder), "refused")
    if not row.data.is_file():
        result.reason = f"no {row.data}: make it first (docs/data.md says how)"
        return finished(row, result)
    with locked(row.folder) as lock:
        if lock is None:
            result.status, result.reason = "busy", "another sweep runs this row"
            return finished(row, result)
        record = read_record(row.folder)
        other = differences(row, record, options.total_batch_size) if record else []
        if other:
            result.reason = (
                f"the folder holds another run ({'; '.join(other)}): move it, or choose another OUTPUT_ROOT"
            )
        elif record.get("finished"):
            result.status = "skipped"
        else:
            reason = no_room(options, row)
            if reason:
                result.reason = reason
            else:
                start(row, record, result, stop, lock)
    return finished(row, result)


def no_room(options: AllSweepOptions, row: Row) -> str:
    """Why the row is not started, where the disk is too full for it."""
    found = plan(options, row)
    free = shutil.disk_usage(row.folder).free / 1e9
    held = sum(path.stat().st_size for path in row.folder.rglob("*") if path.is_file()) / 1e9
    if found is None or options.ignore_room or found.disk <= free + held:
        return ""
    return f"it needs {found.disk:.3g} GB of disk and {free:.3g} GB are free: make room, or add --ignore_room"


def start(row: Row, before: dict[str, object], result: Result, stop: StopSignals, lock: int) -> None:
    """Starts the row's command, shows and keeps its output, and waits; fills in the result.

    Args:
        before: run.json as it is.
        lock: the descriptor of the folder's lock; the command keeps it, should this process be killed.
    """
    logger.info("%s", shlex.join(row.command))
    began = time.monotonic()
    with (row.folder / "sweep.log").open("a", encoding="utf-8") as log:
        # A session of its own: a Ctrl-C is ours to pass on, once.
        child = subprocess.Popen(
            row.command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(lock,),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        stop.forward = partial(pass_on, row, child.pid)
        if stop.received:
            pass_on(row, child.pid, stop.received)
        assert child.stdout is not None
        last_error = ""
        for line in child.stdout:
            sys.stdout.write(line)
            log.write(line)
            log.flush()
            if line.startswith("error: "):
                last_error = line.removeprefix("error: ").strip()
        code = child.wait()
        stop.forward = None
    result.hours = (time.monotonic() - began) / 3600
    record = read_record(row.folder)
    if code == 0 and record.get("finished"):
        result.status = "resumed" if before else "finished"
    elif code == EXIT_STOPPED or (record != before and record.get("stopped")):
        result.status, result.reason = "stopped", f"{record.get('stopped', {}).get('signal', 'a signal')}"
    else:
        result.status = "failed"
        result.reason = last_error or f"exit code {code}; see {row.folder / 'sweep.log'}"


def pass_on(row: Row, launcher: int, number: signal.Signals) -> None:
    """The signal to the training processes themselves: a launcher would give them too little time to save."""
    for process in training_processes(row.folder) or [launcher]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def finished(row: Row, result: Result) -> Result:
    """The result with the run's last step and loss, after a line in the log."""
    result.steps, result.loss = last_metrics(row.folder)
    logger.info("row %d: %s%s", row.number, result.status, f": {result.reason}" if result.reason else "")
    return result


# -- the table ---------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """What became of every row, in Markdown."""
    lines = [
        "| row | folder | status | steps | last loss | hours | reason |",
        "|--:|---|---|--:|--:|--:|---|",
    ]
    lines += [
        f"| {result.row} | {result.folder} | {result.status} | {result.steps} | "
        f"{'' if result.loss is None else f'{result.loss:.4f}'} | {result.hours:.2f} | {result.reason} |"
        for result in results
    ]
    return "\n".join(lines)


def write_table(options: AllSweepOptions, results: Sequence[Result]) -> None:
    """NAME.sweep.md and .json, with the chosen rows in the name, for several runners may share a sweep."""
    part = "".join(f".{value}" for value in (options.rows, options.shard) if value).replace("/", "of")
    base = Path(options.output_root) / f"{options.name}{part}.sweep"
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        replace_file(base.with_name(f"{base.name}.md"), table(results) + "\n")
        replace_file(
            base.with_name(f"{base.name}.json"),
            json.dumps([asdict(result) for result in results], indent=1) + "\n",
        )
    except OSError as error:
        raise UserError(f"--output_root {options.output_root}: {error.strerror or error}") from error


if __name__ == "__main__":
    run_main(main)
