"""Whether a file is what its name says, by its first and last bytes: what servers send in place of data is named."""

import os
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_EDGE = 4096
# (first bytes, last bytes after white space), any of which a whole file of the kind begins and ends with.
_TEXT = {".json": (b"[{\"", b"]}\""), ".jsonl": (b"{", b"}"), ".ndjson": (b"{", b"}")}
_MAGIC = {".parquet": b"PAR1", ".zip": b"PK", ".xlsx": b"PK", ".gz": b"\x1f\x8b", ".bz2": b"BZh"}


def wrong_content(path: Path, name: str | None = None) -> str | None:
    """Why a file cannot be what its name (default: the path's) says, in words; None where nothing speaks against it."""
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
    if start[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")) and suffix not in (".html", ".xml"):
        return "it is a web page, not the file"
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        return f"it does not begin as a {suffix} file"
    if suffix == ".parquet" and not tail.endswith(_MAGIC[suffix]):
        return "its end is missing"
    if suffix in _TEXT:
        first, last = _TEXT[suffix]
        if start[:1] not in {first[i:i + 1] for i in range(len(first))}:
            return f"it does not begin as a {suffix} file"
        if tail[-1:] not in {last[i:i + 1] for i in range(len(last))}:
            return "its end is missing"
    return None
