"""The rates of a file of MT-Bench judgments, whoever made it.

    python -m eval.mt_bench.show_results --judgments model_judgment/gpt-4_single.jsonl [--json [rates.json]]

For each model: the mean score of the first turn, of the second, and of all judgments, as FastChat's show_result gives them;
how many judgments entered, how many had no verdict that could be read (they enter no mean), and how many are duplicates (they
enter like any others, as in FastChat; remove them first if that is not wanted). A file of pairwise judgments gives wins,
losses and ties. With --json the same, unrounded.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class ShowOptions:
    """Results."""

    judgments: str
    """File of judgments in FastChat's format, single or pairwise."""
    json: str | None = field(default=None, metadata={"without_value": "-"})
    """Print the rates, unrounded, as one JSON object instead of the table; with a value, keep the table and write them to that file."""
    question_file: str | None = None
    """question.jsonl, for the means by category (default: the one in data/eval/mt_bench, if it is there)."""


def main() -> int:
    """Reads, prints, writes."""
    options = parse_options(ShowOptions)
    from eval.mt_bench.judgments import category_rates, is_pairwise, pair_rates, rates, read_judgments
    from eval.mt_bench.questions import DATA, read_lines
    from instruction_modelling.run_folder import write_aside

    rows = read_judgments(Path(options.judgments))
    found = pair_rates(rows) if is_pairwise(rows) else rates(rows)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if options.json == "-":
        print(text)
        return 0
    print_rates(found)
    questions = Path(options.question_file or DATA / "question.jsonl")
    if not is_pairwise(rows) and (options.question_file or questions.exists()):
        categories = {row["question_id"]: row["category"] for row in read_lines(questions, ("question_id", "category"))}
        print_categories(category_rates(rows, categories))
    if options.json:
        write_aside(Path(options.json), text + "\n")
        print(f"written to {options.json}")
    return 0


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
        print(f"{model:{width}}  " + "  ".join(f"{shown(own[name]):>{max(8, len(name))}}" for name in columns))
    doubled = {model: own["duplicates"] for model, own in found.items() if own["duplicates"]}
    if doubled:
        print("duplicates enter the means: " + ", ".join(f"{count} of {model}" for model, count in doubled.items()))


def print_categories(found: dict[str, dict[str, float | None]]) -> None:
    """A line a model: its mean score by category."""
    if not found:
        return
    names = sorted({name for own in found.values() for name in own})
    width = max(len("model"), *(len(model) for model in found))
    print(f"\n{'model':{width}}  " + "  ".join(f"{name:>10}" for name in names))
    for model, own in found.items():
        print(f"{model:{width}}  " + "  ".join(f"{'–' if own.get(name) is None else format(own[name], '.2f'):>10}" for name in names))


if __name__ == "__main__":
    run_main(main)
