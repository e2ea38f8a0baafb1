"""Table 2: how far the answers to training instructions repeat the training outputs, as BLEU, by arm.

The paper does not say which BLEU; both are here, and the mean over rows (sentence BLEU) is the one set beside
its numbers."""

from collections.abc import Sequence
from typing import Any

from eval.paper.models import draw_stat
from eval.paper.plots import (
    PAPER_COLOUR,
    PaperFigure,
    PaperPlot,
    above_in_words,
    file_name,
    label_rows,
    mark_missing,
)
from eval.paper.runs import PaperRuns
from instruction_modelling.analysis.literature import paper_tables, paper_values
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.comparison.report.measures import MEASURES
from instruction_modelling.comparison.report.runs import finite
from instruction_modelling.pages.drawing import Drawing, new_figure
from instruction_modelling.statistics import mean_and_sample_sd

_BLEU = {
    name: next(known for known in MEASURES if known.key == key)
    for name, key in (("sentence", "train_bleu"), ("corpus", "train_corpus_bleu"))
}
Cells = list[dict[str, Any]]


def table_2(runs: PaperRuns) -> PaperFigure:
    """Return Table 2 of the runs, as Markdown and as a picture, for each tuned model."""
    figure = PaperFigure([])
    grouped = runs.by_model()
    for model, sets in grouped.items():
        found = [cell for data in sets for cell in _cells(runs, data)]
        name = file_name("table_2", *([model] if len(grouped) > 1 else []))
        which = f"{model}: " if len(grouped) > 1 else ""
        figure.answer.append(which + _answer(sets, found))
        numbers = {"model": model, "cells": found, "paper": {"source": paper_tables()["table_2"]["source"]}}
        has_any = any(cell["sentence"] for cell in found)
        drawing = _draw(name, sets, found) if has_any else None
        figure.plots.append(PaperPlot(name, numbers, drawing, _markdown(found)))
    return figure


def _cells(runs: PaperRuns, data: ReportedDataSet) -> Cells:
    cells = []
    for arm in data.arms:
        stats = {}
        for name, measure in _BLEU.items():
            values = [value for run in arm.runs if (value := finite(measure.value(run))) is not None]
            stats[name] = mean_and_sample_sd(values)
        if stats["sentence"] is None:
            folder = arm.runs[0].folder / "eval" / "train"
            runs.say_missing(
                f"{data.name}: no BLEU of {arm.name} in {folder} (src/generate.py on the training file, then "
                "src/compute_bleu.py)"
            )
        paper = paper_values("table_2", data.name, arm.family).get("bleu")
        cells.append({"data": data.name, "arm": arm.name, "seeds": len(arm.runs), **stats, "paper": paper})
    return cells


def _answer(sets: Sequence[ReportedDataSet], cells: Cells) -> str:
    known = {(cell["data"], cell["arm"]): cell["sentence"] for cell in cells}
    pairs = [
        (known[data.name, data.reference.name], known[data.name, data.instruction_arm.name])
        for data in sets
        if data.reference and data.instruction_arm
    ]
    both = [(it["mean"], im["mean"]) for it, im in pairs if it and im]
    if not both:
        return (
            "Cannot tell whether IM's answers repeat the training outputs less than IT's: no data set has "
            "BLEU of both."
        )
    if not any(value for pair in both for value in pair):
        return "Cannot tell whether IM's answers repeat the training outputs less than IT's: every BLEU is 0."
    mean = sum(im - it for it, im in both) / len(both)
    return (
        f"IM's answers repeat the training outputs less than IT's (lower BLEU) on "
        f"{above_in_words([(im, it) for it, im in both], 'data sets')}, by {mean:+.2f} in the mean; in the "
        "paper on 7 of 7, by -2.79."
    )


def _text(stat: dict[str, Any] | None, seeds: int) -> str:
    if stat is None:
        return "missing"
    spread = "" if stat["sd"] is None else f" ± {stat['sd']:.2f}"
    return f"{stat['mean']:.2f}{spread}" + (f" ({stat['n']} of {seeds})" if stat["n"] != seeds else "")


def _markdown(cells: Cells) -> str:
    lines = ["| data | arm | sentence BLEU | corpus BLEU | the paper |", "|---|---|--:|--:|--:|"]
    lines += [
        f"| {cell['data']} | {cell['arm']} | {_text(cell['sentence'], cell['seeds'])} | "
        f"{_text(cell['corpus'], cell['seeds'])} | "
        f"{'–' if cell['paper'] is None else format(cell['paper'], '.2f')} |"
        for cell in cells
    ]
    return "\n".join(lines) + "\n"


def _draw(name: str, sets: Sequence[ReportedDataSet], cells: Cells) -> Drawing:
    looks = arm_looks([arm for data in sets for arm in data.arms])
    figure, (axes,) = new_figure(0.9 + 0.3 * len(cells))
    seen: set[str] = set()
    for row, cell in enumerate(cells):
        look = looks[cell["arm"]]
        if cell["sentence"] is None:
            mark_missing(axes, row, cell["arm"], look.colour)
        else:
            draw_stat(axes, row, cell["sentence"], look, None if cell["arm"] in seen else cell["arm"])
            seen.add(cell["arm"])
        if cell["paper"] is not None:
            label = None if "paper" in seen else "the paper"
            axes.plot([cell["paper"]], [row], "o", color=PAPER_COLOUR, markerfacecolor="none", label=label)
            seen.add("paper")
    label_rows(axes, [f"{cell['data']}: {cell['arm']}" for cell in cells])
    axes.set_xlabel("sentence BLEU with the training outputs, 0 to 100")
    figure.legend(loc="outside upper left", ncols=4)
    said = "; ".join(
        f"{cell['data']}, {cell['arm']}: {_text(cell['sentence'], cell['seeds'])}" for cell in cells
    )
    return Drawing(
        name,
        "Table 2 from these runs",
        "Marks are means over seeds, bars standard deviations.",
        f"Dots. {said}.",
        figure,
    )
