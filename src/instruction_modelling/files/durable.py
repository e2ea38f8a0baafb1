"""Files that are whole on the disk or not there, in the system's own terms: writes, flushes and renames that
raise OSError.

Of a checkpoint, its tensors, metrics and manifest are written here, and its folders renamed and removed; what
a library writes beside a saved model is only flushed here (`sync_tree`).

The functions call `os.open`, `os.write`, `os.fsync`, `os.rename`, ... by name each time, so that a test can
stop or fail any one of them."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# What one call hands to the system: large enough to be fast, small enough to be interrupted.
AT_ONCE = 2**24
# What is compared at once of a file that is read back: it fits the processor's cache.
COMPARED = 2**20
# Small pieces are gathered up to this size before they are written.
GATHERED = 2**20


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file that is not there yet and flush it to the disk.

    Returns:
        {"bytes": its size, "sha256": the hex digest of what was given}

    Raises:
        OSError: the file exists, the disk is full, ...
    """
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        for view in _gathered(parts):
            digest.update(view)
            size += len(view)
            _write_all(handle, view)
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _gathered(parts: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Yield the parts' bytes in order: small ones together, large ones as they are."""
    small = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        if len(view) < GATHERED:
            small += view
        if small and (len(small) >= GATHERED or len(view) >= GATHERED):
            yield memoryview(small)
            small = bytearray()
        if len(view) >= GATHERED:
            yield view
    if small:
        yield memoryview(small)


def holds(path: Path, parts: Iterable[bytes | memoryview]) -> bool:
    """Return whether a file holds just what was given to it, byte by byte.

    Raises:
        OSError: it cannot be read.
    """
    piece = bytearray(COMPARED)
    with path.open("rb", buffering=0) as handle:
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):
                count = handle.readinto(memoryview(piece)[: len(view)])
                # A bytearray is compared in one call of the C library; two memoryviews byte by byte.
                read = piece if count == COMPARED else piece[:count]
                if not count or read != view[:count]:
                    return False
                view = view[count:]
        return not handle.read(1)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written in parts, which takes the place of the one that is there when the block ends
    without an error, also over a power cut.

    Raises:
        OSError: it cannot be written; the file is what it was.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.unlink(missing_ok=True)
    try:
        handle = _Written(unfinished)
        try:
            yield handle  # type: ignore[misc]
            handle.end()
        finally:
            handle.close()
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


class _Written:
    """A file that is not there yet, written through `os`; small pieces are gathered into larger writes."""

    def __init__(self, path: Path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o666)
        # Copied, not kept as they come: a library may give a line of 400 bytes in a buffer of 4 KB.
        self._gathered = bytearray()

    def write(self, piece: bytes) -> int:
        """Take a piece; write once there are enough."""
        self._gathered += piece
        if len(self._gathered) >= GATHERED:
            self.flush()
        return len(piece)

    def flush(self) -> None:
        """Hand what was gathered to the system."""
        view = memoryview(self._gathered)
        self._gathered = bytearray()
        _write_all(self._descriptor, view)

    def end(self) -> None:
        """Write the rest and flush the file to the disk."""
        self.flush()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, in one write where the system takes it whole.

    Raises:
        OSError: it cannot be written; a part of the line may be there.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _write_all(handle, memoryview((line + "\n").encode("utf-8")))
    finally:
        os.close(handle)


def _write_all(descriptor: int, view: memoryview) -> None:
    while len(view):
        # A write may take only a part of what it is given.
        view = view[os.write(descriptor, view[:AT_ONCE]) :]


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder within `folder`, and itself, to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() or path.is_dir():
            sync(path)
    sync(folder)


def rename(source: Path, target: Path) -> None:
    """Rename within one folder, and make the names durable."""
    os.rename(source, target)
    sync(target.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder that may be there in part; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def give_usual_permissions(folder: Path) -> None:
    """Give a folder and all in it the permissions that the user's umask says: some libraries, and temporary
    folders, are for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
