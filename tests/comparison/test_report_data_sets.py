"""A report on test rows of several data sets has a loss for each."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_checks import table_row
from report_fixtures import write_losses, write_run
from script_loader import run_script

from instruction_modelling.comparison.report.measures import MEASURES, MOST_DATA_SETS, measures_of
from instruction_modelling.comparison.report.runs import ReportedRun, SplitEvaluation
from instruction_modelling.files.whole import write_json_lines


def by_dataset(**response: tuple[int, float]) -> dict[str, Any]:
    return {
        name.replace("_", "."): {"rows_scored": rows, "mean_over_examples": {"response": nll}}
        for name, (rows, nll) in response.items()
    }


def test_each_data_set_has_a_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for arm, flan, code in (("IT", 2.0, 3.0), ("IM", 1.5, 3.25)):
        for seed in (0, 1):
            run = write_run(tmp_path / f"{arm}-{seed}", arm, seed)
            sets = by_dataset(flan=(1, flan + seed), code_v2=(3, code))
            write_losses(run, "test", [1.0, 2.0, 3.0, 4.0], by_dataset=sets)
            runs.append(run)
    assert run_script(monkeypatch, "report", "--runs", *runs, "--output_dir", tmp_path / "out") == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert table_row(table, "Test response loss of flan (nats per token, 1 row)") == [
        "2.500 ± 0.707",
        "2.000 ± 0.707",
    ]
    assert table_row(table, "Test response loss of code.v2 (nats per token, 3 rows)") == [
        "3.000 ± 0.000",
        "3.250 ± 0.000",
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    arms = next(iter(results["datasets"].values()))["arms"]
    assert arms["IM"]["test_response_nll.flan"]["mean"] == 2.0
    assert "Test response loss of code.v2" in (tmp_path / "out" / "report.html").read_text()


def run_of(summary: dict[str, Any]) -> ReportedRun:
    evaluation = SplitEvaluation(Path("x"), summary=summary)
    return ReportedRun(Path("x"), "IT", True, {}, {"test": evaluation})


def test_one_data_set_is_the_file_and_of_very_many_the_largest_are_shown() -> None:
    assert measures_of([run_of({"by_dataset": by_dataset(only=(4, 1.0))})]) == [*MEASURES]
    many = by_dataset(**{f"s{rows}": (rows, 1.0) for rows in range(1, MOST_DATA_SETS + 3)})
    added = measures_of([run_of({"by_dataset": many}), run_of({})])[len(MEASURES) :]
    assert [measure.label for measure in added[:2]] == [
        "Test response loss of s12",
        "Test response loss of s11",
    ]
    assert [measure.shown for measure in added].count("where measured") == MOST_DATA_SETS
    assert len(added) == MOST_DATA_SETS + 2


# -- responses while training ------------------------------------------------------------------------------


def test_responses_while_training_are_shown_by_arm_and_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for arm in ("IT", "IM"):
        run = write_run(tmp_path / arm, arm)
        write_losses(run, "test", [1.0, 2.0])
        lines = [
            {"step": step, "row": row, "id": f"p_{row}", "instruction": f"Ask <{row}>", "finished": step > 2}
            | {"response": f"{arm} says <b>{row}</b> at {step}", "tokens": 3}
            for step in range(1, 12)
            for row in range(6)
        ]
        write_json_lines(run / "samples.jsonl", lines)
        runs.append(run)
    assert run_script(monkeypatch, "report", "--runs", *runs, "--output_dir", tmp_path / "out") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Responses while training" in page and "<b>0</b>" not in page
    assert [f"Ask &lt;{row}&gt;" in page for row in range(6)] == [True] * 4 + [False] * 2
    for arm in ("IT", "IM"):
        steps = [step for step in range(1, 12) if f"{arm} says &lt;b&gt;0&lt;/b&gt; at {step}<" in page]
        assert steps == [1, 3, 5, 7, 9, 11]
    assert "IM, step 1" in page and "did not stop" in page
