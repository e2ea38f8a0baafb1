"""Readers of published files, row by row in constant memory: JSON Lines, JSON arrays, Parquet, Excel and
tab-separated.

Lines are decoded by orjson, not by `rows.json_lines`: files of millions of rows convert in less than half the
time, and gzip is read on the way. A line that orjson refuses is read again by `rows.json_lines`, which is
laxer (NaN) and says where it stops.

A file's kind is read from its first bytes, not from its name; gzip around any of the text kinds is opened on
the way. What cannot be read comes out as a `RowRefused` in its place, so that reading goes on behind it; what
spoils the rest of a file (a broken array, a cut-off gzip) is a `UserError`, since nothing behind it can be
counted. Of a key that is twice in one object the last one counts."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import line_value
from instruction_modelling.sources.conversion.arrays import array_elements
from instruction_modelling.sources.conversion.tables import open_parquet, parquet_rows, sheet_rows

# Bytes read at a time.
_CHUNK = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SourceRow(NamedTuple):
    """One row of a source file.

    `line` is 1-based: the line of a text file, the element of an array, the row of a table (its header not
    counted). `value` is the JSON value, or why it could not be read."""

    line: int
    value: Any


class SourceFile:
    """A file being read; `sha256` and `bytes` (on disk, before any decompression) are complete once all rows
    are read."""

    def __init__(self, path: Path):
        self.path = path
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Return the hex digest of the bytes on disk."""
        return self._digest.hexdigest()

    def rows(self) -> Iterator[SourceRow]:
        """Yield the rows, in file order; blank lines are passed over.

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
        """Yield the whole file as one JSON value.

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
            yield SourceRow(1, line_value(raw))

    def count(self) -> int:
        """Count the rows, those that cannot be read too: a pass of its own over the file, except for Parquet,
        which knows it.

        Raises:
            UserError: as `rows`.
        """
        with suppress(OSError), self.path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                return open_parquet(raw, self.path).metadata.num_rows
        return sum(1 for _ in SourceFile(self.path).rows())

    def _rows(self, raw: BinaryIO) -> Iterator[SourceRow]:
        head = raw.read(8)
        raw.seek(0)
        if head.startswith((b"PAR1", b"PK\x03\x04")):
            read_rows = parquet_rows if head.startswith(b"PAR1") else sheet_rows
            for position, value in read_rows(raw, self.path):
                yield SourceRow(position, value)
            raw.seek(0)
            while chunk := raw.read(_CHUNK):
                self._take(chunk)
            return
        text: Any = io.BufferedReader(_ReportedFile(raw, self._take), _CHUNK)
        if head.startswith(b"\x1f\x8b"):
            text = io.BufferedReader(gzip.GzipFile(fileobj=text), _CHUNK)
        yield from _text_rows(text, self.path)

    def _take(self, chunk: Any) -> None:
        self._digest.update(chunk)
        self.bytes += len(chunk)


class _ReportedFile(io.RawIOBase):
    """A raw file whose bytes are shown to `take` as they are read."""

    def __init__(self, raw: BinaryIO, take: Any):
        self._raw, self._take = raw, take

    def readable(self) -> bool:
        """Say that it can be read, which `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and show what came."""
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._take(memoryview(buffer)[:count])
        return count


def _text_rows(text: io.BufferedReader, path: Path) -> Iterator[SourceRow]:
    start = text.peek(4096)[:4096].removeprefix(_BYTE_ORDER_MARK).lstrip()
    if start.startswith(b"["):
        return (SourceRow(position, value) for position, value in array_elements(text, path))
    if path.name.removesuffix(".gz").endswith(".tsv"):
        return _tabbed(text)
    if not start:
        raise UserError(f"{path}: is empty; download it again")
    if not start.startswith(b"{"):
        raise UserError(
            f"{path}: is of no kind that is read here (it begins with {start[:20]!r}); it must be JSON "
            "Lines, a JSON array, Parquet, an Excel sheet or a .tsv"
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
                yield SourceRow(number, line_value(raw))


def _tabbed(text: io.BufferedReader) -> Iterator[SourceRow]:
    """Yield the columns of each line, as a list of strings; tabs have no quoting in these files."""
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
