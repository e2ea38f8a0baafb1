"""What a conversion leaves: the rows, the rows that were refused, those filtered out, a card; and its report
in memory."""

import hashlib
import io
import os
import platform
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.durable import rename, sync
from instruction_modelling.sources.conversion.settings import Messages

_MOST_EXAMPLES = 10


@dataclass(frozen=True)
class Refusal:
    """A row that could not be used: where it stands (`line`: of a text, element of an array, row of a table)
    and why."""

    file: str
    line: int
    reason: str
    detail: str


@dataclass
class ConversionReport:
    """What became of every row of one conversion."""

    format: str
    output: Path
    rows_read: int = 0
    rows_written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Rows refused, by reason."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows left out on purpose, by reason."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was changed in rows that were written, and how often."""
    examples: list[Refusal] = field(default_factory=list)
    """The first refusals; all of them are in the file beside the output."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """The files read: file, sha256, bytes."""
    sha256: str = ""
    """Of the output."""

    @property
    def card(self) -> Path:
        """The file that describes the output, for programs."""
        return beside(self.output, ".card.json")

    @property
    def refusals(self) -> Path:
        """The file that lists every refused row; there is none where no row was refused."""
        return beside(self.output, ".refused.jsonl")


def beside(output: Path, ending: str) -> Path:
    """`NAME_data.jsonl` with another ending."""
    return output.with_name(output.name.removesuffix(".jsonl") + ending)


class _Written(io.FileIO):
    """A file whose bytes are shown to `watch` as they are written."""

    def __init__(self, path: Path, watch: Callable[[Any], None] | None):
        super().__init__(path, "wb")
        self._watch = watch

    def write(self, chunk: Any) -> int:
        count = super().write(chunk)
        if self._watch is not None:
            self._watch(memoryview(chunk)[:count])
        return count


class Outputs:
    """The files of one conversion, written aside; `finish` gives them their names, and leaving without it
    removes them."""

    def __init__(self, report: ConversionReport, keep: Callable[[str, Messages], str | None] | None = None):
        """`keep` says of (format, messages) why a row is left out, or None to keep it."""
        self.report, self._keep = report, keep
        self._digest = hashlib.sha256()
        self._aside: dict[Path, tuple[Path, BinaryIO]] = {}

    def __enter__(self) -> "Outputs":
        try:
            self.report.output.parent.mkdir(parents=True, exist_ok=True)
            self._rows = self._open(self.report.output, self._digest.update)
        except OSError as error:
            raise UserError(f"{self.report.output}: cannot be written: {error.strerror}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for aside, handle in self._aside.values():
            # What is still in a buffer is of no use, and may not fit on the disk.
            with suppress(OSError):
                handle.close()
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{self.report.output}: cannot be written: {error.strerror or error}") from None

    def _open(self, path: Path, watch: Callable[[Any], None] | None = None) -> BinaryIO:
        if path not in self._aside:
            aside = path.with_name(f".{path.name}.{os.getpid()}.part")
            self._aside[path] = (aside, io.BufferedWriter(_Written(aside, watch), 1 << 20))
        return self._aside[path][1]

    def write(self, format_name: str, row: dict[str, Any]) -> None:
        """Writes a row, or lists it with the rows left out."""
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        reason = self._keep and self._keep(format_name, row["messages"])
        if reason:
            self.report.left_out[reason] += 1
            self._open(beside(self.report.output, ".filtered.jsonl")).write(line)
            return
        self.report.rows_written += 1
        self._rows.write(line)

    def refuse(self, source: Path, line: int, refused: RowRefused) -> None:
        """Counts and lists a row that cannot be used."""
        refusal = Refusal(str(source), line, refused.reason, refused.detail)
        self.report.refused[refused.reason] += 1
        if len(self.report.examples) < _MOST_EXAMPLES:
            self.report.examples.append(refusal)
        listed = {key: _printable(value) for key, value in asdict(refusal).items()}
        self._open(self.report.refusals).write(orjson.dumps(listed, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self, options: dict[str, Any]) -> None:
        """Gives the files their names and writes the card.

        Raises:
            UserError: not one row was written.
        """
        report = self.report
        if not report.rows_written:
            why = ", ".join(
                f"{count} {reason}" for reason, count in (report.refused + report.left_out).most_common()
            )
            where = "".join(f"\n  {r.file}:{r.line}: {r.reason}: {r.detail}" for r in report.examples)
            raise UserError(
                f"{report.format}: none of {report.rows_read} rows could be converted "
                f"({why or 'no rows'}){where}"
            )
        self._rows.flush()
        report.sha256 = self._digest.hexdigest()
        for path in (report.refusals, beside(report.output, ".filtered.jsonl")):
            if path not in self._aside:
                path.unlink(missing_ok=True)
        card = {
            "format": report.format,
            "output": report.output.name,
            "sha256": report.sha256,
            "rows_read": report.rows_read,
            "rows_written": report.rows_written,
            "refused": dict(report.refused),
            "left_out": dict(report.left_out),
            "notes": dict(report.notes),
            "sources": report.sources,
            "options": options,
            "versions": _versions(),
        }
        self._open(report.card).write(
            orjson.dumps(card, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        # The card goes first and comes last: where one is, what it describes is there too.
        report.card.unlink(missing_ok=True)
        for path in sorted(self._aside, key=lambda path: (path == report.card, str(path))):
            aside, handle = self._aside[path]
            handle.close()
            sync(aside)
            rename(aside, path)


def _printable(value: Any) -> Any:
    """Half characters, for which a row may be refused, as question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("instruction-modelling", "orjson")},
    }
