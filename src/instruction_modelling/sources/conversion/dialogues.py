"""Formats of whole dialogues: a function for each, from a row of the source to rows of chat.

Each takes (row, settings) and gives `Chat`, `RowRefused` or `LeftOut` values; a row of one chat that cannot
be used may be raised as `RowRefused`. Contents stay as they are, white space included, except Baize's."""

from collections.abc import Iterable, Iterator
from typing import Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.json_lines import snippet, too_deep
from instruction_modelling.sources.conversion.settings import (
    Chat,
    Draft,
    LeftOut,
    Messages,
    Settings,
    fields,
    items,
    optional_text,
    text,
)
from instruction_modelling.sources.conversion.split import Piece, split_conversation

_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant"}
# Written by another model, or steered by a prompt of its own: the published data goes without them.
_SHAREGPT_LEFT_OUT = ("system", "bing")
_OASST_ROLES = {"prompter": "user", "assistant": "assistant"}


def lima(row: Any, settings: Settings) -> Iterable[Draft]:
    """LIMA: `conversations`, a list of strings, the user's first; an unanswered last one is cut off."""
    texts = items(fields(row), "conversations")
    if len(texts) % 2:
        texts = texts[:-1]
        settings.notes["unanswered last message cut off"] += 1
    if not texts:
        raise RowRefused("no answer", "the conversation is one message; it must have an answer")
    for place, content in enumerate(texts):
        if not isinstance(content, str):
            raise RowRefused("message is not a string", f"message {place} is {snippet(content)}")
    return (
        Chat(
            [
                {"role": ("user", "assistant")[place % 2], "content": content}
                for place, content in enumerate(texts)
            ]
        ),
    )


def wizardlm(row: Any, settings: Settings) -> Iterable[Draft]:
    """WizardLM: `conversations` of `from` (human, gpt in turns) and `value`."""
    return (Chat(_in_turns(_sharegpt_messages(items(fields(row), "conversations")))),)


def sharegpt(row: Any, settings: Settings) -> Iterator[Draft]:
    """ShareGPT: `conversations` of `from` and `value`, whole, or split at `settings.max_tokens`.

    A conversation, or a piece of one, with a system prompt or with Bing's answers is refused, as are senders
    that are not known. A piece must also take turns."""
    row = fields(row)
    if settings.max_tokens is None:
        yield Chat(_sharegpt_messages(items(row, "conversations")))
        return
    assert settings.token_counts is not None
    said = [fields(message) for message in items(row, "conversations")]
    if len(said) % 2:
        said.pop()
        settings.notes["unanswered last message cut off"] += 1
    if not said:
        raise RowRefused("no answer", "the conversation is one message; it must have an answer")
    counts = settings.token_counts([text(message, "value") for message in said])
    for piece in split_conversation(counts, settings.max_tokens, settings.released_split):
        where = f"messages {piece.start} to {piece.end - 1}"
        try:
            if piece.kind is not Piece.KEPT:
                raise RowRefused(
                    piece.kind.value,
                    f"{where} are {sum(counts[piece.start : piece.end])} tokens long; the most "
                    f"is {settings.max_tokens}",
                )
            yield Chat(_in_turns(_sharegpt_messages(said[piece.start : piece.end], settings.released_split)))
        except RowRefused as refused:
            yield RowRefused(refused.reason, f"in {where}: {refused}")


def _sharegpt_messages(said: list[Any], human_and_gpt_only: bool = False) -> Messages:
    messages = []
    for place, message in enumerate(said):
        sender = optional_text(fields(message), "from")
        if sender not in _SHAREGPT_ROLES or (human_and_gpt_only and sender not in ("human", "gpt")):
            kind = (
                f"{sender} message" if sender in (*_SHAREGPT_LEFT_OUT, *_SHAREGPT_ROLES) else "unknown sender"
            )
            raise RowRefused(
                kind, f"message {place} is from {snippet(sender)}; {', '.join(_SHAREGPT_ROLES)} are converted"
            )
        messages.append({"role": _SHAREGPT_ROLES[sender], "content": text(message, "value")})
    return messages


def _in_turns(messages: Messages) -> Messages:
    """The messages, if user and assistant take turns and the assistant has the last one."""
    if len(messages) % 2 or any(
        m["role"] != ("user", "assistant")[place % 2] for place, m in enumerate(messages)
    ):
        roles = [message["role"] for message in messages]
        raise RowRefused(
            "no turns of user and assistant", f"the roles are {snippet(roles)}; they must take turns"
        )
    return messages


def baize(row: Any, settings: Settings) -> Iterable[Draft]:
    """Baize: `input`, one text with `[|Human|]` before each question and `[|AI|]` before each answer.

    What stands before the first question goes, and a last question that is empty or has no answer is cut off.
    """
    _, *rounds = text(fields(row), "input").split("[|Human|]")
    if rounds and "[|AI|]" not in rounds[-1]:
        if rounds[-1].strip():
            settings.notes["unanswered last message cut off"] += 1
        rounds.pop()
    messages: Messages = []
    for place, turn in enumerate(rounds):
        question, *answers = turn.split("[|AI|]")
        if len(answers) != 1:
            raise RowRefused(
                "no turns of user and assistant",
                f"round {place} has {len(answers)} answers, near {snippet(question)}; it must have one",
            )
        messages += [
            {"role": "user", "content": question.strip()},
            {"role": "assistant", "content": answers[0].strip()},
        ]
    if not messages:
        raise RowRefused("no answer", "the text has no [|Human|] that an [|AI|] answers")
    return (Chat(messages),)


def oasst1(tree: Any, settings: Settings) -> Iterator[Draft]:
    """OASST: a tree of messages (`prompt`, `replies`); each path from the prompt to a last answer is one row.

    Deleted messages are as if they were not there, with all below them. With `settings.best_replies`, of the
    replies to one message those of highest quality (label `quality`; 0 where it is missing) are followed."""
    prompt = fields(tree).get("prompt")
    if not isinstance(prompt, dict):
        raise RowRefused("no prompt", f"the tree's prompt is {snippet(prompt)}; it must be a message")
    try:
        if prompt.get("deleted"):
            raise RowRefused("deleted message", "the tree's prompt was deleted")
        # A whole tree before any of its rows: one that is too deep gives none.
        yield from list(_paths(prompt, [], settings))
    except RecursionError:
        raise RowRefused(*too_deep()) from None


def _paths(node: dict[str, Any], before: Messages, settings: Settings) -> Iterator[Draft]:
    role = node.get("role")
    if role not in _OASST_ROLES:
        yield RowRefused(
            "unknown role", f"message {snippet(node.get('message_id'))} has role {snippet(role)}"
        )
        return
    try:
        path = [*before, {"role": _OASST_ROLES[role], "content": text(node, "text")}]
    except RowRefused as refused:
        yield refused
        return
    replies = [reply for reply in node.get("replies") or [] if isinstance(reply, dict)]
    there = [reply for reply in replies if not reply.get("deleted")]
    for _ in range(len(replies) - len(there)):
        yield RowRefused(
            "deleted message", f"a reply to message {snippet(node.get('message_id'))} was deleted"
        )
    if settings.best_replies is not None and len(there) > 1:
        there.sort(key=lambda reply: _quality(reply, settings), reverse=True)
        if others := there[settings.best_replies :]:
            yield LeftOut("not among the best replies", sum(map(_leaves, others)))
        there = there[: settings.best_replies]
    if there:
        for reply in there:
            yield from _paths(reply, path, settings)
    elif role == "assistant":
        yield Chat(path)
    else:
        yield RowRefused("no answer", f"nobody answered message {snippet(node.get('message_id'))}")


def _quality(reply: dict[str, Any], settings: Settings) -> float:
    labels = reply.get("labels")
    quality = labels.get("quality") if isinstance(labels, dict) else None
    value = quality.get("value") if isinstance(quality, dict) else None
    if isinstance(value, int | float):
        return value
    settings.notes["reply without a quality label, taken as 0"] += 1
    return 0.0


def _leaves(node: dict[str, Any]) -> int:
    replies = [
        reply for reply in node.get("replies") or [] if isinstance(reply, dict) and not reply.get("deleted")
    ]
    return sum(map(_leaves, replies)) or 1


def open_orca(row: Any, settings: Settings) -> Iterable[Draft]:
    """Open-Orca: `system_prompt`, `question`, `response`; an empty system prompt gives no system message."""
    row = fields(row)
    system, question = optional_text(row, "system_prompt"), text(row, "question")
    if not question.strip():
        raise RowRefused("no instruction", "question is empty")
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": text(row, "response")},
    ]
    if system.strip():
        messages.insert(0, {"role": "system", "content": system})
    return (Chat(messages),)


def less(row: Any, settings: Settings) -> Iterable[Draft]:
    """LESS and other sets that have `messages` already: checked, with the `dataset` and `id` they come
    with."""
    row = fields(row)
    messages = []
    for place, message in enumerate(items(row, "messages")):
        role = fields(message).get("role")
        if role not in ("system", "user", "assistant"):
            raise RowRefused("unknown role", f"message {place} has role {snippet(role)}")
        messages.append({"role": role, "content": text(message, "content")})
    given = optional_text(row, "id") or None
    if given in settings.seen_ids:
        settings.notes["id that an earlier row has, replaced"] += 1
        given = None
    elif given:
        settings.seen_ids.add(given)
    return (Chat(messages, optional_text(row, "dataset") or None, given),)
