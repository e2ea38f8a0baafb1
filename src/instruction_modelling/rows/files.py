"""Files of rows as people have them: which kind a file is, and its rows one by one.

JSON Lines, one JSON array, several JSON objects one after another, CSV, TSV (each also compressed: .gz, .zst,
.bz2, .xz), Parquet, Arrow, a folder of such files, a folder written by `save_to_disk`, and a data set of the
hub (NAME:CONFIG:SPLIT)."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO, Literal, cast

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.nearest import nearest_path
from instruction_modelling.rows.json_lines import check_head, values_by_layout
from instruction_modelling.rows.tables import (
    arrow_values,
    csv_values,
    hub_name,
    hub_values,
    is_saved_set,
    parquet_values,
    pick_split,
    saved_set_values,
)

Unit = Literal["line", "row"]
_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
# What spreadsheets write above the names of the columns, to say what separates cells.
_SEPARATOR_LINE = re.compile(rb'(?:\xef\xbb\xbf)?"?sep=([\t -~])"?\r?\n')
_IN_QUOTES = re.compile(rb'"[^"]*"')
_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet", ".arrow", *_DELIMITERS)
# What is beside the rows in a folder of the hub or of the datasets library.
_NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
_HEAD = 1024
# For which a program that writes to a named pipe is waited for.
_PIPE_SECONDS = 60.0


@dataclass
class FilePart:
    """The rows of one file, or of one split of a data set."""

    path: Path
    values: Iterator[tuple[int, Any]]
    """(1-based line or row, JSON value, `RowRefused` or `BLANK`)."""
    unit: Unit
    """What the numbers count: lines of a text, or rows of a table or of an array."""
    sha256: Callable[[], str]
    """Returns the hex digest of the bytes, once the values are read."""


def open_parts(path: Path) -> Iterator[FilePart]:
    """Yield the parts of what a name stands for: one for a file, one for each file of a folder. Each is to be
    read before the next is asked for.

    Raises:
        UserError: there is no such file, folder or data set, or it cannot be read.
    """
    if problem := why_no_rows(str(path)):
        raise UserError(problem)
    folder, split = path, None
    hub = None
    if not path.exists():
        name, _, rest = str(path).partition(":")
        if rest and Path(name).is_dir():
            folder, split = Path(name), rest.partition(":")[2] or None
        else:
            hub = hub_name(str(path))
    if hub:
        yield _hashed_set(path, hub_values(*hub))
    elif not folder.is_dir():
        yield from _file(folder)
    elif is_saved_set(folder):
        digest = _folder_sha256(folder)
        yield FilePart(path, saved_set_values(folder, split), "row", lambda: digest)
    else:
        for file in _files_of_folder(folder, split):
            yield from _file(file)


def why_no_rows(name: str) -> str | None:
    """Return why a name stands for no rows, in words, as far as a look at the name and at what lies there can
    tell; None where it may."""
    path = Path(name)
    if "\0" in name:
        return f"{name!r}: is no name of a file, since it holds a NUL character"
    if not name.strip():
        return "an empty text is no name of a file"
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return _why_absent(path)
    except OSError as error:
        if isinstance(error, NotADirectoryError) and hub_name(name):
            return None
        return f"{path}: cannot be read: {error.strerror}"
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        return f"{path}: is a device, not a file of rows"
    return f"{path}: is a socket, not a file of rows" if stat.S_ISSOCK(kind) else None


def _why_absent(path: Path) -> str | None:
    """Return why a name that is no path stands for no rows; None where it is a folder with a split, or a data
    set of the hub."""
    name, _, rest = str(path).partition(":")
    if rest and Path(name).is_dir():
        config = rest.partition(":")[0]
        if not config:
            return None
        return f"{path}: a folder has no configurations as {config!r}; a split is named {name}::{config}"
    if hub_name(str(path)):
        return None
    meant = nearest_path(path)
    remedy = (
        f"did you mean {meant}?" if meant else "check the path (a data set of the hub is NAME:CONFIG:SPLIT)"
    )
    return f"{path}: there is no such file; {remedy}"


def _hashed_set(path: Path, values: Iterator[tuple[int, Any]]) -> FilePart:
    """Return a part whose digest is that of its rows as JSON."""
    digest = hashlib.sha256()

    def hashed() -> Iterator[tuple[int, Any]]:
        for number, row in values:
            digest.update(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))
            yield number, row

    return FilePart(path, hashed(), "row", digest.hexdigest)


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(folder)} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _files_of_folder(folder: Path, split: str | None) -> list[Path]:
    """Return the files of a folder, all of one split by the names that the datasets library knows."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and inner_suffix(file) in _SUFFIXES and file.name not in _NOT_ROWS
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not files:
        kinds = ", ".join(_SUFFIXES)
        raise UserError(f"{folder}: is a directory without a file of rows ({kinds}); name one file")
    if len(files) == 1 and split is None:
        return files
    from datasets.data_files import get_data_patterns

    of_split = {
        str(name): {found for pattern in patterns for found in _matches(pattern, folder)}
        for name, patterns in get_data_patterns(str(folder.resolve())).items()
    }
    chosen = of_split[pick_split(folder, [name for name, found in of_split.items() if found], split)]
    return [file for file in files if file.resolve() in chosen]


def _matches(pattern: str, folder: Path) -> list[Path]:
    """Return the files of a folder that one of the patterns of the datasets library matches."""
    from datasets.data_files import resolve_pattern

    try:
        return [Path(found).resolve() for found in resolve_pattern(pattern, str(folder.resolve()))]
    except FileNotFoundError:
        # Raised where a pattern matches nothing; a split has several patterns.
        return []


def file_in(folder: str | None, name: str) -> str:
    """Return the path of a file that is named as the authors' scripts do it: by its folder, and its name
    without .jsonl. Without a folder, the name is the path."""
    if folder is None:
        return name
    path = Path(folder) / name
    return str(path if path.exists() else path.with_name(path.name + ".jsonl"))


def inner_suffix(path: Path) -> str:
    """Return the suffix that says what is in a file, in small letters: ".csv" of data.csv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def file_stem(path: Path) -> str:
    """Return the name of a file without what says its kind ("train" for train.csv.gz), of a folder its name,
    of a data set of the hub the name before its configuration."""
    if not path.is_file():
        return path.name if path.exists() else path.name.partition(":")[0]
    unpacked = path.with_suffix("") if path.suffix.lower() in _PACKED else path
    return unpacked.stem


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed, by its first bytes."""
    with path.open("rb") as handle:
        return handle.read(6).startswith((_GZIP, _ZSTD, _BZIP2, _XZ))


class _HashedReader(io.RawIOBase):
    """A file (or a pipe) that is read once, from its start to its end, with the digest of its bytes."""

    def __init__(self, handle: BinaryIO):
        self._handle, self._digest = handle, hashlib.sha256()

    def readable(self) -> bool:
        """Return True, as `io.BufferedReader` asks for."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer and return how many (0 at the end)."""
        count = cast(io.BufferedReader, self._handle).readinto(buffer)
        self._digest.update(memoryview(buffer)[:count])
        return count

    def sha256(self) -> str:
        """Return the digest of the whole file; what a decompressor left unread is read here."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def _file(path: Path) -> Iterator[FilePart]:
    with _reading(path), _opened(path) as handle:
        hashed = _HashedReader(handle)
        buffered = io.BufferedReader(hashed)
        head = buffered.peek(_HEAD)[:_HEAD]
        if path.is_fifo() and head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
            raise UserError(
                f"{path}: Parquet and Arrow are read back and forth, which a pipe does not let; name the "
                "file itself"
            )
        if head.startswith(b"PAR1"):
            yield FilePart(path, _guarded(parquet_values(path), path), "row", lambda: file_sha256(path))
        elif head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
            yield FilePart(path, _guarded(arrow_values(path), path), "row", lambda: file_sha256(path))
        else:
            unit, values = _text_values(_unpacked(buffered, head), path)
            yield FilePart(path, _guarded(values, path), unit, hashed.sha256)


def _opened(path: Path) -> BinaryIO:
    """Open a file, or a pipe that a program writes to.

    Raises:
        UserError: no program opens the pipe to write, which would be waited for without end.
    """
    if not path.is_fifo():
        return path.open("rb")
    opened: Queue[BinaryIO | OSError] = Queue()

    def wait() -> None:
        try:
            opened.put(path.open("rb"))
        except OSError as error:
            opened.put(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        handle = opened.get(timeout=_PIPE_SECONDS)
    except Empty:
        # Ends the thread's waiting.
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        raise UserError(
            f"{path}: is a pipe that no program has opened to write to for {_PIPE_SECONDS:g} seconds"
        ) from None
    if isinstance(handle, OSError):
        raise handle
    return handle


def _guarded(values: Iterator[tuple[int, Any]], path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the values; what reading them raises becomes a `UserError`."""
    with _reading(path):
        yield from values


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what opening, decompressing or parsing a file raises into a `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; check the path (a data set of the hub is NAME:CONFIG:SPLIT)"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is damaged, its compressed data cannot be read: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or _in_one_line(error)}") from None
    except Exception as error:
        # pyarrow has no one error for a damaged file; nothing else of ours raises errors of its module.
        # The name of a column may be no UTF-8.
        if not (type(error).__module__.startswith("pyarrow") or isinstance(error, UnicodeDecodeError)):
            raise
        raise UserError(f"{path}: is damaged: {_in_one_line(error)}") from None


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _unpacked(handle: Any, head: bytes) -> io.BufferedReader:
    """Return the text of a file that may be compressed."""
    if head.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=handle)))
    if head.startswith(_BZIP2):
        return io.BufferedReader(cast(io.RawIOBase, bz2.BZ2File(handle)))
    if head.startswith(_XZ):
        return io.BufferedReader(cast(io.RawIOBase, lzma.LZMAFile(handle)))
    if head.startswith(_ZSTD):
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd")
        return io.BufferedReader(cast(io.RawIOBase, stream))
    return handle


def _text_values(handle: io.BufferedReader, path: Path) -> tuple[Unit, Iterator[tuple[int, Any]]]:
    head = handle.peek(_HEAD)[:_HEAD]
    check_head(head, path)
    # JSON under the name of a table is read as what it is: no table's first line begins so.
    is_json = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
    usual = None if is_json else _DELIMITERS.get(inner_suffix(path))
    if usual and (said := _SEPARATOR_LINE.match(head)):
        handle.read(said.end())
        return "row", csv_values(handle, path, said[1].decode(), lines_before=1)
    if usual:
        return "row", csv_values(handle, path, _delimiter_of(head, usual))
    in_lines, values = values_by_layout(handle, path, head)
    return ("line" if in_lines else "row"), values


def _delimiter_of(head: bytes, usual: str) -> str:
    """Return what separates the cells of a table by its first line: the usual sign, or, where that line has
    none outside of quotes, the semicolon or the tab that spreadsheets of other languages write, or a bar."""
    names = _IN_QUOTES.sub(b"", head.split(b"\n", 1)[0])
    return next((sign for sign in (usual, ";", "\t", "|") if sign.encode() in names), usual)
