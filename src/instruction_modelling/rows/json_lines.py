"""The one reader of JSON Lines, and of one JSON array (a file whose first character is `[`).

- `read_records`, `stream_records`: a file somebody made, every line of which must be an object.
- `read_appended`: a file that a program which may be killed appends to, so that its last line may be torn.
- `stream_values`, `line_values`, `array_values`: every value of an open file, for a reader that judges each.
  What cannot be read faithfully comes out as a `RowRefused` value, so that reading goes on behind it; a
  `UserError` is what spoils the whole file.
"""

import gzip
import io
import itertools
import json
import os
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.durable import append_line

ROW_SHAPES = (
    'the columns "messages", or "conversations", or "prompt" and "completion" (or "response"), or '
    '"instruction" and "output" (or "response"), or "question" and "response"; '
    '--columns names others: --columns "YOUR COLUMN=user,ANOTHER=assistant"'
)
_FILE_SIGNATURES = {
    b"\x1f\x8b": ("gzip-compressed", "decompress it (gunzip)"),
    b"BZh": ("bzip2-compressed", "decompress it (bunzip2)"),
    b"\xfd7zXZ\x00": ("xz-compressed", "decompress it (unxz)"),
    b"\x28\xb5\x2f\xfd": ("zstd-compressed", "decompress it (unzstd)"),
    b"PK\x03\x04": ("a zip archive", "extract it (unzip), or, if it is a spreadsheet, save it as CSV"),
    b"SQLite format 3\0": (
        "a database of SQLite",
        "write its table as CSV (sqlite3 -header -csv FILE 'select * from TABLE' > rows.csv)",
    ),
    **dict.fromkeys(
        (b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        ("a pickle of Python", "pickles are never read, since they run code: write JSON Lines or Parquet"),
    ),
    **dict.fromkeys(
        (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
        ("a web page", "fetch the file itself (a hub's /resolve/ address, not its /blob/ page)"),
    ),
    b"PAR1": ("a compressed Parquet file", "decompress it first: a Parquet file is read as it is"),
    b"ARROW1": ("a compressed Arrow file", "decompress it first: an Arrow file is read as it is"),
    b"\xff\xfe": ("UTF-16 text", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    b"version https://git-lfs": (
        "a Git LFS pointer to a file that is elsewhere",
        "get the file itself (git lfs pull)",
    ),
    b"\xfe\xff": ("UTF-16 text", "convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"),
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_SPACE = re.compile(r"[ \t\n\r]*")
# What `line_values` gives for a line of white space only.
BLANK = object()

_LONGEST_SNIPPET = 200
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxlist = 12


def snippet(value: Any) -> str:
    """Return a short `repr` of any JSON value, for an error message."""
    text = _repr.repr(value)
    return text if len(text) <= _LONGEST_SNIPPET else text[:_LONGEST_SNIPPET] + "..."


def check_head(head: bytes, path: Path) -> None:
    """Raise `UserError` if a file that begins with these bytes is empty, compressed or not UTF-8 text."""
    if not head:
        raise UserError(f"{path}: is empty; it needs rows with {ROW_SHAPES}")
    for signature, (kind, remedy) in _FILE_SIGNATURES.items():
        if head.startswith(signature):
            raise UserError(f"{path}: is {kind}, not JSON Lines; {remedy}")
    if head[257:262] == b"ustar":
        raise UserError(f"{path}: is a tar archive, not JSON Lines; extract it (tar -xf)")
    if b"\x00" in head:
        raise UserError(f"{path}: is binary or UTF-16, not JSON Lines in UTF-8; convert it first")


def stream_values(handle: BinaryIO, path: Path, head: bytes, digest: Any = None) -> Iterator[tuple[int, Any]]:
    """Return what `values_by_layout` gives, without the layout."""
    return values_by_layout(handle, path, head, digest)[1]


def values_by_layout(
    handle: BinaryIO, path: Path, head: bytes, digest: Any = None
) -> tuple[bool, Iterator[tuple[int, Any]]]:
    """Return whether the values of a file stand on lines of their own, and the values: those of one array, of
    JSON Lines, or of objects one after another that are not one to a line.

    Args:
        head: the first bytes of the file, which decide.
        digest: a hash of hashlib, which is fed the bytes.

    Raises:
        UserError: the first object goes over several lines, and what follows is broken.
    """
    if head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"["):
        return False, array_values(handle, path, digest)
    first = _first_line(handle)
    value = line_value(first.removeprefix(_BYTE_ORDER_MARK).strip())
    if not (isinstance(value, RowRefused) and value.reason == "not JSON"):
        return True, line_values(itertools.chain(io.BytesIO(first), handle), digest)
    raw = first + handle.read()
    values = _values_in_a_row(raw, path)
    if digest is not None and values is not None:
        digest.update(raw)
    if values is not None:
        return False, enumerate(values, start=1)
    return True, line_values(io.BytesIO(raw), digest)


def _first_line(handle: BinaryIO) -> bytes:
    """Return the bytes of a file up to the end of its first line that is not blank."""
    read = b""
    for line in handle:
        read += line
        if line.removeprefix(_BYTE_ORDER_MARK).strip():
            break
    return read


def _values_in_a_row(raw: bytes, path: Path) -> list[Any] | None:
    """Return the values of a text that is JSON values one after another, with or without space between them;
    None where it is none, or broken lines of JSON.

    Raises:
        UserError: its first value goes over several lines, so that it cannot be JSON Lines, and a later one,
            or the first one itself, is broken.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    values: list[Any] = []
    start = offset = _skip_json_space(text, 0)
    first_line, _, rest = text[start:].partition("\n")
    # A file whose first line is broken and whose second is whole is JSON Lines.
    second = line_value(rest.partition("\n")[0].strip().encode())
    is_over_lines = first_line.strip() == "{" and isinstance(second, RowRefused)
    try:
        while offset < len(text):
            value, offset = _decode_at(text, offset)
            is_over_lines = is_over_lines or (not values and offset > start + len(first_line))
            values.append(value)
            offset = _skip_json_space(text, offset)
    except RecursionError:
        return None
    except json.JSONDecodeError as error:
        if not is_over_lines:
            return None
        raise UserError(
            f"{path}:{error.lineno}: its objects go over several lines, and object {len(values) + 1} is "
            f"broken: {_json_fault(error)} at column {error.colno}; write one object per line (jq -c . FILE "
            "does)"
        ) from None
    return values


def line_values(handle: Iterable[bytes], digest: Any = None) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line, JSON value, `RowRefused` or `BLANK`) per line; only b"\\n" ends a line.

    `digest`, a hash of hashlib, is fed the bytes.
    """
    for line, raw in enumerate(handle, start=1):
        if digest is not None:
            digest.update(raw)
        if line == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        raw = raw.rstrip()
        yield line, line_value(raw) if raw else BLANK


def line_value(raw: bytes) -> Any:
    """Return the JSON value of a line (without white space around it), or the `RowRefused` that says why it
    cannot be read."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return RowRefused(
            "not UTF-8",
            f"byte {error.start + 1} of the line is 0x{raw[error.start]:02x} (after "
            f"{snippet(raw[max(0, error.start - 20) : error.start].decode('utf-8', 'replace'))}); "
            "save the file as UTF-8",
        )
    try:
        return decode_json(text)
    except json.JSONDecodeError as error:
        near = repr(text[max(0, error.pos - 30) : error.pos + 30])
        return RowRefused(
            "not JSON", f"{_json_fault(error)} at column {error.pos + 1}, near {near}; {_json_remedy(error)}"
        )
    except RecursionError:
        return RowRefused(*too_deep())


def array_values(handle: BinaryIO, path: Path, digest: Any = None) -> Iterator[tuple[int, Any]]:
    """Yield (1-based position, JSON value or `RowRefused`) per element of a file that is one JSON array.

    The whole file is held in memory. `digest`, a hash of hashlib, is fed the bytes.

    Raises:
        UserError: the array is broken, too deeply nested or not UTF-8, or more text follows it.
    """
    raw = handle.read()
    if digest is not None:
        digest.update(raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise UserError(f"{path}:{line}: byte {byte} is not valid UTF-8; save the file as UTF-8") from None
    offset = _skip_json_space(text, _skip_json_space(text, 0) + 1)
    position = 0
    more = not text.startswith("]", offset)
    while more:
        position += 1
        try:
            value, offset = _decode_at(text, offset)
            offset = _skip_json_space(text, offset)
            more = text.startswith(",", offset)
            if not more and not text.startswith("]", offset):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, offset)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{error.lineno}: the JSON array is broken in element {position}: "
                f"{_json_fault(error)} at column {error.colno}; {_json_remedy(error)}"
            ) from None
        except RecursionError:
            raise UserError(
                f"{path}: element {position} of the JSON array: {': '.join(too_deep())}"
            ) from None
        yield position, value
        offset = _skip_json_space(text, offset + 1) if more else offset
    offset = _skip_json_space(text, offset + 1)
    if offset < len(text):
        line = text.count("\n", 0, offset) + 1
        raise UserError(
            f"{path}:{line}: more text follows the JSON array; a file that starts with '[' must be one array "
            "of rows; for JSON Lines every line must be an object (where each line is a list of messages, jq "
            "-c '{messages: .}' FILE writes them so)"
        )


def _skip_json_space(text: str, start: int) -> int:
    match = _JSON_SPACE.match(text, start)
    return match.end() if match else start


def decode_json(text: str) -> Any:
    """Return the one JSON value that a text is, or a `RowRefused` if reading it would lose data.

    Raises `JSONDecodeError`, and `RecursionError` if the value is nested too deeply.
    """
    value, end = _decode_at(text, _skip_json_space(text, 0))
    end = _skip_json_space(text, end)
    if end < len(text):
        raise json.JSONDecodeError("More text after the value", text, end)
    return value


def _decode_at(text: str, start: int) -> tuple[Any, int]:
    """Return the JSON value at offset `start`, as `decode_json` gives it, and the offset of its end."""
    problems: list[RowRefused] = []

    def no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            problems.append(
                RowRefused("repeated key", f"key {snippet(key)} is twice in one object; keep one of them")
            )
        return fields

    def readable_integer(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:
            detail = (
                f"an integer of {len(digits)} digits ({digits[:20]}...) cannot be read; write it as a string"
            )
            problems.append(RowRefused("integer too long", detail))
            return 0

    decoder = json.JSONDecoder(object_pairs_hook=no_repeated_keys, parse_int=readable_integer)
    value, end = decoder.raw_decode(text, start)
    return (problems[0] if problems else value), end


def _json_fault(error: json.JSONDecodeError) -> str:
    """Return what Python says is wrong, without the "at" that some of its messages end with."""
    return error.msg.removesuffix(" at")


def _json_remedy(error: json.JSONDecodeError) -> str:
    if "control character" in error.msg:
        return "inside strings write line breaks as \\n and tabs as \\t"
    return "a row is one whole JSON object on one line, in double quotes and without trailing commas"


def too_deep() -> tuple[str, str]:
    """Return the reason and detail of a row that runs into Python's recursion limit."""
    return "nested too deeply", "the row's lists and objects are nested too deeply to be read; flatten them"


def read_records(path: Path, hint: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a file as `stream_records` yields them."""
    return list(stream_records(path, hint))


def stream_records(path: Path, hint: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file in its order, each behind where it stands.

    That is "FILE:LINE", or "FILE: entry N", counted from 0, where the file is one array. Blank lines are
    passed over; a gzip-compressed file is decompressed as it is read.

    Raises:
        UserError: the file cannot be read, or an entry is no JSON object; the message ends in `hint`.
    """
    after = f". {hint}" if hint else ""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as handle:
            head = handle.read(4096)
            handle.seek(0)
            is_array = head.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"[")
            for number, value in stream_values(handle, path, head):  # type: ignore[arg-type]
                where = f"{path}: entry {number - 1}" if is_array else f"{path}:{number}"
                if value is BLANK:
                    continue
                if isinstance(value, RowRefused):
                    raise UserError(f"{where}: {value.reason}: {value.detail}{after}")
                if not isinstance(value, dict):
                    raise UserError(f"{where}: is {snippet(value)}; it must be an object{after}")
                yield where, value
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}{after}"
        ) from None


@dataclass(frozen=True)
class AppendedLines:
    """What a file holds that a program appends a line of JSON to, again and again, until it may be killed.

    `records` are (1-based line, object), a last line without its line end among them where it is a whole
    object; `broken` are the numbers of the other lines that hold no JSON object, blank ones and a torn last
    line aside; `torn` says whether the last line was cut off in its middle.
    """

    records: list[tuple[int, dict[str, Any]]]
    broken: list[int]
    torn: bool = False


def read_appended(path: Path, mend: bool = False) -> AppendedLines:
    """Read the lines of a file that a killed program may have left torn; nothing where there is no such file.

    With `mend` the file is made fit to be appended to: a torn last line is cut off, and a whole last line
    that lacks its line end gets one, else the next record would be written onto the same line.

    Raises:
        UserError: the file cannot be read, or not mended.
    """
    try:
        content = path.read_bytes()
        records, broken = [], []
        for line, value in line_values(io.BytesIO(content)):
            if isinstance(value, dict):
                records.append((line, value))
            elif value is not BLANK:
                broken.append(line)
        complete = content.rfind(b"\n") + 1
        # Only the last line can lack its end; the start of an object is never a whole object.
        last_line = content.count(b"\n") + 1
        torn = complete < len(content) and broken[-1:] == [last_line]
        if torn:
            broken.pop()
        if mend and torn:
            os.truncate(path, complete)
        elif mend and complete < len(content):
            append_line(path, "")
    except FileNotFoundError:
        return AppendedLines([], [])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return AppendedLines(records, broken, torn)
