"""Writers of what a user finds under a name: all of it, or what was there before.

`files.durable.replacing` does the writing and flushing and raises the system's errors; here one becomes an
error that a user can act on, and a folder that is absent is made."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable


def write_text(path: Path, text: str) -> None:
    """Give a file new contents, UTF-8, whole or not at all; make its folder where it is absent.

    Raises:
        UserError: it cannot be written; what was there before is untouched.
    """
    with whole_file(path) as handle:
        handle.write(text.encode("utf-8"))


def write_json(path: Path, value: Any, ascii_only: bool = False) -> None:
    """Write one JSON value, indented by one space; as `write_text`.

    `ascii_only` escapes all other characters, for texts of a stranger: they may hold half a surrogate pair,
    which UTF-8 cannot."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=ascii_only) + "\n")


def write_json_lines(path: Path, records: Iterable[Any], ascii_only: bool = False) -> int:
    """Write a line of JSON per record, as the records come, and return how many; as `write_json`."""
    count = 0
    with whole_file(path) as handle:
        for count, record in enumerate(records, start=1):  # noqa: B007 (the last value is the count)
            handle.write(json.dumps(record, ensure_ascii=ascii_only).encode("utf-8") + b"\n")
    return count


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written in parts, as `durable.replacing` does, but make its folder where it is absent
    and say what went wrong in words for a user.

    Raises:
        UserError: it cannot be written; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable.replacing(path) as handle:
            yield handle
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}; what was there before is untouched. "
            "Make room or choose another folder"
        ) from error
