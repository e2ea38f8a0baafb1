"""Whether candidates pass their tests: each in a sandbox, several at a time."""

import json
import os
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

# Beyond the candidate's own time: starting two processes on a busy machine, and a check that does not end.
GRACE = 70.0
LONGEST_VERDICT = 2**16


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

    The test's process alone says what came of it; it has no code of the candidate's, sees what the candidate's function returns
    as plain values, and is reached by nothing else.
    """
    to_candidate, from_check = os.pipe()
    to_check, from_candidate = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        try:
            processes.append(sandbox.start("candidate", sandbox.settings(), stdin=to_candidate, stdout=from_candidate,
                                           stderr=subprocess.DEVNULL))
            processes.append(sandbox.start("check", {"answers": to_check, "asked": from_check}, stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=(to_check, from_check)))
        finally:
            for end in (to_candidate, from_check, to_check, from_candidate):
                os.close(end)
        task = {"prompt": candidate.prompt, "completion": candidate.completion, "test": candidate.test,
                "entry_point": candidate.entry_point, "timeout": timeout}
        check = processes[1]
        try:
            said, _ = check.communicate(json.dumps(task).encode("ascii") + b"\n", timeout=timeout + GRACE)
        except subprocess.TimeoutExpired:
            return Verdict(candidate.key, False, "timed out")
        result = "died"
        with suppress(ValueError, KeyError, TypeError):
            result = str(json.loads(said[:LONGEST_VERDICT])["result"])
        if result == "died":
            raise UserError(f"a check ended without a verdict (exit code {check.returncode}): the sandbox does not work here. {ADVICE}")
        return Verdict(candidate.key, result == "passed", result)
    finally:
        for process in processes:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a sandbox with everything in it, and waits until it is gone.

    bubblewrap's child is the first process of the namespace, which does not end before all others in it have.
    """
    inner: list[str] = []
    with suppress(OSError):
        inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    for number in inner:
        with suppress(OSError):
            os.kill(int(number), signal.SIGKILL)
        while _runs(number) and time.monotonic() < deadline:
            time.sleep(0.002)


def _runs(number: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


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


# Each must come out as written: what a sandbox is for, tried before anything else is.
_PROBES = {
    "an honest function passes": ("    return x + 1\n", "passed"),
    "a wrong function fails": ("    return x + 2\n", "failed"),
    "no user of the host": ("    import os\n    return x + 1 + (os.getuid() == 0)\n", "passed"),
    "no environment": ("    import os\n    return x + 1 + len(set(os.environ) - {'PATH', 'HOME', 'PWD', 'LC_ALL', "
                       "'OPENBLAS_NUM_THREADS', 'LD_LIBRARY_PATH'})\n", "passed"),
    "no files of the host": ("    import os\n    return x + 1 + any(map(os.path.exists, HOST))\n", "passed"),
    "no network": ("    import socket\n    for family, address in ((socket.AF_INET, ('1.1.1.1', 53)), (socket.AF_INET6, ('2606:4700:4700::1111', 53))):\n"
                   "        try:\n            socket.socket(family, socket.SOCK_DGRAM).connect(address)\n            return None\n"
                   "        except OSError:\n            pass\n    return x + 1\n", "passed"),
    "nothing to write to": ("    for name in ('/x', '/dev/x', '/usr/x', '/proc/x', '/packages/x'):\n        try:\n            open(name, 'w')\n"
                            "            return None\n        except OSError:\n            pass\n    return x + 1\n", "passed"),
    "few processes": ("    import os, time\n    made = 0\n    try:\n        for _ in range(60):\n            if os.fork() == 0:\n"
                      "                time.sleep(60)\n            made += 1\n    except OSError:\n        return x + 1\n    return None\n", "passed"),
    "little memory": ("    try:\n        return bytes(2**32) and None\n    except MemoryError:\n        return x + 1\n", "passed"),
    "alone": ("    import os\n    return x + 1 + (sum(name.isdigit() for name in os.listdir('/proc')) > 3)\n", "passed"),
}


def check_sandbox(sandbox: Sandbox) -> None:
    """Tries the sandbox on itself.

    Raises:
        UserError: it does not keep what it should; no model-written code may run in it.
    """
    host = ["/etc/passwd", "/root", "/home", "/var", "/sys", os.getcwd(), os.path.expanduser("~"), os.path.dirname(__file__)]
    test = "def check(candidate):\n    assert candidate(1) == 2\n"
    candidates = [Candidate(what, f"HOST = {host!r}\ndef f(x):\n    '''Adds one.'''\n", body, test, "f")
                  for what, (body, _) in _PROBES.items()]
    for verdict in try_all(sandbox, candidates, timeout=20.0):
        if not verdict.result.startswith(_PROBES[verdict.key][1]):
            raise UserError(f"the sandbox does not keep what it should ({verdict.key}: {verdict.result}); nothing was run in it. {ADVICE}")
