"""What the figures of a report draw, by value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import StepPatch
from report_fixtures import write_losses, write_responses, write_run

from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.curves import (
    draw_loss_curves,
    evaluated_series,
    logged_series,
    mean_series,
    thinned,
)
from instruction_modelling.comparison.report.figures import (
    draw_differences,
    draw_histograms,
    draw_loss_by_arm,
)
from instruction_modelling.comparison.report.groups import ReportedDataSet, group_runs
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.comparison.report.results import report_results
from instruction_modelling.comparison.report.runs import read_base, read_rows, read_run
from instruction_modelling.comparison.report.training_data import TrainingData
from instruction_modelling.files.whole import write_json_lines


@pytest.fixture
def data(tmp_path: Path) -> ReportedDataSet:
    """IT with two seeds and IM with one, measured on training and test rows, and a base model."""
    runs = [
        write_run(tmp_path / "it_0", "IT", 0),
        write_run(tmp_path / "it_1", "IT", 1),
        write_run(tmp_path / "im", "IM", 0),
    ]
    for run, shift in zip([*runs, tmp_path / "base"], (0.0, 0.2, -0.4, 1.0), strict=True):
        write_losses(run, "test", [1.0 + shift, 2.0 + shift, 3.0 + shift])
        write_losses(run, "train", [0.5 + shift] * 2)
    for run in runs:
        write_responses(run, ["red", "no", "no"], ["red", "green", "blue"])
    return group_runs([read_run(run) for run in runs], [read_base(tmp_path / "base")])[0]


def numbers(data: ReportedDataSet) -> dict[str, Any]:
    """The data set's part of results.json."""
    return report_results([data], TrainingData())["datasets"][data.name]


def test_loss_by_arm_marks_means_seeds_and_base(data: ReportedDataSet) -> None:
    drawing = draw_loss_by_arm("by-arm", data, numbers(data), arm_looks(data.arms))
    assert drawing is not None
    marks = [list(map(float, np.atleast_1d(line.get_xdata()))) for line in drawing.figure.axes[0].lines]
    expected = [[0.5, 0.7], [0.6], [0.1], [1.5, 1.5], [2.0, 2.2], [2.1], [1.6], [3.0, 3.0]]
    assert [[round(value, 9) for value in mark] for mark in marks] == expected
    assert (
        "IT train 0.600" in drawing.alt
        and "IM test 1.600" in drawing.alt
        and "base test 3.000" in drawing.alt
    )


def test_differences_are_drawn_at_their_values(data: ReportedDataSet) -> None:
    drawing = draw_differences("differences", data, numbers(data), arm_looks(data.arms))
    assert drawing is not None
    losses, shares = drawing.figure.axes
    assert [label.get_text() for label in losses.get_yticklabels()] == [
        "IM: test response loss",
        "IM: training response loss",
    ]
    # The line at 0, then an interval and a mark a row.
    assert [round(float(np.asarray(line.get_xdata())[0]), 9) for line in losses.lines] == [
        0.0,
        -0.5,
        -0.5,
        -0.5,
        -0.5,
    ]
    assert losses.lines[2].get_markerfacecolor() == "#d55e00"
    assert shares.lines[2].get_markerfacecolor() == "none"
    assert "percentage points" in shares.get_xlabel() and "IM − IT" not in shares.get_xlabel()


def test_histograms_share_bins_and_count_every_row(data: ReportedDataSet) -> None:
    drawing = draw_histograms("histograms", data, arm_looks(data.arms))
    assert drawing is not None
    steps = [patch for axes in drawing.figure.axes for patch in axes.patches if isinstance(patch, StepPatch)]
    drawn = [patch.get_data() for patch in steps]
    assert [int(counts.sum()) for counts, _, _ in drawn] == [3, 3, 3]
    assert all((edges == drawn[0][1]).all() for _, edges, _ in drawn)
    assert [axes.get_title().split(":")[0] for axes in drawing.figure.axes] == ["base", "IT", "IM"]
    assert "IT: 3 rows, mean 2.100, median 2.100, from 1.100 to 3.100" in drawing.alt


def test_loss_curves_are_thin_by_seed_and_bold_in_the_mean(data: ReportedDataSet) -> None:
    drawing = draw_loss_curves("curves", data, arm_looks(data.arms))
    assert drawing is not None
    assistant, user = drawing.figure.axes
    curves = [
        (round(float(line.get_linewidth()), 1), np.asarray(line.get_ydata()).round(3).tolist())
        for line in assistant.lines
    ]
    assert curves == [
        (0.6, [1.75, 1.5, 1.25]),
        (0.6, [1.74, 1.49, 1.24]),
        (1.9, [1.745, 1.495, 1.245]),
        (1.9, [1.75, 1.5, 1.25]),
    ]
    assert [line.get_label() for line in user.lines] == ["IM"]


def test_evaluations_while_training_are_not_training_loss(tmp_path: Path) -> None:
    write_json_lines(
        tmp_path / "metrics.jsonl",
        [
            {"step": 1, "loss": 3.0, "nll": {"assistant": 2.0}},
            {"step": 1, "eval_response_nll": 1.5},
            {"step": 2, "loss": 3.0, "nll": {"assistant": float("nan")}},
            {"step": 3, "loss": 2.0, "nll": {}},
        ],
    )
    metrics = list(read_rows(tmp_path / "metrics.jsonl"))
    assert logged_series(metrics, "assistant") == {1: 2.0} and evaluated_series(metrics) == {1: 1.5}


def test_the_mean_curve_has_the_steps_of_all_seeds() -> None:
    assert mean_series([{1: 2.0, 2: 4.0}, {2: 6.0, 3: 1.0}]) == {2: 5.0}
    assert mean_series([]) == {}


def test_a_long_curve_is_averaged_and_not_cut() -> None:
    steps, values = thinned({step: float(step) for step in range(1, 9001)})
    assert len(steps) == 300 and values.mean() == pytest.approx(4500.5) and steps[0] == pytest.approx(15.5)
    assert list(thinned({1: 2.0, 5: 3.0})[1]) == [2.0, 3.0]


def test_arms_keep_their_colours(tmp_path: Path) -> None:
    def named(*names: str) -> dict[str, Any]:
        return arm_looks([ReportedArm(name, name, []) for name in names])

    few, many = named("IT", "IM"), named("base", "IT", "IM w=0.1", "IM", "IM w=0.5", "prompt only", "LM")
    assert few["IT"] == many["IT"] and few["IM"] == many["IM"]
    assert len({look.colour for look in many.values()}) == 7
    assert len({look.marker for look in many.values()}) >= 6
