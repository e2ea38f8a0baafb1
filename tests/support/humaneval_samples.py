"""Files of HumanEval samples, and the script that scores them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from eval.codex_humaneval import score
from instruction_modelling.errors import run_main

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def write_samples(path: Path, samples: list[tuple[str, str]]) -> Path:
    """Write samples, of (task_id, completion), and return the path."""
    path.write_text(
        "".join(json.dumps({"task_id": name, "completion": text}) + "\n" for name, text in samples)
    )
    return path


def run_score(monkeypatch: pytest.MonkeyPatch, path: Path, *arguments: object) -> int:
    """Run the script that scores samples, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["score", str(path), *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(score.main)
    return int(stopped.value.code or 0)
