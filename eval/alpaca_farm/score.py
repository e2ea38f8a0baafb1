"""Prints the win rate of an AlpacaEval annotation file, this repository's or anyone's.

    python -m eval.alpaca_farm.score --annotations results/eval/MODEL/alpaca_eval_1/annotations.json
    python -m eval.alpaca_farm.score --annotations annotations.json --json

The file is the package's: a JSON list of objects whose "preference" is from 1 (the reference's answer) to 2 (the model's),
1.5 or 0 for a draw. With --json, one object, unrounded: {"win_rate": percent, "standard_error", "n_total", "unparsed"};
n_total counts the judgments with a verdict, unparsed those without. Exit code 2 if fewer than --min_parsed_share have one
(the rates are printed all the same).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main


@dataclass
class ScoreOptions:
    """Scoring."""

    annotations: str
    """Annotation file."""
    json: bool = False
    """Print one JSON object, unrounded."""
    length_controlled_file: str | None = None
    """The package's df_gamed.csv; the length-controlled rate is given too (key "length_controlled_win_rate")."""
    min_parsed_share: float = 0.95
    """Least share of judgments that must hold a verdict."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        return [] if 0 <= self.min_parsed_share <= 1 else [f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1"]


def main() -> int:
    """Reads, computes, prints."""
    options = parse_options(ScoreOptions)
    from eval.alpaca_farm import rates

    annotations = rates.read_annotations(Path(options.annotations))
    rate = rates.win_rate(annotations)
    answer: dict[str, Any] = {"win_rate": rate.win_rate, "standard_error": rate.standard_error, "n_total": rate.n_total,
                              "unparsed": rate.unparsed}
    lines = [f"{options.annotations}: win rate {shown(rate.win_rate)} % ± {shown(rate.standard_error)} "
             f"({rate.n_wins} won, {rate.n_wins_base} lost, {rate.n_draws} drawn, {rate.n_total} in all)"]
    if options.length_controlled_file is not None:
        fitted = rates.length_controlled_rate(annotations, Path(options.length_controlled_file))
        if isinstance(fitted, str):
            raise UserError(f"no length-controlled rate: {fitted}")
        answer["length_controlled_win_rate"] = fitted.win_rate
        lines.append(f"length-controlled {fitted.win_rate:.3f} % ± {fitted.standard_error:.3f}")
    if rate.unparsed:
        places = rates.unparsed_places(annotations)
        listed = ", ".join(map(str, places[:20])) + (", ..." if len(places) > 20 else "")
        lines.append(f"unparsed: {rate.unparsed} of {len(annotations)} (annotations {listed}, counted from 0)")
    print(json.dumps(answer) if options.json else "\n".join(lines))
    if rate.parsed_share < options.min_parsed_share:
        raise UserError(f"{options.annotations}: only {rate.n_total} of {len(annotations)} judgments hold a verdict, fewer than "
                        f"--min_parsed_share {options.min_parsed_share:g} asks for; the rate is of those alone")
    return 0


def shown(value: float | None) -> str:
    """A rate with three decimals, `-` where there is none."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_main(main)
