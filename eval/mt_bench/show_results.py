"""The rates of files of MT-Bench judgments, whoever made them.

    python -m eval.mt_bench.show_results --judgments model_judgment/gpt-4_single.jsonl [--json [rates.json]]
    python -m eval.mt_bench.show_results --judgments results/eval/*/mt_bench/model_judgment/gpt-4_single.jsonl

For each model: the mean score of the first turn, of the second, and of all judgments, as FastChat's
show_result gives them; how many judgments entered, how many have no verdict (score -1, null or none: they
enter no mean, and are listed), and how many are duplicates (they enter like any others, as in FastChat;
remove them first if that is not wanted). Pairwise judgments give wins, losses and ties. With --json one
object, unrounded: {MODEL: {"turn_1", "turn_2", "average", "n", "unparsed", "duplicates"}}. Exit code 2 if
fewer than --min_parsed_share of a model's judgments have a verdict (the rates are printed all the same)."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

MOST_LISTED = 20


@dataclass
class ShowOptions:
    """Results."""

    judgments: list[str]
    """Files of judgments in FastChat's format (lines, or one JSON list), all single or all pairwise."""
    json: str | None = field(default=None, metadata={"without_value": "-"})
    """Print the rates, unrounded, as one JSON object instead of the table; with a value, keep the table and
    write them to that file."""
    question_file: str | None = None
    """question.jsonl, for the means by category (default: the one in data/eval/mt_bench, if it is there)."""
    figure: str | None = None
    """Draw the means by category to this file (PNG, PDF or SVG)."""
    min_parsed_share: float = 0.5
    """Least share of a model's judgments that must hold a verdict."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        return (
            []
            if 0 <= self.min_parsed_share <= 1
            else [f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1"]
        )


def main() -> int:
    """Reads, prints, writes."""
    options = parse_options(ShowOptions)
    from eval.mt_bench.judgments import is_pairwise, pair_rates, rates, read_judgments
    from instruction_modelling.runs.folder import write_aside

    files = {path: read_judgments(Path(path)) for path in options.judgments}
    if len({is_pairwise(rows) for rows in files.values()}) > 1:
        raise UserError(
            f"{', '.join(files)}: some hold judgments of single answers and some of pairs; show them one "
            "kind at a time"
        )
    rows = [row for own in files.values() for row in own]
    pairs = is_pairwise(rows)
    found = pair_rates(rows) if pairs else rates(rows)
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    if options.json == "-":
        print(text)
        print_remarks(rows, found, sys.stderr)
    else:
        print_rates(found)
        print_remarks(rows, found, sys.stdout)
        if options.json:
            write_aside(Path(options.json), text + "\n")
            print(f"written to {options.json}")
    _categories(options, rows, pairs)
    for model, own in found.items():
        if own["n"] < options.min_parsed_share * (own["n"] + own["unparsed"]):
            raise UserError(
                f"only {own['n']} of {own['n'] + own['unparsed']} judgments of {model} have a verdict, fewer "
                "than "
                f"--min_parsed_share {options.min_parsed_share:g} asks for; the rates are of those alone"
            )
    return 0


def _categories(options: ShowOptions, rows: list[dict[str, Any]], pairs: bool) -> None:
    from eval.mt_bench.judgments import category_rates
    from eval.mt_bench.questions import DATA, read_lines

    questions = Path(options.question_file or DATA / "question.jsonl")
    if pairs or (options.json == "-" and not options.figure):
        return
    if not options.question_file and not questions.exists():
        if options.figure:
            print(
                f"not drawn: {questions}, which tells the categories, is not there; name it with "
                "--question_file",
                file=sys.stderr,
            )
        return
    categories = {
        row["question_id"]: row["category"] for _, row in read_lines(questions, ("question_id", "category"))
    }
    by_category = category_rates(rows, categories)
    if options.json != "-":
        print_categories(by_category)
    if options.figure and by_category:
        from eval.mt_bench.figure import draw_categories

        draw_categories(by_category, Path(options.figure))
        print(f"drawn to {options.figure}", file=sys.stderr)


def shown(value: Any) -> str:
    """A number for the table; `–` where there is none."""
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def print_rates(found: dict[str, dict[str, Any]]) -> None:
    """A line a model, best first."""
    columns = list(next(iter(found.values())))
    best = "win_rate_adjusted" if "win_rate_adjusted" in columns else "average"
    width = max(len("model"), *(len(model) for model in found))
    print(f"{'model':{width}}  " + "  ".join(f"{name:>{max(8, len(name))}}" for name in columns))
    for model, own in sorted(found.items(), key=lambda item: -(item[1][best] or 0)):
        print(
            f"{model:{width}}  " + "  ".join(f"{shown(own[name]):>{max(8, len(name))}}" for name in columns)
        )


def print_remarks(rows: list[dict[str, Any]], found: dict[str, dict[str, Any]], stream: TextIO) -> None:
    """What a mean does not show: judgments without a verdict, duplicates, several judges, scores off the
    scale."""
    from eval.mt_bench.judgments import is_pairwise, off_scale, unread_places

    for name, places in unread_places(rows).items():
        print(f"no verdict, in no mean: {len(places)} of {name} ({listed(places)})", file=stream)
    doubled = {model: own["duplicates"] for model, own in found.items() if own["duplicates"]}
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
    """The first of them, with a word on the rest."""
    return ", ".join(names[:MOST_LISTED]) + (
        f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    )


def print_categories(found: dict[str, dict[str, float | None]]) -> None:
    """A line a model: its mean score by category."""
    if not found:
        return
    names = sorted({name for own in found.values() for name in own})
    width = max(len("model"), *(len(model) for model in found))
    print(f"\n{'model':{width}}  " + "  ".join(f"{name:>10}" for name in names))
    for model, own in found.items():
        print(
            f"{model:{width}}  "
            + "  ".join(f"{'–' if own.get(name) is None else format(own[name], '.2f'):>10}" for name in names)
        )


if __name__ == "__main__":
    run_main(main)
