"""Prints the win rate of an AlpacaEval annotation file, this repository's or anyone's.

    python -m eval.alpaca_farm.score --annotations results/eval/MODEL/alpaca_eval_1/annotations.json
    python -m eval.alpaca_farm.score --annotations annotations.json --json

The file is the package's: objects, in a JSON list or a line each, whose "preference" is from 1 (the
reference's answer) to 2 (the model's), 1.5 or 0 for a draw; anything else (null, NaN, -1, none) is no
verdict. With --json, one object, unrounded: {"win_rate": percent, "standard_error", "n_total", "unparsed"};
n_total counts the judgments with a verdict, unparsed those without, which are listed. Exit code 2 if fewer
than --min_parsed_share have one (the rates are printed all the same)."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

if TYPE_CHECKING:
    from eval.alpaca_farm.rates import LengthControlledRate


@dataclass
class AlpacaScoreOptions:
    """Scoring."""

    annotations: str
    """Annotation file."""
    json: bool = False
    """Print one JSON object, unrounded."""
    generator: str | None = None
    """Only the annotations of this model (generator_2), where a file holds several."""
    annotator: str | None = None
    """Only the annotations by this annotator."""
    length_controlled_file: str | None = None
    """The package's df_gamed.csv; the length-controlled rate is given too (key
    "length_controlled_win_rate")."""
    reference_path: str | None = None
    """The reference's answers, whose order df_gamed.csv goes by (default: AlpacaEval 2's in
    data/eval/alpaca_eval)."""
    min_parsed_share: float = 0.5
    """Least share of judgments that must hold a verdict."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        return (
            []
            if 0 <= self.min_parsed_share <= 1
            else [f"--min_parsed_share {self.min_parsed_share} must be between 0 and 1"]
        )


def main() -> int:
    """Read the annotations, compute their rates and print them."""
    options = parse_options(AlpacaScoreOptions)
    from eval.alpaca_farm import rates

    annotations = chosen_annotations(options)
    rate = rates.win_rate(annotations)
    answer: dict[str, Any] = {
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "n_total": rate.n_total,
        "unparsed": rate.unparsed,
    }
    lines = [
        f"{options.annotations}: win rate {percent_text(rate.win_rate)} % ± "
        f"{percent_text(rate.standard_error)} ({rate.n_wins} won, {rate.n_wins_base} lost, {rate.n_draws} "
        f"drawn, {rate.n_total} in all)"
    ]
    if options.length_controlled_file is not None:
        fitted = fit_length_controlled(options, annotations)
        answer["length_controlled_win_rate"] = fitted.win_rate
        lines.append(f"length-controlled {fitted.win_rate:.3f} % ± {fitted.standard_error:.3f}")
    remarks = rates.mixture(annotations)
    if rate.unparsed:
        indices = rates.unparsed_indices(annotations)
        listed = ", ".join(map(str, indices[:20])) + (", ..." if len(indices) > 20 else "")
        remarks.insert(
            0, f"unparsed: {rate.unparsed} of {len(annotations)} (annotations {listed}, counted from 0)"
        )
    if options.json:
        print(json.dumps(answer, allow_nan=False), flush=True)
    else:
        print("\n".join(lines), flush=True)
    for remark in remarks:
        print(remark, file=sys.stderr if options.json else sys.stdout, flush=True)
    if rate.parsed_share < options.min_parsed_share:
        raise UserError(
            f"{options.annotations}: only {rate.n_total} of {len(annotations)} judgments hold a verdict, "
            f"fewer than --min_parsed_share {options.min_parsed_share:g} asks for; the rate is of those alone"
        )
    return 0


def chosen_annotations(options: AlpacaScoreOptions) -> list[dict[str, Any]]:
    """Return the file's annotations of the model and by the annotator that the options name.

    Raises:
        UserError: the file holds none, or none of these.
    """
    from eval.alpaca_farm import rates

    annotations = rates.read_annotations(Path(options.annotations))
    for flag, name, value in (
        ("generator", "generator_2", options.generator),
        ("annotator", "annotator", options.annotator),
    ):
        if value is not None:
            values = sorted({str(annotation.get(name)) for annotation in annotations})
            annotations = [annotation for annotation in annotations if annotation.get(name) == value]
            if not annotations:
                raise UserError(
                    f"{options.annotations}: holds nothing for --{flag} {value}; it has {', '.join(values)}"
                )
    return annotations


def fit_length_controlled(
    options: AlpacaScoreOptions, annotations: list[dict[str, Any]]
) -> "LengthControlledRate":
    """Return the length-controlled rate of annotations in any order.

    Raises:
        UserError: there is none, and why.
    """
    from eval.alpaca_farm import rates
    from eval.alpaca_farm.benchmarks import ALPACA_EVAL_2, FETCH
    from eval.alpaca_farm.pairs import read_outputs

    reference = read_outputs(
        Path(options.reference_path or ALPACA_EVAL_2.reference_path),
        f"Length control needs the instructions' order: fetch the file with `{FETCH}`, or name it with "
        "--reference_path",
    )
    index_of = {output.instruction: number for number, output in enumerate(reference.outputs)}
    strange = [
        number
        for number, annotation in enumerate(annotations)
        if annotation.get("instruction") not in index_of
    ]
    if strange:
        raise UserError(
            f"no length-controlled rate: {len(strange)} annotations are to no instruction of "
            f"{reference.path}, the first at {strange[0]}"
        )
    if len({annotation["instruction"] for annotation in annotations}) < len(annotations):
        raise UserError(
            "no length-controlled rate: some instructions are annotated twice; choose with --generator and "
            "--annotator"
        )
    ordered = sorted(annotations, key=lambda annotation: index_of[annotation["instruction"]])
    fitted = rates.length_controlled_rate(ordered, Path(options.length_controlled_file or ""))
    if isinstance(fitted, str):
        raise UserError(f"no length-controlled rate: {fitted}")
    return fitted


def percent_text(value: float | None) -> str:
    """Return a rate with three decimals, `-` where there is none."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_main(main)
