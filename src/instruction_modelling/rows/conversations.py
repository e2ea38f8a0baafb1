"""Read and validate training rows: JSON Lines, or one JSON array (a file whose first character is `[`).

A row is recognised by its columns; a column that is null counts as absent, and a column or a key that
nothing reads is counted in `ConversationFile.unknown_keys`. In this order:

1. `messages`, `conversations` or `conversation`: a list of `{"role", "content"}` or `{"from", "value"}`, or
   that list as a JSON string. Roles, in small or capital letters: system (developer), user (human,
   prompter), assistant (gpt, model, chatgpt, bing, bard, ai, bot), tool (function, observation,
   function_response, tool_response, ipython), and function_call or tool_call, an assistant's message whose
   content is its calls as JSON. Content is a string, a list of parts (text, input_text, output_text, joined
   as they are, behind thinking or reasoning), null on an assistant message that has `tool_calls` or
   reasoning, or, of a tool, any JSON value. A message may carry `name`, `tool_call_id`, on an assistant
   `tool_calls` and `reasoning_content` (or `reasoning`, `thinking`), and what its loss weighs: `weight`,
   `loss_weight`, `loss_scale`, `loss`, `train`, `training`, `masked`.
2. `prompt` and `completion`: two strings are a plain row, rendered without a chat format; two lists of
   messages are one chat. `prompt` and `response` are a chat in any case.
3. `instruction` and `output` or `response` (Alpaca, Dolly), with `input` or `context` (after the
   instruction and an empty line, unless blank) and `history` (a list of [user, assistant] pairs).
4. `question` and `response` (Orca).

A chat row may have `tools` (a list of objects, or that list as a JSON string; `functions` is the same),
`system` or `system_prompt` (put before the messages) and `chat_template_kwargs` (an object, or it as a JSON
string); any row may have `weight` (multiplies the weight of each message), `id` (a string or an integer)
and `dataset` (a string). What cannot be read faithfully is refused with its reason, never guessed: such
rows are counted and listed as `BadRow`s.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import (
    BLANK,
    ROW_SHAPES,
    RowRefused,
    check_head,
    snippet,
    stream_values,
    too_deep,
)
from instruction_modelling.rows.messages import ROLES, Message
from instruction_modelling.rows.shapes import (
    RowContext,
    row_dataset,
    row_id,
    row_messages,
    template_variables,
)
from instruction_modelling.rows.tools import row_tools
from instruction_modelling.rows.values import Fields

__all__ = [
    "ROLES",
    "BadRow",
    "Conversation",
    "ConversationFile",
    "Message",
    "bad_rows_table",
    "check_bad_rows",
    "read_conversations",
]

_MOST_LISTED = 10
# To be raised when the same bytes come to mean other conversations: encoded rows are kept between runs.
_READING = "2"


@dataclass(frozen=True)
class Conversation:
    """One usable row: where it stands in the file, and its messages."""

    row: int
    """0-based, blank lines not counted."""
    line: int
    """1-based; in a JSON array, the position of the element."""
    id: str
    dataset: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    plain: bool = False
    """Whether it is a prompt and a completion, held verbatim as a user's and an assistant's message, to be
    rendered without a chat format."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """What the row gives its chat template besides messages and tools (`chat_template_kwargs`)."""


@dataclass(frozen=True)
class BadRow:
    """A refused row; `row` and `line` as in `Conversation`."""

    row: int
    line: int
    id: str | None
    reason: str
    """A few words, to be counted."""
    detail: str
    """What is wrong, where in the row, and what to do."""

    def where(self, path: str | Path) -> str:
        """Return "path:line"."""
        return f"{path}:{self.line}"


@dataclass(frozen=True)
class ConversationFile:
    """A file's rows, good and bad, in file order; `sha256` is the hex digest of the file's bytes."""

    path: Path
    sha256: str
    conversations: list[Conversation]
    bad_rows: list[BadRow]
    blank_lines: int
    unknown_keys: Mapping[str, int] = field(default_factory=dict)
    """Columns of rows, and keys of messages, that nothing reads, and in how many rows or messages they are:
    "column NAME", "message key NAME"."""
    reading: str = _READING
    """How the bytes were read; the same bytes read in the same way are the same conversations."""

    @property
    def rows(self) -> int:
        """Return the number of data rows, good and bad."""
        return len(self.conversations) + len(self.bad_rows)


def read_conversations(path: str | Path) -> ConversationFile:
    """Read a file's rows; a row that cannot be used becomes a `BadRow`, never an exception.

    Raises:
        UserError: the file as a whole cannot be read: it is missing, a directory, empty, compressed, binary,
            or a JSON array that is broken.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            return _read(handle, path)
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; name one .jsonl or .json file in it") from None
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _read(handle: BufferedReader, path: Path) -> ConversationFile:
    # Not by opening the file twice, so that a pipe can be read, too.
    head = handle.peek(1024)[:1024]
    check_head(head, path)
    digest = hashlib.sha256()
    conversations: list[Conversation] = []
    bad_rows: list[BadRow] = []
    blank_lines = 0
    unread: dict[str, int] = {}
    for line, value in stream_values(handle, path, head, digest):
        if value is BLANK:
            blank_lines += 1
            continue
        row = len(conversations) + len(bad_rows)
        try:
            conversations.append(_conversation(value, row, line, path.stem, unread))
        except RowRefused as refused:
            bad_rows.append(BadRow(row, line, _known_id(value), refused.reason, refused.detail))
        except RecursionError:
            bad_rows.append(BadRow(row, line, _known_id(value), *too_deep()))
    if not conversations and not bad_rows:
        raise UserError(f"{path}: holds no rows; it needs one JSON object per line, with {ROW_SHAPES}")
    return ConversationFile(path, digest.hexdigest(), conversations, bad_rows, blank_lines, unread)


def _conversation(value: Any, row: int, line: int, stem: str, unread: dict[str, int]) -> Conversation:
    if isinstance(value, RowRefused):
        raise value
    if not isinstance(value, dict):
        detail = f"the row is {snippet(value)}; it must be a JSON object with {ROW_SHAPES}"
        raise RowRefused("not an object", detail)
    columns = Fields(value)
    messages, plain = row_messages(columns, RowContext(unread))
    conversation = Conversation(
        row=row,
        line=line,
        id=row_id(columns) or f"{stem}_{row}",
        dataset=row_dataset(columns) or stem,
        messages=messages,
        tools=row_tools(columns),
        plain=plain,
        template_variables=template_variables(columns),
    )
    for name in columns.unread():
        unread[f"column {name}"] = unread.get(f"column {name}", 0) + 1
    return conversation


def _known_id(value: Any) -> str | None:
    """Return the id of a row that may be refused; None where it has none that can be read."""
    try:
        return row_id(Fields(value)) if isinstance(value, dict) else None
    except RowRefused:
        return None


def bad_rows_table(bad_rows: Sequence[BadRow]) -> dict[str, int]:
    """Return the number of bad rows by reason, most first (ties in order of appearance)."""
    return dict(Counter(bad.reason for bad in bad_rows).most_common())


def check_bad_rows(file: ConversationFile, max_bad_rows: int, more_bad: Sequence[BadRow] = ()) -> None:
    """Raise `UserError` if too many rows are bad; `more_bad` are rows that were refused after reading.

    Raises:
        UserError: there are more than `max_bad_rows`, or no good row is left. The message has the count by
            reason, the first ten with path:line and detail, and how to go on.
    """
    bad = sorted([*file.bad_rows, *more_bad], key=lambda bad_row: bad_row.row)
    none_left = len(bad) >= file.rows
    if len(bad) <= max_bad_rows and not none_left:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in bad_rows_table(bad).items())
    report = [f"{file.path}: {len(bad)} of {file.rows} rows cannot be used ({counts})"]
    report += [
        f"  {bad_row.where(file.path)}: {bad_row.reason}: {bad_row.detail}" for bad_row in bad[:_MOST_LISTED]
    ]
    if len(bad) > _MOST_LISTED:
        report.append(f"  ... and {len(bad) - _MOST_LISTED} more")
    if none_left:
        report.append("No usable row is left: mend the file, or check that it is the one you meant.")
    else:
        report.append(f"Mend these rows, or go on without them: --max_bad_rows {len(bad)}")
    raise UserError("\n".join(report))
