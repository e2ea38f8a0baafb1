"""What a figure of the paper is made into: pictures, the numbers in them, and sentences."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json, write_text
from instruction_modelling.pages.drawing import Drawing, save_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_COLOUR = "#767676"
# What the paper shows without printed values is not here to be set beside.
ONLY_DRAWN = "the paper draws this figure without printing its values"


@dataclass(frozen=True)
class PaperPlot:
    """One picture and every number in it; `drawing` is None where there is nothing to draw."""

    name: str
    numbers: dict[str, Any]
    drawing: Drawing | None
    table: str | None = None
    """The same in Markdown, where the paper has a table."""


@dataclass
class PaperFigure:
    """A figure of the paper from one's own runs: the answer in sentences, and its pictures."""

    answer: list[str]
    plots: list[PaperPlot] = field(default_factory=list)


def file_name(*parts: str) -> str:
    """Return a file's name made of parts, of which what does not suit a file name is an underscore."""
    return re.sub(r"[^\w.@+-]+", "_", "_".join(parts))


def write_figure(figure: PaperFigure, folder: Path, facts: dict[str, Any]) -> list[Path]:
    """Write NAME.json of each picture with every number, and NAME.png and NAME.svg where something was drawn;
    return the paths.

    Args:
        figure: what was made.
        folder: where the files go; made where it is absent.
        facts: what each JSON file holds beside the numbers: what is missing, the command and so on.

    Raises:
        UserError: a file cannot be written, or two have one name.
    """
    paths: list[Path] = []
    names = [plot.name for plot in figure.plots]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two data sets or models would both be written as {', '.join(twice)}: draw them one at a time, "
            "each into an --output_dir of its own"
        )
    for plot in figure.plots:
        record = {"answer": figure.answer, **facts, **plot.numbers}
        write_json(folder / f"{plot.name}.json", record)
        paths.append(folder / f"{plot.name}.json")
        if plot.table:
            write_text(folder / f"{plot.name}.md", plot.table)
            paths.append(folder / f"{plot.name}.md")
        # A picture of an earlier call must not stand beside numbers that have none.
        for ending in (".png", ".svg"):
            (folder / f"{plot.name}{ending}").unlink(missing_ok=True)
        if plot.drawing is None:
            continue
        try:
            paths += save_files(plot.drawing, folder)
        except OSError as error:
            raise UserError(f"{folder}: the picture cannot be written ({error.strerror or error})") from error
    return paths


def above_in_words(pairs: Sequence[tuple[float, float]], what: str) -> str:
    """Return of how many (before, after) pairs the second is the higher: `3 of 5 WHAT`, and how many are
    equal."""
    above, equal = (
        sum(after > before for before, after in pairs),
        sum(after == before for before, after in pairs),
    )
    return f"{above or 'none'} of {len(pairs)} {what}" + (f" (equal on {equal})" if equal else "")


def plain_log_axis(axes: "Axes") -> None:
    """Make the level axis logarithmic, with its numbers written out: 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))


def count_axis(axes: "Axes") -> None:
    """Give the upright axis whole numbers of rows."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_ylabel("rows")
    axes.grid(axis="y")


def label_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a dot plot, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.grid(axis="x")


def mark_missing(axes: "Axes", row: float, what: str, colour: str) -> None:
    """Write in words, at the left edge of a row, what was not measured: a dot would claim a value."""
    axes.text(
        0.01,
        row,
        f"{what}: missing",
        transform=axes.get_yaxis_transform(),
        fontsize=7,
        color=colour,
        va="center",
    )
