"""Some of the kills and faults of crash_test.py; scripts/crash_test.sh does them all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def crash(folder: Path, *arguments: object) -> list[dict[str, object]]:
    command = [sys.executable, Path(__file__).with_name("crash_test.py"), "--output_dir", folder, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = json.loads((folder / "crash.json").read_text())
    assert all(line["identical"] and not line["problems"] for line in lines)
    assert len((folder / "crash.md").read_text().splitlines()) == 2 + len(lines)
    return lines


def test_killed_and_failing_runs_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    lines = crash(tmp_path, "--launchers", "one", "--faults", 7, "--kills", 4)
    assert [(line["case"], line["faults"]) for line in lines] == [("AdamW, 1 process", 7), ("LoRA with dropout, 1 process", 7)]
    # Each fault takes two starts, and each kill one more than the start that ends the run.
    assert all(int(str(line["starts"])) >= 14 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["two", "zero3"])
def test_launched_runs_that_are_killed_end_as_the_undisturbed_one(tmp_path: Path, launcher: str) -> None:
    lines = crash(tmp_path, "--launchers", launcher, "--faults", 0, "--kills", 2, "--seed", 3)
    assert len(lines) == 2
