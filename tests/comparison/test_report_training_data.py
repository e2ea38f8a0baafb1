"""What src/report.py says of the training data, and of metrics that a command of the user computed."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_checks import Refusal, run_report, table_row
from report_fixtures import TRAIN_FILE, write_responses, write_run

from instruction_modelling.files.whole import write_json, write_json_lines


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """Return the script run on what it must refuse."""
    return Refusal(monkeypatch, capsys, tmp_path)


def training_file(path: Path) -> Path:
    """Two rows: 3 + 2 and 5 words of instruction, 2 and 3 words of response."""
    write_json_lines(
        path,
        [
            {
                "messages": [
                    {"role": "system", "content": "Be very brief."},
                    {"role": "user", "content": "Which\ncolour?"},
                    {"role": "assistant", "content": "Deep red."},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": "And the colour of grass?"},
                    {"role": "assistant", "content": "It is green."},
                ]
            },
        ],
    )
    return path


def test_length_ratio_counts_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = training_file(tmp_path / "brief_train.jsonl")
    results = run_report(
        monkeypatch, tmp_path, "--runs", write_run(tmp_path / "it", "IT"), "--train_file", file
    )
    data = results["datasets"]["brief_train"]
    ratio = data["length_ratio"]
    assert (
        ratio["instruction_words"]["mean"] == 6.5
        and ratio["response_words"]["mean"] == 3.5
        and ratio["ratio"] == 6.5 / 3.5
    )
    assert ratio["rows"] == 2 and ratio["response_words"]["sd"] == 0.5
    # Its name is that of the runs' file, its bytes are not.
    assert ratio["changed"] is True and any("has changed since" in warning for warning in data["warnings"])
    assert (
        "Instructions are 1.86 times as long as responses" in (tmp_path / "report" / "table.md").read_text()
    )


def test_length_ratio_goes_by_the_bytes_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import hashlib

    file = training_file(tmp_path / "renamed.jsonl")
    data = {"path": "data/original.jsonl", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    run = write_run(tmp_path / "it", "IT", data=data)
    ratio = run_report(monkeypatch, tmp_path, "--runs", run, "--train_file", file)["datasets"]["original"][
        "length_ratio"
    ]
    assert ratio["ratio"] == 6.5 / 3.5 and ratio["changed"] is False


def test_a_training_file_of_no_run_is_refused(refused: Refusal, tmp_path: Path) -> None:
    file = training_file(tmp_path / "other.jsonl")
    said = refused("--runs", write_run(tmp_path / "it", "IT"), "--train_file", file)
    assert "no run was trained on this file" in said and "data/brief_train.jsonl" in said


def test_shares_of_the_inspector_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shares = {"IT": {"user": 0.0, "assistant": 1.0}, "IM": {"user": 0.9, "assistant": 0.1}}
    write_json(tmp_path / "weights.json", {"sha256": TRAIN_FILE["sha256"], "arms": shares})
    results = run_report(
        monkeypatch,
        tmp_path,
        "--runs",
        write_run(tmp_path / "it", "IT"),
        "--weights_json",
        tmp_path / "weights.json",
    )
    assert results["datasets"]["brief_train"]["loss_shares"] == shares


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        ({"arms": {}}, 'needs "arms"'),
        ({"arms": {"IT": {"user": 0.5, "assistant": 0.7}}}, "add up to 1.2"),
        ({"arms": {"IT": {"user": -0.5, "assistant": 1.5}}}, "the share of 'user' in arm 'IT' is -0.5"),
        (
            {"sha256": "other", "arms": {"IT": {"assistant": 1.0}}},
            "not that of a file that a run was trained on",
        ),
    ],
)
def test_wrong_shares_are_refused(
    refused: Refusal, tmp_path: Path, summary: dict[str, Any], why: str
) -> None:
    write_json(tmp_path / "weights.json", summary)
    run = write_run(tmp_path / "it", "IT")
    assert why in refused("--runs", run, "--weights_json", tmp_path / "weights.json")


def test_a_metric_command_has_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "it", "IT"), write_run(tmp_path / "im", "IM")]
    for run, values in zip(runs, ([1.0, 2.0], [3.0, 5.0]), strict=True):
        write_responses(run, ["red", "no"], ["red", "green"])
        at = run / "eval" / "test"
        write_json_lines(
            at / "scores.jsonl", [{"row": row, "politeness": value} for row, value in enumerate(values)]
        )
        scores = json.loads((at / "scores.json").read_text())
        write_json(at / "scores.json", scores | {"metrics": {"politeness": sum(values) / 2}})
    data = run_report(monkeypatch, tmp_path, "--runs", *runs)["datasets"]["brief_train"]
    assert data["arms"]["IM"]["metrics.politeness"]["mean"] == 4.0
    assert data["differences"]["IM"]["metrics.politeness"]["mean"] == 2.5
    assert table_row((tmp_path / "report" / "table.md").read_text(), "politeness (mean") == ["1.500", "4.000"]
