"""NAME.part, the beginning of a file that is being fetched, and NAME.part.json, which says what it is the
beginning of."""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from instruction_modelling.files.durable import file_sha256, rename, replace_file

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.2


class PartialFile:
    """What has come of a file, open for appending."""

    def __init__(self, target: Path, handle: BinaryIO):
        self.target, self._handle = target, handle
        self.path = part_of(target)
        self._note = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        self._handle.flush()
        return os.fstat(self._handle.fileno()).st_size

    def append(self, piece: bytes) -> None:
        """Adds what comes next."""
        self._handle.write(piece)

    def restart(self) -> None:
        """Lets go of what has come."""
        self._handle.truncate(0)
        self._note.unlink(missing_ok=True)

    @property
    def note(self) -> dict[str, object]:
        """What was written down of the file; empty where nothing can be read."""
        with suppress(OSError, ValueError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return note if isinstance(note, dict) else {}
        return {}

    @note.setter
    def note(self, note: dict[str, object]) -> None:
        if self.note != note:
            replace_file(self._note, json.dumps(note) + "\n")

    def sha256(self) -> str:
        """The hex digest of what has come, which is then on the disk."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        return file_sha256(self.path)

    def finish(self) -> None:
        """Gives it the file's name."""
        rename(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def is_named(self) -> bool:
        """Whether NAME.part is still this file: another process may have finished and renamed it."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_ino == os.fstat(self._handle.fileno()).st_ino
        return False

    def remove_if_empty(self) -> None:
        """Leaves nothing behind where nothing came."""
        with suppress(OSError):
            if self.size == 0 and self.is_named():
                self._note.unlink(missing_ok=True)
                self.path.unlink()


def part_of(target: Path) -> Path:
    """Where the beginning of a file is kept."""
    return target.with_name(target.name + ".part")


@contextmanager
def own_part(target: Path, stop: threading.Event | None = None) -> Iterator[PartialFile | None]:
    """NAME.part, this process's alone as long as the block; waits for another that has it. None if `stop` is
    set meanwhile."""
    while True:
        handle = part_of(target).open("ab")
        try:
            if not _locked(handle, target, stop):
                yield None
                return
            part = PartialFile(target, handle)
            if part.is_named():
                try:
                    yield part
                finally:
                    # While it is still this process's.
                    part.remove_if_empty()
                return
        finally:
            handle.close()


def _locked(handle: BinaryIO, target: Path, stop: threading.Event | None) -> bool:
    waited = stop or threading.Event()
    told = False
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if not told:
            told = True
            logger.info("%s: another process is fetching it; waiting", target)
        if waited.wait(_LOOK_AGAIN):
            return False
