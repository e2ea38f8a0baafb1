"""What of a judge's reply a verdict is read from, and why some replies hold none."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.chat_client import ChatReply
from eval.thinking import without_thinking
from instruction_modelling.errors import UserError

_MORE_ROOM = "a higher --judge_max_tokens leaves room for it"


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
    text = without_thinking(reply.text)
    thinking = not text.strip() and bool(reply.text.strip())
    if reply.finish_reason == "length":
        return ran_out(thinking)
    if thinking:
        return Unread("the reply ends while the judge is thinking", _MORE_ROOM, again=True)
    if not text.strip():
        return Unread("the reply is empty", "--judge_retries asks again", again=True)
    return text


def ran_out(thinking: bool) -> Unread:
    """Return why a reply that was cut off at its limit holds no verdict."""
    when = "while the judge was thinking" if thinking else "before it ended"
    return Unread(f"the reply ran out of tokens {when} (finish_reason length)", _MORE_ROOM)


def too_few_verdicts(unread: Sequence[Unread], judgments: int, share: float, path: Path) -> UserError:
    """Return the error of a run with too few verdicts: first why most are not there, in the service's own
    words.

    Args:
        unread: of each judgment without a verdict.
        judgments: how many there are in all.
        share: the least share that must have a verdict.
        path: where they are listed.
    """
    # The same words with other numbers (tokens asked for) are the same reason.
    kinds = Counter(re.sub(r"\d+", "#", one.reason) for one in unread)
    lines = []
    for kind, count in kinds.most_common(3):
        first = next(one for one in unread if re.sub(r"\d+", "#", one.reason) == kind)
        remedy = f" ({first.remedy})" if first.remedy else ""
        lines.append(f"{count} of {judgments} judgments: {first.reason}{remedy}")
    return UserError(
        "\n".join(lines)
        + f"\nonly {judgments - len(unread)} of {judgments} judgments have a verdict that can "
        f"be read, fewer than --min_parsed_share {share:g} asks for, so there is no result. All without one "
        f"are listed in {path}"
    )
