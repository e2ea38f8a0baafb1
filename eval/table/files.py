"""The table as files: JSON with every number, Markdown, CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.table.display import LEGEND, aggregation_lines, grid, table_notes
from eval.table.scores import Results
from eval.table.table import COLUMNS, Rows
from instruction_modelling.files.whole import write_json, write_text

# Of each column's fields in a CSV file.
CSV_ENDS = ("", "_error", "_runs", "_part", "_without")


def write_table_json(
    path: Path, rows: Rows, models: Sequence[Results], aggregation: str, beside: dict[str, Any]
) -> None:
    """Write every number; `beside` holds the comparison and the paper's row where they were asked for."""
    value = {
        "aggregation": aggregation,
        "about": aggregation_lines(aggregation),
        "columns": COLUMNS,
        "rows": {name: {column: asdict(cell) for column, cell in row.items()} for name, row in rows.items()},
        "models": {
            results.name: {
                "folder": str(results.folder),
                "problems": results.problems,
                "losses": results.losses,
                "cut": results.cut,
                "scores": {key: asdict(score) for key, score in results.scores.items()},
            }
            for results in models
        },
        **beside,
    }
    write_json(path, value)


def write_table_markdown(path: Path, rows: Rows, models: Sequence[Results], aggregation: str) -> None:
    """Write the table in Markdown, with what its columns are, what it lacks and how it was put together."""
    lines = grid(rows)
    about = aggregation_lines(aggregation)
    text = [
        f"| {' | '.join(lines[0])} |",
        "|---" + "|--:" * (len(lines[0]) - 1) + "|",
        *(f"| {' | '.join(line)} |" for line in lines[1:]),
        "",
        LEGEND,
        "",
        *(f"- {note}" for note in table_notes(rows, models)),
        "",
        about[0],
        "",
        *(line.strip() for line in about[1:]),
    ]
    write_text(path, "\n".join(text) + "\n")


def write_table_csv(path: Path, rows: Rows) -> None:
    """Write a line a model: each column's value, its error, of how many runs it is, of how many items where
    it is not of all, and the benchmarks that it, or one of its runs, lacks."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["model", *(f"{column}{end}" for column in COLUMNS for end in CSV_ENDS)])
    for name, row in rows.items():
        cells = [row[column] for column in COLUMNS]
        numbers = (
            (
                cell.value,
                cell.error,
                cell.runs,
                "; ".join(cell.part),
                "; ".join(cell.missing) if cell.incomplete else "",
            )
            for cell in cells
        )
        writer.writerow([name, *(number for of_cell in numbers for number in of_cell)])
    write_text(path, buffer.getvalue())
