"""A model's judgments on AlpacaEval and what is written of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.alpaca_farm import rates
from eval.alpaca_farm.benchmarks import LENGTH_CONTROLLED_FILE, AlpacaEval, harness
from eval.alpaca_farm.generation import RESULTS
from eval.alpaca_farm.judging import Annotator, annotate, list_unparsed
from eval.alpaca_farm.options import AlpacaEvalOptions
from eval.alpaca_farm.pairs import OutputFile, Pair
from eval.judging_cost import dollars
from eval.names import check_owner
from eval.verdict_text import too_few_verdicts
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json, write_json_lines

if TYPE_CHECKING:
    from eval.chat_client import ChatClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A model's answers beside the reference's: what is judged, and where it is written.

    `pairs` are in the reference's order; `outputs` says how the model's answers were made; `unanswered` are
    the items whose answers are none, and what they are."""

    benchmark: AlpacaEval
    reference: OutputFile
    pairs: Sequence[Pair]
    outputs: dict[str, Any]
    folder: Path
    model: str
    unanswered: Mapping[int, str] = field(default_factory=dict)


def judge_pairs(options: AlpacaEvalOptions, comparison: Comparison) -> dict[str, Any]:
    """Judge the pairs, write the files of the folder, print the rates; return what is in results.json.

    Raises:
        UserError: the folder holds the results of other answers; too dear, no answer from the judge, or too
            few verdicts; the judge's replies are then kept.
    """
    folder, pairs, benchmark = comparison.folder, comparison.pairs, comparison.benchmark
    check_owner(folder.parent, RESULTS, "outputs", comparison.outputs)
    with options.open_judge(benchmark.judge, folder / "judge_replies.jsonl") as client:
        annotator = Annotator(benchmark)
        annotations, unread = annotate(pairs, annotator, client, options, comparison.unanswered)
        judging = _judging(options, client, annotator)
    rate = rates.win_rate(annotations)
    write_json(folder / "annotations.json", annotations, ascii_only=True)
    _write_unparsed(folder, pairs, annotations)
    # The figures of an earlier run would be taken for this one's, and scores of items for those of a result.
    for name in ("results.json", "items.jsonl"):
        (folder / name).unlink(missing_ok=True)
    if rate.parsed_share < options.min_parsed_share:
        raise too_few_verdicts(unread, len(pairs), options.min_parsed_share, folder / "unparsed.json")
    several = [pair.item for pair, one in zip(pairs, annotations, strict=True) if one.get("disagreeing")]
    if several:
        logger.warning(
            "%d replies name several verdicts that differ, of which the last counts: items %s%s",
            len(several),
            ", ".join(map(str, several[:20])),
            ", ..." if len(several) > 20 else "",
        )
    # An instruction without a verdict has no score: it is listed in unparsed.json.
    items = [
        {"item": pair.item, "score": annotation["preference"] - 1}
        for pair, annotation in zip(pairs, annotations, strict=True)
        if annotation["preference"] is not None
    ]
    write_json_lines(folder / "items.jsonl", items)
    result = {
        "benchmark": f"AlpacaEval {benchmark.number}",
        "model": comparison.model,
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "n_total": rate.n_total,
        "unparsed": rate.unparsed,
        "disagreeing": len(several),
        "n_wins": rate.n_wins,
        "n_wins_base": rate.n_wins_base,
        "n_draws": rate.n_draws,
        **_length_controlled(options, annotations, len(comparison.reference.outputs)),
        "avg_length": round(sum(len(pair.output_2) for pair in pairs) / len(pairs)),
        "judge": client.model,
        "judge_service": client.service_name,
        "annotator": benchmark.annotator,
        "engine": comparison.outputs.get("engine"),
        "chat_format": comparison.outputs.get("chat_format"),
        "reference": comparison.reference.outputs[0].generator,
        "reference_file": str(comparison.reference.path),
        "reference_sha256": comparison.reference.sha256,
        "instructions": len(pairs),
        "outputs": comparison.outputs,
        "judging": judging,
        "harness": harness(),
    }
    write_json(folder / "results.json", result, ascii_only=True)
    _report(result, folder)
    return result


def _write_unparsed(folder: Path, pairs: Sequence[Pair], annotations: Sequence[dict[str, Any]]) -> None:
    unparsed = [
        {
            "item": pair.item,
            "instruction": pair.instruction,
            "reason": annotation["unparsed"],
            "reply": annotation["preference_raw_completion"],
            "attempts": annotation["attempts"],
        }
        for pair, annotation in zip(pairs, annotations, strict=True)
        if annotation["preference"] is None
    ]
    write_json(folder / "unparsed.json", unparsed, ascii_only=True)
    if unparsed:
        logger.warning(
            "%d of %d judgments have no verdict and are in no rate (%s):\n%s",
            len(unparsed),
            len(pairs),
            folder / "unparsed.json",
            list_unparsed(annotations),
        )


def _judging(options: AlpacaEvalOptions, client: "ChatClient", annotator: Annotator) -> dict[str, Any]:
    """Return what this run asked and paid; replies that were there before cost nothing."""
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
    plain = annotator.request("", Pair(0, "", "", "", "", "", ""), False, 0)
    return {
        **vars(usage),
        "dollars": cost,
        "retries": options.judge_retries,
        **options.asked_with(client, plain),
    }


def _length_controlled(
    options: AlpacaEvalOptions, annotations: list[dict[str, Any]], reference: int
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
        f"{result['instructions']} judgments, {result['unparsed']} unparsed)"
    )
    if result["length_controlled_win_rate"] is not None:
        print(f"length-controlled: {shown('length_controlled_win_rate', 'length_controlled_standard_error')}")
    print(f"written to {folder}")
