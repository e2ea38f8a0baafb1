"""One process at a time holds a lock, and the system lets go of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instruction_modelling.files.locks import Locked, locked

HOLD = (
    "import sys, pathlib\nfrom instruction_modelling.files.locks import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def holder(path: Path) -> "subprocess.Popen[str]":
    """Start another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_second_process_is_refused_until_the_first_is_gone_even_killed(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "lock"
    other = holder(path)
    waits = []
    with pytest.raises(Locked), locked(path, patience=0.3, on_wait=lambda: waits.append(1)):
        pass
    assert waits == [1]
    with pytest.raises(Locked), locked(path, patience=0, on_wait=lambda: waits.append(2)):
        pass
    assert waits == [1]
    other.kill()
    other.wait()
    with locked(path, patience=0):
        pass
    assert list(tmp_path.iterdir()) == ([] if kind == "folder" else [path])


def test_waiting_ends_when_the_lock_is_free_or_the_waiting_is_ended(tmp_path: Path) -> None:
    other = holder(tmp_path)
    with pytest.raises(Locked), locked(tmp_path, sleep=lambda seconds: True):
        pass

    def let_go() -> None:
        assert other.stdin is not None
        other.stdin.close()

    with locked(tmp_path, patience=30, on_wait=let_go):
        pass
    other.wait()


def test_a_process_that_inherits_the_descriptor_holds_the_lock_too(tmp_path: Path) -> None:
    with locked(tmp_path) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    with pytest.raises(Locked), locked(tmp_path, patience=0):
        pass
    child.kill()
    child.wait()
    with locked(tmp_path, patience=0):
        pass


def test_a_file_system_without_locks_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with locked(tmp_path, patience=0):
        pass
