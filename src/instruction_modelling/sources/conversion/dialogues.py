"""Formats of whole dialogues: a function for each, from a row of the source to rows of chat.

Each takes (row, conversion) and returns `Chat`, `RowRefused` or `LeftOut` values; a row of one chat that
cannot be used may be raised as `RowRefused`. Contents stay as they are, white space included, except
Baize's."""

from collections.abc import Iterable, Iterator
from typing import Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.json_lines import snippet, too_deep
from instruction_modelling.sources.conversion.drafts import Chat, Draft, LeftOut, Messages
from instruction_modelling.sources.conversion.fields import as_object, list_field, optional_text, text_field
from instruction_modelling.sources.conversion.options import Conversion
from instruction_modelling.sources.conversion.split import PieceKind, split_conversation, token_counts

_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant"}
# Written by another model, or steered by a prompt of its own: the published data goes without them.
_SHAREGPT_LEFT_OUT = ("system", "bing")
_OASST_ROLES = {"prompter": "user", "assistant": "assistant"}


def lima(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert LIMA: `conversations`, a list of strings, the user's first; an unanswered last one is cut
    off."""
    texts = list_field(as_object(row), "conversations")
    if len(texts) % 2:
        texts = texts[:-1]
        conversion.notes["unanswered last message cut off"] += 1
    if not texts:
        raise RowRefused("no answer", "the conversation is one message; it must have an answer")
    for index, content in enumerate(texts):
        if not isinstance(content, str):
            raise RowRefused("message is not a string", f"message {index} is {snippet(content)}")
    return (
        Chat(
            [
                {"role": ("user", "assistant")[index % 2], "content": content}
                for index, content in enumerate(texts)
            ]
        ),
    )


def wizardlm(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert WizardLM: `conversations` of `from` (human, gpt in turns) and `value`."""
    return (Chat(_in_turns(_sharegpt_messages(list_field(as_object(row), "conversations")))),)


def sharegpt(row: Any, conversion: Conversion) -> Iterator[Draft]:
    """Convert ShareGPT: `conversations` of `from` and `value`, whole, or split at `max_tokens`.

    A conversation, or a piece of one, with a system prompt or with Bing's answers is refused, as are senders
    that are not known. A piece must also take turns."""
    row = as_object(row)
    options = conversion.options
    if not options.max_tokens:
        yield Chat(_sharegpt_messages(list_field(row, "conversations")))
        return
    messages = [as_object(message) for message in list_field(row, "conversations")]
    if len(messages) % 2:
        messages.pop()
        conversion.notes["unanswered last message cut off"] += 1
    if not messages:
        raise RowRefused("no answer", "the conversation is one message; it must have an answer")
    counts = token_counts(options.tokenizer, [text_field(message, "value") for message in messages])
    for piece in split_conversation(counts, options.max_tokens, options.released_split):
        where = f"messages {piece.start} to {piece.end - 1}"
        try:
            if piece.kind is not PieceKind.KEPT:
                raise RowRefused(
                    piece.kind.value,
                    f"{where} are {sum(counts[piece.start : piece.end])} tokens long; the most "
                    f"is {options.max_tokens}",
                )
            yield Chat(
                _in_turns(_sharegpt_messages(messages[piece.start : piece.end], options.released_split))
            )
        except RowRefused as refused:
            yield RowRefused(refused.reason, f"in {where}: {refused}")


def _sharegpt_messages(raw: list[Any], human_and_gpt_only: bool = False) -> Messages:
    messages = []
    for index, message in enumerate(raw):
        sender = optional_text(as_object(message), "from")
        if sender not in _SHAREGPT_ROLES or (human_and_gpt_only and sender not in ("human", "gpt")):
            known = sender in (*_SHAREGPT_LEFT_OUT, *_SHAREGPT_ROLES)
            reason = f"{sender} message" if known else "unknown sender"
            raise RowRefused(
                reason,
                f"message {index} is from {snippet(sender)}; {', '.join(_SHAREGPT_ROLES)} are converted",
            )
        messages.append({"role": _SHAREGPT_ROLES[sender], "content": text_field(message, "value")})
    return messages


def _in_turns(messages: Messages) -> Messages:
    """Return the messages, if user and assistant take turns and the assistant has the last one."""
    if len(messages) % 2 or any(
        m["role"] != ("user", "assistant")[index % 2] for index, m in enumerate(messages)
    ):
        roles = [message["role"] for message in messages]
        raise RowRefused(
            "no turns of user and assistant", f"the roles are {snippet(roles)}; they must take turns"
        )
    return messages


def baize(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Baize: `input`, one text with `[|Human|]` before each question and `[|AI|]` before each answer.

    What stands before the first question goes, and a last question that is empty or has no answer is cut off.
    """
    _, *rounds = text_field(as_object(row), "input").split("[|Human|]")
    if rounds and "[|AI|]" not in rounds[-1]:
        if rounds[-1].strip():
            conversion.notes["unanswered last message cut off"] += 1
        rounds.pop()
    messages: Messages = []
    for index, turn in enumerate(rounds):
        question, *answers = turn.split("[|AI|]")
        if len(answers) != 1:
            raise RowRefused(
                "no turns of user and assistant",
                f"round {index} has {len(answers)} answers, near {snippet(question)}; it must have one",
            )
        messages += [
            {"role": "user", "content": question.strip()},
            {"role": "assistant", "content": answers[0].strip()},
        ]
    if not messages:
        raise RowRefused("no answer", "the text has no [|Human|] that an [|AI|] answers")
    return (Chat(messages),)


def oasst1(tree: Any, conversion: Conversion) -> Iterator[Draft]:
    """Convert OASST: a tree of messages (`prompt`, `replies`), each path of which from the prompt to a last
    answer is one row.

    A deleted message is left out with all replies below it. With `best_replies`, of the replies to one
    message those of highest quality (label `quality`; 0 where it is missing) are followed."""
    prompt = as_object(tree).get("prompt")
    if not isinstance(prompt, dict):
        raise RowRefused("no prompt", f"the tree's prompt is {snippet(prompt)}; it must be a message")
    try:
        if prompt.get("deleted"):
            raise RowRefused("deleted message", "the tree's prompt was deleted")
        # A whole tree before any of its rows: one that is too deep gives none.
        yield from list(_paths(prompt, [], conversion))
    except RecursionError:
        raise RowRefused(*too_deep()) from None


def _paths(node: dict[str, Any], earlier: Messages, conversion: Conversion) -> Iterator[Draft]:
    """Yield the rows of a message and all below it; `earlier`: the messages above it."""
    role = node.get("role")
    if role not in _OASST_ROLES:
        yield RowRefused(
            "unknown role", f"message {snippet(node.get('message_id'))} has role {snippet(role)}"
        )
        return
    try:
        path = [*earlier, {"role": _OASST_ROLES[role], "content": text_field(node, "text")}]
    except RowRefused as refused:
        yield refused
        return
    replies = [reply for reply in node.get("replies") or [] if isinstance(reply, dict)]
    followed = [reply for reply in replies if not reply.get("deleted")]
    for _ in range(len(replies) - len(followed)):
        yield RowRefused(
            "deleted message", f"a reply to message {snippet(node.get('message_id'))} was deleted"
        )
    best = conversion.options.best_replies
    if best is not None and len(followed) > 1:
        followed.sort(key=lambda reply: _quality(reply, conversion), reverse=True)
        if others := followed[best:]:
            yield LeftOut("not among the best replies", sum(map(_leaves, others)))
        followed = followed[:best]
    if followed:
        for reply in followed:
            yield from _paths(reply, path, conversion)
    elif role == "assistant":
        yield Chat(path)
    else:
        yield RowRefused("no answer", f"nobody answered message {snippet(node.get('message_id'))}")


def _quality(reply: dict[str, Any], conversion: Conversion) -> float:
    labels = reply.get("labels")
    quality = labels.get("quality") if isinstance(labels, dict) else None
    value = quality.get("value") if isinstance(quality, dict) else None
    if isinstance(value, int | float):
        return value
    conversion.notes["reply without a quality label, taken as 0"] += 1
    return 0.0


def _leaves(node: dict[str, Any]) -> int:
    """Count the paths from a message down to a last one."""
    replies = [
        reply for reply in node.get("replies") or [] if isinstance(reply, dict) and not reply.get("deleted")
    ]
    return sum(map(_leaves, replies)) or 1


def open_orca(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert Open-Orca: `system_prompt`, `question`, `response`; an empty system prompt gives no system
    message."""
    row = as_object(row)
    system, question = optional_text(row, "system_prompt"), text_field(row, "question")
    if not question.strip():
        raise RowRefused("no instruction", "question is empty")
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": text_field(row, "response")},
    ]
    if system.strip():
        messages.insert(0, {"role": "system", "content": system})
    return (Chat(messages),)


def less(row: Any, conversion: Conversion) -> Iterable[Draft]:
    """Convert LESS and other sets that have `messages` already: check them, and keep the `dataset` and `id`
    they come with."""
    row = as_object(row)
    messages = []
    for index, message in enumerate(list_field(row, "messages")):
        role = as_object(message).get("role")
        if role not in ("system", "user", "assistant"):
            raise RowRefused("unknown role", f"message {index} has role {snippet(role)}")
        messages.append({"role": role, "content": text_field(message, "content")})
    source_id = optional_text(row, "id") or None
    if source_id in conversion.seen_ids:
        conversion.notes["id that an earlier row has, replaced"] += 1
        source_id = None
    elif source_id:
        conversion.seen_ids.add(source_id)
    return (Chat(messages, optional_text(row, "dataset") or None, source_id),)
