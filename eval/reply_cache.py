"""The replies of a judge on disk: one line of JSON each, added as they come, so that no request is paid
twice."""

import json
import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import append_line
from instruction_modelling.files.locks import Locked, locked
from instruction_modelling.rows.json_lines import read_appended

logger = logging.getLogger(__name__)


class ReplyCache:
    """Replies by the hash of their request.

    The file belongs to one process as long as the cache is open. A last line that a killed run left torn is
    cut off.

    Args:
        path: the file; None keeps replies in memory only.

    Raises:
        UserError: the file cannot be used, or another process is using it.
    """

    def __init__(self, path: Path | None):
        self._path, self._mutex, self._held = path, threading.Lock(), ExitStack()
        self._replies: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(path, patience=0))
            self._read(path)
        except Locked:
            raise UserError(
                f"{path}: another run is asking the judge and keeps its replies here; wait for it, or end it"
            ) from None
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
        """Return the reply to a request, None where there is none."""
        return self._replies.get(digest)

    def put(self, digest: str, reply: dict[str, Any], hide: str = "") -> None:
        """Keep a reply, in memory and on disk; the text `hide` never gets there.

        Raises:
            UserError: it cannot be written; it is then kept in memory.
        """
        line = json.dumps({"request": digest, **reply})
        if hide:
            line = line.replace(hide, "***")
        with self._mutex:
            self._replies[digest] = reply
            if self._path is None:
                return
            try:
                append_line(self._path, line)
            except OSError as error:
                raise UserError(
                    f"{self._path}: a reply could not be written: {error.strerror or error}. Make room and "
                    "run the same command again; the replies before are kept"
                ) from error

    def close(self) -> None:
        """Let go of the file."""
        self._held.close()

    def _read(self, path: Path) -> None:
        appended = read_appended(path, mend=True)
        if appended.torn:
            logger.warning("%s: the last line is torn, as a killed run leaves it; it is cut off", path)
        broken = len(appended.broken)
        for _, record in appended.records:
            digest = record.pop("request", None)
            if isinstance(digest, str):
                self._replies[digest] = record
            else:
                broken += 1
        if broken:
            logger.warning("%s: %d lines hold no reply; those requests are sent again", path, broken)
