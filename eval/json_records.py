"""The objects of a file, whether they stand in one JSON list or a line each."""

import hashlib
from pathlib import Path
from typing import Any

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import BLANK, array_elements, lines, snippet


def read_records(path: Path, hint: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file in its order, each behind where it stands ("FILE:LINE", or "FILE: entry N",
    counted from 0).

    Raises:
        UserError: the file cannot be read (then followed by `hint`), or an entry is no JSON object.
    """
    records: list[tuple[str, dict[str, Any]]] = []
    try:
        with path.open("rb") as handle:
            is_list = handle.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
            handle.seek(0)
            entries = (array_elements if is_list else lines)(handle, hashlib.sha256(), path)
            for number, value in entries:
                where = f"{path}: entry {number - 1}" if is_list else f"{path}:{number}"
                if value is BLANK:
                    continue
                if isinstance(value, RowRefused):
                    raise UserError(f"{where}: {value.reason}: {value.detail}. {hint}")
                if not isinstance(value, dict):
                    raise UserError(f"{where}: is {snippet(value)}; it must be an object. {hint}")
                records.append((where, value))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}. {hint}") from None
    return records
