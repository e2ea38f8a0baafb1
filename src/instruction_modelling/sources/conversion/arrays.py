"""Elements of one JSON array, decoded from a window that moves over the file, in constant memory.

Not by ijson: docs/design.md, "What is not ours", says what it would lose. Nor by
`rows.json_lines.array_values`, which reads training files: it holds the whole file, to name the line of a
fault, and refuses a file for one byte that is not UTF-8 and a row for a repeated key, where published data
lose the row in the one case and nothing in the other."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import snippet, too_deep

# Characters decoded at a time.
WINDOW = 1 << 20
# An element that is longer than this is a missing quotation mark, not a row.
_LONGEST_ELEMENT = 256 << 20
_JSON_SPACE = " \t\n\r"
# Words that a cut-off text ends in before the decoder can tell: `\uD83D\uDE0`, `-Infinit`.
_LONGEST_JSON_WORD = 16
# Of an integer; the interpreter's own limit is 4300.
_MOST_DIGITS = 4000


def array_elements(handle: io.BufferedReader, path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the elements of a file that is one JSON array: (1-based position, JSON value or `RowRefused`).

    A byte that is not UTF-8 becomes half a character, which refuses its element alone.

    Raises:
        UserError: the array is broken, is nested too deeply, or is followed by more text.
    """
    reader = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape")
    try:
        yield from _elements(_Window(reader, path))
    finally:
        # The handle is not ours to close.
        reader.detach()


def _elements(window: "_Window") -> Iterator[tuple[int, Any]]:
    window.next_character()
    window.offset += 1
    closed = window.next_character() == "]"
    while not closed:
        value = window.take_value()
        mark = window.next_character()
        closed = mark == "]"
        if not closed and mark != ",":
            raise window.broken(json.JSONDecodeError("Expecting ',' or ']'", window.text, window.offset))
        yield window.elements, value
        if not closed:
            window.offset += 1
            window.next_character()
    window.offset += 1
    if window.next_character():
        raise UserError(
            f"{window.path}: more text follows the JSON array after {window.elements} elements; a file that "
            "starts with '[' must be one array of rows"
        )


class _Window:
    """The piece of the text that is being decoded: what is before `offset` (characters) has been taken."""

    def __init__(self, reader: io.TextIOWrapper, path: Path):
        self.path, self._reader = path, reader
        self.text, self.offset, self.elements = reader.read(WINDOW), 0, 0
        self._ended = False
        self._too_long: list[str] = []
        self._decoder = json.JSONDecoder(parse_int=self._integer)

    def _integer(self, digits: str) -> int:
        """Return the number; note one with more digits than can be read, for which its element is refused."""
        if len(digits) > _MOST_DIGITS:
            self._too_long.append(digits)
            return 0
        return int(digits)

    def next_character(self) -> str:
        """Move to the next character that is not white space, reading on where the window ends; return it, or
        an empty string at the end."""
        text, offset = self.text, self.offset
        while True:
            while offset < len(text) and text[offset] in _JSON_SPACE:
                offset += 1
            if offset < len(text) or self._ended:
                self.text, self.offset = text, offset
                return text[offset : offset + 1]
            text, offset = self._reader.read(WINDOW), 0
            self._ended = not text

    def take_value(self) -> Any:
        """Return the JSON value that begins here, or why it cannot be read, and move behind it."""
        size = WINDOW
        while True:
            self._too_long.clear()
            try:
                value, end = self._decoder.raw_decode(self.text, self.offset)
                # A number is known to be whole only by what follows it: of `1.5e-3` the window may hold
                # `1.5e-`.
                if end + len("e-") < len(self.text) or self._ended:
                    break
            except json.JSONDecodeError as error:
                if not self._may_be_cut_off(error):
                    raise self.broken(error) from None
            except RecursionError:
                raise UserError(
                    f"{self.path}: element {self.elements + 1} of the JSON array: {': '.join(too_deep())}"
                ) from None
            more = self._reader.read(size)
            self._ended = not more
            # Doubled, else an element much longer than the window would be decoded again and again.
            self.text, self.offset, size = self.text[self.offset :] + more, 0, size * 2
        self.elements += 1
        self.offset = end
        if self._too_long:
            digits = self._too_long[0]
            return RowRefused(
                "integer too long", f"an integer of {len(digits)} digits ({digits[:20]}...) cannot be read"
            )
        return value

    def _may_be_cut_off(self, error: json.JSONDecodeError) -> bool:
        """Return whether an error may come of where the window ends, so that more text can mend it."""
        if self._ended or len(self.text) - self.offset > _LONGEST_ELEMENT:
            return False
        at_end = error.pos >= len(self.text) - _LONGEST_JSON_WORD
        return at_end or error.msg.startswith("Unterminated string")

    def broken(self, error: json.JSONDecodeError) -> UserError:
        """Return the error of an array that cannot be read on."""
        near = snippet(error.doc[max(0, error.pos - 30) : error.pos + 30])
        return UserError(
            f"{self.path}: the JSON array is broken in element {self.elements + 1}: {error.msg}, near "
            f"{near}; download the file again"
        )
