"""Figure 5: the benchmarks' mean and AlpacaEval 1 of every arm, for other models than Llama-2-7B."""

from collections.abc import Sequence
from typing import Any

from eval.paper.plots import (
    ONLY_DRAWN,
    PaperFigure,
    PaperPlot,
    above_in_words,
    file_name,
    label_rows,
    mark_missing,
)
from eval.paper.runs import PaperRuns, title_of
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import Look, arm_looks
from instruction_modelling.pages.drawing import Drawing, draw_legend, new_figure

COLUMNS = ("mean", "alpaca_eval_1")
# Of a data set: of an arm: by column, {"mean", "sd", "n"} or None.
Stats = dict[str, dict[str, dict[str, dict[str, Any] | None]]]


def figure_5(runs: PaperRuns) -> PaperFigure:
    """Return Figure 5 of the runs: a picture for each tuned model, a row for each data set."""
    figure = PaperFigure([])
    for model, sets in runs.by_model(own_evaluations=False).items():
        stats: Stats = {
            data.name: {
                arm.name: {column: runs.stat(arm, column) for column in COLUMNS} for arm in data.trained
            }
            for data in sets
        }
        differences = {
            column: [
                _difference(data, stats[data.name], column)
                for data in sets
                if _difference(data, stats[data.name], column) is not None
            ]
            for column in COLUMNS
        }
        figure.answer.append(f"{model}: {_answer(differences)}")
        name = file_name("figure_5", model)
        numbers = {"model": model, "scores": stats, "differences": differences, "paper": ONLY_DRAWN}
        has_any = any(
            stat for arms in stats.values() for columns in arms.values() for stat in columns.values()
        )
        figure.plots.append(PaperPlot(name, numbers, _draw(name, model, sets, stats) if has_any else None))
    return figure


def _difference(
    data: ReportedDataSet, stats: dict[str, dict[str, dict[str, Any] | None]], column: str
) -> dict[str, Any] | None:
    if data.reference is None or data.instruction_arm is None:
        return None
    first, second = stats[data.reference.name][column], stats[data.instruction_arm.name][column]
    if first is None or second is None:
        return None
    return {
        "data": data.name,
        "arms": [data.reference.name, data.instruction_arm.name],
        "difference": second["mean"] - first["mean"],
    }


def _answer(differences: dict[str, list[Any]]) -> str:
    told = []
    for column, known in differences.items():
        pairs = [(0.0, entry["difference"]) for entry in known]
        told.append(
            f"IM's {title_of(column)} is above IT's on {above_in_words(pairs, 'data sets')}"
            if pairs
            else f"cannot tell of the {title_of(column)}, which no data set has of both IT and IM"
        )
    return "; ".join(told) + "."


def _draw(name: str, model: str, sets: Sequence[ReportedDataSet], stats: Stats) -> Drawing:
    looks = arm_looks([arm for data in sets for arm in data.trained])
    figure, panels = new_figure(1.2 + 1.0 * len(sets), len(COLUMNS))
    said = []
    seen: set[str] = set()
    for axes, column in zip(panels, COLUMNS, strict=True):
        for row, data in enumerate(sets):
            for order, arm in enumerate(data.trained):
                height = row + 0.22 * (order - (len(data.trained) - 1) / 2)
                stat = stats[data.name][arm.name][column]
                if stat is None:
                    mark_missing(axes, height, arm.name, looks[arm.name].colour)
                else:
                    draw_stat(axes, height, stat, looks[arm.name], None if arm.name in seen else arm.name)
                    seen.add(arm.name)
                    said.append(f"{data.name}, {arm.name}, {title_of(column)} {stat['mean']:.2f}")
        label_rows(axes, [data.name for data in sets])
        axes.set_xlabel(title_of(column))
        if not any(arm[column] for arms in stats.values() for arm in arms.values()):
            axes.set_xticks([])
    draw_legend(figure, panels)
    return Drawing(
        name,
        f"Figure 5, {model}",
        "Marks are means over seeds, bars standard deviations.",
        "Dot plots. " + "; ".join(said) + ".",
        figure,
    )


def draw_stat(axes: Any, row: float, stat: dict[str, Any], look: Look, label: str | None) -> None:
    """Draw a mean over seeds with its standard deviation on a row of a dot plot."""
    axes.errorbar(
        [stat["mean"]],
        [row],
        xerr=None if stat["sd"] is None else [stat["sd"]],
        fmt=look.marker,
        color=look.colour,
        markersize=6,
        capsize=2,
        label=label,
    )
