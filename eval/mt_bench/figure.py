"""A picture of scores by category."""

from pathlib import Path


def draw_categories(found: dict[str, dict[str, float | None]], path: Path) -> None:
    """Bars of each model's mean score in each category, from 0 to 10."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({name for own in found.values() for name in own})
    # Wide enough for the numbers above the bars to stand side by side.
    wide = max(8.0, 0.3 * len(found) * len(names))
    figure, axes = pyplot.subplots(figsize=(wide, 3.8), layout="constrained")
    width = 0.8 / max(1, len(found))
    for number, (model, own) in enumerate(found.items()):
        places = [place + number * width for place in range(len(names))]
        bars = axes.bar(places, [own.get(name) or 0 for name in names], width, label=model)
        axes.bar_label(
            bars, ["–" if own.get(name) is None else f"{own[name]:.1f}" for name in names], fontsize=7
        )
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names)
    axes.set_ylim(0, 10.5)
    axes.set_ylabel("mean score (1 to 10)")
    axes.set_title("MT-Bench by category")
    # Below the bars, where no score can be under it.
    figure.legend(loc="outside lower center", ncols=min(4, len(found)), fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
