"""Loss curves while training, from the metrics that a run logged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.comparison.report.groups import Arm, DataSet
from instruction_modelling.comparison.report.looks import Look
from instruction_modelling.comparison.report.runs import finite
from instruction_modelling.pages.drawing import INK, Drawing, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 300
_PANELS = {"assistant": "assistant tokens", "user": "user tokens", "text": "all tokens"}
_EVALUATED = "evaluation rows"

Series = dict[int, float]


def logged_series(metrics: Sequence[dict[str, Any]], kind: str) -> Series:
    """Mean NLL of a span kind (nats per token) by step; a run logs the kinds that it trains on."""
    series = {}
    for record in metrics:
        value = finite((record.get("nll") or {}).get(kind))
        if value is not None and "loss" in record and isinstance(record.get("step"), int):
            series[record["step"]] = value
    return series


def evaluated_series(metrics: Sequence[dict[str, Any]]) -> Series:
    """Response NLL on the evaluation file while training (nats per token), by step."""
    return {
        record["step"]: value
        for record in metrics
        if isinstance(record.get("step"), int)
        and (value := finite(record.get("eval_response_nll"))) is not None
    }


def mean_series(runs: Sequence[Series]) -> Series:
    """The mean over the runs at the steps that all of them logged."""
    if not runs:
        return {}
    shared = set.intersection(*(set(run) for run in runs))
    return {step: float(np.mean([run[step] for run in runs])) for step in sorted(shared)}


def thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, averaged in bins of equal count where there are more than can be seen."""
    steps, values = np.array(list(series)), np.array(list(series.values()))
    if len(steps) <= _MOST_POINTS:
        return steps, values
    pieces = np.array_split(np.arange(len(steps)), _MOST_POINTS)
    return np.array([steps[piece].mean() for piece in pieces]), np.array(
        [values[piece].mean() for piece in pieces]
    )


def draw_loss_curves(name: str, data: DataSet, looks: Mapping[str, Look]) -> Drawing | None:
    """Training loss by step on assistant and on user tokens, and on the evaluation rows where there are
    any."""
    metrics = {arm.name: [run.metrics() for run in arm.runs] for arm in data.trained}
    panels: dict[str, dict[str, list[Series]]] = {}
    for kind, label in _PANELS.items():
        panels[label] = {arm: [logged_series(run, kind) for run in runs] for arm, runs in metrics.items()}
    panels[_EVALUATED] = {arm: [evaluated_series(run) for run in runs] for arm, runs in metrics.items()}
    panels = {label: arms for label, arms in panels.items() if any(any(runs) for runs in arms.values())}
    if not panels:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, all_axes = new_figure(0.7 + 1.55 * len(panels), len(panels), sharex=True)
    told = []
    for axes, (label, arms) in zip(all_axes, panels.items(), strict=True):
        for arm in data.trained:
            told += _curves(axes, arm, [run for run in arms[arm.name] if run], looks[arm.name], label)
        axes.set_title(
            "response tokens of the evaluation rows" if label == _EVALUATED else f"{label} of training rows"
        )
        axes.set_ylabel("nats per token")
        axes.grid()
    all_axes[-1].set_xlabel("step")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = {
        text: handle
        for axes in all_axes
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(4, len(handles)))
    return Drawing(
        name,
        "Loss while training",
        "Thin lines are single seeds, the bold line their mean. An arm has a curve for the tokens it trains "
        "on.",
        "Loss by training step. " + "; ".join(told) + ".",
        figure,
    )


def _curves(axes: "Axes", arm: Arm, runs: Sequence[Series], look: Look, label: str) -> list[str]:
    """Draw one arm's curves; what they say, for the alt text."""
    mean = mean_series(runs)
    points = look.marker if label == _EVALUATED else ""
    if len(runs) > 1:
        for run in runs:
            axes.plot(*thinned(run), color=look.colour, linewidth=0.6, alpha=0.55)
    if not mean:
        return []
    axes.plot(
        *thinned(mean),
        color=look.colour,
        linewidth=1.9,
        marker=points,
        markersize=4,
        label=arm.name,
        markeredgecolor=INK if points else look.colour,
        markeredgewidth=0.3,
    )
    first, last = next(iter(mean)), next(reversed(mean))
    return [f"{arm.name} on {label}: {mean[first]:.3f} at step {first} to {mean[last]:.3f} at step {last}"]
