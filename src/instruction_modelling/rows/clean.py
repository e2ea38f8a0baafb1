"""Conversations written back as rows: what could be read, in one shape."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.rows.conversations import BadRow, Conversation, ConversationFile
from instruction_modelling.rows.messages import Message
from instruction_modelling.rows.values import same_json, without_null_keys


def write_clean(path: Path, files: Iterable[tuple[ConversationFile, Collection[BadRow]]]) -> int:
    """Write the usable rows of files, as `clean_row` gives them, to one JSON Lines file; return how many.

    Args:
        files: each with the rows of it that were refused after reading, which are left out.

    Raises:
        UserError: the file cannot be written; what was there before is untouched.
    """
    return write_json_lines(
        path,
        (
            clean_row(conversation)
            for file, refused in files
            for left_out in [{bad.row for bad in refused}]
            for conversation in file.conversations
            if conversation.row not in left_out
        ),
    )


def clean_row(conversation: Conversation) -> dict[str, Any]:
    """Return a row of `messages` (of `prompt` and `completion`, where it has no chat format) that is read as
    this conversation again: with its id, data set, tools, weights and template variables."""
    row: dict[str, Any] = {"id": conversation.id, "dataset": conversation.dataset}
    if conversation.text_beside:
        row["text_beside"] = conversation.text_beside
    if conversation.plain:
        user, assistant = conversation.messages
        row |= {"prompt": user.content, "completion": assistant.content}
        return row | ({"weight": user.weight} if user.weight != 1 else {})
    row["messages"] = [_clean_message(message) for message in conversation.messages]
    if conversation.tools:
        row["tools"] = _kept(list(conversation.tools))
    if conversation.template_variables:
        row["chat_template_kwargs"] = _kept(dict(conversation.template_variables))
    return row


def _clean_message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.weight != 1:
        fields["weight"] = message.weight
    if message.loss_spans:
        fields["loss_spans"] = [list(span) for span in message.loss_spans]
    if message.reasoning_content is not None:
        fields[message.reasoning_key] = message.reasoning_content
    if message.tool_calls:
        fields["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _kept(call["function"]["arguments"])}}
            for call in message.tool_calls
        ]
    for key in ("tool_call_id", "name"):
        if getattr(message, key) is not None:
            fields[key] = getattr(message, key)
    return fields


def _kept(value: Any) -> Any:
    """Return a value that is read as itself: as a JSON string, where a key of it is null."""
    return value if same_json(value, without_null_keys(value)) else json.dumps(value, ensure_ascii=False)
