"""Conversions of a few rows, for the tests of formats."""

from pathlib import Path
from typing import Any

from raw_samples import read_lines, write_lines

from instruction_modelling.sources.conversion.convert import convert
from instruction_modelling.sources.conversion.options import ConversionOptions
from instruction_modelling.sources.conversion.report import ConversionReport
from instruction_modelling.sources.conversion.templates import load_templates


class WordTokenizer:
    """One token a word, and one before the text, as Llama's."""

    name_or_path = "words"

    def __call__(self, texts: list[str], verbose: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] + [2] * len(text.split()) for text in texts]}


def converted(
    name: str, rows: list[Any] | Path, folder: Path, **options: Any
) -> tuple[list[Any], ConversionReport]:
    """Return the rows written and the report; what is always true of them is checked here.

    Args:
        options: of `ConversionOptions`; templates may be a file.
    """
    path = rows if isinstance(rows, Path) else write_lines(folder / "raw" / f"{name}.jsonl", rows)
    if isinstance(options.get("templates"), Path):
        options["templates"] = load_templates(options["templates"])
    report = convert(name, [path], folder / f"{name}_data.jsonl", ConversionOptions(**options))
    written = read_lines(report.output)
    assert report.rows_read == report.rows_written + report.refused.total() + report.left_out.total()
    assert len(written) == report.rows_written
    assert len({row["id"] for row in written}) == len(written)
    assert all(list(row) == ["dataset", "id", "messages"] for row in written)
    assert (len(read_lines(report.refusals)) if report.refusals.exists() else 0) == report.refused.total()
    return written, report


def contents(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (first letter of the role, content) of each message of a row."""
    return [(message["role"][0], message["content"]) for message in row["messages"]]
