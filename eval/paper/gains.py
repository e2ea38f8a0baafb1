"""Figure 2: how much more IM gains over IT on AlpacaEval 1 by length ratio and by rows, beside the paper's.

The gain is 100 (IM's win rate / IT's - 1). Lines are least squares on natural logarithms, as the paper's. Its
left panel disagrees with its own tables in three points (`analysis.literature`); both versions are given."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.paper.plots import PAPER_COLOUR, PaperFigure, PaperPlot, file_name, plain_log_axis
from eval.paper.runs import PaperRuns
from eval.table.made import made_differently
from instruction_modelling.analysis.literature import (
    CORRECTED_SETS,
    gains_by_ratio,
    gains_by_rows,
    paper_tables,
    printed_line,
)
from instruction_modelling.analysis.predictions import NEAR_TEN, Line, fit_line, ratio_points, size_points
from instruction_modelling.comparison.report.answer import LEAST_ROWS
from instruction_modelling.comparison.report.arms import ReportedArm, differing_options
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.training_data import length_ratios
from instruction_modelling.pages.drawing import INK, Drawing, new_figure
from instruction_modelling.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES
from instruction_modelling.weight_options import WEIGHT_FLAGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIN_RATE = "alpaca_eval_1"
_OWN = "#d55e00"
_LEAST_POINTS = 3


@dataclass(frozen=True)
class GainPoint:
    """A data set's place in the figure.

    `gain` is in percent of IT's win rate, on the `items` that all runs were judged on, with the 95 % interval
    of a paired bootstrap over these. Without an interval `low` and `high` are None, `items` is 0, and the
    gain is that of `win_rates`, which are of all that each run was judged on. `ratio` is mean instruction
    over mean output words, None where the training file is not at hand; `rows` are those trained on."""

    data: str
    arms: tuple[str, str]
    win_rates: tuple[dict[str, Any], dict[str, Any]]
    gain: float
    low: float | None
    high: float | None
    items: int
    ratio: float | None
    rows: int | None


def figure_2(runs: PaperRuns, train_files: Sequence[Path]) -> PaperFigure:
    """Return Figure 2 of the runs, a picture for each tuned model.

    Args:
        runs: the runs; IT and IM on each data set, judged by AlpacaEval 1.
        train_files: their training files, where they are not where the runs found them.
    """
    figure = PaperFigure([])
    grouped = runs.by_model(own_evaluations=False)
    ratios = _ratios(runs, [data for sets in grouped.values() for data in sets], train_files)
    for model, sets in grouped.items():
        points = [point for data in sets if (point := _point(runs, data, ratios.get(data.name)))]
        by_ratio = [(math.log(point.ratio), point.gain) for point in points if point.ratio]
        near = [point for point in points if point.ratio and NEAR_TEN[0] <= point.ratio <= NEAR_TEN[1]]
        by_rows = [(math.log(point.rows), point.gain) for point in near if point.rows]
        fits = {"by_ratio": _own_fit(by_ratio), "by_rows": _own_fit(by_rows)}
        which = f"{model}: " if len(grouped) > 1 else ""
        figure.answer += [
            which + _answer("by_ratio", fits["by_ratio"], len(by_ratio), len(sets)),
            which + _answer("by_rows", fits["by_rows"], len(by_rows), len(sets)),
        ]
        name = file_name("figure_2", *([model] if len(grouped) > 1 else []))
        numbers = {
            "model": model,
            "points": [asdict(point) for point in points],
            "fits": {axis: fit and _fit_numbers(fit) for axis, fit in fits.items()},
            "paper": paper_lines(),
        }
        figure.plots.append(PaperPlot(name, numbers, _draw(name, points, fits) if points else None))
    return figure


# -- one's own points --------------------------------------------------------------------------------------


def _ratios(
    runs: PaperRuns, sets: Sequence[ReportedDataSet], train_files: Sequence[Path]
) -> dict[str, dict[str, Any]]:
    """Return the length ratio of each data set by its name, of the files given or of those the runs name."""
    recorded = [Path(str(data.runs[0].data.get("path"))) for data in sets if data.runs[0].data.get("path")]
    given = {path.name for path in train_files}
    # A file that was given stands for the one of its name that a run recorded.
    paths = [
        *train_files,
        *(path for path in dict.fromkeys(recorded) if path.name not in given and path.exists()),
    ]
    ratios = length_ratios(paths, sets)
    for data in sets:
        known = ratios.get(data.name)
        if known is None:
            runs.say_missing(
                f"{data.name}: no length ratio, for its training file "
                f"{data.runs[0].data.get('path') or ''} is not there; name it with --train_file"
            )
        elif data.sha256 not in (None, known["sha256"]):
            runs.say_missing(
                f"{data.name}: no length ratio, for {known['file']} has changed since it was trained on"
            )
            del ratios[data.name]
        elif known["ratio"] is None:
            runs.say_missing(f"{data.name}: no length ratio, for {known['file']} has no output")
    return ratios


def _point(runs: PaperRuns, data: ReportedDataSet, words: dict[str, Any] | None) -> GainPoint | None:
    """Return the data set's point; None, said among what is missing, where an arm has no win rate."""
    it, im = data.reference, data.instruction_arm
    if it is None or im is None:
        have = ", ".join(arm.name for arm in data.trained) or "no arm"
        runs.say_missing(f"{data.name}: no gain, for it needs IT and IM, and there is {have}")
        return None
    first, second = runs.stat(it, WIN_RATE), runs.stat(im, WIN_RATE)
    if first is None or second is None:
        return None
    if not first["mean"]:
        runs.say_missing(
            f"{data.name}: no gain, for {it.name}'s win rate is 0 and nothing is a percentage of 0"
        )
        return None
    passed = [
        arm.name for arm in data.trained if arm.family in (it.family, im.family) and arm not in (it, im)
    ]
    if passed:
        runs.say_doubt(
            f"{data.name}: the gain is that of {im.name} over {it.name}; {', '.join(passed)} left out"
        )
    others = set(differing_options([it.runs[0], im.runs[0]])) - {*WEIGHT_FLAGS}
    if others:
        runs.say_doubt(f"{data.name}: {it.name} and {im.name} differ in {', '.join(sorted(others))} too")
    found = _gain_over_items(runs, data.name, it, im)
    gain, low, high, items = found or (100 * (second["mean"] / first["mean"] - 1), None, None, 0)
    rows = it.runs[0].data.get("used")
    return GainPoint(
        data.name,
        (it.name, im.name),
        (first, second),
        gain,
        low,
        high,
        items,
        (words or {}).get("ratio"),
        rows if isinstance(rows, int) and rows > 0 else None,
    )


def _gain_over_items(
    runs: PaperRuns, data: str, it: ReportedArm, im: ReportedArm
) -> tuple[float, float, float, int] | None:
    """Return the gain over the items that all runs were judged on, the ends of its interval, and how many
    items; None, said among what is missing, where it has no interval."""
    arms = [[run for run in arm.runs if runs.value(run, WIN_RATE) is not None] for arm in (it, im)]
    judged = [run for arm in arms for run in arm]
    for way in made_differently([one for run in judged if (one := runs.results_of(run))], WIN_RATE):
        runs.say_doubt(f"{data}: the runs were not judged in one way: {way}")
    scores = {run.folder: runs.item_scores(run, WIN_RATE) for run in judged}
    none = [str(folder) for folder, of_run in scores.items() if not of_run]
    if none:
        runs.say_missing(
            f"{data}: the gain has no interval, for there are no scores of items (items.jsonl in the results "
            f"of {WIN_RATE}) of {', '.join(none)}"
        )
        return None
    items = set().union(*scores.values())
    shared = sorted(items.intersection(*scores.values()))
    if len(shared) < LEAST_ROWS:
        runs.say_missing(
            f"{data}: the gain has no interval, for {len(shared)} items were judged in all runs, at least "
            f"{LEAST_ROWS} needed"
        )
        return None
    first, second = (
        np.array([[scores[run.folder][item] for item in shared] for run in arm]).mean(axis=0) for arm in arms
    )
    found = paired_gain(first, second)
    if found is None:
        runs.say_missing(f"{data}: the gain has no interval, for {it.name} won too few items to divide by")
        return None
    lacks = {folder: len(items) - len(of_run) for folder, of_run in scores.items()}
    if any(lacks.values()):
        who = ", ".join(f"{folder} lacks {count:,}" for folder, count in lacks.items() if count)
        runs.say_doubt(f"{data}: the gain is of {len(shared):,} of {len(items):,} judged items, for {who}")
    return (*found, len(shared))


def paired_gain(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float] | None:
    """Return the gain in percent over all items and the ends of its 95 % interval, of a paired percentile
    bootstrap over items; None where resamples have no gain, for the first arm won nothing in them.

    Args:
        first: score of each item of the arm that the gain is over, float[items].
        second: those of the other arm.
    """
    from scipy.stats import bootstrap

    def _gain(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
        return 100 * (after.mean(axis=axis) / before.mean(axis=axis) - 1)

    with np.errstate(divide="ignore", invalid="ignore"):
        interval = bootstrap(
            (first, second),
            _gain,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=1000,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(BOOTSTRAP_SEED),
        ).confidence_interval
        found = float(_gain(first, second)), float(interval.low), float(interval.high)
    return found if all(map(math.isfinite, found)) else None


# -- lines -------------------------------------------------------------------------------------------------


def paper_lines() -> dict[str, Any]:
    """Return the paper's points, the lines through them and the lines it prints, by panel."""
    figure = paper_tables()["figure_2"]
    return {
        "source": figure["what"],
        "by_ratio": {
            "as_drawn": {"points": gains_by_ratio(()), "fit": _fit_numbers(fit_line(ratio_points(())))},
            "corrected": {
                "points": gains_by_ratio(),
                "sets": list(CORRECTED_SETS),
                "fit": _fit_numbers(fit_line(ratio_points())),
            },
            "printed": printed_line("by_ratio"),
        },
        "by_rows": {
            "as_drawn": {"points": gains_by_rows(), "fit": _fit_numbers(fit_line(size_points()))},
            "printed": printed_line("by_rows"),
        },
    }


def _own_fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """Return the line through (ln x, gain); None for fewer than three points, or all at one x."""
    if len(points) < _LEAST_POINTS or len({x for x, _ in points}) < 2:
        return None
    return fit_line(points)


def _fit_numbers(line: Line) -> dict[str, Any]:
    low, high = line.slope_interval()
    return {**asdict(line), "slope_low": low, "slope_high": high}


_AXES = {
    "by_ratio": (
        "the length ratio (instruction / output words)",
        "twice the instruction for each word of output",
    ),
    "by_rows": ("the number of rows, at length ratios near 10", "twice the rows"),
}


def _answer(axis: str, fit: Line | None, points: int, sets: int) -> str:
    """Return what the line says, in a sentence."""
    of_what, more = _AXES[axis]
    paper = fit_line(ratio_points() if axis == "by_ratio" else size_points())
    tables = " by its own tables" if axis == "by_ratio" else ""
    beside = f"the paper's points{tables} say {_by_doubling(paper.slope)} points a doubling"
    if fit is None:
        return (
            f"Cannot tell how the gain of IM over IT on AlpacaEval 1 goes with {of_what}: {points} of {sets} "
            f"data sets have it, and a line needs {_LEAST_POINTS} that differ; {beside}."
        )
    low, high = fit.slope_interval()
    clear = "does not clearly go with" if low <= 0 <= high else "rises with" if low > 0 else "falls with"
    return (
        f"Over {points} data sets the gain of IM over IT on AlpacaEval 1 {clear} {of_what}: "
        f"{_by_doubling(fit.slope)} points ({_by_doubling(low)} to {_by_doubling(high)}, 95 %) with {more}, "
        f"on the line {fit.slope:.2f} ln(x) {fit.intercept:+.2f}, "
        f"R² {fit.r_squared:.2f}; {beside}."
    )


def _by_doubling(slope: float) -> str:
    """Return what a slope over natural logarithms says of a doubling."""
    return f"{slope * math.log(2):+.1f}"


# -- the picture -------------------------------------------------------------------------------------------


def _draw(name: str, points: Sequence[GainPoint], fits: dict[str, Line | None]) -> Drawing:
    figure, panels = new_figure(7.6, 2)
    left, right = panels
    for (ratio, drawn), (true_ratio, gain) in zip(gains_by_ratio(()), gains_by_ratio(), strict=True):
        if (ratio, drawn) != (true_ratio, gain):
            left.plot([ratio, true_ratio], [drawn, gain], ":", color=PAPER_COLOUR, linewidth=0.8)
            left.plot([ratio], [drawn], "o", color=PAPER_COLOUR, markersize=4.5, markerfacecolor="none")
    _draw_paper(left, ratio_points(), printed_line("by_ratio"), "the paper, by its own tables")
    _draw_paper(right, size_points(), printed_line("by_rows"), "the paper")
    _draw_own(left, [(point.ratio, point) for point in points], fits["by_ratio"])
    near = [point for point in points if point.ratio and NEAR_TEN[0] <= point.ratio <= NEAR_TEN[1]]
    _draw_own(right, [(point.rows, point) for point in near], fits["by_rows"])
    left.set_xlabel("instruction words / output words (means)")
    right.set_xlabel(f"rows, of sets with a length ratio from {NEAR_TEN[0]:g} to {NEAR_TEN[1]:g}")
    for axes in panels:
        plain_log_axis(axes)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_ylabel("AlpacaEval 1, IM over IT, %")
        axes.grid()
        axes.legend(loc="best")
    said = "; ".join(f"{point.data}: {point.gain:+.1f} %" for point in points)
    return Drawing(
        name,
        "Figure 2 from these runs",
        "Grey: the paper's points, hollow where its figure disagrees with its tables, and its printed line. "
        "Orange: these runs, with 95 % intervals, and their line with a band for one further set.",
        f"Scatter plots of the gain of IM over IT by length ratio and by rows. {said}.",
        figure,
    )


def _draw_paper(
    axes: "Axes", points: Sequence[tuple[float, float]], printed: tuple[float, float], label: str
) -> None:
    x, gains = np.array(points).T
    axes.plot(np.exp(x), gains, "o", color=PAPER_COLOUR, markersize=4.5, label=label)
    slope, intercept = printed
    ends = np.array([x.min(), x.max()])
    axes.plot(
        np.exp(ends),
        slope * ends + intercept,
        "--",
        color=PAPER_COLOUR,
        linewidth=1,
        label="the line it prints",
    )


def _draw_own(axes: "Axes", placed: Sequence[tuple[float | None, GainPoint]], fit: Line | None) -> None:
    """Draw these runs' points at their x, and their line over the width of the panel."""
    label: str | None = "these runs"
    for x, point in placed:
        if x is None:
            continue
        if point.low is not None and point.high is not None:
            axes.plot([x, x], [point.low, point.high], color=_OWN, linewidth=1.4)
        axes.plot([x], [point.gain], "^", color=_OWN, markersize=7, label=label)
        axes.annotate(point.data, (x, point.gain), xytext=(5, 4), textcoords="offset points", fontsize=7)
        label = None
    if fit is not None:
        xs = np.linspace(fit.least_x, fit.most_x, 60)
        middle, low, high = np.array([fit.predict(x) for x in xs]).T
        axes.fill_between(np.exp(xs), low, high, color=_OWN, alpha=0.12, linewidth=0)
        axes.plot(np.exp(xs), middle, color=_OWN, linewidth=1.3)
