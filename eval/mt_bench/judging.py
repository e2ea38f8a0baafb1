"""A judge's verdicts on answers: FastChat's prompts and matching, our client; nothing is asked twice, nothing
shrinks unseen."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eval.chat_client import ChatReply
from eval.chat_service import ChatRequest
from eval.mt_bench.judgments import UNREAD, verdicts_in
from eval.mt_bench.questions import JudgePrompt, MtBench, Question, QuestionId, prompt_name
from eval.verdict_text import NO_VERDICT, Unread, concluding_text

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

    def verdicts(self, text: str) -> list[Any]:
        """Return the verdicts that a judgment spells, in its order: ratings, or A, B, tie."""
        return verdicts_in(text, self.prompt.output)

    @property
    def none(self) -> Any:
        """Return what stands for no verdict in FastChat's files."""
        return UNREAD if self.prompt.output == "[[rating]]" else "error"


def single_matches(benchmark: MtBench, answers: dict[QuestionId, tuple[str, ...]]) -> list[Match]:
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
    benchmark: MtBench, first: dict[QuestionId, tuple[str, ...]], second: dict[QuestionId, tuple[str, ...]]
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

    `verdict` is -1 or error where none could be read; `unread` then says why. `asked` is False where the run
    did not get to it, `reached` where the service said nothing to it. `said` are the verdicts of the judgment
    where it spells several that differ; the last counts."""

    match: Match
    verdict: Any
    judgment: str
    unread: Unread | None = None
    asked: bool = True
    reached: bool = True
    said: tuple[Any, ...] = ()


def without_answers(
    matches: list[Match], failed: Mapping[tuple[QuestionId, int], str]
) -> tuple[list[Match], list[Judged]]:
    """Return the matches whose answers are there, and the others, not judged.

    A judge of the second turn sees the first, so that one needs both.

    Args:
        matches: of one question and turn each.
        failed: see `failed_answers`.
    """
    asked: list[Match] = []
    unanswered: list[Judged] = []
    for match in matches:
        wrong = [
            failed[match.question.id, turn]
            for turn in range(1, match.turn + 1)
            if (match.question.id, turn) in failed
        ]
        if wrong:
            unanswered.append(Judged(match, match.none, "", Unread(f"not judged: {wrong[0]}")))
        else:
            asked.append(match)
    return asked, unanswered


def judge_matches(
    client: "ChatClient",
    matches: list[Match],
    retries: int,
    confirm: Callable[[list[ChatRequest]], None] = lambda requests: None,
) -> Iterator[Judged]:
    """Yield the verdicts, as they come.

    A judgment that cannot be read is asked for again, up to `retries` times, where that may help.
    `confirm` is called before each time with the requests that are to be sent, and may raise."""
    waiting = {match.key: match for match in matches}
    for attempt in range(retries + 1):
        last = attempt == retries
        requests = [replace(match.request(), attempt=attempt) for match in waiting.values()]
        confirm(requests)
        unread: dict[str, Match] = {}
        for reply in client.ask(requests):
            judged = _judged(waiting[reply.key], reply)
            if judged.unread and not last and judged.unread.again:
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
    text = concluding_text(reply)
    if isinstance(text, Unread):
        return Judged(match, match.none, reply.text, text, reply.asked, reply.reached)
    said = match.verdicts(text)
    if not said:
        return Judged(match, match.none, reply.text, NO_VERDICT)
    return Judged(match, said[-1], reply.text, said=tuple(said) if len(set(said)) > 1 else ())
