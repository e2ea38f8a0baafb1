"""What was fetched from where: the hash and size of every file by its address, kept in a file that can be
committed."""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import replace_file


class DownloadLock:
    """A JSON file of {address: {"sha256", "bytes"}}, sorted, which several processes may add to."""

    def __init__(self, path: Path):
        self.path = path
        self._mutex = threading.Lock()

    def sha256(self, url: str) -> str | None:
        """The hex digest that was recorded for an address.

        Raises:
            UserError: the lock file cannot be read.
        """
        return self._read().get(url, {}).get("sha256")

    def record(self, url: str, sha256: str, size: int) -> None:
        """Notes what an address gave.

        Raises:
            UserError: the lock file cannot be read or written.
        """
        entry: dict[str, str | int] = {"sha256": sha256, "bytes": size}
        if self._read().get(url) == entry:
            return
        try:
            with self._mutex, self._alone():
                entries = {**self._read(), url: entry}
                replace_file(self.path, json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror or error}") from error

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path}: not a lock file that can be read ({error}); restore it, or remove it to have "
                "everything recorded anew"
            ) from error
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise UserError(f"{self.path}: not a lock file; remove it to have everything recorded anew")
        return entries

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The folder's lock, so that no other process's entry is lost between reading and writing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
