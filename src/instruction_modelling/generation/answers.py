"""A file of completions that survives a kill: a line for each as it is made."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import append_line
from instruction_modelling.files.stamps import Stamp, differing, plain
from instruction_modelling.files.whole import write_text
from instruction_modelling.generation.base import Completion, Request, Sampling
from instruction_modelling.rows.json_lines import read_appended

logger = logging.getLogger(__name__)


class AnswerFile:
    """Completions on the disk; what is there when a run starts again is not generated again.

    The first line is {"belongs_to": stamp}; a completion's line is {"key", "sample", "text", "tokens",
    "stopped"}. A last line that a kill has cut in two is removed, another one that cannot be read is passed
    over with a warning; both completions are then missing.

    Args:
        path: the file; it and its folder are made where they are absent.
        belongs_to: what the completions depend on: model, prompts and sampling.

    Raises:
        UserError: the file holds completions of something else, or cannot be read or written.
    """

    def __init__(self, path: Path, belongs_to: Stamp):
        self.path = path
        lines = read_appended(path, mend=True)
        entries, unreadable = [entry for _, entry in lines.records], len(lines.broken)
        stamp = entries[0].get("belongs_to") if entries else None
        self.completions: list[Completion] = []
        for entry in entries[1:]:
            try:
                self.completions.append(Completion(**entry))
            except TypeError:
                unreadable += 1
        if self.completions or unreadable or (entries and stamp is None):
            self._check(stamp, belongs_to)
        if unreadable:
            logger.warning(
                "%s: %d broken line%s left out, to be made again", path, unreadable, "s" * (unreadable > 1)
            )
        if not self.completions:
            # Without a completion nothing is lost, whatever the first line said.
            write_text(path, json.dumps({"belongs_to": plain(belongs_to)}, sort_keys=True) + "\n")
        self._made = {(completion.key, completion.sample) for completion in self.completions}

    def _check(self, stamp: Any, belongs_to: Stamp) -> None:
        names = (
            differing(stamp, belongs_to)
            if isinstance(stamp, dict)
            else ["its first line is not one of this program's"]
        )
        if names:
            raise UserError(
                f"{self.path}: holds completions of another model, other prompts or other sampling "
                f"({', '.join(names)}). Remove the file, or name another folder"
            )

    def missing(self, requests: Sequence[Request], sampling: Sampling) -> list[Request]:
        """Return the requests some of whose samples are not there yet."""
        return [
            request
            for request in requests
            if not all((request.key, sample) in self._made for sample in range(sampling.samples))
        ]

    def add(self, completion: Completion) -> bool:
        """Keep a completion and return True; return False for one that is there already, left as it was.

        Raises:
            UserError: it cannot be written.
        """
        if (completion.key, completion.sample) in self._made:
            return False
        try:
            append_line(self.path, json.dumps(asdict(completion)))
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written: {error.strerror or error}; what was there before is kept, "
                "so make room and run the same command again"
            ) from error
        self._made.add((completion.key, completion.sample))
        self.completions.append(completion)
        return True
