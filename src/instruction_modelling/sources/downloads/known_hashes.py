"""The record of what was fetched from where: the hash and size of every file by its address, in a file that
can be committed."""

import json
import threading
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import locked
from instruction_modelling.files.whole import write_json


class KnownHashes:
    """A JSON file of {address: {"sha256", "bytes"}}, sorted, which several processes may add to."""

    def __init__(self, path: Path):
        self.path = path
        self._mutex = threading.Lock()

    def sha256(self, url: str) -> str | None:
        """Return the hex digest that was recorded for an address, if any.

        Raises:
            UserError: the lock file cannot be read.
        """
        return self._read().get(url, {}).get("sha256")

    def record(self, url: str, sha256: str, size: int) -> None:
        """Write down what an address gave: its hex digest, and its size in bytes.

        Raises:
            UserError: the lock file cannot be read or written.
        """
        entry: dict[str, str | int] = {"sha256": sha256, "bytes": size}
        if self._read().get(url) == entry:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without the folder's lock an entry of another process, written between our reading and our
            # writing, would be lost.
            with self._mutex, locked(self.path.parent):
                write_json(self.path, dict(sorted({**self._read(), url: entry}.items())))
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
