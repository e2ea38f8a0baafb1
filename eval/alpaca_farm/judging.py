"""Pairs of answers to a judge, and its verdicts back: the package's prompts, order of answers and parsers,
our requests.

The package draws for every instruction which answer the judge sees first (`is_switched_outputs`, seeded by
the instruction), so the order is the same for all models. Its own client is not used: it drops what it cannot
parse without a word, and keeps nothing of a run that is stopped."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from eval.alpaca_farm.benchmarks import AlpacaEval, package
from eval.alpaca_farm.pairs import Pair
from eval.alpaca_farm.rates import verdict
from eval.alpaca_farm.verdicts import letter_choices, ranking_verdicts
from eval.chat_client import ChatClient, ChatReply
from eval.chat_service import ChatRequest
from eval.judge_options import JudgeOptions
from eval.verdict_text import Unread, concluding_text
from instruction_modelling.errors import UserError
from instruction_modelling.progress import Progress
from instruction_modelling.rows.json_lines import snippet

logger = logging.getLogger(__name__)

# So many replies without log-probabilities, and none with, show that the service gives none.
ENOUGH_WITHOUT_LOGPROBS = 5
_ABLE = "is this model able to judge? --judge_retries asks again"
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
        read = self.read(reply, switched)
        return None if isinstance(read, Unread) else read.preference

    def read(self, reply: ChatReply, switched: bool) -> "Preference | Unread":
        """Return the verdict of a reply, or why it cannot be read."""
        read = self._read_letter(reply) if self.needs_logprobs else self._read_ranking(reply)
        if isinstance(read, Unread) or not switched:
            return read
        return replace(read, preference=3 - read.preference)

    def _read_ranking(self, reply: ChatReply) -> "Preference | Unread":
        text = concluding_text(reply)
        if isinstance(text, Unread):
            return text
        ranked = ranking_verdicts(text)
        # A list of one model alone is read as the package reads it.
        value = ranked[-1] if ranked else self._parsed(text.strip())
        if value is None:
            return Unread(f"no verdict in {snippet(reply.text)}", _ABLE, again=True)
        return Preference(value, several=len(set(ranked)) > 1)

    def _read_letter(self, reply: ChatReply) -> "Preference | Unread":
        if reply.error is not None:
            return concluding_text(reply)  # type: ignore[return-value]
        found = letter_choices(reply)
        if isinstance(found, Unread):
            return found
        choices, letters = found
        value = self._parsed({"logprobs": {"content": [{"top_logprobs": choices}]}})
        if value is None:
            reason = f"no verdict in the likeliest tokens after {snippet(reply.text)}"
            return Unread(reason, _ABLE, again=True)
        return Preference(value, several=len(set(letters)) > 1)

    def _parsed(self, completion: Any) -> float | None:
        """Return what the package's parser reads, None where it reads nothing."""
        try:
            with _parser_silent():
                parsed = list(self._single.fn_completion_parser(completion))
        except Exception:
            # The parsers fail in many ways on what a judge may write; whichever, there is no verdict.
            return None
        return verdict(parsed[0]) if len(parsed) == 1 else None


@dataclass(frozen=True)
class Preference:
    """What a judge concluded: from 1 (the reference's answer) to 2 (the model's).

    `several`: its reply names several verdicts that differ, of which this is the last."""

    preference: float
    several: bool = False


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
    several: bool = False
    unread: Unread | None = None


def annotate(
    pairs: Sequence[Pair],
    annotator: Annotator,
    client: ChatClient,
    options: JudgeOptions,
    unanswered: Mapping[int, str] | None = None,
) -> tuple[list[dict[str, Any]], list[Unread]]:
    """Return the judge's annotations of the pairs, in the package's format and in their order, and why some
    hold no verdict.

    `preference` is None where no verdict can be read. The cost is put before the user first, each time.
    Questions whose verdict cannot be read are asked again, `judge_retries` times, where that may help. Equal
    answers are a draw, without a question.

    Args:
        pairs: the answers, in the reference's order.
        annotator: prompts, order of the answers, parser.
        client: the judge.
        options: how it is asked.
        unanswered: the items whose answers are none, and what they are; they are not judged.

    Raises:
        UserError: the cost is above the limit, or the judge stopped answering (what it did answer is kept).
    """
    judgments = {
        str(pair.item): _Judgment(pair, switched)
        for pair, switched in zip(pairs, annotator.switched(pairs), strict=True)
    }
    for judgment in judgments.values():
        wrong = (unanswered or {}).get(judgment.pair.item)
        if wrong:
            judgment.unread = Unread(f"not judged: {wrong}")
        elif judgment.pair.output_1 == judgment.pair.output_2:
            judgment.preference = 1.5
    for attempt in range(options.judge_retries + 1):
        unread = {
            key: judgment
            for key, judgment in judgments.items()
            if judgment.preference is None and (judgment.unread is None or judgment.unread.again)
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
    annotations = [_annotation(judgment, annotator) for judgment in judgments.values()]
    return annotations, [judgment.unread for judgment in judgments.values() if judgment.unread]


def _ask(
    requests: Sequence[ChatRequest], judgments: dict[str, _Judgment], annotator: Annotator, client: ChatClient
) -> None:
    failures: list[str] = []
    not_asked = reached = without = 0
    progress = Progress(len(requests), "judgments")
    for reply in client.ask(requests):
        progress.add(1)
        not_asked += not reply.asked
        reached += reply.reached
        if reply.error is not None:
            failures.append(reply.error)
        # Without a text there are none to give: its tokens went into thoughts.
        if annotator.needs_logprobs and (reply.text or _refuses_logprobs(reply)):
            given = (reply.logprobs or {}).get("content")
            without = without + 1 if not given else -len(requests)
            if without == min(ENOUGH_WITHOUT_LOGPROBS, len(requests)):
                raise UserError(
                    f"the judge {client.model} gives no log-probabilities, from which the verdicts of "
                    "AlpacaEval 2 are read; choose a server that does, or AlpacaEval 1 "
                    f"(IS_ALPACA_EVAL_2=False){f'. It says: {reply.error}' if reply.error else ''}"
                )
        judgment = judgments[reply.key]
        judgment.reply, judgment.attempts = reply, judgment.attempts + 1
        read = annotator.read(reply, judgment.switched)
        judgment.unread = read if isinstance(read, Unread) else None
        if not isinstance(read, Unread):
            judgment.preference, judgment.several = read.preference, read.several
    silent = not reached and not client.usage.requests and not client.usage.cached
    if not_asked or (requests and silent):
        raise UserError(
            f"the judge {client.model} did not answer {len(failures)} of {len(requests)} questions "
            f"(the first: {failures[0]}). The other replies are kept: run the same command again to ask the "
            "rest"
        )


def _refuses_logprobs(reply: ChatReply) -> bool:
    return reply.refused and "logprob" in (reply.error or "")


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
    if judgment.unread is not None:
        annotation["unparsed"] = judgment.unread.reason
    if judgment.several:
        annotation["disagreeing"] = True
    return annotation


def list_unparsed(annotations: Iterable[dict[str, Any]], most: int = 5) -> str:
    """Return the judgments without a verdict, a line each, for a message."""
    lines = [
        f"  - {snippet(annotation['instruction'])}: {annotation['unparsed']}"
        for annotation in annotations
        if annotation["preference"] is None
    ]
    return "\n".join(lines[:most] + [f"  - and {len(lines) - most} more"] * (len(lines) > most))
