"""What a search for overlaps writes: results, the table, lists of what to leave out, and the training file
without it."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.analysis.overlap.batches import Batch, batches, decoded
from instruction_modelling.analysis.overlap.index import OverlapSettings
from instruction_modelling.analysis.overlap.results import (
    KINDS,
    FileSummary,
    Overlap,
    strongest_examples,
    strongest_of_rows,
    summaries_of_files,
)
from instruction_modelling.analysis.overlap.search import SearchResult
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.files.whole import whole_file, write_json

_LONGEST_EXAMPLE = 100


@dataclass(frozen=True)
class OverlapReport:
    """A finished search, by the files that it compared."""

    train: Path
    tests: Sequence[Path]
    settings: OverlapSettings
    search: SearchResult
    summaries: list[FileSummary]
    """One for each test file."""


def overlap_report(
    train: Path, tests: Sequence[Path], settings: OverlapSettings, search: SearchResult
) -> OverlapReport:
    """Return a search with the summaries of its test files."""
    return OverlapReport(train, tests, settings, search, summaries_of_files(search.overlaps, len(tests)))


def overlap_results(report: OverlapReport) -> dict[str, Any]:
    """Return what was compared and found, as results.json has it."""
    search = report.search
    tests = [
        {
            "path": str(path),
            "items": counts.items,
            "texts": counts.texts,
            "texts_too_short": counts.short,
            "settings_shared": counts.shared,
            "items_refused": counts.refused,
            "items_with_overlap": len(summary.items),
            "by_kind": summary.by_kind(),
            "train_rows_with_overlap": summary.train_rows,
        }
        for path, counts, summary in zip(report.tests, search.tests, report.summaries, strict=True)
    ]
    return {
        "train": {
            "path": str(report.train),
            "rows": search.train_rows,
            "rows_refused": search.train_refused,
            "rows_with_overlap": sum(1 for _ in strongest_of_rows(search.overlaps)),
        },
        "tests": tests,
        "common_runs": search.common_runs,
        "passes": search.passes,
        "settings": asdict(report.settings),
    }


# -- for the terminal ---------------------------------------------------------------------------------------


def overlap_table_lines(results: dict[str, Any]) -> Iterator[str]:
    """Yield what the training file has, and a line for each test file."""
    train, tests = results["train"], results["tests"]
    yield (
        f"{train['path']}: {train['rows_with_overlap']:,} of {train['rows']:,} rows overlap with a test set"
        + (f" ({train['rows_refused']:,} more could not be read)" if train["rows_refused"] else "")
    )
    if results["common_runs"]:
        yield f"{results['common_runs']:,} runs of words are in too many test items to count"
    width = max(len(test["path"]) for test in tests)
    yield (
        f"\n{'test file':{width}}  {'items':>9}  {'overlap':>9}  {'exact':>7}  {'contained':>9}  "
        f"{'partial':>7}  {'train rows':>10}"
    )
    for test in tests:
        kinds = test["by_kind"]
        yield (
            f"{test['path']:{width}}  {test['items']:9,}  {test['items_with_overlap']:9,}  "
            f"{kinds['exact']:7,}  {kinds['contained']:9,}  {kinds['partial']:7,}  "
            f"{test['train_rows_with_overlap']:10,}"
        )
        if test["settings_shared"]:
            yield (
                f"{'':{width}}  {test['settings_shared']:,} system prompts and texts of tool definitions "
                "that several items have are not compared"
            )
        if test["items_refused"]:
            yield f"{'':{width}}  {test['items_refused']:,} items could not be read"


def example_lines(report: OverlapReport, most: int) -> Iterator[str]:
    """Yield the strongest overlaps of each test file, at most so many."""
    for overlaps in strongest_examples(report.search.overlaps, report.summaries, most):
        for overlap in overlaps:
            test = overlap.test
            words = test.words
            if len(words) > _LONGEST_EXAMPLE:
                words = words[:_LONGEST_EXAMPLE] + "..."
            yield (
                f"\n{overlap.kind} ({overlap.share:.0%}): {report.tests[test.file]}:{test.line} "
                f"({test.field}) in {report.train}:{overlap.train_line} ({overlap.train_field})\n  {words}"
            )


# -- files --------------------------------------------------------------------------------------------------


def write_lists(folder: Path, report: OverlapReport, results: dict[str, Any]) -> str:
    """Write overlaps.jsonl, remove_train.jsonl, remove_test.jsonl and results.json; return a line that says
    so.

    Raises:
        UserError: a file cannot be written.
    """
    overlaps = report.search.overlaps
    _write_records(folder / "overlaps.jsonl", (_overlap_record(report, overlap) for overlap in overlaps))
    kinds: Counter[str] = Counter()
    _write_records(folder / "remove_train.jsonl", _train_removals(report, kinds))
    _write_records(folder / "remove_test.jsonl", _test_removals(report))
    write_json(folder / "results.json", results)
    return (
        f"\nwritten to {folder}: overlaps.jsonl ({len(overlaps):,} pairs), remove_train.jsonl "
        f"({kinds.total():,} rows: "
        + ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS)
        + f"), remove_test.jsonl ({sum(len(summary.items) for summary in report.summaries):,} items), "
        "results.json"
    )


def _overlap_record(report: OverlapReport, overlap: Overlap) -> dict[str, Any]:
    test = overlap.test
    return {
        "train_file": str(report.train),
        "train_line": overlap.train_line,
        "train_id": overlap.train_name,
        "train_field": overlap.train_field,
        "test_file": str(report.tests[test.file]),
        "test_line": test.line,
        "test_id": test.name,
        "test_field": test.field,
        "kind": overlap.kind,
        "share": overlap.share,
        "words": test.words,
    }


def _train_removals(report: OverlapReport, kinds: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the training rows to leave out, and count them by kind."""
    for overlap in strongest_of_rows(report.search.overlaps):
        kinds[overlap.kind] += 1
        yield {
            "file": str(report.train),
            "line": overlap.train_line,
            "id": overlap.train_name,
            "kind": overlap.kind,
            "share": overlap.share,
            "test_file": str(report.tests[overlap.test.file]),
            "test_line": overlap.test.line,
        }


def _test_removals(report: OverlapReport) -> Iterator[dict[str, Any]]:
    for path, summary in zip(report.tests, report.summaries, strict=True):
        for line, strongest in sorted(summary.items.items()):
            yield {
                "file": str(path),
                "line": line,
                "id": strongest.item_name,
                "kind": strongest.kind,
                "share": strongest.share,
                "train_line": strongest.train_line,
            }


def _write_records(target: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write JSON Lines by orjson, for there may be millions."""
    with whole_file(target) as handle:
        for record in records:
            handle.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def write_kept_rows(source: Path, target: Path, leave_out: set[int]) -> tuple[int, int]:
    """Copy the rows whose (1-based) lines are not in `leave_out` to a JSON Lines file; lines of JSON Lines
    are copied byte for byte, also those that cannot be read.

    Returns:
        (rows kept, rows left out)

    Raises:
        UserError: the source has rows that cannot be written as JSON, or the target cannot be written.
    """
    kept = left_out = 0
    with whole_file(target) as handle:
        for batch in batches(source):
            for line, raw in _rows_as_lines(batch, source, leave_out):
                if line in leave_out:
                    left_out += 1
                else:
                    kept += 1
                    handle.write(raw)
    return kept, left_out


def _rows_as_lines(batch: Batch, source: Path, leave_out: set[int]) -> Iterator[tuple[int, bytes]]:
    """Yield (1-based line, the row as a line of JSON Lines) of each row; nothing in place of rows left out
    that would have to be encoded."""
    if batch.raw is not None:
        for line, raw in enumerate(io.BytesIO(batch.raw), start=batch.first_line):
            if raw.strip():
                yield line, raw if raw.endswith(b"\n") else raw + b"\n"
        return
    for line, value in decoded(batch):
        yield line, b"" if line in leave_out else _json_line(value, f"{source}:{line}")


def _json_line(value: Any, where: str) -> bytes:
    """Return a row as a line of JSON Lines; raise UserError where it cannot be one."""
    advice = "this row cannot be copied: mend or remove it first"
    if isinstance(value, RowRefused):
        raise UserError(f"{where}: {value.reason}: {value}; {advice}")
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise UserError(f"{where}: cannot be written as JSON ({error}); {advice}") from None
