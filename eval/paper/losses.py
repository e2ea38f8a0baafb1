"""Figures 3, 8 and 9: how the losses of single responses lie, on training and on test rows, by arm."""

from typing import Any

import numpy as np

from eval.paper.plots import PaperFigure, PaperPlot, count_axis, file_name
from eval.paper.runs import PaperRuns
from instruction_modelling.analysis.literature import paper_tables, paper_values
from instruction_modelling.comparison.report.answer import LEAST_ROWS
from instruction_modelling.comparison.report.arms import ReportedArm
from instruction_modelling.comparison.report.groups import ReportedDataSet
from instruction_modelling.comparison.report.looks import arm_looks
from instruction_modelling.comparison.report.measures import MEASURES
from instruction_modelling.comparison.report.runs import SPLITS
from instruction_modelling.pages.drawing import Drawing, new_figure
from instruction_modelling.statistics import paired_difference

_BINS = 40
_MEASURES = {
    split: next(known for known in MEASURES if known.key == f"{split}_response_nll") for split in SPLITS
}
_SAYS = {"train": "training", "test": "test"}
# Of one arm: the mean loss by row, float[rows].
Losses = dict[str, np.ndarray]


def figure_3(runs: PaperRuns, number: str) -> PaperFigure:
    """Return the histograms of each data set: the mean loss of each response in nats a token, averaged over
    seeds, in bins that all arms share; `number` is the figure's, for the file names."""
    figure = PaperFigure([])
    grouped = runs.by_model()
    for model, sets in grouped.items():
        for data in sets:
            splits = {split: _losses(runs, data, split) for split in SPLITS}
            name = file_name(f"figure_{number}", data.name, *([model] if len(grouped) > 1 else []))
            numbers, answer = _numbers(data, splits)
            figure.answer.append(answer)
            drawing = _draw(name, data, splits, numbers) if any(splits.values()) else None
            figure.plots.append(PaperPlot(name, {"model": model, "data": data.name, **numbers}, drawing))
    return figure


def _losses(runs: PaperRuns, data: ReportedDataSet, split: str) -> Losses:
    losses: Losses = {}
    for arm in data.arms:
        by_row = arm.row_means(_MEASURES[split])
        # A loss that is not finite has no bin; its reader leaves it out.
        values = np.array(list(by_row.values()))
        if values.size:
            losses[arm.name] = values
            scored = (arm.runs[0].evaluations[split].summary or {}).get("rows_scored")
            if isinstance(scored, int) and scored > values.size:
                runs.say_missing(
                    f"{data.name}: {scored - values.size} of {scored} {_SAYS[split]} rows have no finite "
                    f"loss in every run of {arm.name}, and are left out of it"
                )
        else:
            folder = arm.runs[0].folder / "eval" / split
            runs.say_missing(
                f"{data.name}: no losses of {arm.name} on {_SAYS[split]} rows in {folder} "
                "(src/compute_loss.py "
                f"--output_dir {folder})"
            )
    return losses


def _numbers(data: ReportedDataSet, splits: dict[str, Losses]) -> tuple[dict[str, Any], str]:
    """Return what the JSON file holds of the histograms, and the answer."""
    numbers: dict[str, Any] = {"unit": "nats per response token, the mean of each row", "splits": {}}
    told = []
    for split, losses in splits.items():
        edges = (
            np.histogram_bin_edges(np.concatenate([*losses.values()]), bins=_BINS) if losses else np.array([])
        )
        numbers["splits"][split] = {
            "edges": edges.tolist(),
            "arms": {
                arm: {
                    "rows": values.size,
                    "mean": float(values.mean()),
                    "median": float(np.median(values)),
                    "counts": np.histogram(values, bins=edges)[0].tolist(),
                    "paper_mean": paper_values("figure_3", data.name, arm).get(split),
                }
                for arm, values in losses.items()
            },
        }
        difference = _difference(data.contrast, data.reference, split)
        numbers["splits"][split]["difference"] = difference
        if difference is None or difference["rows"] < LEAST_ROWS:
            few = "" if difference is None else f" ({difference['rows']} rows, at least {LEAST_ROWS} needed)"
            told.append(f"cannot tell on {_SAYS[split]} responses{few}")
        else:
            verdict = difference["verdict"].replace("no clear difference", "not clearly another")
            told.append(
                f"{verdict} on {_SAYS[split]} responses ({difference['mean']:+.3f}, "
                f"{difference['low']:+.3f} to {difference['high']:+.3f})"
            )
    numbers["paper"] = {"source": paper_tables()["figure_3"]["source"]}
    if data.reference is None or data.contrast is None:
        return (
            numbers,
            f"{data.name}: cannot tell how the losses of two arms compare, for there are not both.",
        )
    return numbers, (
        f"{data.name}: {data.contrast.name}'s loss against {data.reference.name}'s is "
        f"{' and '.join(told)}, nats a "
        "token with 95 % intervals; the paper finds IM higher on training and lower on test responses."
    )


def _difference(arm: ReportedArm | None, reference: ReportedArm | None, split: str) -> dict[str, Any] | None:
    if arm is None or reference is None:
        return None
    measure = _MEASURES[split]
    difference = paired_difference(arm.rows(measure), reference.rows(measure))
    return difference.as_dict() if difference else None


def _draw(name: str, data: ReportedDataSet, splits: dict[str, Losses], numbers: dict[str, Any]) -> Drawing:
    looks = arm_looks(data.arms)
    figure, panels = new_figure(5.2, len(splits))
    said = []
    for axes, (split, losses) in zip(panels, splits.items(), strict=True):
        edges = np.array(numbers["splits"][split]["edges"])
        for arm, values in losses.items():
            of_arm = numbers["splits"][split]["arms"][arm]
            colour = looks[arm].colour
            label = f"{arm}: mean {of_arm['mean']:.3f}"
            if of_arm["paper_mean"] is not None:
                label += f" (paper {of_arm['paper_mean']:.2f})"
            axes.stairs(of_arm["counts"], edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(of_arm["counts"], edges, color=colour, linewidth=1.2, label=label)
            axes.axvline(of_arm["mean"], color=colour, linewidth=1.2, linestyle=":")
            said.append(f"{arm} {split}: {values.size} rows, mean {of_arm['mean']:.3f}")
        missing = [arm.name for arm in data.arms if arm.name not in losses]
        title = f"{_SAYS[split]} responses of {data.name}"
        axes.set_title(f"{title}; missing: {', '.join(missing)}" if missing else title)
        count_axis(axes)
        if losses:
            axes.legend()
    panels[-1].set_xlabel("mean loss of a response (nats per token)")
    return Drawing(
        name,
        f"Losses of responses, {data.name}",
        "Each row is counted once, averaged over seeds; dotted lines are means.",
        "Histograms of the loss of each response. " + "; ".join(said) + ".",
        figure,
    )
