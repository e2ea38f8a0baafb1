"""The figures of a data set: where the loss falls, loss curves, loss by arm, histograms, paired
differences."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from instruction_modelling.comparison.report.answer import reading
from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.curves import draw_loss_curves
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.measures import MEASURES, Measure
from instruction_modelling.comparison.report.runs import finite
from instruction_modelling.comparison.report.sentences import difference_measures
from instruction_modelling.pages.drawing import INK, Drawing, Picture, drawing_style, new_figure, save_drawing
from instruction_modelling.pages.loss_shares import draw_loss_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 24
_BY_KEY = {measure.key: measure for measure in MEASURES}
_RESPONSE_LOSS = {"train": "train_response_nll", "test": "test_response_nll"}
# The user loss of an arm that trains on it dwarfs every other difference.
_NOT_DRAWN = ("test_user_nll",)


def draw_data_set(
    data: ReportedDataSet, results: dict[str, Any], looks: Mapping[str, Look], folder: Path
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
    name: str, data: ReportedDataSet, results: dict[str, Any], looks: Mapping[str, Look]
) -> Drawing | None:
    """Draw dots of the mean response loss (nats per token) on training and test rows by arm, and the base
    model as lines; None where no arm has such a loss."""
    stats = results["arms"]
    arms = [arm for arm in data.trained if any(stats[arm.name][key] for key in _RESPONSE_LOSS.values())]
    if not arms:
        return None
    figure, (axes,) = new_figure(1.25 + 0.42 * len(arms))
    values_in_words = []
    for split, key in _RESPONSE_LOSS.items():
        for row, arm in enumerate(arms):
            if stats[arm.name][key]:
                losses = [loss for run in arm.runs if (loss := finite(_BY_KEY[key].value(run))) is not None]
                _draw_dots(axes, row, losses, looks[arm.name], is_hollow=split == "train")
                values_in_words.append(f"{arm.name} {split} {stats[arm.name][key]['mean']:.3f}")
        base = stats.get("base", {}).get(key) if data.base else None
        if base:
            line = "--" if split == "train" else "-"
            axes.axvline(base["mean"], color=looks["base"].colour, linewidth=1.4, zorder=1, linestyle=line)
            values_in_words.append(f"base {split} {base['mean']:.3f}")
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.margins(x=0.08)
    axes.set_xlabel("mean loss on responses (nats per token)")
    figure.legend(
        handles=_loss_legend(has_base=data.base is not None),
        loc="outside upper left",
        ncols=4,
        columnspacing=1.2,
        handletextpad=0.5,
    )
    return Drawing(
        name,
        "Response loss by arm",
        "Further left is a lower loss. Big marks are means over seeds, small ones single seeds; lines are "
        "the base model.",
        "Dot plot of the mean loss on responses in nats per token. " + "; ".join(values_in_words) + ".",
        figure,
    )


def _draw_dots(axes: "Axes", row: int, losses: Sequence[float], look: Look, is_hollow: bool) -> None:
    """Draw the mean of an arm's losses as a big mark and, where there are several, each as a small one."""
    face = "none" if is_hollow else look.colour
    style: dict[str, Any] = {"color": look.colour, "markerfacecolor": face}
    if len(losses) > 1:
        axes.plot(losses, [row + 0.25] * len(losses), look.marker, markersize=3.2, **style)
    axes.plot([float(np.mean(losses))], [row], look.marker, markersize=8, markeredgewidth=1.6, **style)


def _loss_legend(has_base: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    def entry(label: str, **style: Any) -> Line2D:
        return Line2D([], [], color=INK, label=label, **style)

    entries = [
        entry("training rows", marker="o", linestyle="", markerfacecolor="none"),
        entry("test rows", marker="o", linestyle=""),
    ]
    return entries + ([entry("base, training", linestyle="--"), entry("base, test")] if has_base else [])


def draw_differences(
    name: str, data: ReportedDataSet, results: dict[str, Any], looks: Mapping[str, Look]
) -> Drawing | None:
    """Draw mean paired differences to the reference with 95 % intervals, losses above and percentages below;
    None where there are none."""
    panels = _difference_panels(data, results)
    if data.reference is None or not panels:
        return None
    sizes = [len(rows) + 1.2 for rows in panels]
    figure, all_axes = new_figure(0.35 + 0.34 * sum(sizes) + 0.2 * len(panels), len(panels), sizes)
    values_in_words = []
    for axes, rows in zip(all_axes, panels, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        for row, (arm, measure) in enumerate(rows):
            difference = results["differences"][arm.name][measure.key]
            _draw_difference(axes, row, measure, difference, looks[arm.name])
            mean = measure.show_signed(difference["mean"])
            values_in_words.append(
                f"{arm.name} {measure.lowered_label} {mean} ({reading(measure, difference)})"
            )
        axes.set_yticks(range(len(rows)), [f"{arm.name}: {measure.lowered_label}" for arm, measure in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="x")
        axes.set_xlabel(f"arm − {data.reference.name} ({rows[0][1].difference_unit})")
    return Drawing(
        name,
        f"Paired differences to {data.reference.name}",
        "A bar that touches the line at 0 shows no clear difference (95 % paired bootstrap over rows). "
        "On the left of it the arm's value is lower.",
        "Differences with 95 % intervals. " + "; ".join(values_in_words) + ".",
        figure,
    )


def _difference_panels(
    data: ReportedDataSet, results: dict[str, Any]
) -> list[list[tuple[ReportedArm, Measure]]]:
    """Return what is drawn, a panel for each unit: the arms and measures that have a paired difference."""
    measures = [measure for measure in difference_measures(data, results) if measure.key not in _NOT_DRAWN]
    panels = [
        [
            (arm, measure)
            for measure in measures
            if measure.difference_unit == unit
            for arm in data.trained
            if results["differences"].get(arm.name, {}).get(measure.key)
        ]
        for unit in ("nats per token", "percentage points")
    ]
    return [rows for rows in panels if rows]


def _draw_difference(
    axes: "Axes", row: int, measure: Measure, difference: dict[str, Any], look: Look
) -> None:
    """Draw a difference with its interval, filled where the interval does not cover 0."""
    mean = difference["mean"] * measure.scale
    if difference["low"] is not None:
        interval = [difference["low"] * measure.scale, difference["high"] * measure.scale]
        axes.plot(interval, [row, row], color=look.colour, linewidth=2.2, solid_capstyle="butt")
    face = look.colour if difference["covers_zero"] is False else "none"
    axes.plot(
        [mean],
        [row],
        look.marker,
        color=look.colour,
        markersize=7.5,
        markeredgewidth=1.5,
        markerfacecolor=face,
    )
    axes.annotate(
        measure.show_signed(difference["mean"]),
        (mean, row),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7.5,
    )


def draw_histograms(name: str, data: ReportedDataSet, looks: Mapping[str, Look]) -> Drawing | None:
    """Draw histograms of the mean loss of each test response (nats per token), a panel for each arm, with
    bins in common; None where there are no losses by row."""
    measure = _BY_KEY["test_response_nll"]
    arms = [arm for arm in (data.base, data.reference, data.contrast) if arm is not None]
    losses = {arm.name: np.array(list(arm.row_means(measure).values())) for arm in arms}
    losses = {arm: values for arm, values in losses.items() if values.size}
    if not losses:
        return None
    from matplotlib.ticker import MaxNLocator

    edges = np.histogram_bin_edges(np.concatenate(list(losses.values())), bins=_BINS)
    figure, all_axes = new_figure(0.6 + 0.95 * len(losses), len(losses), sharex=True, sharey=True)
    values_in_words = []
    for axes, (arm, values) in zip(all_axes, losses.items(), strict=True):
        counts, _ = np.histogram(values, bins=edges)
        axes.stairs(counts, edges, fill=True, color=looks[arm].colour, alpha=0.75)
        axes.axvline(float(values.mean()), color=INK, linewidth=1.2, linestyle=":")
        axes.set_title(f"{arm}: mean {values.mean():.3f}, median {np.median(values):.3f}")
        axes.grid(axis="y")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        values_in_words.append(
            f"{arm}: {values.size} rows, mean {values.mean():.3f}, median {np.median(values):.3f}, from "
            f"{values.min():.3f} to {values.max():.3f}"
        )
    all_axes[-1].set_xlabel("mean loss of a test response (nats per token)")
    return Drawing(
        name,
        "Loss of single test responses",
        "Each row of the test file is counted once, averaged over seeds; the dotted line is the mean.",
        "Histograms of the loss of each test response. " + "; ".join(values_in_words) + ".",
        figure,
    )
