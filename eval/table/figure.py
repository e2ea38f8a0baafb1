"""The table of results as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from eval.table.display import INCOMPLETE, PART, marks
from eval.table.suite import CATEGORIES
from eval.table.table import TITLES, Rows
from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_table(rows: Rows, path: Path, aggregation: str = "") -> None:
    """Draw bars of each model in each column, with their errors: percent on the left, MT-Bench's ratings on
    the right.

    What is missing has no bar; one of a part of the items, or without benchmarks, is hatched and marked; a
    judged column that no model has is left out.

    Args:
        rows: the table's.
        path: of the picture.
        aggregation: said in the title.

    Raises:
        UserError: the file cannot be written, or is of no kind that can be drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    judged = [
        name
        for name in ("alpaca_eval_1", "alpaca_eval_2", "mt_bench")
        if any(row[name].value is not None for row in rows.values())
    ]
    percent = [*CATEGORIES, "mean", *(name for name in judged if name != "mt_bench")]
    panels = [percent, *([["mt_bench"]] if "mt_bench" in judged else [])]
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(3 + len(percent) + (2 if len(panels) > 1 else 0), 4.2),
        layout="constrained",
        squeeze=False,
        width_ratios=[len(panel) + (0.6 if len(panel) == 1 else 0) for panel in panels],
    )
    for axis, columns in zip(axes[0], panels, strict=True):
        _draw_bars(axis, rows, columns)
    axes[0][0].set_ylabel("percent")
    if len(panels) > 1:
        axes[0][1].set_ylabel("judge's rating, 1 to 10")
        axes[0][1].set_ylim(0, 10)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(6, len(rows)),
        fontsize=8,
    )
    spread = (
        "standard deviation over seeds"
        if any(cell.of_runs > 1 for row in rows.values() for cell in row.values())
        else "standard error"
    )
    title = f"Benchmarks{f', {aggregation}' if aggregation else ''} (whiskers: {spread})"
    part = [f"{name}: {note}" for name, row in rows.items() for column in row for note in row[column].part]
    if part:
        title += f"\n{PART} from a part of the items: {'; '.join(part[:3])}{'; ...' if len(part) > 3 else ''}"
    if any(cell.incomplete for row in rows.values() for cell in row.values()):
        title += f"\n{INCOMPLETE} without the benchmarks it lacks, or a run of it lacks"
    figure.suptitle(title, fontsize=8 if "\n" in title else 10)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"--figure {path}: {error}") from error
    finally:
        pyplot.close(figure)


def _draw_bars(axis: "Axes", rows: Rows, columns: list[str]) -> None:
    """Draw a group of bars a column, a bar a model."""
    width = 0.8 / max(1, len(rows))
    for number, (name, row) in enumerate(rows.items()):
        drawn = [
            (group, row[column]) for group, column in enumerate(columns) if row[column].value is not None
        ]
        values = [cell.value or 0.0 for _, cell in drawn]
        bars = axis.bar(
            [group + number * width for group, _ in drawn],
            values,
            width,
            yerr=[cell.error or 0.0 for _, cell in drawn],
            capsize=2,
            label=name,
            color=f"C{number % 10}",
        )
        marked = [marks(cell) for _, cell in drawn]
        for bar, mark in zip(bars, marked, strict=True):
            bar.set_hatch("///" if mark else None)
            bar.set_alpha(0.5 if mark else None)
        labels = [f"{value:.1f}{mark}" for value, mark in zip(values, marked, strict=True)]
        axis.bar_label(bars, labels, fontsize=6, padding=2)
    axis.set_xticks(
        [group + 0.4 - width / 2 for group in range(len(columns))],
        [TITLES[column].replace(" & ", " &\n") for column in columns],
        fontsize=8,
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.1)
