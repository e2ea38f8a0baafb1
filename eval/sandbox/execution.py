"""Whether candidates pass their tests: each in a sandbox, several at a time."""

import json
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from eval.sandbox.bubblewrap import ADVICE, Sandbox
from eval.sandbox.plain_values import LONGEST_MESSAGE
from instruction_modelling.errors import UserError

# Seconds that starting two processes may take on a busy machine, and seconds beyond the candidate's time in
# which the check must speak: it may be held up inside C by what came back, where its own alarm does not reach
# it.
GRACE, LATE = 70.0, 3.0
# Files that a sandbox may have at a time: what the kernel keeps of each is on nobody's account.
MOST_FILES = 20_000
# Seconds between two looks at how much memory a sandbox has.
WATCH = 0.1
LONGEST_VERDICT = 2**16
PASSED = "passed"
# A machine that is short of something for a moment may refuse a process; nothing of the candidate's has run
# then.
STARTS = 3


@dataclass(frozen=True)
class Candidate:
    """A program to try: a task's prompt, what a model wrote behind it, and the task's test."""

    key: Any
    """What the caller knows it by."""
    prompt: str
    completion: str
    test: str
    entry_point: str


@dataclass(frozen=True)
class Verdict:
    """`passed`, and in words: passed, timed out, or failed: why."""

    key: Any
    passed: bool
    result: str


def try_candidate(sandbox: Sandbox, candidate: Candidate, timeout: float = 3.0) -> Verdict:
    """Run a candidate's program in one sandbox and its test in another.

    The test's process alone says what came of it, and with a secret that no other process is told. It has no
    code of the candidate's, and what the candidate's function returns comes to it as plain values.

    Raises:
        UserError: the sandbox does not start.
    """
    for _ in range(STARTS):
        verdict = _try_once(sandbox, candidate, timeout)
        if verdict:
            return verdict
    raise UserError(
        f"a sandbox does not start, tried {STARTS} times{sandbox.complaint()}: too little memory, or too "
        f"many processes or user namespaces here? {ADVICE}"
    )


def _try_once(sandbox: Sandbox, candidate: Candidate, timeout: float) -> Verdict | None:
    """Return the verdict; None where the candidate was not even started."""
    secret = secrets.token_hex(16)
    task = {
        "prompt": candidate.prompt,
        "completion": candidate.completion,
        "test": candidate.test,
        "entry_point": candidate.entry_point,
        "timeout": timeout,
        "secret": secret,
    }
    line = json.dumps(task).encode("ascii") + b"\n"
    if len(line) > LONGEST_MESSAGE:
        return Verdict(candidate.key, False, f"failed: a program of more than {LONGEST_MESSAGE} bytes")
    to_candidate, from_check = os.pipe()
    to_check, from_candidate = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    settings = sandbox.settings(timeout)
    try:
        try:
            inside = sandbox.start(
                "candidate", settings, stdin=to_candidate, stdout=from_candidate, stderr=subprocess.DEVNULL
            )
            processes.append(inside)
            with _memory_file(line) as given:
                check = sandbox.start(
                    "check",
                    {**settings, "answers": to_check, "asked": from_check},
                    (to_check, from_check),
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            processes.append(check)
        finally:
            for end in (to_candidate, from_check, to_check, from_candidate):
                os.close(end)
        result = _listen(inside, check, secret, timeout, sandbox.limits.together)
        return Verdict(candidate.key, result == PASSED, result) if result else None
    finally:
        for process in processes:
            _end(process)


def _memory_file(text: bytes) -> BinaryIO:
    """Return a file in memory to read from: longer than a pipe holds, and nobody has to be there to write."""
    file = os.fdopen(os.memfd_create("task"), "w+b")
    file.write(text)
    file.seek(0)
    return file


def _listen(
    candidate: "subprocess.Popen[bytes]",
    check: "subprocess.Popen[bytes]",
    secret: str,
    timeout: float,
    most_memory: int,
) -> str | None:
    """Return what came of it, in words; None where the check says not even that both have started."""
    assert check.stdout
    heard, deadline = b"", time.monotonic() + timeout + GRACE
    with selectors.DefaultSelector() as waiting, check.stdout as output:
        waiting.register(output, selectors.EVENT_READ)
        next_look = time.monotonic() + WATCH
        while heard.count(b"\n") < 2 and len(heard) < LONGEST_VERDICT:
            if waiting.select(max(0.0, next_look - time.monotonic())):
                part = os.read(output.fileno(), LONGEST_VERDICT)
                if not part:
                    break
                if not heard:
                    deadline = time.monotonic() + timeout + LATE
                heard += part
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + WATCH
            if next_look > deadline:
                return "timed out"
            excess = _excess(candidate.pid, most_memory, started=bool(heard))
            if excess:
                return f"failed: {excess}"
    return _result(heard, secret) if heard else None


def _result(heard: bytes, secret: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        answer = json.loads(heard.partition(b"\n")[2])
        if answer["secret"] == secret:
            return str(answer["result"])
    return "failed: the check did not survive it"


def _excess(process: int, most_memory: int, started: bool) -> str | None:
    """Return in words which of the limits that the kernel does not hold a sandbox is above, or None."""
    if _memory(process) > most_memory:
        return f"more than {most_memory / 2**30:g} GiB of memory"
    # Until it has started, its root is the host's.
    if started and _files(process) > MOST_FILES:
        return f"more than {MOST_FILES:,} files"
    return None


def _memory(number: int) -> int:
    """Return the bytes in memory of all that a process started."""
    pages, waiting = 0, _children(number)
    while waiting:
        child = waiting.pop()
        with suppress(OSError, ValueError, IndexError):
            pages += int(Path(f"/proc/{child}/statm").read_text().split()[1])
        waiting += _children(child)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _children(number: int) -> list[int]:
    """Return the processes that a process started, by any of its threads."""
    children: list[int] = []
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{number}/task"):
            with suppress(OSError, ValueError):
                children += map(int, Path(f"/proc/{number}/task/{thread}/children").read_text().split())
    return children


def _files(number: int) -> int:
    """Return how many files and folders the file system that a sandbox can write to holds."""
    with suppress(OSError, IndexError):
        space = os.statvfs(f"/proc/{_children(number)[0]}/root/tmp")
        return space.f_files - space.f_ffree
    return 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a sandbox with everything in it, and wait until it is gone.

    bubblewrap's child is the first process of the namespace: it ends after all others in it, and then
    bubblewrap does."""
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        for number in _children(process.pid):
            os.kill(number, signal.SIGKILL)
        process.wait(10)
        return
    process.kill()
    process.wait()


def try_all(
    sandbox: Sandbox,
    candidates: Sequence[Candidate] | Iterator[Candidate],
    timeout: float = 3.0,
    workers: int | None = None,
) -> Iterator[Verdict]:
    """Yield the verdicts, as they come; `workers` candidates at a time (default: as many as there are
    processors)."""
    workers = workers or os.cpu_count() or 1
    waiting: set[Future[Verdict]] = set()
    with ThreadPoolExecutor(workers) as pool:
        for candidate in candidates:
            if len(waiting) >= 2 * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
            waiting.add(pool.submit(try_candidate, sandbox, candidate, timeout))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
