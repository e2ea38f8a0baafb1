"""Finds texts of test sets in a training set, and writes what to leave out.

    python src/find_overlap.py TRAIN TEST...
    python src/find_overlap.py TRAIN TEST... --output_dir overlap --write_clean

TRAIN and each TEST is a file of rows (JSON Lines, a JSON array, Parquet, tab- or comma-separated, also
gzipped) or of plain lines (.txt, .bz2). Every text of a test item is compared: each message of a chat, each
question, choice and answer. A text of 8 words or more overlaps with a training row that has at least half of
its runs of 8 words; a shorter one, of 4 words or more, with a row that has it as a whole text or line. Case,
punctuation, white space and Unicode forms do not matter. Runs that many test items share (fixed openings,
answer formats) do not count.

Written to --output_dir: overlaps.jsonl (every pair: where, how, the share of runs, the words),
remove_train.jsonl and remove_test.jsonl (file, line, id and worst overlap of each row that has one),
results.json, and with --write_clean the training file without those rows. The exit code is 0 whatever is
found.

Memory is bounded by --max_memory_mb: test sets that do not fit are compared in parts, one reading of TRAIN
for each."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main

if TYPE_CHECKING:
    from instruction_modelling.analysis.overlap.results import TestSummary
    from instruction_modelling.analysis.overlap.search import Found


@dataclass
class OverlapOptions:
    """Overlap."""

    files: list[str] = field(metadata={"positional": "FILE"})
    """The training file, then one or more test files."""
    output_dir: str | None = None
    """Folder for the lists (default: only the table is printed)."""
    write_clean: bool = False
    """Write the training file without the rows that overlap to --output_dir, as NAME_clean.jsonl."""
    ngram: int = 8
    """Words of a run."""
    min_share: float = 0.5
    """Share of a test text's distinct runs that a training row must have."""
    min_words: int = 4
    """Words of the shortest text that is compared."""
    common_items: int = 20
    """Runs in more test items than this, and in more than one in a hundred of them, do not count."""
    max_memory_mb: int = 4000
    """Memory for all processes together."""
    num_processes: int | None = None
    """Processes that compare (default: as many as there are processors)."""
    examples: int = 5
    """Overlaps shown for each test file."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = (
            [] if len(self.files) > 1 else [f"{self.files[0]}: name test files after the training file"]
        )
        problems += [
            f"--{name} {getattr(self, name)} must be at least {least}"
            for name, least in (
                ("ngram", 2),
                ("min_words", 1),
                ("common_items", 1),
                ("num_processes", 1),
                ("examples", 0),
            )
            if getattr(self, name) is not None and getattr(self, name) < least
        ]
        if not 0 < self.min_share <= 1:
            problems.append(f"--min_share {self.min_share} must be above 0 and at most 1")
        if self.write_clean and not self.output_dir:
            problems.append("--write_clean needs --output_dir")
        return problems


def main() -> int:
    """Compares, prints the table, writes the lists."""
    options = parse_options(OverlapOptions)
    from instruction_modelling.analysis.overlap.search import OverlapSettings, find_overlaps

    train, tests = Path(options.files[0]), [Path(name) for name in options.files[1:]]
    settings = OverlapSettings(
        options.ngram,
        options.min_share,
        options.min_words,
        options.common_items,
        options.max_memory_mb,
        options.num_processes or os.cpu_count() or 1,
    )
    from instruction_modelling.analysis.overlap.results import summed_up

    found = find_overlaps(train, tests, settings)
    per_test = summed_up(found.overlaps, len(tests))
    results = summary(train, tests, found, per_test, settings)
    print_table(results, found, per_test, tests, options.examples)
    if options.output_dir:
        write_lists(Path(options.output_dir), train, tests, found, per_test, results)
        if options.write_clean:
            write_clean(
                train, Path(options.output_dir) / f"{train.stem.removesuffix('.jsonl')}_clean.jsonl", found
            )
    return 0


def summary(
    train: Path, tests: list[Path], found: "Found", per_test: "list[TestSummary]", settings: Any
) -> dict[str, Any]:
    """What was compared and found, for a file."""
    from dataclasses import asdict

    from instruction_modelling.analysis.overlap.results import worst_of_rows

    test_results = [
        {
            "path": str(path),
            "items": counts.items,
            "texts": counts.texts,
            "texts_too_short": counts.short,
            "items_refused": counts.refused,
            "items_with_overlap": len(own.worst),
            "by_kind": own.by_kind(),
            "train_rows_with_overlap": own.train_rows,
        }
        for path, counts, own in zip(tests, found.tests, per_test, strict=True)
    ]
    return {
        "train": {
            "path": str(train),
            "rows": found.train_rows,
            "rows_refused": found.train_refused,
            "rows_with_overlap": sum(1 for _ in worst_of_rows(found.overlaps)),
        },
        "tests": test_results,
        "common_runs": found.common_runs,
        "passes": found.passes,
        "settings": asdict(settings),
    }


def print_table(
    results: dict[str, Any], found: "Found", per_test: "list[TestSummary]", tests: list[Path], most: int
) -> None:
    """A line a test file, and a few of its overlaps."""
    from instruction_modelling.analysis.overlap.results import examples

    train = results["train"]
    print(
        f"{train['path']}: {train['rows_with_overlap']:,} of {train['rows']:,} rows overlap with a test set"
        + (f" ({train['rows_refused']:,} more could not be read)" if train["rows_refused"] else "")
    )
    if found.common_runs:
        print(f"{found.common_runs:,} runs of words are in too many test items to count")
    width = max(len(test["path"]) for test in results["tests"])
    print(
        f"\n{'test file':{width}}  {'items':>9}  {'overlap':>9}  {'exact':>7}  {'contained':>9}  "
        f"{'partial':>7}  {'train rows':>10}"
    )
    for test in results["tests"]:
        kinds = test["by_kind"]
        print(
            f"{test['path']:{width}}  {test['items']:9,}  {test['items_with_overlap']:9,}  "
            f"{kinds['exact']:7,}  "
            f"{kinds['contained']:9,}  {kinds['partial']:7,}  {test['train_rows_with_overlap']:10,}"
        )
        if test["items_refused"]:
            print(f"{'':{width}}  {test['items_refused']:,} items could not be read")
    for path, shown in zip(tests, examples(found.overlaps, per_test, most), strict=True):
        for one in shown:
            words = one.test.words if len(one.test.words) <= 100 else one.test.words[:100] + "..."
            print(
                f"\n{one.kind} ({one.share:.0%}): {path}:{one.test.line} ({one.test.field}) in "
                f"{train['path']}:{one.train_line} ({one.train_field})\n  {words}"
            )


def write_lists(
    folder: Path,
    train: Path,
    tests: list[Path],
    found: "Found",
    per_test: "list[TestSummary]",
    results: dict[str, Any],
) -> None:
    """overlaps.jsonl, the two removal lists and results.json."""
    from instruction_modelling.analysis.overlap.results import KINDS, worst_of_rows
    from instruction_modelling.analysis.overlap.rows import write_records
    from instruction_modelling.analysis.overlap.search import overlap_record
    from instruction_modelling.runs.folder import RunFolder, write_aside

    RunFolder(folder, main=True)
    write_records(folder / "overlaps.jsonl", (overlap_record(one, train, tests) for one in found.overlaps))
    kinds: Counter[str] = Counter()

    def train_rows() -> Iterator[dict[str, Any]]:
        for one in worst_of_rows(found.overlaps):
            kinds[one.kind] += 1
            yield {
                "file": str(train),
                "line": one.train_line,
                "id": one.train_name,
                "kind": one.kind,
                "share": one.share,
                "test_file": str(tests[one.test.file]),
                "test_line": one.test.line,
            }

    write_records(folder / "remove_train.jsonl", train_rows())
    write_records(
        folder / "remove_test.jsonl",
        (
            {
                "file": str(path),
                "line": line,
                "id": name,
                "kind": KINDS[kind],
                "share": -less,
                "train_line": train_line,
            }
            for path, own in zip(tests, per_test, strict=True)
            for line, ((kind, less), train_line, name) in sorted(own.worst.items())
        ),
    )
    write_aside(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(
        f"\nwritten to {folder}: overlaps.jsonl ({len(found.overlaps):,} pairs), remove_train.jsonl "
        f"({kinds.total():,} rows: "
        + ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS)
        + f"), remove_test.jsonl ({sum(len(own.worst) for own in per_test):,} items), results.json"
    )


def write_clean(train: Path, output: Path, found: "Found") -> None:
    """The training rows that overlap with nothing; lines of JSON Lines as they were."""
    from instruction_modelling.analysis.overlap.rows import kept_rows

    leave_out = {one.train_line for one in found.overlaps}
    kept, dropped = kept_rows(train, output, leave_out)
    print(f"written to {output}: {kept:,} rows; {dropped:,} left out")


if __name__ == "__main__":
    run_main(main)
