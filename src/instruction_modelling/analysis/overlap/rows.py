"""A file without some of its rows, and files of records."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.analysis.overlap.texts import Batch, batches, decoded
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.durable import write_file

_RECORDS_AT_ONCE = 500


def kept_rows(source: Path, target: Path, leave_out: set[int]) -> tuple[int, int]:
    """Copies the rows whose (1-based) lines are not in `leave_out` to a JSON Lines file, written aside and
    renamed; lines of JSON Lines are copied byte for byte, also those that cannot be read.

    Returns:
        (rows kept, rows left out)

    Raises:
        UserError: the source has rows that cannot be written as JSON, or the target cannot be written.
    """
    counts = [0, 0]

    def parts() -> Iterator[bytes]:
        for batch in batches(source):
            yield b"".join(_lines(batch, leave_out, counts, source))

    _write(target, parts())
    return counts[0], counts[1]


def write_records(target: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON Lines file aside, a few records at a time, and renames it.

    Raises:
        UserError: it cannot be written.
    """

    def parts() -> Iterator[bytes]:
        held: list[bytes] = []
        for record in records:
            held.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            if len(held) == _RECORDS_AT_ONCE:
                yield b"".join(held)
                held = []
        yield b"".join(held)

    _write(target, parts())


def _write(target: Path, parts: Iterable[bytes]) -> None:
    aside = target.with_name(f".{target.name}.part")
    try:
        aside.unlink(missing_ok=True)
        write_file(aside, parts)
        aside.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _lines(batch: Batch, leave_out: set[int], counts: list[int], source: Path) -> Iterator[bytes]:
    if batch.raw is not None:
        for line, raw in enumerate(io.BytesIO(batch.raw), start=batch.first_line):
            if raw.strip():
                counts[line in leave_out] += 1
                if line not in leave_out:
                    yield raw if raw.endswith(b"\n") else raw + b"\n"
        return
    for line, value in decoded(batch):
        counts[line in leave_out] += 1
        if line in leave_out:
            continue
        if isinstance(value, RowRefused):
            raise UserError(
                f"{source}:{line}: {value.reason}: {value}; this row cannot be copied: mend or remove it "
                "first"
            )
        try:
            yield orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError as error:
            raise UserError(
                f"{source}:{line}: cannot be written as JSON ({error}); this row cannot be copied: mend or "
                "remove it "
                "first"
            ) from None
