"""Prints the AlpacaEval win rates of models side by side.

    python -m eval.alpaca_farm.show_results results/eval/it results/eval/im

A folder is a --save_dir of run_eval. A rate that is not there shows as a dash; one with unparsed judgments
has their number behind it. Rates of samples (--max_instructions) follow below the table."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.files.stamps import read_stamp

COLUMNS = (
    ("AlpacaEval 1", "alpaca_eval_1", "win_rate", "standard_error"),
    ("AlpacaEval 2", "alpaca_eval_2", "win_rate", "standard_error"),
    (
        "2, length-controlled",
        "alpaca_eval_2",
        "length_controlled_win_rate",
        "length_controlled_standard_error",
    ),
)


@dataclass
class ShowAlpacaOptions:
    """Results."""

    folders: list[str] = field(metadata={"positional": "FOLDER"})
    """Folders of results, one a model."""


def main() -> int:
    """Read the results of every folder and print them as a table."""
    options = parse_options(ShowAlpacaOptions)
    rows = [["model", *(title for title, *_ in COLUMNS), "judges"]]
    for folder in map(Path, options.folders):
        results = {name: results_of(folder / name) for _, name, _, _ in COLUMNS}
        judges = sorted({result["judge"] for result in results.values() if result})
        rows.append(
            [
                folder.name,
                *(cell(results[name], rate, error) for _, name, rate, error in COLUMNS),
                ", ".join(judges) or "-",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for folder in map(Path, options.folders):
        for part in sorted(folder.glob("alpaca_eval_*_sample_*")):
            result = results_of(part)
            if result is not None:
                print(
                    f"{folder.name}: {result['benchmark']} on a sample of {result['instructions']} "
                    f"instructions: {cell(result, 'win_rate', 'standard_error')}, judged by {result['judge']}"
                )
    return 0


def results_of(folder: Path) -> dict[str, Any] | None:
    """Return what run_eval wrote, None where it wrote nothing."""
    return read_stamp(folder / "results.json")


def cell(result: dict[str, Any] | None, rate: str, error: str) -> str:
    """Return a rate as `71.37 ± 1.59`, with the unparsed judgments' number where there are any; `-` where
    there is no rate."""
    if result is None or result.get(rate) is None:
        return "-"
    text = f"{result[rate]:.2f}" + ("" if result.get(error) is None else f" ± {result[error]:.2f}")
    return f"{text} ({result['unparsed']} unparsed)" if result["unparsed"] else text


if __name__ == "__main__":
    run_main(main)
