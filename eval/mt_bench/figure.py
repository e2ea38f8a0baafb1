"""A picture of scores by category."""

from pathlib import Path


def draw_categories(by_category: dict[str, dict[str, float | None]], path: Path) -> None:
    """Draw bars of each model's mean score in each category, from 0 to 10."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({name for means in by_category.values() for name in means})
    # Wide enough for the numbers above the bars to stand side by side.
    wide = max(8.0, 0.3 * len(by_category) * len(names))
    figure, axes = pyplot.subplots(figsize=(wide, 3.8), layout="constrained")
    width = 0.8 / max(1, len(by_category))
    for number, (model, means) in enumerate(by_category.items()):
        positions = [number_of_category + number * width for number_of_category in range(len(names))]
        bars = axes.bar(positions, [means.get(name) or 0 for name in names], width, label=model)
        axes.bar_label(
            bars, ["–" if means.get(name) is None else f"{means[name]:.1f}" for name in names], fontsize=7
        )
    axes.set_xticks([number_of_category + 0.4 - width / 2 for number_of_category in range(len(names))], names)
    axes.set_ylim(0, 10.5)
    axes.set_ylabel("mean score (1 to 10)")
    axes.set_title("MT-Bench by category")
    # Below the bars, where no score can be under it.
    figure.legend(loc="outside lower center", ncols=min(4, len(by_category)), fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
