"""Files as batches of rows, whatever they are: JSON Lines, a JSON array, Parquet, tables, plain lines."""

import bz2
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion.readers import SourceFile

BYTES_AT_ONCE = 1 << 21
_ROWS_AT_ONCE = 2000


class Batch(NamedTuple):
    """Rows of a file: raw lines of JSON Lines, or (line, value) pairs of anything else."""

    first_line: int
    raw: bytes | None
    rows: list[tuple[int, Any]]
    bytes: int
    """Bytes read for it."""


def batches(path: Path) -> Iterator[Batch]:
    """Yield a file in batches of about two megabytes: JSON Lines raw, anything else decoded.

    Raises:
        UserError: the file is missing or of no kind that can be read.
    """
    if path.suffix == ".csv":
        yield from _collected(_table(path))
    elif path.suffix in (".txt", ".bz2"):
        yield from _collected(_plain_lines(path))
    elif _head(path).startswith(b"{"):
        with path.open("rb") as handle:
            line = 1
            while chunk := handle.read(BYTES_AT_ONCE):
                chunk += handle.readline()
                yield Batch(line, chunk, [], len(chunk))
                line += chunk.count(b"\n")
    else:
        yield from _collected((row.line, row.value) for row in SourceFile(path).rows())


def decoded(batch: Batch) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line, value or the `RowRefused` that stands for one) of each row; skip blank lines.

    Not `rows.json_lines`, which takes five times as long: these rows are only searched for words, so a number
    that loses digits or a repeated key does not matter, and raw batches are decoded by all workers at
    once."""
    if batch.raw is None:
        yield from batch.rows
        return
    for line, raw in enumerate(io.BytesIO(batch.raw), start=batch.first_line):
        raw = raw.strip().removeprefix(b"\xef\xbb\xbf")
        if raw:
            try:
                yield line, orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                yield line, RowRefused("not JSON", str(error))


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: there is no such file; check the path")
    return UserError(f"{path}: cannot be read: {error}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    except FileNotFoundError as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _plain_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        opened: Any = bz2.open if path.suffix == ".bz2" else open
        with opened(path, "rb") as handle:
            for line, raw in enumerate(handle, start=1):
                try:
                    text = raw.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    yield line, RowRefused("not UTF-8", str(error))
                    continue
                if text:
                    yield line, text
    except (OSError, EOFError) as error:
        raise _unreadable(path, error) from None


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a comma-separated table, each a list of cells; a header is a row like the others."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
            reader = csv.reader(handle)
            for row in reader:
                yield reader.line_num, row
    except (OSError, csv.Error) as error:
        raise _unreadable(path, error) from None


def _collected(rows: Iterator[tuple[int, Any]]) -> Iterator[Batch]:
    collected: list[tuple[int, Any]] = []
    for row in rows:
        collected.append(row)
        if len(collected) == _ROWS_AT_ONCE:
            yield Batch(collected[0][0], None, collected, 0)
            collected = []
    if collected:
        yield Batch(collected[0][0], None, collected, 0)
