"""Pairs of answers to a judge, and its verdicts back: the package's prompts, order of answers and parsers,
our requests.

The package draws for every instruction which answer the judge sees first (`is_switched_outputs`, seeded by
the instruction), so the order is the same for all models. Its own client is not used: it drops what it cannot
parse without a word, and keeps nothing of a run that is stopped."""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from eval.alpaca_farm.benchmarks import AlpacaEval, package
from eval.alpaca_farm.pairs import Pair
from eval.alpaca_farm.rates import verdict
from eval.chat_client import ChatClient, ChatReply
from eval.chat_service import ChatRequest
from eval.judge_options import JudgeOptions
from instruction_modelling.errors import UserError
from instruction_modelling.progress import Progress
from instruction_modelling.rows.json_lines import snippet

logger = logging.getLogger(__name__)

# So many replies without log-probabilities, and none with, show that the service gives none.
ENOUGH_WITHOUT_LOGPROBS = 5
_PLACEHOLDER = re.compile(r"\{(instruction|output_1|output_2)\}")


class Annotator:
    """The prompts and the parser of one of the package's annotators."""

    def __init__(self, benchmark: AlpacaEval):
        pool = package().annotators.PairwiseAnnotator(
            annotators_config=benchmark.annotator, caching_path=None
        )
        self.name = benchmark.annotator
        self._single = pool.annotators[benchmark.annotator]
        self._asked = self._single.completions_kwargs
        # Filled in after the template is cut into messages, so that an answer's own control tokens or braces
        # stay text.
        self._template = package().utils.prompt_to_chatml(self._single.prompt_template.strip())
        self.needs_logprobs = bool(self._asked.get("logprobs"))

    def switched(self, pairs: Sequence[Pair]) -> list[bool]:
        """Return for every pair whether the judge sees the model's answer first."""
        import pandas

        table = pandas.DataFrame(
            [asdict(pair) for pair in pairs], columns=["instruction", "output_1", "output_2"]
        )
        for processor in self._single.processors:
            table = processor.preprocess(table)
        return [bool(value) for value in table["is_switched_outputs"]]

    def request(self, key: str, pair: Pair, switched: bool, attempt: int) -> ChatRequest:
        """Return the question to the judge."""
        first, second = (pair.output_2, pair.output_1) if switched else (pair.output_1, pair.output_2)
        texts = {"instruction": pair.instruction, "output_1": first, "output_2": second}
        messages = [
            {
                "role": message["role"],
                "content": _PLACEHOLDER.sub(lambda match: texts[match[1]], message["content"]).strip(),
            }
            for message in self._template
        ]
        return ChatRequest(
            key,
            messages,
            temperature=self._asked["temperature"],
            max_tokens=self._asked["max_tokens"],
            logprobs=self.needs_logprobs,
            top_logprobs=self._asked.get("top_logprobs"),
            attempt=attempt,
        )

    def preference(self, reply: ChatReply, switched: bool) -> float | None:
        """Return the verdict of a reply, from 1 (the reference's answer) to 2 (the model's); None where it
        cannot be read."""
        completion = {"logprobs": reply.logprobs} if self.needs_logprobs else reply.text
        try:
            with _parser_silent():
                parsed = list(self._single.fn_completion_parser(completion))
        except Exception:
            # The parsers fail in many ways on what a judge may write; whichever, there is no verdict.
            return None
        value = verdict(parsed[0]) if len(parsed) == 1 else None
        return value if value is None or not switched else 3 - value


@contextmanager
def _parser_silent() -> Iterator[None]:
    """Keep the package's parsers from logging every reply they cannot read as an error; those are counted
    and listed here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass
class _Judgment:
    """What is known of one pair."""

    pair: Pair
    switched: bool
    preference: float | None = None
    reply: ChatReply | None = None
    attempts: int = 0


def annotate(
    pairs: Sequence[Pair], benchmark: AlpacaEval, client: ChatClient, options: JudgeOptions
) -> list[dict[str, Any]]:
    """Return the judge's annotations of the pairs, in the package's format and in their order.

    `preference` is None where no verdict can be read. The cost is put before the user first, each time.
    Questions whose verdict cannot be read are asked again, `judge_retries` times. Equal answers are a draw,
    without a question.

    Raises:
        UserError: the cost is above the limit, or the judge did not answer (what it did answer is kept).
    """
    annotator = Annotator(benchmark)
    judgments = {
        str(pair.item): _Judgment(pair, switched)
        for pair, switched in zip(pairs, annotator.switched(pairs), strict=True)
    }
    for judgment in judgments.values():
        if judgment.pair.output_1 == judgment.pair.output_2:
            judgment.preference = 1.5
    for attempt in range(options.judge_retries + 1):
        unread = {
            key: judgment
            for key, judgment in judgments.items()
            if judgment.preference is None and not (judgment.reply and judgment.reply.refused)
        }
        if not unread:
            break
        if attempt:
            logger.info(
                "%d verdicts cannot be read; asking again (%d of %d)",
                len(unread),
                attempt,
                options.judge_retries,
            )
        requests = [
            annotator.request(key, judgment.pair, judgment.switched, attempt)
            for key, judgment in unread.items()
        ]
        options.confirm_cost(client, requests)
        _ask(requests, unread, annotator, client)
    return [_annotation(judgment, annotator) for judgment in judgments.values()]


def _ask(
    requests: Sequence[ChatRequest], judgments: dict[str, _Judgment], annotator: Annotator, client: ChatClient
) -> None:
    failures: list[str] = []
    without = 0
    progress = Progress(len(requests), "judgments")
    for reply in client.ask(requests):
        progress.add(1)
        if reply.error is not None and not reply.refused:
            failures.append(reply.error)
            continue
        if annotator.needs_logprobs and reply.error is None:
            without = without + 1 if not reply.logprobs else -len(requests)
            if without == min(ENOUGH_WITHOUT_LOGPROBS, len(requests)):
                raise UserError(
                    f"the judge {client.model} gives no log-probabilities, from which the verdicts of "
                    "AlpacaEval 2 are read; choose a server that does, or AlpacaEval 1 "
                    "(IS_ALPACA_EVAL_2=False)"
                )
        judgment = judgments[reply.key]
        judgment.reply, judgment.attempts = reply, judgment.attempts + 1
        if reply.error is None:
            judgment.preference = annotator.preference(reply, judgment.switched)
    if failures:
        raise UserError(
            f"the judge {client.model} did not answer {len(failures)} of {len(requests)} questions "
            f"(the first: {failures[0]}). The other replies are kept: run the same command again to ask the "
            "rest"
        )


def _annotation(judgment: _Judgment, annotator: Annotator) -> dict[str, Any]:
    pair, reply = judgment.pair, judgment.reply
    raw: Any = None
    if reply is not None:
        raw = {"text": reply.text, "logprobs": reply.logprobs} if annotator.needs_logprobs else reply.text
    annotation = {
        "instruction": pair.instruction,
        "output_1": pair.output_1,
        "generator_1": pair.generator_1,
        "dataset": pair.dataset,
        "output_2": pair.output_2,
        "generator_2": pair.generator_2,
        "annotator": annotator.name,
        "preference": judgment.preference,
        "preference_raw_completion": raw,
        "is_switched_outputs": judgment.switched,
        "attempts": judgment.attempts,
    }
    if judgment.preference is None and reply is not None:
        annotation["unparsed"] = reply.error or f"no verdict in {_verdict_source(reply, annotator)}"
    return annotation


def _verdict_source(reply: ChatReply, annotator: Annotator) -> str:
    if not annotator.needs_logprobs:
        return snippet(reply.text)
    return f"the likeliest tokens after {snippet(reply.text)}"


def list_unparsed(annotations: Iterable[dict[str, Any]], most: int = 5) -> str:
    """Return the judgments without a verdict, a line each, for a message."""
    lines = [
        f"  - {snippet(annotation['instruction'])}: {annotation['unparsed']}"
        for annotation in annotations
        if annotation["preference"] is None
    ]
    return "\n".join(lines[:most] + [f"  - and {len(lines) - most} more"] * (len(lines) > most))
