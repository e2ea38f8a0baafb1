"""The table of results as a picture."""

from pathlib import Path

from instruction_modelling.benchmark_suite import CATEGORIES
from instruction_modelling.benchmark_table import TITLES, Cell
from instruction_modelling.errors import UserError


def draw_table(rows: dict[str, dict[str, Cell]], path: Path) -> None:
    """Bars of each model in each category and of the mean, with their errors; what is missing has no bar.

    Raises:
        UserError: the file cannot be written, or is of no kind that can be drawn.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = [*CATEGORIES, "mean"]
    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    width = 0.8 / max(1, len(rows))
    for number, (name, row) in enumerate(rows.items()):
        there = [place for place, column in enumerate(columns) if row[column].value is not None]
        values = [row[columns[place]].value or 0.0 for place in there]
        errors = [row[columns[place]].error or 0.0 for place in there]
        bars = axes.bar([place + number * width for place in there], values, width, yerr=errors, capsize=2, label=name)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=6, padding=2)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(columns))], [TITLES[column] for column in columns], fontsize=8)
    axes.set_ylabel("score, percent")
    axes.legend(fontsize=8)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"--figure {path}: {error}") from error
    finally:
        pyplot.close(figure)
