"""Published AlpacaEval annotations, and files of made-up ones."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from eval.alpaca_farm import score
from instruction_modelling.errors import run_main

GPT4 = "alpaca_eval_gpt4"


TURBO = "weighted_alpaca_eval_gpt4_turbo"


def published(shared_data: Path, model: str, annotator: str) -> Path:
    """Return a published annotation file."""
    return shared_data / "eval/alpaca_eval/results" / model / annotator / "annotations.json"


def on_leaderboard(shared_data: Path, name: str, model: str) -> dict[str, str]:
    """Return a model's row of a published leaderboard."""
    with (shared_data / "eval/alpaca_eval/leaderboards" / name).open(newline="") as handle:
        return next(row for row in csv.DictReader(handle) if row[""] == model)


def scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Run the score script; return its exit code, what it printed, its errors."""
    monkeypatch.setattr("sys.argv", ["score", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(score.main)
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


def written(path: Path, preferences: list[Any]) -> Path:
    """Write an annotation file of these preferences, and return its path."""
    path.write_text(json.dumps([{"preference": preference} for preference in preferences]))
    return path
