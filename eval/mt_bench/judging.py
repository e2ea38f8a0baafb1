"""A judge's verdicts on answers: FastChat's prompts and matching, our client; nothing is asked twice, nothing
shrinks unseen."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eval.chat_client import ChatReply
from eval.chat_service import ChatRequest
from eval.mt_bench.judgments import UNREAD, read_rating, read_winner
from eval.mt_bench.questions import JudgePrompt, MtBench, Question, prompt_name

if TYPE_CHECKING:
    from eval.chat_client import ChatClient

logger = logging.getLogger("eval.mt_bench")

# FastChat's room for a judgment, in tokens.
REPLY_TOKENS = 2048


@dataclass(frozen=True)
class Match:
    """One thing to ask a judge: an answer's turn, or a pair of answers in one of the two orders."""

    key: str
    question: Question
    turn: int
    prompt: JudgePrompt
    user_prompt: str

    def request(self) -> ChatRequest:
        """Return what is sent."""
        return ChatRequest(
            self.key,
            [
                {"role": "system", "content": self.prompt.system},
                {"role": "user", "content": self.user_prompt},
            ],
            temperature=0.0,
            max_tokens=REPLY_TOKENS,
        )

    def read(self, judgment: str) -> Any:
        """Return the verdict in a judgment: a rating, or A, B, tie, error."""
        return (
            read_rating(judgment)
            if self.prompt.output == "[[rating]]"
            else read_winner(judgment, self.prompt.output)
        )


def single_matches(benchmark: MtBench, answers: dict[int, tuple[str, ...]]) -> list[Match]:
    """Return each turn of each answer, to be rated on its own."""
    matches = []
    for question in benchmark.questions:
        for turn in question.judged_turns:
            prompt = benchmark.prompts[prompt_name("single", question.reference is not None, turn)]
            given: dict[str, str] = _references(question, turn)
            if turn == 1:
                given |= {"question": question.turns[0], "answer": answers[question.id][0]}
            else:
                given |= {
                    "question_1": question.turns[0],
                    "question_2": question.turns[1],
                    "answer_1": answers[question.id][0],
                    "answer_2": answers[question.id][1],
                }
            matches.append(Match(f"{question.id}_{turn}", question, turn, prompt, prompt.filled(given)))
    return matches


def pair_matches(
    benchmark: MtBench, first: dict[int, tuple[str, ...]], second: dict[int, tuple[str, ...]]
) -> list[Match]:
    """Return each turn of each question with two answers beside each other, in both orders.

    Game 1 shows `first` as A, game 2 as B."""
    matches = []
    for question in benchmark.questions:
        for turn in question.judged_turns:
            prompt = benchmark.prompts[prompt_name("pair", question.reference is not None, turn)]
            for game, (a, b) in enumerate(
                ((first[question.id], second[question.id]), (second[question.id], first[question.id])),
                start=1,
            ):
                given = _references(question, turn)
                if turn == 1:
                    given |= {"question": question.turns[0], "answer_a": a[0], "answer_b": b[0]}
                else:
                    given |= {
                        "question_1": question.turns[0],
                        "question_2": question.turns[1],
                        "answer_a_1": a[0],
                        "answer_a_2": a[1],
                        "answer_b_1": b[0],
                        "answer_b_2": b[1],
                    }
                matches.append(
                    Match(f"{question.id}_{turn}_{game}", question, turn, prompt, prompt.filled(given))
                )
    return matches


def _references(question: Question, turn: int) -> dict[str, str]:
    if question.reference is None:
        return {}
    given = {"ref_answer_1": question.reference[0]}
    return given | ({"ref_answer_2": question.reference[1]} if turn == 2 else {})


@dataclass(frozen=True)
class Judged:
    """A match and what came of it.

    `verdict` is -1 or error where none could be read. `error` says why nothing came, and `refused`
    whether the judge's service will not take this question (else it was not reached)."""

    match: Match
    verdict: Any
    judgment: str
    error: str | None = None
    refused: bool = False

    @property
    def unread(self) -> bool:
        """Return whether there is no verdict."""
        return self.verdict in (UNREAD, "error")


def judge_matches(
    client: "ChatClient",
    matches: list[Match],
    retries: int,
    confirm: Callable[[list[ChatRequest]], None] = lambda requests: None,
) -> Iterator[Judged]:
    """Yield the verdicts, as they come.

    A judgment that cannot be read is asked for again, up to `retries` times. `confirm` is called before
    each time with the requests that are to be sent, and may raise."""
    waiting = {match.key: match for match in matches}
    for attempt in range(retries + 1):
        last = attempt == retries
        requests = [replace(match.request(), attempt=attempt) for match in waiting.values()]
        confirm(requests)
        unread: dict[str, Match] = {}
        for reply in client.ask(requests):
            judged = _judged(waiting[reply.key], reply)
            if judged.unread and not last and (judged.error is None):
                unread[reply.key] = judged.match
            else:
                yield judged
        if not unread:
            return
        logger.info(
            "%d judgments could not be read: asking again (%d of %d)", len(unread), attempt + 1, retries
        )
        waiting = unread


def _judged(match: Match, reply: ChatReply) -> Judged:
    if reply.error is not None:
        return Judged(
            match, UNREAD if match.prompt.output == "[[rating]]" else "error", "", reply.error, reply.refused
        )
    return Judged(match, match.read(reply.text), reply.text)
