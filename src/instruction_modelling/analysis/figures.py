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
_PAPER, _THIS_FILE = "#767676", "#d55e00"
# Kinds of micro-batches by their key in the results: what they are, and their colour.
_FILLS = {
    "packed": ("packed", "#2a7f9e"),
    "padded_by_length": ("padded, similar lengths together", "#7cc0d8"),
    "padded_as_they_come": ("padded, as they come", "#cc7722"),
}
# Where a label would lie on another: (points right, points up, horizontal alignment).
_LABEL_SHIFTS = {
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


Results = dict[str, Any]


def draw_axes_of_the_paper(names: Sequence[str], files: Sequence[Results]) -> Picture | None:
    """Return the paper's sets and these, by length ratio and rows; None if none of these has a position."""
    positions = [
        (name, results["advice"]["position"])
        for name, results in zip(names, files, strict=True)
        if results["advice"]["position"]
    ]
    if not positions:
        return None
    with drawing_style():
        figure, (axes,) = new_figure(4.3)
        _draw_paper_sets(axes)
        for name, position in positions:
            axes.plot([position["ratio"]], [position["rows"]], "*", color=_THIS_FILE, markersize=13)
            _label_file(axes, name, position["log_ratio"], position["rows"], shift=8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.1, y=0.08)
        axes.grid(which="major")
        axes.set_xlabel("instruction words / output words (means)")
        axes.set_ylabel("rows")
        _ratio_ticks(axes)
        axes.yaxis.set_major_formatter(_whole_number)
        described = "; ".join(
            f"{name}: ratio {position['ratio']:.4g}, {position['rows']:,} rows"
            for name, position in positions
        )
        return as_picture(
            Drawing(
                "axes",
                "The paper's two axes",
                "Further right: longer instructions for each word of output. Further down: fewer rows. The "
                "paper finds most gained on the right and at the bottom. Stars are these files; filled dots "
                "were tuned on in Table 1.",
                f"Scatter plot of data sets. {described}.",
                figure,
            )
        )


def _draw_paper_sets(axes: "Axes") -> None:
    for known in PAPER_SETS:
        right, up, side = _LABEL_SHIFTS.get(known.name, (6, -3, "left"))
        filling = _PAPER if known.scores else "none"
        axes.plot([known.ratio], [known.rows], "o", color=_PAPER, markersize=5, markerfacecolor=filling)
        axes.annotate(
            known.name,
            (known.ratio, known.rows),
            xytext=(right, up),
            textcoords="offset points",
            fontsize=7,
            color=_PAPER,
            ha=side,
        )


def _label_file(axes: "Axes", name: str, log_ratio: float, y: float, shift: int) -> None:
    """Write a file's name above its star, `shift` points aside; to the left on the right half of the
    picture."""
    left = log_ratio > 1.0
    label = axes.annotate(
        _clipped(name),
        (np.exp(log_ratio), y),
        xytext=(-shift if left else shift, 8 if shift else 4),
        textcoords="offset points",
        fontsize=8.5,
        fontweight="bold",
        ha="right" if left else "left",
    )
    label.set_in_layout(False)


def draw_gains(names: Sequence[str], files: Sequence[Results]) -> Picture | None:
    """Return Figure 2 of the paper (left), corrected by its tables, with what its line says of these files;
    None if none has a position."""
    predicted = [
        (name, results["advice"]["position"]["log_ratio"], results["advice"]["predictions"][0])
        for name, results in zip(names, files, strict=True)
        if results["advice"]["position"]
    ]
    if not predicted:
        return None
    with drawing_style():
        figure, (axes,) = new_figure(4.3)
        _draw_published_gains(axes, [log_ratio for _, log_ratio, _ in predicted])
        for name, log_ratio, prediction in predicted:
            ratio, gain = np.exp(log_ratio), prediction["ae1_gain_percent"]
            axes.plot([ratio] * 2, [prediction["low"], prediction["high"]], color=_THIS_FILE, linewidth=1.6)
            axes.plot([ratio], [gain], "*", color=_THIS_FILE, markersize=13)
            _label_file(axes, name, log_ratio, prediction["high"], shift=0)
        axes.set_xscale("log")
        axes.grid(which="major")
        axes.set_xlabel("instruction words / output words (means)")
        axes.set_ylabel("AlpacaEval 1.0, IM over IT, %")
        _ratio_ticks(axes)
        described = "; ".join(
            f"{name}: {prediction['ae1_gain_percent']:+.0f} % "
            f"({prediction['low']:+.0f} to {prediction['high']:+.0f})"
            for name, _, prediction in predicted
        )
        return as_picture(
            Drawing(
                "gains",
                "What the paper's gains say of this ratio",
                "Dots: the sets of the paper's Figure 2, as its tables have them; one run each, LLaMA-2-7B. "
                "Line and band: what they say on average, and where one further set would lie (95 %). Stars: "
                "these files, if they behaved like the paper's.",
                f"Scatter plot of gains. {described}.",
                figure,
            )
        )


def _draw_published_gains(axes: "Axes", log_ratios: Sequence[float]) -> None:
    """Draw the points of Figure 2, their line and its band, over all that is drawn."""
    points = ratio_points()
    line = fit_line(points)
    reach = [*(x for x, _ in points), *log_ratios]
    xs = np.linspace(min(reach) - 0.3, max(reach) + 0.3, 60)
    middle, low, high = np.array([line.predict(x) for x in xs]).T
    axes.fill_between(np.exp(xs), low, high, color=_PAPER, alpha=0.12, linewidth=0)
    axes.plot(np.exp(xs), middle, color=_PAPER, linewidth=1.2)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.plot(np.exp([x for x, _ in points]), [gain for _, gain in points], "o", color=_PAPER, markersize=5)


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
    """Return the figures of one file; `name` goes into their ids."""
    results = analysis.results
    with drawing_style():
        drawings = [_lengths(name, analysis), _turns(name, results["turns"])]
        if results["tokens"]:
            drawings += [
                _loss_shares(name, results["tokens"]["loss_shares"]),
                _packing(name, results["tokens"]["packing"]),
            ]
        return [as_picture(drawing) for drawing in drawings if drawing]


def _loss_shares(name: str, by_arm: Results) -> Drawing | None:
    shares = {
        f"{arm}, by {normalisation}": {kind: share for kind, share in kinds.items() if kind != "response"}
        for arm, by_normalisation in by_arm.items()
        for normalisation, kinds in by_normalisation.items()
    }
    drawing = draw_loss_shares(f"{name}-loss-shares", shares)
    guide = " If all tokens cost the same; by the normalisation of the loss."
    return replace(drawing, guide=drawing.guide + guide) if drawing else None


def _lengths(name: str, analysis: "Analysis") -> Drawing:
    words, lengths = analysis.results["words"], analysis.lengths
    figure, panels = new_figure(3.6, 2, sharex=True)
    most = max(2, *lengths.instruction, *lengths.output)
    columns = (("instruction", lengths.instruction, "user"), ("output", lengths.output, "assistant"))
    described = []
    for axes, (column, values, kind) in zip(panels, columns, strict=True):
        _histogram(axes, values, most, KIND_COLOURS[kind])
        marks = {"mean": words[column], "median": words[f"{column}_median"], "mode": words[f"{column}_mode"]}
        for (label, value), style in zip(marks.items(), ("-", "--", ":"), strict=True):
            if value > 0:
                axes.axvline(value, color=INK, linewidth=1.1, linestyle=style, label=label)
        text = f"{column}: " + ", ".join(f"{label} {number(value, 1)}" for label, value in marks.items())
        axes.set_title(text)
        axes.set_ylabel("rows")
        described.append(text)
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
        "Histograms of words a row. " + "; ".join(described) + ".",
        figure,
    )


def _whole_number(value: float, _: float) -> str:
    """Return the label of a tick of a logarithmic axis."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _histogram(axes: "Axes", values: Sequence[int], most: int, colour: str) -> None:
    # Whole numbers: edges lie half-way between them, and none is narrower than one.
    edges = np.unique(np.round(np.geomspace(1, most + 1, _BINS))) - 0.5
    counts, _ = np.histogram([value for value in values if value], bins=edges)
    axes.stairs(counts, edges, fill=True, color=colour, alpha=0.8)
    axes.set_xscale("log")
    axes.grid(axis="y")
    axes.xaxis.set_major_formatter(_whole_number)


def _turns(name: str, turns: dict[str, Any]) -> Drawing | None:
    """Return rows by number of messages; None where all rows have as many."""
    counts = turns["rows_by_messages"]
    if len(counts) < 2:
        return None
    figure, (axes,) = new_figure(1.9)
    axes.bar(list(counts), list(counts.values()), color=KIND_COLOURS["assistant"], width=0.7)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_formatter(_whole_number)
    axes.grid(axis="y")
    axes.set_xlabel("messages a row")
    axes.set_ylabel("rows (logarithmic)")
    if len(counts) > 20:
        step = -(-len(counts) // 12)
        axes.set_xticks(range(0, len(counts), step), list(counts)[::step])
    described = ", ".join(f"{size} messages {count:,}" for size, count in counts.items())
    return Drawing(
        f"{name}-turns",
        "Messages a row",
        "A row of one instruction and one response has two.",
        f"Bars of rows by number of messages: {described}.",
        figure,
    )


def _packing(name: str, packing: Results) -> Drawing:
    fills = packing["batch_sizes"]
    figure, (axes,) = new_figure(0.75 + 0.62 * len(fills))
    described = []
    for order, (key, (label, colour)) in enumerate(_FILLS.items()):
        values = [fill[key] for fill in fills]
        heights = [row + (order - 1) * 0.27 for row in range(len(fills))]
        axes.barh(heights, values, height=0.24, color=colour, label=label)
        for height, value in zip(heights, values, strict=True):
            axes.text(
                value - 0.01,
                height,
                f"{value:.0%}",
                ha="right",
                va="center",
                fontsize=7.5,
                color="white" if key == "packed" else "black",
            )
        described += [f"{fill['batch_size']} a step, {label}: {fill[key]:.1%}" for fill in fills]
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
        "Bars of the fill of micro-batches. " + "; ".join(described) + ".",
        figure,
    )
