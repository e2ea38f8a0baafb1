"""What to do about a row of no known shape: what its columns probably are, and how to have them read."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from instruction_modelling.rows.columns import meant_columns, takes_name
from instruction_modelling.rows.messages import ROLE_NAMES

# Of a preference set, the answer that is liked.
_LIKED = ("chosen", "preferred", "accepted")
_SAYS_WHO = ("role", "from", "sender", "speaker", "author")
_SAYS_WHAT = ("content", "value", "text", "message", "parts")
_SHAPES = (
    *({"messages"}, {"conversations"}, {"conversation"}, {"prompt", "completion"}, {"prompt", "response"}),
    *({"instruction", "output"}, {"instruction", "response"}, {"question", "response"}),
)


def advice(columns: Mapping[str, Any]) -> str:
    """Return a sentence that says how to have such rows read, and begins with ". "; "" where the columns say
    nothing of it."""
    if _is_message(columns):
        return (
            ". If each line is one message, write each conversation as one row: "
            '{"messages": [...]}, with its messages in order'
        )
    if meant := _lists_of_messages(columns) or meant_columns(_texts(columns)):
        return f". If these are what their names say, give --columns {shlex.quote(meant)}"
    if within := _rows_within(columns):
        what, path = within
        return f". If its rows are {what} alone into the file (jq -c {shlex.quote(path)} FILE)"
    if talks := [name for name in _readable(columns) if not _is_answer(columns[name])]:
        return (
            f". It has {len(talks)} lists of messages; name the one to train, --columns {talks[0]}=messages"
        )
    if name := next(iter(_readable(columns)), None):
        return f'. The list under "{name}" begins with an answer: put before it the message that it answers'
    names = next((sorted(value[0]) for value in columns.values() if _is_talk(value)), None)
    return f'. Its messages have {names}; write each as {{"role": ..., "content": ...}}' if names else ""


def _rows_within(columns: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return where rows lie within a row, in words and as a path of jq's; None where none do."""
    for name, value in columns.items():
        if isinstance(value, list) and value and _is_row(value[0]):
            return f'the list under "{name}", write that list', f".[{json.dumps(name)}][]"
    rows = [name for name, value in columns.items() if _is_row(value)]
    if len(rows) > 1 and len(rows) == len(columns):
        return f'the objects under "{rows[0]}" and the others, write those', ".[]"
    # Messages alone may be a request, whose answer stands elsewhere.
    if len(rows) == 1 and not any(map(_is_talk, columns[rows[0]].values())):
        return f'the objects under "{rows[0]}", write those', f".[{json.dumps(rows[0])}]"
    return None


def _is_message(value: Any) -> bool:
    """Return whether an object says who said what, under any of the names that are common."""
    names = {name.lower() for name in value} if isinstance(value, Mapping) else set()
    return not names.isdisjoint(_SAYS_WHO) and not names.isdisjoint(_SAYS_WHAT)


def _is_talk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_row(value: Any) -> bool:
    """Return whether an object has the columns of a row, under their own names or such as --columns reads."""
    if not isinstance(value, dict) or _is_message(value):
        return False
    given = {name: inner for name, inner in value.items() if inner is not None}
    return any(shape <= given.keys() for shape in _SHAPES) or bool(meant_columns(_texts(given)))


def _texts(columns: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns that hold a text, which alone --columns makes a message of."""
    return [name for name, value in columns.items() if isinstance(value, str)]


def _readable(columns: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns that hold lists of messages under the names that are read."""
    return [
        name
        for name, value in columns.items()
        if _is_talk(value) and takes_name(name)
        if all(
            {"role", "from"} & message.keys() and {"content", "value"} & message.keys() for message in value
        )
    ]


def _lists_of_messages(columns: Mapping[str, Any]) -> str:
    """Return what to give --columns where columns hold lists of messages that can be read; "" where none
    does, or it cannot be told which is meant."""
    talks = _readable(columns)
    liked = next((name for name in talks if name.lower() in _LIKED), None)
    if liked and _is_answer(columns[liked]):
        # Its prompt is a list of messages too, or a text, which is no part of a list.
        return f"{liked}=completion" if "prompt" in talks else ""
    if len(talks) == 2 and not liked and (meant := meant_columns(talks)):
        return meant.replace("=user", "=prompt").replace("=assistant", "=completion")
    name = liked or (talks[0] if len(talks) == 1 and not _is_answer(columns[talks[0]]) else None)
    return f"{name}=messages" if name else ""


def _is_answer(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether messages begin with the assistant's: what they answer may stand elsewhere."""
    first = messages[0].get("role") or messages[0].get("from")
    return ROLE_NAMES.get(str(first).lower()) == "assistant"
