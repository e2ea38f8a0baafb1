"""The figure of where the loss falls."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.pages.drawing import DARK_KINDS, KIND_COLOURS, Drawing, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A narrower part of a bar has no room for its percentage.
_LEAST_LABELLED = 0.08


def draw_loss_shares(name: str, shares: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """Draw stacked bars of shares of the loss, from 0 to 1, by span kind; None where there are no bars.

    Args:
        name: of the drawing.
        shares: by the label of a bar and by span kind.
    """
    if not shares:
        return None
    used = {kind for kinds in shares.values() for kind, share in kinds.items() if share > 0}
    order = [kind for kind in KIND_COLOURS if kind in used] + sorted(used - set(KIND_COLOURS))
    figure, (axes,) = new_figure(0.9 + 0.42 * len(shares))
    labels = list(shares)
    starts = np.zeros(len(labels))
    for kind in order:
        widths = np.array([shares[label].get(kind, 0.0) for label in labels])
        colour = KIND_COLOURS.get(kind, "#555555")
        axes.barh(labels, widths, left=starts, color=colour, height=0.62, label=kind)
        _label_parts(axes, starts, widths, "white" if kind in DARK_KINDS else "black")
        starts += widths
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper left", ncols=len(order), handlelength=1, columnspacing=1.1)
    in_words = "; ".join(
        f"{label}: " + ", ".join(f"{kind} {shares[label].get(kind, 0):.0%}" for kind in order)
        for label in labels
    )
    return Drawing(
        name,
        "Where the loss falls",
        "Each bar is the whole loss of an arm, cut by the kind of token it falls on.",
        f"Stacked bars of the share of the loss by kind of token. {in_words}.",
        figure,
    )


def _label_parts(axes: "Axes", starts: np.ndarray, widths: np.ndarray, colour: str) -> None:
    for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
        if width >= _LEAST_LABELLED:
            axes.text(
                start + width / 2, row, f"{width:.0%}", ha="center", va="center", fontsize=8.5, color=colour
            )
