"""Whether candidates pass their tests: each in a sandbox, several at a time."""

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.sandbox.bubblewrap import ADVICE, Sandbox
from instruction_modelling.errors import UserError

# Seconds beyond the candidate's own time: starting two processes on a busy machine, and a check that does not end.
GRACE = 70.0
# Seconds between two looks at how much memory a sandbox has.
WATCH = 0.1
LONGEST_VERDICT = 2**16
PASSED = "passed"
# A machine that is short of something for a moment may refuse a process; nothing of the candidate's has run then.
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
    """Runs a candidate's program in one sandbox and its test in another.

    The test's process alone says what came of it, and with a secret that no other process is told. It has no code of the
    candidate's, and what the candidate's function returns comes to it as plain values.

    Raises:
        UserError: the sandbox does not start.
    """
    for _ in range(STARTS):
        verdict = _try_once(sandbox, candidate, timeout)
        if verdict:
            return verdict
    raise UserError(f"a sandbox does not start (of {candidate.key}, {STARTS} times): too little memory, or too many processes or user "
                    f"namespaces here? {ADVICE}")


def _try_once(sandbox: Sandbox, candidate: Candidate, timeout: float) -> Verdict | None:
    """The verdict; None where the candidate was not even started."""
    to_candidate, from_check = os.pipe()
    to_check, from_candidate = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    settings = sandbox.settings(timeout)
    try:
        try:
            processes.append(sandbox.start("candidate", settings, stdin=to_candidate, stdout=from_candidate, stderr=subprocess.DEVNULL))
            processes.append(sandbox.start("check", {**settings, "answers": to_check, "asked": from_check}, (to_check, from_check),
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        finally:
            for end in (to_candidate, from_check, to_check, from_candidate):
                os.close(end)
        secret = secrets.token_hex(16)
        task = {"prompt": candidate.prompt, "completion": candidate.completion, "test": candidate.test,
                "entry_point": candidate.entry_point, "timeout": timeout, "secret": secret}
        result = _listen(*processes, json.dumps(task).encode("ascii") + b"\n", secret, time.monotonic() + timeout + GRACE,
                         sandbox.limits.together)
        return Verdict(candidate.key, result == PASSED, result) if result else None
    finally:
        for process in processes:
            _end(process)


def _listen(candidate: "subprocess.Popen[bytes]", check: "subprocess.Popen[bytes]", task: bytes, secret: str, until: float,
            most_memory: int) -> str | None:
    """What came of it, in words; None where the check says not even that both have started."""
    text: bytes | None = task
    while True:
        try:
            started, verdict = (check.communicate(text, timeout=WATCH)[0][:LONGEST_VERDICT].split(b"\n") + [b""])[:2]
            break
        except subprocess.TimeoutExpired:
            # What is left of the text is kept by the process's object.
            text = None
            if time.monotonic() > until:
                return "timed out"
            if _memory(candidate.pid) > most_memory:
                return f"failed: more than {most_memory / 2**30:g} GiB of memory"
    if not started:
        return None
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(verdict)
        if said["secret"] == secret:
            return str(said["result"])
    return "failed: the check did not survive it"


def _memory(number: int) -> int:
    """Bytes in memory of a process and of all it started."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        for process in psutil.Process(number).children(recursive=True):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a sandbox with everything in it, and waits until it is gone.

    bubblewrap's child is the first process of the namespace: it ends after all others in it, and then bubblewrap does.
    """
    with suppress(OSError, ValueError):
        for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(number), signal.SIGKILL)
        process.wait(10)
        return
    process.kill()
    process.wait()


def try_all(sandbox: Sandbox, candidates: Sequence[Candidate] | Iterator[Candidate], timeout: float = 3.0,
            workers: int | None = None, tried: Callable[[Verdict], None] | None = None) -> Iterator[Verdict]:
    """The verdicts, as they come; `workers` candidates at a time (default: as many as there are processors)."""
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


# What may be seen of a file system inside: what this sandbox puts there.
_SEEN = {"usr", "lib", "lib32", "lib64", "python", "packages", "proc", "dev", "tmp"}
_REFUSED_CALLS = """    import ctypes
    calls = ctypes.CDLL(None, use_errno=True)
    def refused(result):
        return result == -1 and ctypes.get_errno() == 1
    return x + 1 + (not refused(calls.ptrace(0, 0, 0, 0)) or not refused(calls.unshare(0x10000000)) or not refused(calls.shmget(0, 4096, 0o1600)))
"""
# Bodies of `f(x)`; each must come out as written: what a sandbox is for, tried before anything else is.
_PROBES = {
    "an honest function passes": ("    return x + 1\n", PASSED),
    "a wrong function fails": ("    return x + 2\n", "failed"),
    "no user of the host": ("    import os\n    return x + 1 + (0 in os.getresuid())\n", PASSED),
    "no environment": ("    import os\n    return x + 1 + len(set(os.environ) - {'PATH', 'HOME', 'PWD', 'LC_ALL', "
                       "'OPENBLAS_NUM_THREADS', 'LD_LIBRARY_PATH'})\n", PASSED),
    "no files of the host": (f"    import os\n    return x + 1 + len(set(os.listdir('/')) - set({sorted(_SEEN)})) + len(os.listdir('/tmp'))\n", PASSED),
    "no network": ("    names = [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line]\n"
                   "    return x + 1 + (names not in ([], ['lo']))\n", PASSED),
    "nothing to write to": ("    for name in ('/x', '/dev/x', '/usr/x', '/usr/lib/x', '/proc/x', '/packages/x', '/python/x', '/dev/shm/x'):\n"
                            "        try:\n            with open(name, 'w') as handle:\n                handle.write('x' * 10**6)\n"
                            "            return None\n        except OSError:\n            pass\n    return x + 1\n", PASSED),
    "few processes": ("    import os, time\n    made = 0\n    try:\n        for _ in range(60):\n            if os.fork() == 0:\n"
                      "                time.sleep(60)\n            made += 1\n    except OSError:\n        return x + 1\n    return None\n", PASSED),
    "little memory": ("    try:\n        return bytes(2**32) and None\n    except MemoryError:\n        return x + 1\n", PASSED),
    "small files": ("    try:\n        with open('/tmp/x', 'wb') as handle:\n            for _ in range(1000):\n                handle.write(bytes(2**20))\n"
                    "        return None\n    except OSError:\n        return x + 1\n", PASSED),
    "alone": ("    import os\n    return x + 1 + (sum(name.isdigit() for name in os.listdir('/proc')) != 1)\n", PASSED),
    "no capabilities": ("    with open('/proc/self/status') as status:\n        sets = [line.split()[1] for line in status if line[:6] in "
                        "('CapPrm', 'CapEff', 'CapBnd', 'CapAmb')]\n    return x + 1 + any(int(one, 16) for one in sets)\n", PASSED),
    "system calls refused": (_REFUSED_CALLS, PASSED),
}


def check_sandbox(sandbox: Sandbox) -> None:
    """Tries the sandbox on itself.

    Raises:
        UserError: it does not keep what it should; no model-written code may run in it.
    """
    test = "def check(candidate):\n    assert candidate(1) == 2\n"
    candidates = [Candidate(what, "def f(x):\n    '''Adds one.'''\n", body, test, "f") for what, (body, _) in _PROBES.items()]
    for verdict in try_all(sandbox, candidates, timeout=20.0):
        if not verdict.result.startswith(_PROBES[verdict.key][1]):
            raise UserError(f"the sandbox does not keep what it should ({verdict.key}: {verdict.result}); nothing was run in it. {ADVICE}")
