"""Loss curves while training, from the metrics that a run logged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.runs import finite
from instruction_modelling.pages.drawing import INK, Drawing, draw_legend, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 300
_PANELS = {"assistant": "assistant tokens", "user": "user tokens", "text": "all tokens"}
_EVALUATED = "evaluation rows"

# A loss (nats per token) by optimiser step.
Series = dict[int, float]


def logged_series(metrics: Sequence[dict[str, Any]], kind: str) -> Series:
    """Return the mean NLL of a span kind by step; a run logs the kinds that it trains on."""
    series = {}
    for record in metrics:
        nll = finite((record.get("nll") or {}).get(kind))
        if nll is not None and "loss" in record and isinstance(record.get("step"), int):
            series[record["step"]] = nll
    return series


def evaluated_series(metrics: Sequence[dict[str, Any]]) -> Series:
    """Return the response NLL on the evaluation file while training, by step."""
    return {
        record["step"]: nll
        for record in metrics
        if isinstance(record.get("step"), int)
        and (nll := finite(record.get("eval_response_nll"))) is not None
    }


def mean_series(runs: Sequence[Series]) -> Series:
    """Return the mean over the runs at the steps that all of them logged."""
    if not runs:
        return {}
    shared = set.intersection(*(set(run) for run in runs))
    return {step: float(np.mean([run[step] for run in runs])) for step in sorted(shared)}


def thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values, at most 300: beyond that, averages of bins of equal count, as more cannot be
    seen."""
    steps, values = np.array(list(series)), np.array(list(series.values()))
    if len(steps) <= _MOST_POINTS:
        return steps, values
    bins = np.array_split(np.arange(len(steps)), _MOST_POINTS)
    return np.array([steps[indices].mean() for indices in bins]), np.array(
        [values[indices].mean() for indices in bins]
    )


def draw_loss_curves(name: str, data: ReportedDataSet, looks: Mapping[str, Look]) -> Drawing | None:
    """Draw the training loss by step on assistant and on user tokens, and on the evaluation rows where there
    are any; None where nothing was logged."""
    panels = _curves_of_panels(data)
    if not panels:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, all_axes = new_figure(0.7 + 1.55 * len(panels), len(panels), sharex=True)
    curves_in_words = []
    for axes, (label, runs_of_arm) in zip(all_axes, panels.items(), strict=True):
        for arm in data.trained:
            runs = [run for run in runs_of_arm[arm.name] if run]
            curves_in_words += _draw_curves(axes, arm, runs, looks[arm.name], label)
        axes.set_title(
            "response tokens of the evaluation rows" if label == _EVALUATED else f"{label} of training rows"
        )
        axes.set_ylabel("nats per token")
        axes.grid()
    all_axes[-1].set_xlabel("step")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    draw_legend(figure, all_axes)
    return Drawing(
        name,
        "Loss while training",
        "Thin lines are single seeds, the bold line their mean. An arm has a curve for the tokens it trains "
        "on.",
        "Loss by training step. " + "; ".join(curves_in_words) + ".",
        figure,
    )


def _curves_of_panels(data: ReportedDataSet) -> dict[str, dict[str, list[Series]]]:
    """Return the curves of each run by panel and arm, for the panels that have any."""
    metrics = {arm.name: [run.metrics() for run in arm.runs] for arm in data.trained}
    panels: dict[str, dict[str, list[Series]]] = {}
    for kind, label in _PANELS.items():
        panels[label] = {arm: [logged_series(run, kind) for run in runs] for arm, runs in metrics.items()}
    panels[_EVALUATED] = {arm: [evaluated_series(run) for run in runs] for arm, runs in metrics.items()}
    return {label: arms for label, arms in panels.items() if any(any(runs) for runs in arms.values())}


def _draw_curves(axes: "Axes", arm: ReportedArm, runs: Sequence[Series], look: Look, label: str) -> list[str]:
    """Draw one arm's curves; return what they say, for the alternative text."""
    mean = mean_series(runs)
    marker = look.marker if label == _EVALUATED else ""
    if len(runs) > 1:
        for run in runs:
            axes.plot(*thinned(run), color=look.colour, linewidth=0.6, alpha=0.55)
    if not mean:
        return []
    axes.plot(
        *thinned(mean),
        color=look.colour,
        linewidth=1.9,
        marker=marker,
        markersize=4,
        label=arm.name,
        markeredgecolor=INK if marker else look.colour,
        markeredgewidth=0.3,
    )
    first, last = next(iter(mean)), next(reversed(mean))
    return [f"{arm.name} on {label}: {mean[first]:.3f} at step {first} to {mean[last]:.3f} at step {last}"]
