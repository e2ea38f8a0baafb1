"""MT-Bench's rates in words, for a terminal."""

from typing import Any, TextIO

from eval.mt_bench.judgments import disagreeing, is_pairwise, off_scale, unread_judgments

MOST_LISTED = 20


def number_text(value: Any) -> str:
    """Return a number for the table; `–` where there is none."""
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def print_rates(rates: dict[str, dict[str, Any]]) -> None:
    """Print a line a model, best first."""
    columns = list(next(iter(rates.values())))
    best = "win_rate_adjusted" if "win_rate_adjusted" in columns else "average"
    width = max(len("model"), *(len(model) for model in rates))
    print(f"{'model':{width}}  " + "  ".join(f"{name:>{max(8, len(name))}}" for name in columns))
    for model, rate in sorted(rates.items(), key=lambda item: -(item[1][best] or 0)):
        print(
            f"{model:{width}}  "
            + "  ".join(f"{number_text(rate[name]):>{max(8, len(name))}}" for name in columns)
        )


def print_remarks(rows: list[dict[str, Any]], rates: dict[str, dict[str, Any]], stream: TextIO) -> None:
    """Print what a mean does not show: judgments without a verdict or with several, duplicates, several
    judges, scores off the scale."""
    for name, names in unread_judgments(rows).items():
        print(f"no verdict, in no mean: {len(names)} of {name} ({listed(names)})", file=stream)
    if several := disagreeing(rows):
        print(
            f"several verdicts that differ within one judgment: {len(several)} ({listed(several)})",
            file=stream,
        )
    doubled = {model: rate["duplicates"] for model, rate in rates.items() if rate["duplicates"]}
    if doubled:
        print(
            "duplicates enter the means: "
            + ", ".join(f"{count} of {model}" for model, count in doubled.items()),
            file=stream,
        )
    judges = sorted(
        {
            str(judge[0] if isinstance(judge, list) and judge else judge)
            for judge in (row.get("judge") for row in rows)
        }
    )
    if len(judges) > 1:
        print(f"judgments of several judges enter the same means: {', '.join(judges)}", file=stream)
    if not is_pairwise(rows) and (strange := off_scale(rows)):
        print(f"scores off the scale from 1 to 10 enter the means: {listed(strange)}", file=stream)


def listed(names: list[str]) -> str:
    """Return the first of the names, with a word on the rest."""
    return ", ".join(names[:MOST_LISTED]) + (
        f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    )


def print_categories(by_category: dict[str, dict[str, float | None]]) -> None:
    """Print a line a model: its mean score by category."""
    if not by_category:
        return
    names = sorted({name for means in by_category.values() for name in means})
    width = max(len("model"), *(len(model) for model in by_category))
    print(f"\n{'model':{width}}  " + "  ".join(f"{name:>10}" for name in names))
    for model, means in by_category.items():
        print(
            f"{model:{width}}  "
            + "  ".join(
                f"{'–' if means.get(name) is None else format(means[name], '.2f'):>10}" for name in names
            )
        )
