"""What of a judge's reply a verdict is read from, and why some replies hold none."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.chat_client import ChatReply
from eval.thinking import without_thinking
from instruction_modelling.errors import UserError

# A tag in quotes or code is one that the judge speaks of, as answers of thinking models give reason to.
_QUOTED_TAG = re.compile(r"([`\"'])\s*</?[\w:]+>\s*\1")
MORE_ROOM = "a higher --judge_max_tokens leaves room for it"


@dataclass(frozen=True)
class Unread:
    """Why a judgment has no verdict.

    `remedy` is what may help, in words; `again` whether asking the same once more may."""

    reason: str
    remedy: str = ""
    again: bool = False


NO_VERDICT = Unread(
    "no verdict in the judgment", "is this model able to judge? --judge_retries asks again", again=True
)


def concluding_text(reply: ChatReply) -> str | Unread:
    """Return the text in which a judge says its verdict, without its thoughts, or why there is none.

    A reply that was cut off has none: what it says last need not be what it would have concluded."""
    if reply.error is not None:
        again = "the same command asks for it again"
        longer = "--judge_max_tokens N leaves more of the model's window to the question"
        too_long = re.search(r"context|too long|too large|max_tokens", reply.error)
        kept = f"{longer}; " * bool(too_long) + "--ask_refused_again asks once more"
        return Unread(reply.error, kept if reply.refused else again)
    if reply.finish_reason == "content_filter":
        return Unread("the service filtered the reply (finish_reason content_filter)")
    text = conclusion(reply.text)
    thinking = not text.strip() and bool(reply.text.strip())
    if reply.finish_reason == "length":
        return ran_out(thinking)
    if thinking:
        return Unread("the reply ends while the judge is thinking", MORE_ROOM, again=True)
    if not text.strip():
        return Unread("the reply is empty", "--judge_retries asks again", again=True)
    return text


def conclusion(text: str) -> str:
    """Return what a judge wrote without its thoughts, and without tags that it quotes."""
    return without_thinking(_QUOTED_TAG.sub("", text))


def ran_out(thinking: bool) -> Unread:
    """Return why a reply that was cut off at its limit holds no verdict."""
    when = "while the judge was thinking" if thinking else "before it ended"
    return Unread(f"the reply ran out of tokens {when} (finish_reason length)", MORE_ROOM)


def commonest(reasons: Iterable[str], most: int = 3) -> list[tuple[str, int]]:
    """Return the most frequent reasons, the first of each kind in its own words, and how often each is given.

    The same words with other numbers (tokens asked for) are the same reason."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for reason in reasons:
        kind = re.sub(r"\d+", "#", reason)
        counts[kind] += 1
        first.setdefault(kind, reason)
    return [(first[kind], count) for kind, count in counts.most_common(most)]


def too_few_verdicts(unread: Sequence[Unread], judgments: int, share: float, path: Path) -> UserError:
    """Return the error of a run with too few verdicts: first why most are not there, in the service's own
    words.

    Args:
        unread: of each judgment without a verdict.
        judgments: how many there are in all.
        share: the least share that must have a verdict.
        path: where they are listed.
    """
    remedies = {one.reason: f" ({one.remedy})" for one in unread if one.remedy}
    lines = [
        f"{count} of {judgments} judgments: {reason}{remedies.get(reason, '')}"
        for reason, count in commonest(one.reason for one in unread)
    ]
    return UserError(
        "\n".join(lines)
        + f"\nonly {judgments - len(unread)} of {judgments} judgments have a verdict that can "
        f"be read, fewer than --min_parsed_share {share:g} asks for, so there is no result. All without one "
        f"are listed in {path}"
    )
