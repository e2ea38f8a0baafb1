"""Stamps, which answer "is this made already, from the same inputs and by the same command?"

What something was made from is a stamp: named facts, JSON values. It stands in a file beside what was made
(or within it), and what is there counts as made where its stamp equals the one that would be written now."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instruction_modelling.files.durable import file_sha256
from instruction_modelling.files.whole import write_json

Stamp = Mapping[str, Any]


def stamp_path(output: Path) -> Path:
    """Return where the stamp of an output is kept: `.NAME.made` beside it."""
    return output.with_name(f".{output.name}.made")


def content_of(path: Path) -> str:
    """Return what tells a file's contents from others, as a fact of a stamp: its sha256, or `missing`."""
    return file_sha256(path) if path.is_file() else "missing"


def plain(stamp: Stamp) -> dict[str, Any]:
    """Return the stamp as JSON gives it back, so that tuples and paths compare as they were written."""
    return json.loads(json.dumps(dict(stamp), sort_keys=True, default=str))


def differing(before: Stamp, now: Stamp) -> list[str]:
    """Return the names of the facts that differ, sorted; a fact that only one of the two has differs."""
    before, now = plain(before), plain(now)
    absent = object()
    return sorted(name for name in {*before, *now} if before.get(name, absent) != now.get(name, absent))


def read_stamp(path: Path) -> dict[str, Any] | None:
    """Return the stamp that a file holds; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_made(outputs: Iterable[Path], stamp: Stamp) -> bool:
    """Return whether every output is there and the first one's stamp is this one."""
    outputs = list(outputs)
    before = read_stamp(stamp_path(outputs[0]))
    return before is not None and all(path.exists() for path in outputs) and not differing(before, stamp)


def mark_made(output: Path, stamp: Stamp) -> None:
    """Write down what an output was made from.

    Raises:
        UserError: the stamp cannot be written.
    """
    write_json(stamp_path(output), plain(stamp))


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, for a fact too long to be kept whole."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
