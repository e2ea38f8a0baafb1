"""Figure 7: how long the outputs of training files are, in words as the paper counts them (`rows.words`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.paper.plots import PaperFigure, PaperPlot, count_axis, file_name
from instruction_modelling.analysis.literature import paper_tables, paper_values
from instruction_modelling.analysis.words import counting_note, row_lengths, word_statistics
from instruction_modelling.comparison.report.runs import read_run
from instruction_modelling.errors import UserError
from instruction_modelling.pages.drawing import INK, Drawing, new_figure
from instruction_modelling.rows.conversations import read_conversations

_BINS = 60
# The paper's axis ends where few rows are left; what lies beyond is counted in the last bin's title.
_SHOWN = 0.99


def training_files(given: Sequence[Path], missing: list[str]) -> list[Path]:
    """Return the training files that are given or that run folders name, each once; add to `missing` those
    that are not there."""
    files: dict[Path, Path] = {}
    for path in given:
        if not (path / "run.json").is_file():
            files.setdefault(path.resolve(), path)
            continue
        recorded = read_run(path).data.get("path")
        file = Path(str(recorded)) if recorded else None
        if file is None or not file.exists():
            missing.append(f"{path}: its training file {recorded or ''} is not there; name the file itself")
        else:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def figure_7(paths: Sequence[Path], missing: list[str]) -> PaperFigure:
    """Return the histogram of output lengths of each file.

    Args:
        paths: training files, or run folders for the files they were trained on.
        missing: what is not there is added here.

    Raises:
        UserError: a file cannot be read, or none is there.
    """
    figure = PaperFigure([])
    files = training_files(paths, missing)
    if not files:
        raise UserError("no training file is there: " + "; ".join(missing))
    taken: dict[str, Path] = {}
    for path in files:
        file = read_conversations(path)
        if not file.conversations:
            missing.append(f"{path}: none of its {file.rows} rows can be used")
            continue
        if file.bad_rows:
            missing.append(
                f"{path}: {len(file.bad_rows)} of {file.rows} rows cannot be used and are not counted"
            )
        lengths = row_lengths(file.conversations)
        statistics = word_statistics(lengths)
        paper = paper_values("figure_7", path.stem)
        edges, counts, beyond = _histogram(np.array(lengths.output))
        found = {
            key: statistics[f"output_{key}" if key != "mean" else "output"]
            for key in ("mean", "median", "mode")
        }
        numbers: dict[str, Any] = {
            "file": str(path),
            "sha256": file.sha256,
            "rows": len(file.conversations),
            "unit": "words of a row's output",
            **found,
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "beyond": beyond,
            "counting": counting_note(statistics),
            "paper": {"source": paper_tables()["figure_7"]["source"], **paper} if paper else None,
        }
        stem = path.stem if path.stem not in taken else f"{path.stem}@{str(file.sha256)[:8]}"
        taken[stem] = path
        name = file_name("figure_7", stem)
        answer = _answer(stem, found, paper)
        figure.answer.append(answer)
        figure.plots.append(PaperPlot(name, numbers, _draw(name, stem, numbers, answer)))
    if not figure.plots:
        raise UserError("there is nothing to draw: " + "; ".join(missing))
    return figure


def _histogram(words: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the edges and counts of the bins up to the longest of 99 % of the rows, and the rows beyond."""
    most = max(1, int(np.quantile(words, _SHOWN, method="higher")))
    width = max(1, -(-most // _BINS))
    # A whole number lies in the middle of its bin.
    edges = np.arange(0, most + width + 1, width) - 0.5
    counts, _ = np.histogram(words, bins=edges)
    return edges, counts, int(words.size - counts.sum())


def _answer(name: str, found: dict[str, Any], paper: dict[str, float]) -> str:
    beside = f"; the paper: {paper['mean']:.2f}, {paper['median']:g}, {paper['mode']:g}" if paper else ""
    return (
        f"{name}: outputs have {found['mean']:.2f} words in the mean, {found['median']:g} in the "
        "median, most often "
        f"{found['mode']}{beside}."
    )


def _draw(name: str, stem: str, numbers: dict[str, Any], answer: str) -> Drawing:
    figure, (axes,) = new_figure(3.0)
    axes.stairs(numbers["counts"], numbers["edges"], fill=True, color="#2a7f9e", alpha=0.75)
    for key, style in (("mean", ":"), ("median", "--"), ("mode", "-.")):
        axes.axvline(
            numbers[key],
            color=INK,
            linewidth=1,
            linestyle=style,
            label=f"{key} {numbers[key]:.2f}".removesuffix(".00"),
        )
    axes.set_title(f"{stem}: {numbers['rows']:,} rows, {numbers['beyond']:,} of them longer than drawn")
    axes.set_xlabel("words of a row's output")
    count_axis(axes)
    axes.legend()
    return Drawing(
        name,
        f"Output lengths, {stem}",
        "Lines: mean, median, mode.",
        f"Histogram of lengths. {answer}",
        figure,
    )
