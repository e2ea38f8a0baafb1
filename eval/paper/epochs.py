"""Figures 4, 10 and 11: a measure by the number of epochs, in two ways that are not the same experiment.

*One schedule*: a run of N epochs is measured at each epoch's checkpoint (src/export_checkpoint.py), as the
paper's authors did: the learning rate falls to 0 at epoch N alone. *A run each*: every number of epochs is a
run of its own whose schedule ends at its own last step (scripts/train_epochs.sh)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.paper.plots import ONLY_DRAWN, PaperFigure, PaperPlot, above_in_words, file_name
from eval.paper.runs import PaperRuns, epochs_of, model_of, title_of
from instruction_modelling.comparison.report.arms import ReportedArm, meaningful_options, option_text
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.comparison.report.runs import ReportedRun, as_number
from instruction_modelling.errors import UserError
from instruction_modelling.pages.drawing import Drawing, new_figure
from instruction_modelling.statistics import mean_and_sample_sd

# What tells the points of one curve apart, and so is no part of the arm.
_OF_LENGTH = ("num_train_epochs", "max_train_steps")
# The paper's error bars of Figure 11 are a tenth of the standard deviation over answers.
_BAR = 0.1
A_RUN_EACH = "a run for each number of epochs"


@dataclass(frozen=True)
class EpochMeasure:
    """What stands on the upright axis: `of` gives (value, half the error bar or None) of a run."""

    label: str
    of: Callable[[ReportedRun], tuple[float, float | None] | None]


@dataclass(frozen=True)
class EpochCurve:
    """A measure of one arm on one data set by epochs, under one kind of schedule."""

    data: str
    arm: str
    schedule: str
    points: list[dict[str, Any]]
    """In order of `epochs`: {"epochs", "mean", "sd", "n", "bar"} over seeds; only those measured."""


def figure_4(runs: PaperRuns, number: str, lengths: str = "alpaca_eval") -> PaperFigure:
    """Return Figure 4 (mean of the NLP benchmarks), 10 (AlpacaEval 1) or 11 (words of answers), a picture for
    each data set.

    Args:
        runs: runs of several numbers of epochs, and exported checkpoints.
        number: 4, 10 or 11.
        lengths: for Figure 11, which answers are counted (`PaperRuns.answer_words`).

    Raises:
        UserError: two runs are one point of one curve.
    """
    measure = _measure(runs, number, lengths)
    figure = PaperFigure([])
    by_set = _by_set(runs)
    pairs: list[tuple[float, float]] = []
    for name, members in by_set.items():
        arms, curves = _curves(runs, name, members, measure)
        compared = _compared(curves)
        if number == "11" and lengths == "test":
            _check_one_file(runs, name, members)
        pairs += [(entry["it"], entry["im"]) for entry in compared]
        numbers = {
            "data": name,
            "measure": measure.label,
            "curves": [vars(curve) for curve in curves],
            "compared": compared,
            "paper": ONLY_DRAWN,
        }
        plot_name = file_name(f"figure_{number}", name)
        drawing = _draw(plot_name, name, measure.label, arms, curves) if curves else None
        figure.plots.append(PaperPlot(plot_name, numbers, drawing))
        figure.answer += [_course(curve, measure.label) for curve in curves if len(curve.points) > 1]
    figure.answer.insert(
        0,
        f"IM's {measure.label} is above IT's on {above_in_words(pairs, 'numbers of epochs')} at which both "
        f"were measured ({len(by_set)} data set{'s' * (len(by_set) > 1)})."
        if pairs
        else f"Cannot tell how IM's {measure.label} goes beside IT's: no number of epochs has both.",
    )
    return figure


def _measure(runs: PaperRuns, number: str, lengths: str) -> EpochMeasure:
    column = {"4": "mean", "10": "alpaca_eval_1"}.get(number)
    if column is None:

        def _length(run: ReportedRun) -> tuple[float, float | None] | None:
            words = runs.answer_words(run, lengths)
            return (float(np.mean(words)), _BAR * float(np.std(words))) if words else None

        of_what = "AlpacaEval's instructions" if lengths == "alpaca_eval" else "the test file"
        return EpochMeasure(f"length of answers to {of_what} (words)", _length)

    def _score(run: ReportedRun) -> tuple[float, float | None] | None:
        value = runs.value(run, column)
        return None if value is None else (value, None)

    return EpochMeasure(title_of(column), _score)


# -- curves ------------------------------------------------------------------------------------------------


def _by_set(runs: PaperRuns) -> dict[str, list[ReportedRun]]:
    """Return the runs by data set (its bytes) and tuned model; a name that two share gets more parts."""
    groups: dict[tuple[str, str, str], list[ReportedRun]] = {}
    for run in runs.runs:
        key = (run.data_stem, str(run.data.get("sha256"))[:8], model_of(run))
        groups.setdefault(key, []).append(run)
    stems = [stem for stem, _, _ in groups]
    models = {model for _, _, model in groups}
    named = {}
    for (stem, sha256, model), members in groups.items():
        name = stem if len(models) == 1 else f"{stem} {model}"
        same = [key for key in groups if (key[0], key[2]) == (stem, model)]
        named[name if len(same) == 1 or stems.count(stem) == 1 else f"{name}@{sha256}"] = members
    return named


def _curves(
    runs: PaperRuns, data: str, members: Sequence[ReportedRun], measure: EpochMeasure
) -> tuple[list[ReportedArm], list[EpochCurve]]:
    """Return the arms of a data set, and their curves: one for each schedule that has checkpoints, and one of
    the runs of their own."""
    arms, curves = [], []
    for name, of_arm in _arms(members).items():
        arms.append(ReportedArm(name, of_arm[0].arm, of_arm))
        exported = {_schedule(run) for run in of_arm if run.record.get("exported_from")}
        kinds = {
            f"one schedule of {schedule:g} epochs": [run for run in of_arm if _schedule(run) == schedule]
            for schedule in sorted(schedule for schedule in exported if schedule is not None)
        }
        own = [run for run in of_arm if not run.record.get("exported_from")]
        # The run that the checkpoints are of is the end of their schedule; alone it is no second curve.
        if not kinds or len({epochs_of(run) for run in own}) > 1:
            kinds[A_RUN_EACH] = own
        for schedule, on_curve in kinds.items():
            points = _points(runs, on_curve, measure)
            if points:
                curves.append(EpochCurve(data, name, schedule, points))
    return arms, curves


def _check_one_file(runs: PaperRuns, data: str, members: Sequence[ReportedRun]) -> None:
    """Say it where the runs answered different test files: then lengths differ by the questions too."""
    evaluations = [run.evaluations["test"] for run in members if "test" in run.evaluations]
    files = {file: one.folder for one in evaluations if (file := one.measured_file("generation"))}
    if len(files) > 1:
        folders = ", ".join(map(str, files.values()))
        runs.say_doubt(f"{data}: the answers that are counted are to different test files ({folders})")


def _arms(members: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    """Return the runs by arm; those of one arm that differ in more than epochs and seed are arms of their
    own, named by what they differ in."""
    families: dict[str, list[ReportedRun]] = {}
    for run in members:
        families.setdefault(run.arm, []).append(run)
    arms: dict[str, list[ReportedRun]] = {}
    for family, of_family in sorted(
        families.items(), key=lambda item: (item[0] != "IT", item[0] != "IM", item[0])
    ):
        options = [
            {
                name: option_text(value)
                for name, value in meaningful_options(run).items()
                if name not in _OF_LENGTH
            }
            for run in of_family
        ]
        names = sorted({name for of_run in options for name in of_run})
        varied = [name for name in names if len({of_run.get(name) for of_run in options}) > 1]
        for run, of_run in zip(of_family, options, strict=True):
            label = ", ".join(f"{name} {of_run.get(name, 'not set')}" for name in varied)
            arms.setdefault(f"{family} ({label})" if label else family, []).append(run)
    return arms


def _schedule(run: ReportedRun) -> float | None:
    """Return the epochs of the run's whole schedule, which an exported checkpoint is a part of."""
    epochs, steps = epochs_of(run), as_number(run.record.get("steps"))
    if not run.record.get("exported_from"):
        return epochs
    most = as_number(run.options.get("max_train_steps"))
    if most is not None and epochs and steps:
        return round(most * epochs / steps, 6)
    return as_number(run.options.get("num_train_epochs"))


def _points(runs: PaperRuns, members: Sequence[ReportedRun], measure: EpochMeasure) -> list[dict[str, Any]]:
    """Return the measured points of a curve, each over the seeds that have it."""
    seeds: dict[float, dict[Any, ReportedRun]] = {}
    # A run before its own last checkpoint, which is the same model.
    for run in sorted(members, key=lambda run: bool(run.record.get("exported_from"))):
        epochs = epochs_of(run)
        if epochs is None:
            runs.say_missing(f"{run.folder}: its run.json has no epochs, so it has no place in the figure")
            continue
        of_epochs = seeds.setdefault(round(epochs, 3), {})
        before = of_epochs.get(run.seed)
        if before is None:
            of_epochs[run.seed] = run
        elif bool(before.record.get("exported_from")) == bool(run.record.get("exported_from")):
            raise UserError(
                f"{before.folder} and {run.folder}: both are {run.arm} with seed {run.seed} after "
                f"{epochs:g} epochs; "
                "one run would count as two seeds: leave one of them out"
            )
    points = []
    for epochs, by_seed in sorted(seeds.items()):
        values = [value for run in by_seed.values() if (value := measure.of(run)) is not None]
        stat = mean_and_sample_sd([value for value, _ in values])
        if stat is not None:
            bars = [bar for _, bar in values if bar is not None]
            points.append({"epochs": epochs, **stat, "bar": float(np.mean(bars)) if bars else stat["sd"]})
    return points


def _compared(curves: Sequence[EpochCurve]) -> list[dict[str, Any]]:
    """Return IT's and IM's values where one kind of schedule has both; of arms that differ in an option,
    those that agree in it."""
    values = {
        (curve.arm, curve.schedule, point["epochs"]): point["mean"]
        for curve in curves
        for point in curve.points
    }
    return [
        {"arm": arm, "schedule": schedule, "epochs": epochs, "it": value, "im": im}
        for (arm, schedule, epochs), value in values.items()
        if arm.split(" (")[0] == "IT" and (im := values.get((f"IM{arm[2:]}", schedule, epochs))) is not None
    ]


def _course(curve: EpochCurve, label: str) -> str:
    first, last = curve.points[0], curve.points[-1]
    return (
        f"{curve.data}, {curve.arm}, {curve.schedule}: {label} {first['mean']:.2f} after "
        f"{first['epochs']:g} epochs, "
        f"{last['mean']:.2f} after {last['epochs']:g} ({last['mean'] - first['mean']:+.2f})."
    )


# -- the picture -------------------------------------------------------------------------------------------


def _draw(
    name: str, data: str, label: str, arms: Sequence[ReportedArm], curves: Sequence[EpochCurve]
) -> Drawing:
    looks = arm_looks(arms)
    figure, (axes,) = new_figure(3.8)
    said = []
    for curve in curves:
        x = [point["epochs"] for point in curve.points]
        y = [point["mean"] for point in curve.points]
        look = looks[curve.arm]
        axes.errorbar(
            x,
            y,
            yerr=[point["bar"] or 0.0 for point in curve.points],
            linestyle="--" if curve.schedule == A_RUN_EACH else "-",
            marker=look.marker,
            color=look.colour,
            markerfacecolor="none" if curve.schedule == A_RUN_EACH else look.colour,
            capsize=2,
            linewidth=1.5,
            label=f"{curve.arm}, {curve.schedule}",
        )
        values = ", ".join(f"{epochs:g}: {value:.2f}" for epochs, value in zip(x, y, strict=True))
        said.append(f"{curve.arm}, {curve.schedule}: {values}")
    axes.set_xticks(sorted({point["epochs"] for curve in curves for point in curve.points}))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("epochs")
    axes.set_ylabel(label, wrap=True)
    axes.grid()
    figure.legend(loc="outside lower center", ncols=1)
    return Drawing(
        name,
        f"By epochs, {data}",
        "Lines: checkpoints of one run, whose learning rate ends at its last epoch; dashes: a run "
        "for each number "
        "of epochs.",
        f"Lines of the {label} by epochs. " + "; ".join(said) + ".",
        figure,
    )
