"""The ratios as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_ratios(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw how many times as good we are as the best peer of each row, with the range over turns, to a
    PNG."""
    from matplotlib.figure import Figure

    from instruction_modelling.pages.drawing import drawing_style

    shown = [row for row in rows if row["best_peer"]]
    with drawing_style():
        figure = Figure(figsize=(8.5, 1.2 + 0.36 * max(1, len(shown))), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(shown)):
            ratio = row["contenders"][row["best_peer"]]["ratio"]
            colour = {"ahead": "#2a6f97", "level": "#8d99ae", "behind": "#c1666b"}[row["verdict"]]
            around = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            axes.barh(place, ratio["median"], height=0.62, color=colour)
            axes.errorbar(ratio["median"], place, xerr=around, color="black", capsize=3, linewidth=1)
            axes.text(
                ratio["high"], place, f"  {ratio['median']:.2f}  {row['best_peer']}", va="center", fontsize=8
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_yticks(range(len(shown)), [row["title"] for row in reversed(shown)])
        axes.set_xlabel("times as good as the best peer that does the same work (bars: median; lines: range)")
        axes.set_xlim(0, max([1.0, *(_high(row) for row in shown)]) * 1.45)
        figure.savefig(path, dpi=150)


def _high(row: Mapping[str, Any]) -> float:
    return float(row["contenders"][row["best_peer"]]["ratio"]["high"])
