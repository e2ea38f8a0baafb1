"""What tests of src/report.py share: a report of runs, its numbers alone, its table and its page."""

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import write_bleu, write_losses, write_responses, write_run
from script_loader import run_script

from instruction_modelling.comparison.report.groups import group_runs
from instruction_modelling.comparison.report.results import report_results
from instruction_modelling.comparison.report.runs import read_base, read_run
from instruction_modelling.comparison.report.training_data import TrainingData

# Fewer rows than 30 tell nothing: four rows, eight times.
TIMES = 8
REFERENCES = ["red", "green", "blue", "white"] * TIMES
HOSTILE = '<script>alert("1")</script> & <b>bold</b>'


def make_runs(root: Path) -> tuple[list[Path], Path]:
    """IT and IM with two seeds each, an unfinished IM run and a base model, on four test rows eight times."""
    it = [write_run(root / f"it_{seed}", "IT", seed) for seed in (0, 1)]
    im = [write_run(root / f"im_{seed}", "IM", seed) for seed in (0, 1)]
    unfinished = write_run(root / "im_2", "IM", 2, finished=False)
    base = root / "base"
    write_losses(it[0], "test", [1.0, 2.0, 3.0, 4.0] * TIMES, user=3.0)
    write_losses(it[1], "test", [1.2, 2.2, 3.2, 4.2] * TIMES, user=3.0)
    write_losses(im[0], "test", [0.8, 1.7, 2.9, 3.8] * TIMES, user=2.0)
    write_losses(im[1], "test", [0.9, 2.0, 2.8, 3.9] * TIMES, user=2.0)
    write_losses(unfinished, "test", [99.0] * 32, user=99.0)
    write_losses(base, "test", [3.0, 3.0, 3.0, 4.0] * TIMES, user=3.5)
    for run, loss in ((it[0], 0.5), (it[1], 0.5), (im[0], 0.75), (im[1], 0.75), (base, 2.0)):
        write_losses(run, "train", [loss] * 3)
    write_responses(it[0], ["red", "green", "no", "no..."] * TIMES, REFERENCES)
    write_responses(it[1], ["red", "green", "no", "no"] * TIMES, REFERENCES)
    write_responses(im[0], [HOSTILE, "green", "blue", "no"] * TIMES, REFERENCES)
    write_responses(im[1], ["no", "green", "blue", "no"] * TIMES, REFERENCES)
    write_bleu(it[0], "train", 40.0, 30.0)
    write_bleu(it[1], "train", 44.0, 34.0)
    write_bleu(base, "train", 10.5, 9.0)
    return [*it, *im, unfinished], base


def data_set_numbers(runs: Sequence[Path], bases: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the data sets' part of results.json, without drawing a figure or writing a page."""
    sets = group_runs([read_run(run) for run in runs], [read_base(base) for base in bases])
    return report_results(sets, TrainingData())["datasets"]


def run_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """Return results.json of a report with these arguments."""
    assert run_script(monkeypatch, "report", *arguments, "--output_dir", tmp_path / "report") == 0
    return json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))


def table_row(markdown: str, label: str) -> list[str]:
    """Return the cells of the Markdown row that begins with the label, without the label."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


class Refusal:
    """Runs src/report.py on what it must refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path):
        self.monkeypatch, self.capsys, self.folder = monkeypatch, capsys, folder

    def __call__(self, *arguments: object) -> str:
        """Return what the script says when it refuses these arguments; nothing is written then."""
        output = self.folder / "report"
        assert run_script(self.monkeypatch, "report", *arguments, "--output_dir", output) == 2
        assert not output.exists()
        message = self.capsys.readouterr().err
        assert message.startswith("error: ") and "Traceback" not in message
        return message


class ReportPage(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "p", "li", "dt", "dd", "h5", "div", "small") else ""

    def handle_data(self, data: str) -> None:
        self.text += data
