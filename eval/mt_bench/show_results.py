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
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main


@dataclass
class ShowMtBenchOptions:
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
        """Return every problem of the options, in words."""
        return (
            []
            if 0 <= self.min_parsed_share <= 1
            else [f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1"]
        )


def main() -> int:
    """Read the judgments, print their rates, write what was asked for."""
    options = parse_options(ShowMtBenchOptions)
    from eval.mt_bench.display import print_rates, print_remarks
    from eval.mt_bench.judgments import is_pairwise, pair_rates, read_judgments, single_rates
    from instruction_modelling.files.whole import write_text

    files = {path: read_judgments(Path(path)) for path in options.judgments}
    if len({is_pairwise(rows) for rows in files.values()}) > 1:
        raise UserError(
            f"{', '.join(files)}: some hold judgments of single answers and some of pairs; show them one "
            "kind at a time"
        )
    rows = [row for rows_of_file in files.values() for row in rows_of_file]
    pairs = is_pairwise(rows)
    rates = pair_rates(rows) if pairs else single_rates(rows)
    text = json.dumps(rates, indent=1, ensure_ascii=False, allow_nan=False)
    if options.json == "-":
        print(text)
        print_remarks(rows, rates, sys.stderr)
    else:
        print_rates(rates)
        print_remarks(rows, rates, sys.stdout)
        if options.json:
            write_text(Path(options.json), text + "\n")
            print(f"written to {options.json}")
    _categories(options, rows, pairs)
    for model, rate in rates.items():
        judgments = rate["n"] + rate["unparsed"]
        if rate["n"] < options.min_parsed_share * judgments:
            raise UserError(
                f"only {rate['n']} of {judgments} judgments of {model} have a verdict, fewer than "
                f"--min_parsed_share {options.min_parsed_share:g} asks for; the rates are of those alone"
            )
    return 0


def _categories(options: ShowMtBenchOptions, rows: list[dict[str, Any]], pairs: bool) -> None:
    from eval.mt_bench.display import print_categories
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


if __name__ == "__main__":
    run_main(main)
