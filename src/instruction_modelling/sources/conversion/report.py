"""The report of a conversion, in memory and on the disk: the rows, the rows that were refused, those filtered
out, a card."""

import hashlib
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.whole import whole_file, write_json
from instruction_modelling.sources.conversion.drafts import Messages

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
        """Return the path of the file that describes the output, for programs."""
        return beside(self.output, ".card.json")

    @property
    def refusals(self) -> Path:
        """Return the path of the list of refused rows; there is no such file where no row was refused."""
        return beside(self.output, ".refused.jsonl")

    @property
    def filtered(self) -> Path:
        """Return the path of the list of rows that a mixture's filter left out; there is no such file where
        it left out none."""
        return beside(self.output, ".filtered.jsonl")


def beside(output: Path, ending: str) -> Path:
    """Return the path of `NAME_data.jsonl` with another ending."""
    return output.with_name(output.name.removesuffix(".jsonl") + ending)


class Outputs:
    """The files of one conversion while it is under way."""

    def __init__(
        self,
        report: ConversionReport,
        stack: ExitStack,
        left_out_reason: Callable[[str, Messages], str | None],
    ):
        self.report, self._stack, self._left_out_reason = report, stack, left_out_reason
        self._handles: dict[Path, BinaryIO] = {}
        self._digest = hashlib.sha256()
        self._rows = self._open(report.output)

    def _open(self, path: Path) -> BinaryIO:
        if path not in self._handles:
            self._handles[path] = self._stack.enter_context(whole_file(path))
        return self._handles[path]

    def write(self, format_name: str, row: dict[str, Any]) -> None:
        """Write a row, or list it with the rows left out."""
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        reason = self._left_out_reason(format_name, row["messages"])
        if reason:
            self.report.left_out[reason] += 1
            self._open(self.report.filtered).write(line)
            return
        self.report.rows_written += 1
        self._digest.update(line)
        self._rows.write(line)

    def refuse(self, source: Path, line: int, refused: RowRefused) -> None:
        """Count and list a row that cannot be used."""
        refusal = Refusal(str(source), line, refused.reason, refused.detail)
        self.report.refused[refused.reason] += 1
        if len(self.report.examples) < _MOST_EXAMPLES:
            self.report.examples.append(refusal)
        listed = {key: _printable(value) for key, value in asdict(refusal).items()}
        self._open(self.report.refusals).write(orjson.dumps(listed, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Check that there are rows, and remove what an earlier conversion left and this one does not write.

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
        report.sha256 = self._digest.hexdigest()
        # The card goes first and comes last: where one is, what it describes is there too.
        report.card.unlink(missing_ok=True)
        for path in (report.refusals, report.filtered):
            if path not in self._handles:
                path.unlink(missing_ok=True)


@contextmanager
def conversion_outputs(
    report: ConversionReport,
    options: dict[str, Any],
    left_out_reason: Callable[[str, Messages], str | None] = lambda format_name, messages: None,
) -> Iterator[Outputs]:
    """Open the files of one conversion; they get their names, the card last, when the block ends without an
    error.

    Args:
        options: what the card says of how rows were converted.
        left_out_reason: says of (format, messages) why a row is left out, or None to keep it.

    Raises:
        UserError: not one row was written, or a file cannot be.
    """
    with ExitStack() as stack:
        outputs = Outputs(report, stack, left_out_reason)
        yield outputs
        outputs.finish()
    write_json(
        report.card,
        {
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
        },
    )


def _printable(value: Any) -> Any:
    """Return a text with half characters, for which a row may be refused, as question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("instruction-modelling", "orjson")},
    }
