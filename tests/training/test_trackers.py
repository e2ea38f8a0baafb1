"""Trackers get what metrics.jsonl has, under the run's name, and no key of theirs is kept."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import tracking
from accelerate.utils import LoggerType
from tiny import make_tiny_model
from training_runs import metrics, run, sample_rows, write_rows

KEY = "0123456789abcdef-never-to-be-written"


class Tracker:
    """Stands in for the packages of W&B and trackio, which share these calls."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.lines: dict[int, dict[str, float]] = {}
        self.ended = False
        self.config = SimpleNamespace(update=lambda values, **others: None)

    def init(self, **keywords: Any) -> "Tracker":
        self.begun.append(keywords)
        return self

    def log(self, values: dict[str, float], step: int | None = None, **others: Any) -> None:
        assert step is not None
        self.lines.setdefault(step, {}).update(values)

    def finish(self) -> None:
        self.ended = True


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    made = Tracker()
    made.name = request.param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, request.param, made)  # type: ignore[arg-type]
    available = [*tracking._available_trackers, LoggerType(request.param)]
    monkeypatch.setattr(tracking, "_available_trackers", available)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return made


def test_a_tracker_gets_every_number_of_metrics(tracker: Any, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(6))
    outcome = run(
        "finetune", "--model_name_or_path", tmp_path / "model", "--train_file", rows, "--eval_file", rows,
        "--output_dir", tmp_path / "a run", "--max_train_steps", 2, "--use_lm_loss",
        "--with_tracking", "--report_to", tracker.name,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    (begun,) = tracker.begun
    assert (begun["project"], begun["name"]) == ("instruction_modelling", "a run")
    assert tracker.ended
    written = metrics(tmp_path / "a run")
    steps = [line for line in written if "loss" in line]
    assert len(steps) == 2
    for line in steps:
        tracked = tracker.lines[line["step"]]
        assert tracked["loss"] == line["loss"]
        for kind, nll in line["nll"].items():
            assert tracked[f"nll/{kind}"] == nll
        for name, nll in line["dataset_nll"].items():
            assert tracked[f"dataset_nll/{name}"] == nll
    measured = [line for line in written if "eval_response_nll" in line]
    assert measured and tracker.lines[2]["eval_response_nll"] == measured[-1]["eval_response_nll"]
    for path in (tmp_path / "a run").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_tracker_that_cannot_begin_is_one_line_before_the_model(
    tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**keywords: Any) -> None:
        raise RuntimeError("no account\nand a long story")

    monkeypatch.setattr(tracker, "init", refuse)
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(2))
    outcome = run(
        "finetune", "--model_name_or_path", make_tiny_model(tmp_path / "model"), "--train_file", rows,
        "--output_dir", tmp_path / "run", "--with_tracking", "--report_to", tracker.name,
    )  # fmt: skip
    assert outcome.code == 2
    assert f"--report_to {tracker.name}: the tracker cannot begin: no account; mend that" in outcome.err
    assert json.dumps("a long story")[1:-1] not in outcome.err
