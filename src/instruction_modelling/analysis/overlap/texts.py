"""The texts of a row, whatever its shape, in the form in which they are compared.

A text is every string of a row but those that name or number it: each message of a chat, each question,
choice and answer of a benchmark's item, each line of a plain text file. Texts are compared as words: after
Unicode NFKC and case folding, runs of letters and digits with the marks on them; invisible characters and the
points of Arabic and Hebrew are left out, and words of scripts that write without spaces are set apart
by ICU's dictionaries (`rows.scripts`)."""

import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

import regex

from instruction_modelling.rows.scripts import set_apart, without_invisible

# Fields that say what a row is, not what it says.
NOT_TEXT = frozenset(
    {
        "id",
        "dataset",
        "source",
        "role",
        "from",
        "task_id",
        "question_id",
        "prompt_id",
        "message_id",
        "parent_id",
        "category",
        "subject",
        "topic",
        "type",
        "url",
        "model",
        "lang",
        "split",
        "label",
        "answerKey",
        "weight",
    }
)
_TOOLS = ("tools", "functions")
# Fields of texts that an application puts before many of its conversations: they say nothing of one of them.
SETTINGS = frozenset({"system", "system_prompt", "developer", *_TOOLS})
_ASCII = str.maketrans(
    {chr(code): " " if not chr(code).isalnum() else chr(code).lower() for code in range(128)}
)
# A vowel sign or another mark belongs to its letter: Hindi and Tamil words hold many.
_SEPARATORS = regex.compile(r"[^\p{L}\p{N}\p{Mn}\p{Mc}]+")


class RowText(NamedTuple):
    """A string of a row: the field that holds it, and what it says."""

    field: str
    text: str


def words_of(text: str) -> str:
    """Return the words of a text as they are compared, with one space between them."""
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_SEPARATORS.sub(" ", set_apart(without_invisible(folded), by_dictionary=True)).split())


def texts_of(value: Any, field: str = "") -> Iterator[RowText]:
    """Yield every text of a row; a message's content by its role, all of tool definitions as `tools`."""
    if type(value) is str:
        yield RowText(field or "text", value)
    elif type(value) is dict:
        role = value.get("role") or value.get("from")
        for name, item in value.items():
            if name not in NOT_TEXT and item is not None:
                by_role = role and name in ("content", "value")
                yield from texts_of(
                    item, field if field in _TOOLS else str(role).lower() if by_role else name
                )
    elif type(value) is list:
        for item in value:
            yield from texts_of(item, field)


def row_name(value: Any) -> str | None:
    """Return the row's own name, of `id`, `task_id` or `question_id`; None if it has none."""
    if isinstance(value, dict):
        for name in ("id", "task_id", "question_id"):
            if isinstance(value.get(name), str | int):
                # Half characters, which no file can hold, as question marks.
                return str(value[name]).encode("utf-8", "replace").decode("utf-8")
    return None
