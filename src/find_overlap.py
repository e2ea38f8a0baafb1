"""Find texts of test sets in a training set, and write what to leave out.

    python src/find_overlap.py TRAIN TEST...
    python src/find_overlap.py TRAIN TEST... --output_dir overlap --write_clean

TRAIN and each TEST is a file of rows (JSON Lines, a JSON array, Parquet, tab- or comma-separated, also
gzipped) or of plain lines (.txt, .bz2). Every text of a test item is compared: each message of a chat, each
question, choice and answer. A text of 8 words or more overlaps with a training row that has at least half of
its runs of 8 words; a shorter one, of 4 words or more, with a row that has it as a whole text or line. Case,
punctuation, white space and Unicode forms do not matter. Runs that many test items share (fixed openings,
answer formats) do not count, nor do system prompts and tool definitions that more than one test item has.

Written to --output_dir: overlaps.jsonl (every pair: where, how, the share of runs, the words),
remove_train.jsonl and remove_test.jsonl (file, line, id and worst overlap of each row that has one),
results.json, and with --write_clean the training file without those rows. The exit code is 0 whatever is
found.

Memory is bounded by --max_memory_mb: test sets that do not fit are compared in parts, one reading of TRAIN
for each."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


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
        """Return every problem of the options, in words."""
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
    """Compare, print the table, write the lists."""
    options = parse_options(OverlapOptions)
    from instruction_modelling.analysis.overlap import output
    from instruction_modelling.analysis.overlap.index import OverlapSettings
    from instruction_modelling.analysis.overlap.search import find_overlaps

    train, tests = Path(options.files[0]), [Path(name) for name in options.files[1:]]
    settings = OverlapSettings(
        options.ngram,
        options.min_share,
        options.min_words,
        options.common_items,
        options.max_memory_mb,
        options.num_processes or os.cpu_count() or 1,
    )
    search = find_overlaps(train, tests, settings)
    report = output.overlap_report(train, tests, settings, search)
    results = output.overlap_results(report)
    for line in [*output.overlap_table_lines(results), *output.example_lines(report, options.examples)]:
        print(line)
    if options.output_dir:
        folder = Path(options.output_dir)
        print(output.write_lists(folder, report, results))
        if options.write_clean:
            clean = folder / f"{train.stem.removesuffix('.jsonl')}_clean.jsonl"
            kept, left_out = output.write_kept_rows(
                train, clean, {overlap.train_line for overlap in search.overlaps}
            )
            print(f"written to {clean}: {kept:,} rows; {left_out:,} left out")
    return 0


if __name__ == "__main__":
    run_main(main)
