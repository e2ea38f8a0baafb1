"""Running the rows of a sweep: each command with its output kept, its signals passed on, and a table of what
became of all."""

import contextlib
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
from typing import Any

from instruction_modelling.files.locks import Locked, locked
from instruction_modelling.files.whole import write_json, write_text
from instruction_modelling.processes.find_processes import training_processes
from instruction_modelling.processes.signals import EXIT_STOPPED, StopSignals
from instruction_modelling.progress import counted, duration
from instruction_modelling.runs.estimates import (
    Estimate,
    Hardware,
    Workload,
    estimate,
    model_size,
    two_digits,
)
from instruction_modelling.sweeps.data_size import tokens_in
from instruction_modelling.sweeps.options import AllSweepOptions
from instruction_modelling.sweeps.readiness import data_commands, gpu_problem, model_problem
from instruction_modelling.sweeps.rows import (
    CHECKPOINTS_KEPT,
    SweepRow,
    differences,
    has_weights,
    is_finished,
    lacking,
    last_metrics,
    read_record,
)

LOCK = ".sweep.lock"

logger = logging.getLogger(__name__)


@dataclass
class RowResult:
    """What became of a row."""

    row: int
    folder: str
    status: str
    """finished, resumed, skipped, stopped, failed, refused or busy"""
    reason: str = ""
    steps: int = 0
    loss: float | None = None
    hours: float = 0.0


# -- what a row will need ----------------------------------------------------------------------------------


def estimate_row(options: AllSweepOptions, row: SweepRow) -> Estimate | None:
    """Return what the row will need; None for a model of unknown size or without its data."""
    size = model_size(options.model_path)
    try:
        rows, tokens = tokens_in(row.data, options.max_length)
    except OSError:
        return None
    if size is None:
        return None
    given = row.options()
    work = Workload(
        rows,
        tokens,
        row.epochs,
        options.max_length,
        options.batch_size_per_gpu,
        CHECKPOINTS_KEPT,
        "--apply_kl_div_loss" in row.flags,
        given.lora_rank if given.use_lora or given.use_qlora else 0,
        given.use_qlora,
    )
    hardware = Hardware(options.num_gpus, options.gpu_tflops, options.utilisation, options.gpu_memory)
    return estimate(size, work, hardware)


def needs(options: AllSweepOptions, row: SweepRow) -> str:
    """Return a line of what the row will need, with a warning where a GPU is too small."""
    absent = "".join(f"; {path} is not there yet" for path in row.absent())
    needed = estimate_row(options, row)
    if needed is None:
        return absent.removeprefix("; ") or (
            f"needs: not known for {options.model_path} (neither one of the paper's models nor a "
            "folder with a config.json)"
        )
    line = f"needs, by estimate: {needed.line(options.num_gpus)}{absent}"
    if options.num_gpus and needed.memory > options.gpu_memory:
        line += (
            f"; more than a GPU's {options.gpu_memory:.0f} GB: use more GPUs, -- --gradient_checkpointing, "
            "or the offloading configuration"
        )
    return line


def show_rows(options: AllSweepOptions, rows: Sequence[SweepRow]) -> None:
    """Print the rows, for --list and --dry_run."""
    for row in rows:
        record = read_record(row.folder)
        state = "finished" if is_finished(row.folder, record) else "begun" if record else "not begun"
        state = lacking(row.folder, record) or state
        print(f"{row.number:3d}  {row.folder}  ({state})")
        if options.dry_run:
            print(f"     arm: {row.options().arm()}")
            print(f"     {needs(options, row)}")
            print(f"     {shlex.join(row.command)}")
    if options.dry_run:
        print("\n".join(["", *in_all(options, rows)]))


def in_all(options: AllSweepOptions, rows: Sequence[SweepRow]) -> list[str]:
    """Return lines on all rows that are not finished: their hours, and what they lack before they can start,
    with the commands that make it."""
    left = [row for row in rows if not is_finished(row.folder, read_record(row.folder))]
    estimates = [estimate_row(options, row) for row in left]
    hours = sum(found.hours for found in estimates if found)
    lines = [f"in all: {counted(len(left), 'run')} to do of {len(rows)}"]
    if options.num_gpus and any(estimates):
        lines[0] += f", about {duration(3600 * hours)} ({two_digits(hours * options.num_gpus)} GPU-hours)"
    if unknown := sum(found is None for found in estimates):
        lines[0] += f"; {counted(unknown, 'run')} of unknown length"
    problems = (gpu_problem(options.num_gpus), model_problem(options.model_path))
    lines += [f"missing: {text}" for text in problems if text]
    if commands := data_commands([path for row in left for path in row.files()], Path(options.data_root)):
        lines += ["missing data; the commands that make them:", *(f"  {line}" for line in commands)]
    return lines


# -- running -----------------------------------------------------------------------------------------------


def run_row(options: AllSweepOptions, row: SweepRow, stop: StopSignals) -> RowResult:
    """Run a row where it is not done, and return what became of it."""
    logger.info("row %d: %s", row.number, row.folder)
    logger.info("%s", needs(options, row))
    result = RowResult(row.number, str(row.folder), "refused")
    if absent := row.absent():
        made_by = "; ".join(data_commands(absent, Path(options.data_root)))
        result.reason = f"no {', '.join(map(str, absent))}: make it first: {made_by}"
    else:
        row.folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(row.folder / LOCK, patience=0) as descriptor:
                _run_locked(options, row, result, stop, descriptor)
        except Locked:
            result.status, result.reason = "busy", "another sweep runs this row"
    result.steps, result.loss = last_metrics(row.folder)
    logger.info("row %d: %s%s", row.number, result.status, f": {result.reason}" if result.reason else "")
    return result


def _run_locked(
    options: AllSweepOptions, row: SweepRow, result: RowResult, stop: StopSignals, descriptor: int
) -> None:
    record = read_record(row.folder)
    words = differences(row, record, options.total_batch_size) if record else []
    if words:
        result.reason = (
            f"the folder holds another run ({'; '.join(words)}): move it, or choose another OUTPUT_ROOT"
        )
    elif lacks := lacking(row.folder, record):
        result.reason = f"{lacks}: move the folder, or delete its run.json to have the row trained again"
    elif record.get("finished"):
        result.status = "skipped"
        result.reason = "" if has_weights(row.folder) else "finished, and its weights were deleted since"
    elif reason := disk_too_full(options, row):
        result.reason = reason
    else:
        began = time.monotonic()
        code, last_error = run_command(row, stop, descriptor)
        result.hours = (time.monotonic() - began) / 3600
        _judge(row, record, result, code, last_error)


def _judge(
    row: SweepRow, record_before: dict[str, Any], result: RowResult, code: int, last_error: str
) -> None:
    """Fill in what became of the row's command, from its exit code and what it left in run.json."""
    record = read_record(row.folder)
    if code == 0 and record.get("finished"):
        result.status = "resumed" if record_before else "finished"
    elif code == EXIT_STOPPED or (record != record_before and record.get("stopped")):
        result.status, result.reason = "stopped", f"{record.get('stopped', {}).get('signal', 'a signal')}"
    else:
        result.status = "failed"
        result.reason = last_error or f"exit code {code}; see {row.folder / 'sweep.log'}"


def disk_too_full(options: AllSweepOptions, row: SweepRow) -> str:
    """Return why the row is not started, where the disk is too full for it; else nothing."""
    needed = estimate_row(options, row)
    free = shutil.disk_usage(row.folder).free / 1e9
    used = sum(path.stat().st_size for path in row.folder.rglob("*") if path.is_file()) / 1e9
    if needed is None or options.ignore_room or needed.disk <= free + used:
        return ""
    return (
        f"it needs {needed.disk:.3g} GB of disk and {free:.3g} GB are free: make room, or add --ignore_room"
    )


def run_command(row: SweepRow, stop: StopSignals, descriptor: int) -> tuple[int, str]:
    """Run the row's command to its end, show and keep its output; return its exit code and last error.

    Args:
        stop: passes the signals it receives on to the training processes.
        descriptor: of the folder's lock; the command keeps it, should this process be killed.
    """
    logger.info("%s", shlex.join(row.command))
    with (row.folder / "sweep.log").open("a", encoding="utf-8") as log:
        # A session of its own: a Ctrl-C is ours to pass on, once.
        process = subprocess.Popen(
            row.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=(descriptor,),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        stop.forward = partial(pass_on, row, process.pid)
        if stop.received:
            pass_on(row, process.pid, stop.received)
        assert process.stdout is not None
        last_error = ""
        for line in process.stdout:
            sys.stdout.write(line)
            log.write(line)
            log.flush()
            if line.startswith("error: "):
                last_error = line.removeprefix("error: ").strip()
        code = process.wait()
        stop.forward = None
    return code, last_error


def pass_on(row: SweepRow, launcher: int, number: signal.Signals) -> None:
    """Send a signal to the training processes themselves: a launcher would give them too little time to
    save."""
    for process in training_processes(row.folder) or [launcher]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


# -- the table ---------------------------------------------------------------------------------------------


def results_table(results: Sequence[RowResult]) -> str:
    """Return what became of every row, as a table in Markdown."""
    lines = [
        "| row | folder | status | steps | last loss | hours | reason |",
        "|--:|---|---|--:|--:|--:|---|",
    ]
    lines += [
        f"| {result.row} | {result.folder} | {result.status} | {result.steps} | "
        f"{'' if result.loss is None else f'{result.loss:.4f}'} | {_clock(result.hours)} | {result.reason} |"
        for result in results
    ]
    return "\n".join(lines)


def _clock(hours: float) -> str:
    """Return a time as h:min."""
    minutes = round(60 * hours)
    return f"{minutes // 60}:{minutes % 60:02d}"


def write_table(options: AllSweepOptions, results: Sequence[RowResult]) -> None:
    """Write NAME.sweep.md and .json, with the chosen rows in the name, for several runners may share a sweep.

    Raises:
        UserError: they cannot be written.
    """
    part = "".join(f".{value}" for value in (options.rows, options.shard) if value).replace("/", "of")
    base = Path(options.output_root) / f"{options.name}{part}.sweep"
    write_text(base.with_name(f"{base.name}.md"), results_table(results) + "\n")
    write_json(base.with_name(f"{base.name}.json"), [asdict(result) for result in results])
