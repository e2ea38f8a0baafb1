"""The replies of a judge on disk: one line of JSON each, added as they come, so that no request is paid
twice."""

import fcntl
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import append_line

logger = logging.getLogger(__name__)


class ReplyCache:
    """Replies by the hash of their request.

    The file belongs to one process as long as the cache is open. A last line that a killed run left torn is
    cut off.

    Args:
        path: the file; None keeps replies in memory only.
    """

    def __init__(self, path: Path | None):
        """Raises:
        UserError: the file cannot be used, or another process is using it.
        """
        self._path, self._lock, self._handle = path, threading.Lock(), -1
        self._replies: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._take()
            self._read()
        except OSError as error:
            self.close()
            raise UserError(
                f"{path}: cannot be used for the judge's replies: {error.strerror or error}"
            ) from error
        except UserError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, digest: str) -> dict[str, Any] | None:
        """The reply to a request, None where there is none."""
        return self._replies.get(digest)

    def put(self, digest: str, reply: dict[str, Any], hide: str = "") -> None:
        """Keeps a reply, in memory and on disk; the text `hide` never gets there.

        Raises:
            UserError: it cannot be written; it is then kept in memory.
        """
        line = json.dumps({"request": digest, **reply})
        if hide:
            line = line.replace(hide, "***")
        with self._lock:
            self._replies[digest] = reply
            if self._path is None:
                return
            try:
                append_line(self._path, line)
            except OSError as error:
                raise UserError(
                    f"{self._path}: a reply could not be written: {error.strerror or error}. Make room and "
                    "run "
                    "the same command again; the replies before are kept"
                ) from error

    def close(self) -> None:
        """Lets go of the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _take(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._path}: another run is asking the judge and keeps its replies here; wait for it, or "
                "end "
                "it"
            ) from None
        except OSError:
            # A file system without locks is taken as it is.
            return

    def _read(self) -> None:
        assert self._path is not None
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s: the last line is torn, as a killed run leaves it; it is cut off", self._path)
            os.ftruncate(self._handle, whole)
        broken = 0
        for line in content[:whole].splitlines():
            try:
                record = json.loads(line)
                self._replies[record.pop("request")] = record
            except (ValueError, KeyError, TypeError, AttributeError):
                broken += 1
        if broken:
            logger.warning("%s: %d lines hold no reply; those requests are sent again", self._path, broken)
