"""A model's judgments on AlpacaEval and what is written of them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eval.alpaca_farm import rates
from eval.alpaca_farm.benchmarks import LENGTH_CONTROLLED_FILE, AlpacaEval, harness
from eval.alpaca_farm.judging import judge, list_unparsed
from eval.alpaca_farm.pairs import OutputFile, Pair
from eval.judging_cost import dollars
from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import replace_file

if TYPE_CHECKING:
    from eval.alpaca_farm.run_eval import AlpacaEvalOptions
    from eval.chat_client import ChatClient

logger = logging.getLogger(__name__)


def judged(
    options: "AlpacaEvalOptions",
    benchmark: AlpacaEval,
    reference: OutputFile,
    pairs: Sequence[Pair],
    outputs: dict[str, Any],
    folder: Path,
    model: str,
) -> dict[str, Any]:
    """Judges the pairs, writes the files of `folder`, prints the rates; gives what is in results.json.

    Args:
        options: the script's.
        benchmark: which of the two.
        reference: the reference's answers.
        pairs: of answers, in the reference's order.
        outputs: how the model's answers were made, for the results.
        folder: of the results.
        model: the model's name.

    Raises:
        UserError: too dear, no answer from the judge, or too few verdicts; the judge's replies are then kept.
    """
    with options.open_judge(benchmark.judge, folder / "judge_replies.jsonl") as client:
        annotations = judge(pairs, benchmark, client, options)
        used = _used(options, client)
    rate = rates.win_rate(annotations)
    write(folder / "annotations.json", json.dumps(annotations, indent=1) + "\n")
    unparsed = [
        {
            "item": pair.place,
            "instruction": pair.instruction,
            "reason": annotation["unparsed"],
            "reply": annotation["preference_raw_completion"],
            "attempts": annotation["attempts"],
        }
        for pair, annotation in zip(pairs, annotations, strict=True)
        if annotation["preference"] is None
    ]
    write(folder / "unparsed.json", json.dumps(unparsed, indent=1) + "\n")
    if unparsed:
        logger.warning(
            "%d of %d judgments have no verdict and are in no rate (%s):\n%s",
            len(unparsed),
            len(pairs),
            folder / "unparsed.json",
            list_unparsed(annotations),
        )
    if rate.parsed_share < options.min_parsed_share:
        # The figures of an earlier, better run would be taken for this one's.
        (folder / "results.json").unlink(missing_ok=True)
        raise UserError(
            f"only {rate.n_total} of {len(pairs)} judgments have a verdict, fewer than --min_parsed_share "
            f"{options.min_parsed_share:g} asks for, so there is no result. Is {client.model} able to judge? "
            "Its "
            f"replies are in {folder / 'unparsed.json'}; --judge_retries asks again"
        )
    # An instruction without a verdict has no score: it is listed in unparsed.json.
    write(
        folder / "items.jsonl",
        "".join(
            json.dumps({"item": pair.place, "score": annotation["preference"] - 1}) + "\n"
            for pair, annotation in zip(pairs, annotations, strict=True)
            if annotation["preference"] is not None
        ),
    )
    result = {
        "benchmark": f"AlpacaEval {benchmark.number}",
        "model": model,
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "n_total": rate.n_total,
        "unparsed": rate.unparsed,
        "n_wins": rate.n_wins,
        "n_wins_base": rate.n_wins_base,
        "n_draws": rate.n_draws,
        **_length_controlled(options, annotations, len(reference.outputs)),
        "avg_length": round(sum(len(pair.output_2) for pair in pairs) / len(pairs)),
        "judge": client.model,
        "judge_service": "local" if client.local else urlsplit(client.base_url).netloc,
        "annotator": benchmark.annotator,
        "engine": outputs.get("engine"),
        "chat_format": outputs.get("chat_format"),
        "reference": reference.outputs[0].generator,
        "reference_file": str(reference.path),
        "reference_sha256": reference.sha256,
        "instructions": len(pairs),
        "outputs": outputs,
        "judging": used,
        "harness": harness(),
    }
    write(folder / "results.json", json.dumps(result, indent=1) + "\n")
    _report(result, folder)
    return result


def _used(options: "AlpacaEvalOptions", client: "ChatClient") -> dict[str, Any]:
    """What this run asked and paid; replies that were there before cost nothing."""
    usage = client.usage
    cost = options.spent(client)
    if usage.requests and cost:
        logger.info(
            "paid for %d replies, %s prompt and %s reply tokens: about %s",
            usage.requests,
            f"{usage.prompt_tokens:,}",
            f"{usage.reply_tokens:,}",
            dollars(cost),
        )
    return {**vars(usage), "dollars": cost, "retries": options.judge_retries}


def _length_controlled(
    options: "AlpacaEvalOptions", annotations: list[dict[str, Any]], reference: int
) -> dict[str, float | None]:
    none: dict[str, float | None] = {
        "length_controlled_win_rate": None,
        "length_controlled_standard_error": None,
    }
    if len(annotations) != reference:
        logger.info("no length-controlled win rate: it needs all instructions")
        return none
    fitted = rates.length_controlled_rate(
        annotations, Path(options.length_controlled_file or LENGTH_CONTROLLED_FILE)
    )
    if isinstance(fitted, str):
        if options.length_controlled_file is not None:
            raise UserError(f"no length-controlled win rate: {fitted}")
        logger.info("no length-controlled win rate: %s", fitted)
        return none
    return {
        "length_controlled_win_rate": fitted.win_rate,
        "length_controlled_standard_error": fitted.standard_error,
    }


def _report(result: dict[str, Any], folder: Path) -> None:
    def shown(name: str, error: str) -> str:
        parts = [f"{result[part]:.2f}" for part in (name, error) if result[part] is not None]
        return " ± ".join(parts) + " %" if parts else "-"

    print(
        f"{result['benchmark']} of {result['model']}: win rate {shown('win_rate', 'standard_error')} against "
        f"{result['reference']}, judged by {result['judge']} ({result['n_total']} of "
        f"{result['instructions']} judgments, "
        f"{result['unparsed']} unparsed)"
    )
    if result["length_controlled_win_rate"] is not None:
        print(f"length-controlled: {shown('length_controlled_win_rate', 'length_controlled_standard_error')}")
    print(f"written to {folder}")


def write(path: Path, text: str) -> None:
    """Replaces a file whole.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
