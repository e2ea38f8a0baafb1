"""The figures of an analysis: the two axes, lengths, shares of the loss, how full micro-batches are,
turns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.analysis.literature import PAPER_SETS
from instruction_modelling.analysis.predictions import fit_line, ratio_points
from instruction_modelling.analysis.text import number
from instruction_modelling.pages.drawing import (
    INK,
    KIND_COLOURS,
    Drawing,
    Picture,
    as_picture,
    drawing_style,
    new_figure,
)
from instruction_modelling.pages.loss_shares import draw_loss_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from instruction_modelling.analysis.analysis import Analysis

_BINS = 36
_LONGEST_NAME = 32
_PAPER, _OWN = "#767676", "#d55e00"
# Where a label would lie on another: (points right, points up, horizontal alignment).
_BESIDE = {
    "Tulu V2 50 %": (-6, -3, "right"),
    "Tulu V2": (-6, -3, "right"),
    "Less BBH ICL": (-6, -9, "right"),
    "WizardLM": (-6, -3, "right"),
    "Stanford Alpaca": (-6, -9, "right"),
    "Less Tydiqa": (6, -10, "left"),
    "Tulu V2 20 %": (6, -3, "left"),
    "Less MMLU Chat": (-6, 6, "right"),
    "Science Literature": (-6, -10, "right"),
    "Alpagasus Dolly 3k": (6, -6, "left"),
    "ShareGPT": (-6, 4, "right"),
}


def draw_axes_of_the_paper(names: Sequence[str], files: Sequence[dict[str, Any]]) -> Picture | None:
    """The paper's sets and these, by length ratio and rows; None if none of these has a place."""
    places = [
        (name, found["advice"]["position"])
        for name, found in zip(names, files, strict=True)
        if found["advice"]["position"]
    ]
    if not places:
        return None
    with drawing_style():
        figure, (axes,) = new_figure(4.3)
        for known in PAPER_SETS:
            right, up, side = _BESIDE.get(known.name, (6, -3, "left"))
            axes.plot(
                [known.ratio],
                [known.rows],
                "o",
                color=_PAPER,
                markersize=5,
                markerfacecolor=_PAPER if known.scores else "none",
            )
            axes.annotate(
                known.name,
                (known.ratio, known.rows),
                xytext=(right, up),
                textcoords="offset points",
                fontsize=7,
                color=_PAPER,
                ha=side,
            )
        for name, place in places:
            axes.plot([place["ratio"]], [place["rows"]], "*", color=_OWN, markersize=13)
            # On the right half of the picture a label goes to the left.
            left = place["log_ratio"] > 1.0
            label = axes.annotate(
                _clipped(name),
                (place["ratio"], place["rows"]),
                xytext=(-8 if left else 8, 8),
                textcoords="offset points",
                fontsize=8.5,
                fontweight="bold",
                ha="right" if left else "left",
            )
            label.set_in_layout(False)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.1, y=0.08)
        axes.grid(which="major")
        axes.set_xlabel("instruction words / output words (means)")
        axes.set_ylabel("rows")
        _ratio_ticks(axes)
        axes.yaxis.set_major_formatter(_whole)
        told = "; ".join(
            f"{name}: ratio {place['ratio']:.4g}, {place['rows']:,} rows" for name, place in places
        )
        return as_picture(
            Drawing(
                "axes",
                "The paper's two axes",
                "Further right: longer instructions for each word of output. Further down: fewer rows. The "
                "paper finds most gained on the right and at the bottom. Stars are these files; filled dots "
                "were tuned on in Table 1.",
                f"Scatter plot of data sets. {told}.",
                figure,
            )
        )


def draw_gains(names: Sequence[str], files: Sequence[dict[str, Any]]) -> Picture | None:
    """Figure 2 of the paper (left), corrected by its tables, with what its line says of these files; None if
    none has a place."""
    places = [
        (name, found["advice"]["position"]["log_ratio"], found["advice"]["predictions"][0])
        for name, found in zip(names, files, strict=True)
        if found["advice"]["position"]
    ]
    if not places:
        return None
    points = ratio_points()
    line = fit_line(points)
    xs = np.linspace(
        min(*(x for x, _ in points), *(x for _, x, _ in places)) - 0.3,
        max(*(x for x, _ in points), *(x for _, x, _ in places)) + 0.3,
        60,
    )
    middle, low, high = np.array([line.predict(x) for x in xs]).T
    with drawing_style():
        figure, (axes,) = new_figure(4.3)
        axes.fill_between(np.exp(xs), low, high, color=_PAPER, alpha=0.12, linewidth=0)
        axes.plot(np.exp(xs), middle, color=_PAPER, linewidth=1.2)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.plot(
            np.exp([x for x, _ in points]), [gain for _, gain in points], "o", color=_PAPER, markersize=5
        )
        for name, x, known in places:
            gain = known["ae1_gain_percent"]
            axes.plot([np.exp(x)] * 2, [known["low"], known["high"]], color=_OWN, linewidth=1.6)
            axes.plot([np.exp(x)], [gain], "*", color=_OWN, markersize=13)
            left = x > 1.0
            label = axes.annotate(
                _clipped(name),
                (np.exp(x), known["high"]),
                xytext=(0, 4),
                textcoords="offset points",
                fontsize=8.5,
                fontweight="bold",
                ha="right" if left else "left",
            )
            label.set_in_layout(False)
        axes.set_xscale("log")
        axes.grid(which="major")
        axes.set_xlabel("instruction words / output words (means)")
        axes.set_ylabel("AlpacaEval 1.0, IM over IT, %")
        _ratio_ticks(axes)
        told = "; ".join(
            f"{name}: {known['ae1_gain_percent']:+.0f} % ({known['low']:+.0f} to {known['high']:+.0f})"
            for name, _, known in places
        )
        return as_picture(
            Drawing(
                "gains",
                "What the paper's gains say of this ratio",
                "Dots: the sets of the paper's Figure 2, as its tables have them; one run each, LLaMA-2-7B. "
                "Line and band: what they say on average, and where one further set would lie (95 %). Stars: "
                "these files, if they behaved like the paper's.",
                f"Scatter plot of gains. {told}.",
                figure,
            )
        )


def _ratio_ticks(axes: "Axes") -> None:
    ticks = [
        tick
        for tick in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
        if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _clipped(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def draw_file(name: str, analysis: "Analysis") -> list[Picture]:
    """The figures of one file; `name` goes into their ids."""
    found = analysis.results
    tokens = found["tokens"]
    with drawing_style():
        drawings = [_lengths(name, analysis), _turns(name, found["turns"])]
        if tokens:
            shares = {
                f"{arm}, by {normalisation}": {
                    kind: share for kind, share in kinds.items() if kind != "response"
                }
                for arm, both in tokens["loss_shares"].items()
                for normalisation, kinds in both.items()
            }
            loss = draw_loss_shares(f"{name}-loss-shares", shares)
            if loss:
                loss = replace(
                    loss, guide=loss.guide + " If all tokens cost the same; by the normalisation of the loss."
                )
            drawings += [loss, _packing(name, tokens["packing"])]
        return [as_picture(drawing) for drawing in drawings if drawing]


def _lengths(name: str, analysis: "Analysis") -> Drawing:
    words = analysis.results["words"]
    figure, panels = new_figure(3.6, 2, sharex=True)
    most = max(2, *analysis.lengths.instruction, *analysis.lengths.output)
    told = []
    for axes, what, values, kind in zip(
        panels,
        ("instruction", "output"),
        (analysis.lengths.instruction, analysis.lengths.output),
        ("user", "assistant"),
        strict=True,
    ):
        _histogram(axes, values, most, KIND_COLOURS[kind])
        marks = {"mean": words[what], "median": words[f"{what}_median"], "mode": words[f"{what}_mode"]}
        for (label, value), line in zip(marks.items(), ("-", "--", ":"), strict=True):
            if value > 0:
                axes.axvline(value, color=INK, linewidth=1.1, linestyle=line, label=label)
        text = ", ".join(f"{label} {number(value, 1)}" for label, value in marks.items())
        axes.set_title(f"{what}: {text}")
        axes.set_ylabel("rows")
        told.append(f"{what}: {text}")
        empty = sum(value == 0 for value in values)
        if empty:
            axes.annotate(
                f"{empty:,} rows without", (0.99, 0.9), xycoords="axes fraction", ha="right", fontsize=7.5
            )
    panels[-1].set_xlabel("words a row (logarithmic)")
    panels[0].legend(loc="upper right")
    return Drawing(
        f"{name}-lengths",
        "Lengths of instructions and outputs",
        "Words as the paper counts them, the role's header included. Lines mark mean, median and mode.",
        "Histograms of words a row. " + "; ".join(told) + ".",
        figure,
    )


def _whole(value: float, _: float) -> str:
    """A tick of a logarithmic axis."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _histogram(axes: "Axes", values: Sequence[int], most: int, colour: str) -> None:
    # Whole numbers: edges lie half-way between them, and none is narrower than one.
    edges = np.unique(np.round(np.geomspace(1, most + 1, _BINS))) - 0.5
    counts, _ = np.histogram([value for value in values if value], bins=edges)
    axes.stairs(counts, edges, fill=True, color=colour, alpha=0.8)
    axes.set_xscale("log")
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(_whole)


def _turns(name: str, turns: dict[str, Any]) -> Drawing | None:
    """Rows by number of messages; nothing where all rows have as many."""
    counts = turns["rows_by_messages"]
    if len(counts) < 2:
        return None
    figure, (axes,) = new_figure(1.9)
    axes.bar(list(counts), list(counts.values()), color=KIND_COLOURS["assistant"], width=0.7)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter(_whole)
    axes.grid(axis="y")
    axes.set_xlabel("messages a row")
    axes.set_ylabel("rows (logarithmic)")
    if len(counts) > 20:
        step = -(-len(counts) // 12)
        axes.set_xticks(range(0, len(counts), step), list(counts)[::step])
    told = ", ".join(f"{size} messages {count:,}" for size, count in counts.items())
    return Drawing(
        f"{name}-turns",
        "Messages a row",
        "A row of one instruction and one response has two.",
        f"Bars of rows by number of messages: {told}.",
        figure,
    )


def _packing(name: str, packing: dict[str, Any]) -> Drawing:
    labels = {
        "packed": "packed",
        "padded_by_length": "padded, similar lengths together",
        "padded_as_they_come": "padded, as they come",
    }
    fills = packing["batch_sizes"]
    figure, (axes,) = new_figure(0.75 + 0.62 * len(fills))
    told = []
    for place, (key, label) in enumerate(labels.items()):
        values = [fill[key] for fill in fills]
        rows = [number + (place - 1) * 0.27 for number in range(len(fills))]
        axes.barh(rows, values, height=0.24, color=("#2a7f9e", "#7cc0d8", "#cc7722")[place], label=label)
        for row, value in zip(rows, values, strict=True):
            axes.text(
                value - 0.01,
                row,
                f"{value:.0%}",
                ha="right",
                va="center",
                fontsize=7.5,
                color="white" if place == 0 else "black",
            )
        told += [f"{fill['batch_size']} a step, {label}: {fill[key]:.1%}" for fill in fills]
    axes.set_yticks(range(len(fills)), [f"{fill['batch_size']} a step" for fill in fills])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    figure.legend(loc="outside upper left", ncols=3, handlelength=1, columnspacing=1.1)
    return Drawing(
        f"{name}-packing",
        "How full micro-batches are",
        f"The part of the computed places that hold tokens; the rest is padding. Packed micro-batches of "
        f"{packing['capacity']:,} tokens, padded ones of {packing['padded_size']} rows.",
        "Bars of the fill of micro-batches. " + "; ".join(told) + ".",
        figure,
    )
