"""The figure of where the loss falls."""

from collections.abc import Mapping

import numpy as np

from instruction_modelling.pages.drawing import DARK_KINDS, KIND_COLOURS, Drawing, new_figure


def draw_loss_shares(name: str, shares: Mapping[str, Mapping[str, float]]) -> Drawing | None:
    """Stacked bars, an arm a bar, of the share of the loss by span kind."""
    if not shares:
        return None
    used = {kind for kinds in shares.values() for kind, share in kinds.items() if share > 0}
    order = [kind for kind in KIND_COLOURS if kind in used] + sorted(used - set(KIND_COLOURS))
    figure, (axes,) = new_figure(0.9 + 0.42 * len(shares))
    arms = list(shares)
    starts = np.zeros(len(arms))
    for kind in order:
        values = np.array([shares[arm].get(kind, 0.0) for arm in arms])
        colour = KIND_COLOURS.get(kind, "#555555")
        axes.barh(arms, values, left=starts, color=colour, height=0.62, label=kind)
        for row, (start, value) in enumerate(zip(starts, values, strict=True)):
            if value >= 0.08:
                axes.text(
                    start + value / 2,
                    row,
                    f"{value:.0%}",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color="white" if kind in DARK_KINDS else "black",
                )
        starts += values
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
    figure.legend(loc="outside upper left", ncols=len(order), handlelength=1, columnspacing=1.1)
    told = "; ".join(
        f"{arm}: " + ", ".join(f"{kind} {shares[arm].get(kind, 0):.0%}" for kind in order) for arm in arms
    )
    return Drawing(
        name,
        "Where the loss falls",
        "Each bar is the whole loss of an arm, cut by the kind of token it falls on.",
        f"Stacked bars of the share of the loss by kind of token. {told}.",
        figure,
    )
