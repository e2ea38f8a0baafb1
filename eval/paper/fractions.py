"""Figure 6: how long the answers are and how often they win, by the rows trained on (the paper's: parts of
Tulu V2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.paper.plots import ONLY_DRAWN, PaperFigure, PaperPlot, above_in_words, file_name, plain_log_axis
from eval.paper.runs import PaperRuns
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.pages.drawing import Drawing, draw_legend, new_figure
from instruction_modelling.statistics import mean_and_sample_sd

_LABELS = {"words": "answer length (words)", "win_rate": "AlpacaEval 1 (%)"}


def figure_6(runs: PaperRuns, lengths: str = "alpaca_eval") -> PaperFigure:
    """Return Figure 6 of the runs, a picture for each tuned model; `lengths` says which answers are counted
    (`PaperRuns.answer_words`)."""
    figure = PaperFigure([])
    grouped = runs.by_model(own_evaluations=lengths == "test")
    for model, sets in grouped.items():
        points = [point for data in sets for point in _points(runs, data, lengths)]
        which = f"{model}: " if len(grouped) > 1 else ""
        figure.answer.append(which + _answer(sets, points))
        name = file_name("figure_6", *([model] if len(grouped) > 1 else []))
        numbers = {"model": model, "answers": lengths, "points": points, "paper": ONLY_DRAWN}
        drawn = [point for point in points if point["rows"] and (point["words"] or point["win_rate"])]
        figure.plots.append(PaperPlot(name, numbers, _draw(name, sets, drawn) if drawn else None))
    return figure


def _points(runs: PaperRuns, data: ReportedDataSet, lengths: str) -> list[dict[str, Any]]:
    points = []
    for arm in data.trained:
        words = [float(np.mean(of_run)) for run in arm.runs if (of_run := runs.answer_words(run, lengths))]
        rows = arm.runs[0].data.get("used")
        if not isinstance(rows, int) or rows < 1:
            runs.say_missing(
                f"{data.name}: the run.json of {arm.name} does not say how many rows were trained on"
            )
            rows = None
        points.append(
            {
                "data": data.name,
                "arm": arm.name,
                "rows": rows,
                "words": mean_and_sample_sd(words),
                "win_rate": runs.stat(arm, "alpaca_eval_1"),
            }
        )
    return points


def _answer(sets: Sequence[ReportedDataSet], points: Sequence[dict[str, Any]]) -> str:
    known = {(point["data"], point["arm"]): point for point in points}
    told = []
    for key, label, more in (
        ("words", "answers are longer", "than"),
        ("win_rate", "win rate is higher", "than"),
    ):
        pairs = [
            (known[data.name, data.reference.name][key], known[data.name, data.instruction_arm.name][key])
            for data in sets
            if data.reference and data.instruction_arm
        ]
        both = [(it["mean"], im["mean"]) for it, im in pairs if it and im]
        told.append(
            f"IM's {label} {more} IT's on {above_in_words(both, 'data sets')}"
            if both
            else f"cannot tell whether IM's {label} {more} IT's, for no data set has both"
        )
    return "; ".join(told) + "."


def _draw(name: str, sets: Sequence[ReportedDataSet], points: Sequence[dict[str, Any]]) -> Drawing:
    looks = arm_looks([arm for data in sets for arm in data.trained])
    figure, panels = new_figure(5.6, 2, sharex=True)
    said = []
    for axes, (key, label) in zip(panels, _LABELS.items(), strict=True):
        for arm in dict.fromkeys(point["arm"] for point in points):
            of_arm = sorted(
                (point for point in points if point["arm"] == arm and point[key]),
                key=lambda point: point["rows"],
            )
            if not of_arm:
                continue
            axes.errorbar(
                [point["rows"] for point in of_arm],
                [point[key]["mean"] for point in of_arm],
                yerr=[point[key]["sd"] or 0.0 for point in of_arm],
                marker=looks[arm].marker,
                color=looks[arm].colour,
                capsize=2,
                label=arm,
            )
            said += [f"{point['data']}, {arm}, {label} {point[key]['mean']:.2f}" for point in of_arm]
        missing = [f"{point['data']} {point['arm']}" for point in points if not point[key]]
        axes.set_title(f"missing: {', '.join(missing)}" if missing else "")
        plain_log_axis(axes)
        axes.set_ylabel(label)
        axes.grid()
    panels[-1].set_xlabel("rows trained on")
    draw_legend(figure, panels)
    return Drawing(
        name,
        "Figure 6 from these runs",
        "Marks are means over seeds, bars standard deviations.",
        "Lines by the rows trained on. " + "; ".join(said) + ".",
        figure,
    )
