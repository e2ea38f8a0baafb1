"""Check that a file is what its name says: what servers send in place of data, and what was cut short, is
named.

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
    """Return, in words, why a file cannot be what its name says; None where nothing speaks against it.

    Args:
        name: what the file will be called (default: the path's own name).
    """
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    with path.open("rb") as handle:
        head = handle.read(_EDGE)
        handle.seek(max(0, size - _EDGE))
        tail = handle.read().rstrip()
    suffix = os.path.splitext(name or path.name)[1].lower()
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    instead = _sent_instead(start, suffix, size)
    if instead:
        return instead
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        return f"it does not begin as a {suffix} file"
    if suffix in _PACKED:
        return _unpacking_problem(path, suffix)
    if suffix in _TEXT:
        return _text_problem(start, tail, suffix)
    whole = (suffix != ".parquet" or tail.endswith(_MAGIC[suffix])) and (
        suffix not in (".zip", ".xlsx") or zipfile.is_zipfile(path)
    )
    return None if whole else CUT_SHORT


def _sent_instead(start: bytes, suffix: str, size: int) -> str | None:
    """Return what a server has sent in place of the file, by its first bytes; None where it is nothing
    known."""
    if start.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS, not the file"
    is_page = start[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml"))
    if is_page and suffix not in (".html", ".xml"):
        return "it is a web page, not the file"
    if suffix in _TEXT and size < _EDGE and _ERROR.match(start):
        return "it is an error message, not the file"
    return None


def _unpacking_problem(path: Path, suffix: str) -> str | None:
    try:
        with _PACKED[suffix](path) as unpacked:
            while unpacked.read(2**20):
                pass
    except EOFError:
        return CUT_SHORT
    except (gzip.BadGzipFile, zlib.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            # The disk's fault, not the file's.
            raise
        return f"it is damaged ({error})"
    return None


def _text_problem(start: bytes, tail: bytes, suffix: str) -> str | None:
    first, last = _TEXT[suffix]
    # `in` of an empty slice would be true.
    if not start or start[:1] not in first:
        return f"it does not begin as a {suffix} file"
    return None if tail[-1:] in last else CUT_SHORT
