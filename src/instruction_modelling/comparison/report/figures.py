"""The figures of a data set: where the loss falls, loss curves, loss by arm, histograms, paired
differences."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from instruction_modelling.comparison.report.curves import draw_loss_curves
from instruction_modelling.comparison.report.groups import Arm, DataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.measures import MEASURES, Measure
from instruction_modelling.comparison.report.words import difference_measures, lowered
from instruction_modelling.pages.drawing import INK, Drawing, Picture, drawing_style, new_figure, save_drawing
from instruction_modelling.pages.loss_shares import draw_loss_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 24
_BY_KEY = {measure.key: measure for measure in MEASURES}
# The user loss of an arm that trains on it dwarfs every other difference.
_NOT_DRAWN = ("test_user_nll",)


def draw_data_set(
    data: DataSet, results: dict[str, Any], looks: Mapping[str, Look], folder: Path
) -> list[Picture]:
    """Draw and save every figure that the data set has the numbers for; `results` is its part of the
    results."""
    folder.mkdir(parents=True, exist_ok=True)
    slug = quote(data.name, safe="").replace("%", "_")
    with drawing_style():
        drawings = [
            draw_loss_shares(f"{slug}-loss-shares", results["loss_shares"]),
            draw_loss_by_arm(f"{slug}-loss-by-arm", data, results, looks),
            draw_differences(f"{slug}-differences", data, results, looks),
            draw_histograms(f"{slug}-histograms", data, looks),
            draw_loss_curves(f"{slug}-loss-curves", data, looks),
        ]
        return [save_drawing(drawing, folder) for drawing in drawings if drawing]


def draw_loss_by_arm(
    name: str, data: DataSet, results: dict[str, Any], looks: Mapping[str, Look]
) -> Drawing | None:
    """Dots of the mean response loss on training and test rows by arm; the base model as lines."""
    keys = {"train": "train_response_nll", "test": "test_response_nll"}
    stats = results["arms"]
    arms = [arm for arm in data.trained if any(stats[arm.name][key] for key in keys.values())]
    if not arms:
        return None
    figure, (axes,) = new_figure(1.25 + 0.42 * len(arms))
    told = []
    for split, key in keys.items():
        for row, arm in enumerate(arms):
            if stats[arm.name][key]:
                _dots(
                    axes,
                    row,
                    arm,
                    _BY_KEY[key],
                    stats[arm.name][key]["mean"],
                    looks[arm.name],
                    split == "train",
                )
                told.append(f"{arm.name} {split} {stats[arm.name][key]['mean']:.3f}")
        base = stats.get("base", {}).get(key) if data.base else None
        if base:
            axes.axvline(
                base["mean"],
                color=looks["base"].colour,
                linewidth=1.4,
                zorder=1,
                linestyle="--" if split == "train" else "-",
            )
            told.append(f"base {split} {base['mean']:.3f}")
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.margins(x=0.08)
    axes.set_xlabel("mean loss on responses (nats per token)")
    from matplotlib.lines import Line2D

    def entry(label: str, **style: Any) -> Line2D:
        return Line2D([], [], color=INK, label=label, **style)

    handles = [
        entry("training rows", marker="o", linestyle="", markerfacecolor="none"),
        entry("test rows", marker="o", linestyle=""),
    ]
    if data.base:
        handles += [entry("base, training", linestyle="--"), entry("base, test")]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, columnspacing=1.2, handletextpad=0.5)
    return Drawing(
        name,
        "Response loss by arm",
        "Further left is a lower loss. Big marks are means over seeds, small ones single seeds; lines are "
        "the "
        "base model.",
        "Dot plot of the mean loss on responses in nats per token. " + "; ".join(told) + ".",
        figure,
    )


def _dots(axes: "Axes", row: int, arm: Arm, measure: Measure, mean: float, look: Look, hollow: bool) -> None:
    values = [value for run in arm.runs if (value := measure.value(run)) is not None and np.isfinite(value)]
    face = "none" if hollow else look.colour
    if len(values) > 1:
        axes.plot(
            values,
            [row + 0.25] * len(values),
            look.marker,
            color=look.colour,
            markerfacecolor=face,
            markersize=3.2,
        )
    axes.plot(
        [mean], [row], look.marker, color=look.colour, markerfacecolor=face, markersize=8, markeredgewidth=1.6
    )


def draw_differences(
    name: str, data: DataSet, results: dict[str, Any], looks: Mapping[str, Look]
) -> Drawing | None:
    """Mean paired differences to the reference with 95 % intervals: losses above, percentages below."""
    if data.reference is None:
        return None
    panels: list[list[tuple[Arm, Measure]]] = []
    measures = [measure for measure in difference_measures(data, results) if measure.key not in _NOT_DRAWN]
    for unit in ("nats per token", "percentage points"):
        rows = [
            (arm, measure)
            for measure in measures
            if measure.difference_unit == unit
            for arm in data.trained
            if results["differences"].get(arm.name, {}).get(measure.key)
        ]
        panels += [rows] if rows else []
    if not panels:
        return None
    sizes = [len(rows) + 1.2 for rows in panels]
    figure, all_axes = new_figure(0.35 + 0.34 * sum(sizes) + 0.2 * len(panels), len(panels), sizes)
    told = []
    for axes, rows in zip(all_axes, panels, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        for row, (arm, measure) in enumerate(rows):
            found = results["differences"][arm.name][measure.key]
            told.append(_difference_mark(axes, row, measure, found, looks[arm.name], arm.name))
        axes.set_yticks(range(len(rows)), [f"{arm.name}: {lowered(measure.label)}" for arm, measure in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="x")
        axes.set_xlabel(f"arm − {data.reference.name} ({rows[0][1].difference_unit})")
    return Drawing(
        name,
        f"Paired differences to {data.reference.name}",
        "A bar that touches the line at 0 shows no clear difference (95 % paired bootstrap over rows). "
        "On the left of it the arm's value is lower.",
        "Differences with 95 % intervals. " + "; ".join(told) + ".",
        figure,
    )


def _difference_mark(
    axes: "Axes", row: int, measure: Measure, found: dict[str, Any], look: Look, arm: str
) -> str:
    mean = found["mean"] * measure.scale
    clear = found["covers_zero"] is False
    if found["low"] is not None:
        low, high = found["low"] * measure.scale, found["high"] * measure.scale
        axes.plot([low, high], [row, row], color=look.colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot(
        [mean],
        [row],
        look.marker,
        color=look.colour,
        markersize=7.5,
        markeredgewidth=1.5,
        markerfacecolor=look.colour if clear else "none",
    )
    axes.annotate(
        measure.show_signed(found["mean"]),
        (mean, row),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7.5,
    )
    return f"{arm} {lowered(measure.label)} {measure.show_signed(found['mean'])} ({found['verdict']})"


def draw_histograms(name: str, data: DataSet, looks: Mapping[str, Look]) -> Drawing | None:
    """Histograms of the mean loss of each test response, one panel an arm, with bins in common."""
    measure = _BY_KEY["test_response_nll"]
    arms = [arm for arm in (data.base, data.reference, data.contrast) if arm is not None]
    values = {arm.name: np.array(list(arm.row_means(measure).values())) for arm in arms}
    values = {arm: known for arm, known in values.items() if known.size}
    if not values:
        return None
    from matplotlib.ticker import MaxNLocator

    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=_BINS)
    figure, all_axes = new_figure(0.6 + 0.95 * len(values), len(values), sharex=True, sharey=True)
    told = []
    for axes, (arm, known) in zip(all_axes, values.items(), strict=True):
        counts, _ = np.histogram(known, bins=edges)
        axes.stairs(counts, edges, fill=True, color=looks[arm].colour, alpha=0.75)
        axes.axvline(float(known.mean()), color=INK, linewidth=1.2, linestyle=":")
        axes.set_title(f"{arm}: mean {known.mean():.3f}, median {np.median(known):.3f}")
        axes.grid(axis="y")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        told.append(
            f"{arm}: {known.size} rows, mean {known.mean():.3f}, median {np.median(known):.3f}, from "
            f"{known.min():.3f} to {known.max():.3f}"
        )
    all_axes[-1].set_xlabel("mean loss of a test response (nats per token)")
    return Drawing(
        name,
        "Loss of single test responses",
        "Each row of the test file is counted once, averaged over seeds; the dotted line is the mean.",
        "Histograms of the loss of each test response. " + "; ".join(told) + ".",
        figure,
    )
