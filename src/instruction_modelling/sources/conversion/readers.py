"""Rows of published files as they come, in constant memory: JSON Lines, JSON arrays, Parquet, Excel and
tab-separated.

A file's kind is read from its first bytes, not from its name; gzip around any of the text kinds is opened on
the way. What cannot be read comes out as a `RowRefused` in its place, so that reading goes on behind it; what
spoils the rest of a file (a broken array, a cut-off gzip) is a `UserError`, since nothing behind it can be
counted. Of a key that is twice in one object the last one counts."""

import gzip
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import decode_json, snippet, too_deep

# Bytes read at a time.
_CHUNK = 1 << 20
# Characters of an array decoded at a time.
_WINDOW = 1 << 20
# An element of an array that is longer than this is a missing quotation mark, not a row.
_LONGEST_ELEMENT = 256 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_SPACE = " \t\n\r"
# Words that a cut-off text ends in before the decoder can tell: `\uD83D\uDE0`, `-Infinit`.
_LONGEST_JSON_WORD = 16
# Of an integer; the interpreter's own limit is 4300.
_MOST_DIGITS = 4000


class SourceRow(NamedTuple):
    """One row of a source file.

    `line` is 1-based: the line of a text file, the element of an array, the row of a table (its header not
    counted). `value` is the JSON value, or why it could not be read."""

    line: int
    value: Any


class SourceFile:
    """A file being read; `sha256` and `bytes` (on disk, before any decompression) are complete at the end of
    `rows`."""

    def __init__(self, path: Path):
        self.path = path
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes on disk."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[SourceRow]:
        """The rows, in file order; blank lines are passed over.

        Raises:
            UserError: the file is missing, of no known kind, or cannot be read on from some place.
        """
        try:
            with self.path.open("rb") as raw:
                yield from self._rows(raw)
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: there is no such file; check the path, or download it first"
            ) from None
        except IsADirectoryError:
            raise UserError(f"{self.path}: is a folder; name a file in it") from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{self.path}: the gzip file is cut off or damaged ({error}); download it again"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def document(self) -> Iterator[SourceRow]:
        """The whole file as one JSON value.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._take(raw)
        try:
            yield SourceRow(1, orjson.loads(raw))
        except orjson.JSONDecodeError:
            yield SourceRow(1, _second_reading(raw))

    def count(self) -> int:
        """The number of rows, read or not: a pass of its own over the file, except for Parquet, which knows
        it.

        Raises:
            UserError: as `rows`.
        """
        with suppress(OSError), self.path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                return _parquet_file(raw, self.path).metadata.num_rows
        return sum(1 for _ in SourceFile(self.path).rows())

    def _rows(self, raw: BinaryIO) -> Iterator[SourceRow]:
        head = raw.read(8)
        raw.seek(0)
        if head.startswith((b"PAR1", b"PK\x03\x04")):
            yield from _parquet(raw, self.path) if head.startswith(b"PAR1") else _sheet(raw, self.path)
            raw.seek(0)
            while chunk := raw.read(_CHUNK):
                self._take(chunk)
            return
        text: Any = io.BufferedReader(_Watched(raw, self._take), _CHUNK)
        if head.startswith(b"\x1f\x8b"):
            text = io.BufferedReader(gzip.GzipFile(fileobj=text), _CHUNK)
        yield from _text_rows(text, self.path)

    def _take(self, chunk: Any) -> None:
        self._digest.update(chunk)
        self.bytes += len(chunk)


class _Watched(io.RawIOBase):
    """A raw file whose bytes are shown to `take` as they are read."""

    def __init__(self, raw: BinaryIO, take: Any):
        self._raw, self._take = raw, take

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._take(memoryview(buffer)[:count])
        return count


def _text_rows(text: io.BufferedReader, path: Path) -> Iterator[SourceRow]:
    start = text.peek(4096)[:4096].removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"["):
        return _array(text, path)
    if path.name.removesuffix(".gz").endswith(".tsv"):
        return _tabbed(text)
    if not start:
        raise UserError(f"{path}: is empty; download it again")
    if not start.startswith(b"{"):
        raise UserError(
            f"{path}: is of no kind that is read here (it begins with {start[:20]!r}); it must be JSON "
            "Lines, "
            "a JSON array, Parquet, an Excel sheet or a .tsv"
        )
    return _lines(text)


def _lines(text: io.BufferedReader) -> Iterator[SourceRow]:
    for number, raw in enumerate(text, start=1):
        if number == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        try:
            yield SourceRow(number, orjson.loads(raw))
        except orjson.JSONDecodeError:
            if raw := raw.strip():
                yield SourceRow(number, _second_reading(raw))


def _second_reading(raw: bytes) -> Any:
    """The standard library's reading of a line that the fast parser refused: laxer (NaN), and it says where
    it stops."""
    try:
        return decode_json(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowRefused("not UTF-8", f"byte {error.start + 1} of the line is 0x{raw[error.start]:02x}")
    except json.JSONDecodeError as error:
        near = snippet(error.doc[max(0, error.pos - 30) : error.pos + 30])
        return RowRefused("not JSON", f"{error.msg} at column {error.pos + 1}, near {near}")
    except RecursionError:
        return RowRefused(*too_deep())


def _array(text: io.BufferedReader, path: Path) -> Iterator[SourceRow]:
    """The elements of one JSON array, decoded from a window that moves over the file.

    A byte that is not UTF-8 becomes half a character, which refuses its element alone.
    """
    reader = io.TextIOWrapper(text, encoding="utf-8-sig", errors="surrogateescape")
    try:
        yield from _elements(reader, path)
    finally:
        reader.detach()


def _elements(reader: io.TextIOWrapper, path: Path) -> Iterator[SourceRow]:
    too_long: list[str] = []

    def integer(digits: str) -> int:
        """The number; of one with more digits than can be read its element is refused."""
        if len(digits) > _MOST_DIGITS:
            too_long.append(digits)
            return 0
        return int(digits)

    decoder = json.JSONDecoder(parse_int=integer)
    window, at, element, ended = reader.read(_WINDOW), 0, 0, False

    def space() -> None:
        """Moves to the next character that is not white space, reading on where the window ends."""
        nonlocal window, at, ended
        while True:
            while at < len(window) and window[at] in _JSON_SPACE:
                at += 1
            if at < len(window) or ended:
                return
            window, at = reader.read(_WINDOW), 0
            ended = not window

    space()
    at += 1
    space()
    closed = window[at : at + 1] == "]"
    while not closed:
        size = _WINDOW
        while True:
            too_long.clear()
            try:
                value, end = decoder.raw_decode(window, at)
                # A number is known to be whole only by what follows it: of `1.5e-3` the window may hold
                # `1.5e-`.
                if end + len("e-") < len(window) or ended:
                    break
            except json.JSONDecodeError as error:
                cut_off = (
                    error.msg.startswith("Unterminated string")
                    or error.pos >= len(window) - _LONGEST_JSON_WORD
                )
                if ended or not cut_off or len(window) - at > _LONGEST_ELEMENT:
                    raise _broken(path, element, error) from None
            except RecursionError:
                raise UserError(
                    f"{path}: element {element + 1} of the JSON array: {': '.join(too_deep())}"
                ) from None
            more = reader.read(size)
            ended = not more
            window, at, size = window[at:] + more, 0, size * 2
        element += 1
        at = end
        space()
        mark = window[at : at + 1]
        closed = mark == "]"
        if not closed and mark != ",":
            raise _broken(path, element, json.JSONDecodeError("Expecting ',' or ']'", window, at))
        if too_long:
            value = RowRefused(
                "integer too long",
                f"an integer of {len(too_long[0])} digits ({too_long[0][:20]}...) cannot be read",
            )
        yield SourceRow(element, value)
        if not closed:
            at += 1
            space()
    at += 1
    space()
    if at < len(window):
        raise UserError(
            f"{path}: more text follows the JSON array after {element} elements; a file that starts with '[' "
            "must be one array of rows"
        )


def _broken(path: Path, element: int, error: json.JSONDecodeError) -> UserError:
    near = snippet(error.doc[max(0, error.pos - 30) : error.pos + 30])
    return UserError(
        f"{path}: the JSON array is broken in element {element + 1}: {error.msg}, near {near}; "
        "download the file again"
    )


def _tabbed(text: io.BufferedReader) -> Iterator[SourceRow]:
    """The columns of each line, as a list of strings; tabs have no quoting in these files."""
    for number, raw in enumerate(text, start=1):
        raw = raw.rstrip(b"\r\n")
        if number == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if not raw.strip():
            continue
        try:
            yield SourceRow(number, raw.decode("utf-8").split("\t"))
        except UnicodeDecodeError as error:
            yield SourceRow(
                number,
                RowRefused("not UTF-8", f"byte {error.start + 1} of the line is 0x{raw[error.start]:02x}"),
            )


def _parquet_file(raw: BinaryIO, path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _parquet(raw: BinaryIO, path: Path) -> Iterator[SourceRow]:
    import pyarrow

    row = 0
    try:
        for batch in _parquet_file(raw, path).iter_batches(batch_size=1024):
            for value in _values(batch):
                row += 1
                yield SourceRow(row, value)
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _values(batch: Any) -> list[Any]:
    """The rows of a batch; where one has text that is not UTF-8, each by itself."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [
                RowRefused(
                    "not UTF-8", f"byte {error.start + 1} of a text is 0x{error.object[error.start]:02x}"
                )
            ]
        return [value for row in range(batch.num_rows) for value in _values(batch.slice(row, 1))]


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: the Parquet file is damaged ({error}); download it again")


def _sheet(raw: BinaryIO, path: Path) -> Iterator[SourceRow]:
    """The rows of the first sheet under its first row, which names the columns; empty cells are null."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        table = (
            openpyxl.load_workbook(raw, read_only=True, data_only=True)
            .worksheets[0]
            .iter_rows(values_only=True)
        )
        names = [str(name) for name in next(table, ())]
        for row, cells in enumerate(table, start=1):
            if any(cell is not None for cell in cells):
                yield SourceRow(row, dict(zip(names, cells, strict=False)))
    except (
        InvalidFileException,
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        # What the library makes of a damaged sheet is any of these.
        raise UserError(
            f"{path}: is not an Excel sheet that can be read ({error}); download it again"
        ) from None
