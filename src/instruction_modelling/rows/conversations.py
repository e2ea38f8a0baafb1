"""Read and validate training rows, from every kind of file that `files` knows.

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
   `loss_weight`, `loss_scale`, `loss`, `train`, `training`, `trainable`, `masked`. The objects of a
   `conversation` may be a question and its answer each (XTuner's, Firefly's).
2. `prompt` and `completion`: two strings are a plain row, rendered without a chat format; two lists of
   messages, or a list and a text, are one chat. `prompt` and `response` are a chat in any case.
3. `instruction` and `output` or `response` (Alpaca, Dolly), with `input` or `context` (after the
   instruction and an empty line, unless blank) and `history` (a list of [user, assistant] pairs).
4. `question` and `response` (Orca).

A chat row may have `tools` (a list of objects, or that list as a JSON string; `functions` is the same),
`system` or `system_prompt` (put before the messages) and `chat_template_kwargs` (an object, or it as a JSON
string); any row may have `weight`, `loss_weight`, `loss_scale`, and a message's flags as true or false (they
multiply the weight of each message), `id` (a string or an integer)
and `dataset` (a string), and
`text_beside` (a string): a text that is trained beside the conversation, in sequences of its own
(`tokens.beside`). What cannot be read faithfully is refused with its reason, never guessed: such
rows are counted and listed as `BadRow`s.
"""

import bisect
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, overload

from instruction_modelling.errors import UserError
from instruction_modelling.rows.columns import ColumnNames, parse_columns
from instruction_modelling.rows.conversation import BadRow, Conversation, Member, RowRange
from instruction_modelling.rows.facts import RowFacts
from instruction_modelling.rows.files import FilePart, open_parts
from instruction_modelling.rows.json_lines import BLANK, ROW_SHAPES, RowRefused, snippet, too_deep
from instruction_modelling.rows.messages import ROLES, Message
from instruction_modelling.rows.mixture import RowFiles, one_file
from instruction_modelling.rows.shapes import (
    RowContext,
    row_dataset,
    row_id,
    row_messages,
    template_variables,
    text_beside,
)
from instruction_modelling.rows.tools import row_tools
from instruction_modelling.rows.values import Fields

__all__ = [
    "ROLES",
    "BadRow",
    "Conversation",
    "ConversationFile",
    "Member",
    "Message",
    "bad_row_lines",
    "bad_rows_table",
    "check_bad_rows",
    "read_conversations",
]

_MOST_LISTED = 10
# Characters of a file's rows up to which a `RowStream` keeps them, which spares reading them again.
KEPT_CHARACTERS = 2**23
# To be raised when the same bytes come to mean other conversations: encoded rows are kept between runs.
_READING = "5"


@dataclass(frozen=True)
class ConversationFile:
    """A file's rows, good and bad, in file order; `sha256` is the hex digest of the file's bytes. Several
    files (`mixture.RowFiles`) are one, their rows numbered through."""

    path: Path
    """Of several files the mixture, or the names of their data sets."""
    sha256: str
    conversations: Sequence[Conversation]
    """A list, or a `RowStream`, which holds none of them in memory."""
    bad_rows: list[BadRow]
    blank_lines: int
    unknown_keys: dict[str, int] = field(default_factory=dict)
    """Columns of rows, keys of messages and variables of templates that nothing reads, and in how many rows
    or messages they are: "column NAME", "message key NAME", "chat_template_kwargs NAME"."""
    reading: str = _READING
    """How the bytes were read; the same bytes read in the same way are the same conversations."""
    parts: tuple[RowRange, ...] = ()
    """The files whose rows these are, in order; () stands for `path` alone, by lines."""
    members: tuple[Member, ...] = ()
    """The files that were given, where they are several."""
    proportions: tuple[float, ...] | None = None
    """The share of an epoch that each of them has; None where an epoch is all rows."""

    def member_of(self, row: int) -> Member:
        """Return the file that a row stands in, by the row's number among all."""
        if not self.members:
            return Member(self.path.stem, self.path, 0, self.sha256)
        return self.members[bisect.bisect(self.members, row, key=lambda member: member.first_row) - 1]

    def made_up_id(self, row: int) -> str:
        """Return the id of a row that names none: its file and its number there."""
        member = self.member_of(row)
        return f"{member.name}_{row - member.first_row}"

    @property
    def rows(self) -> int:
        """Return the number of data rows, good and bad."""
        return len(self.conversations) + len(self.bad_rows)

    def facts(self) -> RowFacts:
        """Return what is asked of all usable rows at once."""
        rows = self.conversations
        return rows.facts if isinstance(rows, RowStream) else RowFacts.of(rows)

    def unread_keys(self) -> str:
        """Return the columns and message keys that nothing reads, with counts; "" where all are read."""
        return ", ".join(
            f"{key} ({count} {'message' if ' key ' in key else 'row'}{'' if count == 1 else 's'})"
            for key, count in self.unknown_keys.items()
        )

    def place(self, item: Conversation | BadRow, beside: BadRow | None = None) -> str:
        """Return where a row stands, "FILE:LINE", or "FILE: row N (id ID)", N counted from 1, in a file whose
        rows are no lines; without the file where that is named already, by the place of `beside`."""
        part = self._part(item)
        is_named = beside is not None and self._part(beside) == part
        if part.unit == "line":
            return f"line {item.line}" if is_named else f"{part.path}:{item.line}"
        has_id = item.id is not None and item.id != self.made_up_id(item.row)
        number = f"row {item.line}" + (f" (id {item.id})" if has_id else "")
        return number if is_named else f"{part.path}: {number}"

    def _part(self, item: Conversation | BadRow) -> RowRange:
        parts = self.parts or (RowRange(0, self.path, "line"),)
        return parts[bisect.bisect(parts, item.row, key=lambda part: part.first_row) - 1]


def read_conversations(
    path: str | Path | RowFiles, columns: str | None = None, *, keep: bool = True
) -> ConversationFile:
    """Read the rows of a file, a folder or a data set of the hub, or of several; a row that cannot be used
    becomes a `BadRow`, never an exception.

    Args:
        columns: what its columns are where they have names of their own (`columns.parse_columns`).
        keep: hold the usable rows in memory; else they are checked now and read again whenever they are gone
            through (`RowStream`), unless the name is a pipe's, which can be read once.

    Raises:
        UserError: it cannot be read as a whole: it is missing, empty, binary, or broken; or no row has a
            column that `columns` names.
    """
    files = path if isinstance(path, RowFiles) else one_file(path)
    names = parse_columns(columns)
    reader = _RowReader(files, names)
    rows: list[Conversation] | RowStream = [] if keep or _has_pipe(files) else RowStream(files, names)
    for conversation in reader.conversations():
        rows.append(conversation)
    names.check(reader.columns, files.path)
    if isinstance(rows, RowStream):
        rows.sha256 = reader.sha256()
    return ConversationFile(
        files.path,
        reader.sha256(),
        rows,
        reader.bad_rows,
        reader.blank_lines,
        reader.unread,
        reading=f"{_READING} {names.text}".strip(),
        parts=tuple(reader.parts),
        members=tuple(reader.members) if len(reader.members) > 1 else (),
        proportions=files.proportions,
    )


def _has_pipe(files: RowFiles) -> bool:
    """Return whether one of the files is a pipe, which can be read once."""
    paths = map(Path, files.names)
    return any(path.exists() and not (path.is_file() or path.is_dir()) for path in paths)


class RowStream(Sequence[Conversation]):
    """A file's usable rows, which are read from it again each time they are gone through; those of a small
    file are kept. One row may be asked for by its number, which reads all before it."""

    def __init__(self, files: RowFiles, names: ColumnNames):
        """Begin without a row: `append` takes in those that are there."""
        self._files, self._names = files, names
        self._rows = self._characters = 0
        self._kept: list[Conversation] | None = []
        self.facts = RowFacts()
        self.sha256 = ""
        """Of what was read first."""

    def append(self, row: Conversation) -> None:
        """Count a row; keep it as long as there are few."""
        self._rows += 1
        self.facts.add(row)
        if self._kept is not None:
            self._characters += sum(len(message.text) for message in row.messages)
            self._kept.append(row)
            if self._characters > KEPT_CHARACTERS:
                self._kept = None

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Conversation]:
        """Read the rows.

        Raises:
            UserError: the file is not what it was.
        """
        if self._kept is not None:
            yield from self._kept
            return
        reader = _RowReader(self._files, self._names)
        yield from reader.conversations()
        if reader.sha256() != self.sha256:
            raise UserError(
                f"{self._files.path}: changed while it was read; start again once nothing writes to it any "
                "more"
            )

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        """Read a row, or some."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self._rows)
            return list(islice(self, start, stop, step))
        return next(islice(self, range(self._rows)[index], None))


class _RowReader:
    """Reads files and their parts one after another, and collects what is in them beside the usable rows."""

    def __init__(self, files: RowFiles, names: ColumnNames):
        self._files, self.names = files, names
        self.columns: set[str] = set()
        self.bad_rows: list[BadRow] = []
        self.blank_lines = self._good = 0
        self.unread: dict[str, int] = {}
        self.parts: list[RowRange] = []
        self.members: list[Member] = []
        self._stem, self._first_row = "", 0
        self._digests: list[str] = []

    def sha256(self) -> str:
        """Return the digest of the parts that were read."""
        return digest_of(self._digests)

    @property
    def rows(self) -> int:
        """Return how many rows were read so far, good and bad."""
        return self._good + len(self.bad_rows)

    def conversations(self) -> Iterator[Conversation]:
        """Yield the usable rows of all parts of all files.

        Raises:
            UserError: a file holds no rows.
        """
        for path, stem in zip(map(Path, self._files.names), self._files.set_names, strict=True):
            self._stem, self._first_row = stem, self.rows
            parts_before = len(self._digests)
            for part in open_parts(path):
                yield from self._usable(part)
                self._digests.append(part.sha256())
            if self.rows == self._first_row:
                raise UserError(f"{path}: holds no rows; it needs rows with {ROW_SHAPES}")
            digest = digest_of(self._digests[parts_before:])
            self.members.append(Member(stem, path, self._first_row, digest))

    def _usable(self, part: FilePart) -> Iterator[Conversation]:
        self.parts.append(RowRange(self.rows, part.path, part.unit))
        for line, value in part.values:
            if value is BLANK:
                self.blank_lines += 1
                continue
            row = self.rows
            try:
                conversation = self._conversation(value, row, line)
            except RowRefused as refused:
                self.bad_rows.append(BadRow(row, line, _known_id(value), refused.reason, refused.detail))
            except RecursionError:
                self.bad_rows.append(BadRow(row, line, _known_id(value), *too_deep()))
            else:
                self._good += 1
                yield conversation

    def _conversation(self, value: Any, row: int, line: int) -> Conversation:
        if isinstance(value, RowRefused):
            raise value
        if not isinstance(value, dict):
            detail = f"the row is {snippet(value)}; it must be a JSON object with {ROW_SHAPES}"
            raise RowRefused("not an object", detail)
        if self.names.text:
            self.columns.update(value)
        columns = Fields(self.names.apply(value))
        messages, plain = row_messages(columns, RowContext(self.unread, self.names.by_role))
        conversation = Conversation(
            row=row,
            line=line,
            id=row_id(columns) or f"{self._stem}_{row - self._first_row}",
            dataset=row_dataset(columns) or self._stem,
            messages=messages,
            tools=row_tools(columns),
            plain=plain,
            template_variables=template_variables(columns),
            text_beside=text_beside(columns),
        )
        for name in columns.unread():
            self.unread[f"column {name}"] = self.unread.get(f"column {name}", 0) + 1
        return conversation


def digest_of(of_parts: Sequence[str]) -> str:
    """Return the digest of one part, or that of several parts' digests."""
    return of_parts[0] if len(of_parts) == 1 else hashlib.sha256(" ".join(of_parts).encode()).hexdigest()


def _known_id(value: Any) -> str | None:
    """Return the id of a row that may be refused; None where it has none that can be read."""
    try:
        return row_id(Fields(value)) if isinstance(value, dict) else None
    except RowRefused:
        return None


def bad_rows_table(bad_rows: Sequence[BadRow]) -> dict[str, int]:
    """Return the number of bad rows by reason, most first (ties in order of appearance)."""
    return dict(Counter(bad.reason for bad in bad_rows).most_common())


def bad_row_lines(file: ConversationFile, bad_rows: Sequence[BadRow]) -> list[str]:
    """Return each reason once, most rows first: the first row's place and detail, then the first other
    places."""
    table = bad_rows_table(bad_rows)
    lines = []
    for reason in list(table)[:_MOST_LISTED]:
        first, *others = [bad_row for bad_row in bad_rows if bad_row.reason == reason]
        lines.append(f"{file.place(first)}: {reason}: {first.detail}")
        if others:
            places = ", ".join(file.place(other, first) for other in others[:_MOST_LISTED])
            more = f" and {len(others) - _MOST_LISTED} more" if len(others) > _MOST_LISTED else ""
            lines.append(f"  {reason} in {table[reason]} rows, also {places}{more}")
    if len(table) > _MOST_LISTED:
        lines.append(f"... and {len(table) - _MOST_LISTED} more reasons")
    return lines


def member_counts(file: ConversationFile, bad: Sequence[BadRow]) -> list[tuple[Member, int, int]]:
    """Return each of several files with its number of rows, and of those among `bad`; [] for one file."""
    starts = [member.first_row for member in file.members]
    ends = [*starts[1:], file.rows]
    return [
        (member, end - start, sum(start <= bad_row.row < end for bad_row in bad))
        for member, start, end in zip(file.members, starts, ends, strict=False)
    ]


def check_bad_rows(file: ConversationFile, max_bad_rows: int, more_bad: Sequence[BadRow] = ()) -> None:
    """Raise `UserError` if too many rows are bad; `more_bad` are rows that were refused after reading.

    Raises:
        UserError: there are more than `max_bad_rows`, or no good row is left. The message has each reason
            once, with its count, the first row's detail and the first places, and how to go on.
    """
    bad = sorted([*file.bad_rows, *more_bad], key=lambda bad_row: bad_row.row)
    none_left = len(bad) >= file.rows
    for member, rows, unusable in member_counts(file, bad):
        if len(bad) <= max_bad_rows and rows == unusable:
            raise UserError(
                f"{member.path}: none of its {rows} rows can be used; mend it, or leave the file out"
            )
    if len(bad) <= max_bad_rows and not none_left:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in bad_rows_table(bad).items())
    report = [f"{file.path}: {len(bad)} of {file.rows} rows cannot be used ({counts})"]
    report += [f"  {line}" for line in bad_row_lines(file, bad)]
    if none_left:
        report.append("No usable row is left: mend the file, or check that it is the one you meant.")
    else:
        report.append(f"Mend these rows, or go on without them: --max_bad_rows {len(bad)}")
    raise UserError("\n".join(report))
