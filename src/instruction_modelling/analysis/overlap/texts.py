"""The texts of a row, whatever its shape, in the form in which they are compared; and files as batches of
rows.

A text is every string of a row but those that name or number it: each message of a chat, each question,
choice and answer of a benchmark's item, each line of a plain text file. Texts are compared as words: after
Unicode NFKC and case folding, runs of letters and digits; characters of scripts that write without spaces are
words of their own."""

import bz2
import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion.readers import SourceFile

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
_ASCII = str.maketrans(
    {chr(code): " " if not chr(code).isalnum() else chr(code).lower() for code in range(128)}
)
_SEPARATORS = re.compile(r"[\W_]+")
_UNSPACED = re.compile("([\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff])")
_BYTES_AT_ONCE = 1 << 21


class Text(NamedTuple):
    """A string of a row: where in it, and what it says."""

    field: str
    text: str


class Batch(NamedTuple):
    """Rows of a file: raw lines of JSON Lines, or (line, value) pairs of anything else."""

    first_line: int
    raw: bytes | None
    rows: list[tuple[int, Any]]
    size: int
    """Bytes read for it."""


def words_of(text: str) -> str:
    """The words of a text as they are compared, with one space between them."""
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_SEPARATORS.sub(" ", _UNSPACED.sub(r" \1 ", folded)).split())


def texts_of(value: Any, field: str = "") -> Iterator[Text]:
    """Every text of a row."""
    if type(value) is str:
        yield Text(field or "text", value)
    elif type(value) is dict:
        role = value.get("role") or value.get("from")
        for name, item in value.items():
            if name not in NOT_TEXT and item is not None:
                yield from texts_of(item, str(role) if role and name in ("content", "value") else name)
    elif type(value) is list:
        for item in value:
            yield from texts_of(item, field)


def row_name(value: Any) -> str | None:
    """What a row calls itself."""
    if isinstance(value, dict):
        for name in ("id", "task_id", "question_id"):
            if isinstance(value.get(name), str | int):
                # Half characters, which no file can hold, as question marks.
                return str(value[name]).encode("utf-8", "replace").decode("utf-8")
    return None


def batches(path: Path) -> Iterator[Batch]:
    """A file in batches of about two megabytes: JSON Lines raw, so that others can decode them; anything else
    decoded.

    Raises:
        UserError: the file is missing or of no kind that can be read.
    """
    if path.suffix in (".txt", ".bz2", ".csv"):
        yield from _collected(_plain_lines(path) if path.suffix != ".csv" else _table(path))
        return
    head = _head(path)
    if head.startswith(b"{"):
        with path.open("rb") as handle:
            line = 1
            while chunk := handle.read(_BYTES_AT_ONCE):
                chunk += handle.readline()
                yield Batch(line, chunk, [], len(chunk))
                line += chunk.count(b"\n")
        return
    yield from _collected((row.line, row.value) for row in SourceFile(path).rows())


def decoded(batch: Batch) -> Iterator[tuple[int, Any]]:
    """(1-based line, value or the `RowRefused` that stands for one) of each row; blank lines are passed
    over."""
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


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _plain_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        handle: BinaryIO
        with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as handle:  # type: ignore[assignment]
            for line, raw in enumerate(handle, start=1):
                try:
                    text = raw.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    yield line, RowRefused("not UTF-8", str(error))
                    continue
                if text:
                    yield line, text
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a comma-separated table, each a list of cells; a header is a row like the others."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
            reader = csv.reader(handle)
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _collected(rows: Iterator[tuple[int, Any]]) -> Iterator[Batch]:
    held: list[tuple[int, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == 2000:
            yield Batch(held[0][0], None, held, 0)
            held = []
    if held:
        yield Batch(held[0][0], None, held, 0)
