"""Contenders in turn: A B C A B C ..., each in a process that waits while another works."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.options import BenchmarkOptions
from benchmarks.preparation import prepare
from benchmarks.rows import Contender, Row
from benchmarks.work import Work
from benchmarks.worker import PRELOADED, take_turns
from instruction_modelling.errors import UserError

# A contender that says nothing for so long is given up, seconds.
SILENT = 1800
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Readings:
    """What one contender showed."""

    first: dict[str, Any] = field(default_factory=dict)
    """What it said before its first turn."""
    warm_up: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    beside: list[dict[str, Any]] = field(default_factory=list)
    """Our own readings of the same turns."""
    failed: str | None = None


def forks() -> Any:
    """Return the context that forks processes from one in which the libraries are loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@contextmanager
def scratch_folder(work: Work) -> Iterator[str]:
    """Give a folder beside the prepared rows that goes at the end of the block."""
    folder = tempfile.mkdtemp(prefix="scratch-", dir=Path(work.prepared).parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shares_of(contenders: Iterable[Contender]) -> dict[str, list[Contender]]:
    """Return the contenders of each process."""
    shares: dict[str, list[Contender]] = {}
    for contender in contenders:
        shares.setdefault(contender.process or contender.name, []).append(contender)
    return shares


def take_turns_in_groups(
    row: Row, at_once: int, take: Callable[[Row], dict[str, Readings]]
) -> dict[str, Readings]:
    """Return each contender's readings, `at_once` processes at a time, ours always one of them.

    Each process holds a model with its optimiser; not all fit into memory at once. Ours has a turn in every
    group, and is compared with a peer by the turns of that peer's group.

    Args:
        take: takes the turns of a row all of whose contenders are there at once (`take_paired_turns`).
    """
    ours, *peers = row.contenders
    processes = list(shares_of(peers).values())
    merged = Readings()
    readings = {ours.name: merged}
    for start in range(0, len(processes), max(1, at_once - 1)):
        group = [peer for process in processes[start : start + max(1, at_once - 1)] for peer in process]
        found = take(replace(row, contenders=(ours, *group)))
        beside = found.pop(ours.name)
        for of_peer in found.values():
            of_peer.beside = beside.turns
        readings.update(found)
        merged.first, merged.warm_up = merged.first or beside.first, merged.warm_up or beside.warm_up
        merged.turns = merged.turns + beside.turns
        merged.failed = merged.failed or beside.failed
    return readings


def take_paired_turns(
    row: Row, work: Work, turns: int, logs: Path, progress: Callable[[str], None]
) -> dict[str, Readings]:
    """Return each contender's readings of one turn to warm up and `turns` that count, taken in turn."""
    readings = {contender.name: Readings() for contender in row.contenders}
    shares = shares_of(row.contenders)
    with scratch_folder(work) as scratch:
        connections, processes = {}, []
        for number, of_process in enumerate(shares.values()):
            own = Path(scratch) / str(number)
            own.mkdir()
            settings = {
                **work.settings,
                **row.settings,
                "contenders": {one.name: one.settings for one in of_process},
            }
            given = replace(work, scratch=str(own), settings=settings)
            log = logs / f"{row.name}-{of_process[0].name.replace(' ', '-')}.log"
            mine, theirs = multiprocessing.Pipe()
            process = forks().Process(
                target=take_turns,
                args=(of_process[0].function, given.to_json(), theirs, str(log)),
                daemon=True,
            )
            process.start()
            theirs.close()
            processes.append(process)
            connections.update({one.name: mine for one in of_process})
        try:
            for of_process in shares.values():
                first = _answer(connections[of_process[0].name])
                for contender in of_process:
                    readings[contender.name].first = first
                    readings[contender.name].failed = first.get("failed")
            for number in range(turns + 1):
                for contender in row.contenders:
                    progress(f"{row.name}: {contender.name}, turn {number} of {turns}")
                    _one_turn(connections[contender.name], readings[contender.name], contender.name)
        finally:
            for connection in set(connections.values()):
                _send(connection, None)
            for process in processes:
                process.join(20)
                if process.is_alive():
                    process.kill()
    return readings


def _one_turn(connection: Any, readings: Readings, name: str) -> None:
    if readings.failed:
        return
    _send(connection, name)
    answer = _answer(connection)
    readings.failed = answer.get("failed")
    if readings.failed:
        return
    if not readings.warm_up:
        readings.warm_up = answer
    else:
        readings.turns.append(answer)


def _send(connection: Any, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        # It has ended; its last answer says why.
        return


def _answer(connection: Any) -> dict[str, Any]:
    try:
        if not connection.poll(SILENT):
            return {"failed": f"no answer within {SILENT} s"}
        return connection.recv()
    except (EOFError, OSError):
        return {"failed": "its process ended without a word (out of memory?)"}


def take_fresh_turns(
    row: Row, work: Work, turns: int, logs: Path, progress: Callable[[str], None]
) -> dict[str, Readings]:
    """Return each contender's readings of whole runs, each in a new process: one to warm up the disk's and
    everyone's caches, then `turns` that count, taken in turn; with no turns the first one counts.

    A reading holds `start_up`, CPU seconds to the first step; `saving`, those from the last step to the end
    of the process; and `peak_bytes` of resident memory.
    """
    readings = {contender.name: Readings() for contender in row.contenders}
    for number in range(turns + 1):
        for contender in row.contenders:
            of_contender = readings[contender.name]
            if of_contender.failed:
                continue
            progress(f"{row.name}: {contender.name}, run {number} of {turns}")
            with scratch_folder(work) as scratch:
                settings = {
                    **work.settings,
                    **row.settings,
                    "contenders": {contender.name: contender.settings},
                }
                given = replace(work, scratch=scratch, settings=settings)
                log = logs / f"{row.name}-{row.contenders.index(contender)}.log"
                answer = run_afresh(contender.function, given, log)
            of_contender.failed = answer.get("failed")
            if (number or not turns) and not of_contender.failed:
                of_contender.turns.append(answer)
    for of_contender in readings.values():
        of_contender.beside = readings[row.contenders[0].name].turns
    return readings


def run_afresh(function: str, work: Work, log: Path) -> dict[str, Any]:
    """Run a contender in a new process to its end; return its reading, or {"failed": why}."""
    marks = Path(work.scratch) / "marks.json"
    command = [sys.executable, "-m", "benchmarks.worker", function, work.to_json(), str(marks)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    with log.open("a", encoding="utf-8") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle, env=environment, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not marks.exists():
        return {"failed": f"exit code {process.returncode}; see {log}"}
    of_run = json.loads(marks.read_text(encoding="utf-8"))
    return {
        "start_up": of_run["first_step"],
        "saving": usage.ru_utime + usage.ru_stime - of_run["last_step"],
        "peak_bytes": of_run["peak_bytes"],
    }


def prepare_rows(options: BenchmarkOptions, folder: Path) -> Work:
    """Return the work of every row, with the rows and their tokens prepared in `folder`.

    Raises:
        UserError: the rows cannot be used, or are too few.
    """
    files = options.files()
    work = Work(
        model=str(Path(options.model()).resolve()),
        prepared=str(folder / "prepared"),
        scratch=str(folder),
        examples=options.examples(),
        steps=options.turns() + 2,
        lora_rank=options.lora_rank,
        max_seq_length=options.max_seq_length,
        quick=options.quick,
        settings={kind: str(path.resolve()) for kind, path in files.items()},
    )
    make = options.quick and not options.model_name_or_path
    given = replace(work, settings={**work.settings, "make_model": make})
    mine, theirs = multiprocessing.Pipe()
    process = forks().Process(
        target=prepare, args=(theirs, given.to_json(), str(folder / "logs" / "prepare.log"))
    )
    process.start()
    theirs.close()
    facts = _answer(mine)
    process.join()
    if facts.get("failed"):
        raise UserError(f"the rows could not be prepared: {facts['failed']}")
    return work
