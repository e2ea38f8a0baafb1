"""Starting the processes of a run."""

import os
import time
from pathlib import Path

import pytest

from instruction_modelling.training.launch import STALE_SECONDS, remove_stale_build_locks


def test_a_lock_that_a_killed_build_left_is_removed_and_one_of_a_build_at_work_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    ages = {"killed": STALE_SECONDS + 60, "at_work": 30}
    locks = {}
    for name, age in ages.items():
        locks[name] = tmp_path / name / "lock"
        locks[name].parent.mkdir()
        locks[name].touch()
        then = time.time() - age
        os.utime(locks[name], (then, then))
    remove_stale_build_locks()
    assert not locks["killed"].exists() and locks["at_work"].exists()
    assert f"removed {locks['killed']}" in caplog.text
