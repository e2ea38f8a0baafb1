"""NAME.part, the beginning of a file that is being fetched, and NAME.part.json, which says what it is the
beginning of."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from instruction_modelling.files.durable import file_sha256, rename, replacing
from instruction_modelling.files.locks import Locked, locked

logger = logging.getLogger(__name__)


class PartialFile:
    """What has come of a file, open for appending.

    It is no `files.whole.whole_file`: what has come must outlive the process, so that the next one goes on
    from there.
    """

    def __init__(self, target: Path, descriptor: int):
        self.target, self.path = target, part_path(target)
        # The lock's own descriptor, so that what is written is what is locked.
        self._handle = os.fdopen(descriptor, "wb", closefd=False)
        self._handle.seek(0, os.SEEK_END)
        self._note = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        """Return the bytes that have come."""
        self._handle.flush()
        return os.fstat(self._handle.fileno()).st_size

    def append(self, piece: bytes) -> None:
        """Add what comes next."""
        self._handle.write(piece)

    def restart(self) -> None:
        """Let go of what has come."""
        self._handle.truncate(0)
        self._handle.seek(0)
        self._note.unlink(missing_ok=True)

    @property
    def note(self) -> dict[str, object]:
        """Return what was written down of the file; empty where nothing can be read."""
        with suppress(OSError, ValueError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return note if isinstance(note, dict) else {}
        return {}

    @note.setter
    def note(self, note: dict[str, object]) -> None:
        """Write down what is known of the file."""
        if self.note != note:
            # Its OSError tells a full disk from a wrong folder, which the caller says differently.
            with replacing(self._note) as handle:
                handle.write(json.dumps(note).encode("utf-8") + b"\n")

    def sha256(self) -> str:
        """Return the hex digest of what has come, which is then on the disk."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        return file_sha256(self.path)

    def finish(self) -> None:
        """Give it the file's name."""
        rename(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def is_named(self) -> bool:
        """Return whether NAME.part is still this file: another process may have finished and renamed it."""
        with suppress(FileNotFoundError):
            return self.path.stat().st_ino == os.fstat(self._handle.fileno()).st_ino
        return False

    def close(self) -> None:
        """Write out what is still in the buffer, and leave nothing behind where nothing came."""
        with suppress(OSError):
            if self.size == 0 and self.is_named():
                self._note.unlink(missing_ok=True)
                self.path.unlink()
        self._handle.close()


def part_path(target: Path) -> Path:
    """Return where the beginning of a file is kept."""
    return target.with_name(target.name + ".part")


@contextmanager
def exclusive_part(target: Path, stop: threading.Event | None = None) -> Iterator[PartialFile | None]:
    """Yield NAME.part, held by this process alone as long as the block; wait for another that has it.

    Yields:
        the part; None if `stop` is set meanwhile.

    Raises:
        OSError: NAME.part cannot be opened.
    """

    def say_waiting() -> None:
        logger.info("%s: another process is fetching it; waiting", target)

    wait = stop.wait if stop is not None else time.sleep
    while True:
        with ExitStack() as stack:
            try:
                descriptor = stack.enter_context(locked(part_path(target), on_wait=say_waiting, sleep=wait))
            except Locked:
                yield None
                return
            part = PartialFile(target, descriptor)
            # Else the other process has finished and renamed it: what is locked is the whole file.
            if part.is_named():
                try:
                    yield part
                finally:
                    part.close()
                return
