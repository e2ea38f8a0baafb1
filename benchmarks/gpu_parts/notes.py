"""Results as they come: a line of JSON for each, so that a run that is cut off has told what it found."""

import contextlib
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS, ERRORS = "results.jsonl", "errors.txt"


class Notes:
    """The results of one group of parts, appended to a folder's files and printed."""

    def __init__(self, folder: Path, group: str):
        self.folder, self._group = folder, group

    def add(self, part: str, **values: Any) -> None:
        """Write one result."""
        line = {"group": self._group, "part": part, **values}
        with (self.folder / RESULTS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        print(f"[{self._group}] {part}: {_shown(values)}", flush=True)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run one part: what it raises is a result too, and the next part goes on."""
        begin = time.monotonic()
        try:
            yield
        except Exception as error:
            with (self.folder / ERRORS).open("a", encoding="utf-8") as handle:
                handle.write(f"== {self._group}: {name}\n{traceback.format_exc()}\n")
            first = (str(error).strip().splitlines() or [""])[0]
            seconds = round(time.monotonic() - begin, 1)
            self.add(name, failed=f"{type(error).__name__}: {first[:300]}", part_seconds=seconds)


def _shown(values: dict[str, Any]) -> str:
    numbers = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in values.items()}
    return "  ".join(f"{name} {value}" for name, value in numbers.items())
