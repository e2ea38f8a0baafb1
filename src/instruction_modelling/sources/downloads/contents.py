"""Whether a file is what its name says: what servers send in place of data, and what was cut short, is named.

Text is judged by its first and last bytes; what is packed is unpacked, since its format says whether it is
whole."""

import bz2
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
CUT_SHORT = "its end is missing"
_EDGE = 4096
_ERROR = re.compile(rb'\{\s*"(error|message|detail)"\s*:')
# (first bytes, last bytes after white space), any of which a whole file of the kind begins and ends with.
_TEXT = {".json": (b'[{"', b']}"'), ".jsonl": (b"{", b"}"), ".ndjson": (b"{", b"}")}
_PACKED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open}
_MAGIC = {".parquet": b"PAR1", ".zip": b"PK", ".xlsx": b"PK", ".gz": b"\x1f\x8b", ".bz2": b"BZh"}


def wrong_content(path: Path, name: str | None = None) -> str | None:
    """Why a file cannot be what its name (default: the path's) says, in words; None where nothing speaks
    against it."""
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    with path.open("rb") as handle:
        head = handle.read(_EDGE)
        handle.seek(max(0, size - _EDGE))
        tail = handle.read().rstrip()
    suffix = os.path.splitext(name or path.name)[1].lower()
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS, not the file"
    if start[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")) and suffix not in (
        ".html",
        ".xml",
    ):
        return "it is a web page, not the file"
    if suffix in _TEXT and size < _EDGE and _ERROR.match(start):
        return "it is an error message, not the file"
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        return f"it does not begin as a {suffix} file"
    if suffix == ".parquet" and not tail.endswith(_MAGIC[suffix]):
        return CUT_SHORT
    if suffix in (".zip", ".xlsx") and not zipfile.is_zipfile(path):
        return CUT_SHORT
    if suffix in _PACKED:
        try:
            with _PACKED[suffix](path) as unpacked:
                while unpacked.read(2**20):
                    pass
        except EOFError:
            return CUT_SHORT
        except (gzip.BadGzipFile, zlib.error, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            return f"it is damaged ({error})"
    if suffix in _TEXT:
        first, last = _TEXT[suffix]
        if start[:1] not in {first[i : i + 1] for i in range(len(first))}:
            return f"it does not begin as a {suffix} file"
        if tail[-1:] not in {last[i : i + 1] for i in range(len(last))}:
            return CUT_SHORT
    return None
