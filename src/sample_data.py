r"""Take fractions, or numbers of rows, of a mixture, with each source's share: the paper's 10, 20 and 50 % of
Tülu V2.

    python src/sample_data.py --train_file data/processed/tulu_v2/tulu_v2_data.jsonl \
        --fraction 0.1 0.2 0.5 --how first
    python src/sample_data.py --train_file F.parquet --rows 1000 3000 10000 --seed 1

Rows are drawn at random, as the paper's captions say; its released script took the first rows of each source
(--how first). Beside each subset a card, NAME.card.json, says what was taken."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main


@dataclass
class SampleOptions:
    """Sampling."""

    train_file: str = ""
    """Conversations: any file, folder or data set of the hub that --train_file of src/finetune.py takes."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    max_bad_rows: int = 0
    """Unusable rows to go on without; they are counted and listed where there are more."""
    fraction: list[float] = field(default_factory=list)
    """Shares of the rows, each above 0 and at most 1; one subset each."""
    rows: list[int] = field(default_factory=list)
    """Numbers of rows; one subset each."""
    how: Literal["first", "random"] = "random"
    """Random rows of each source, or its first ones, which the authors' script takes."""
    seed: int = 42
    """Of --how random; samples of one seed all but nest."""
    output: list[str] = field(default_factory=list)
    """A file for each subset, fractions first (default: in --output_dir, such as tulu_dataset_01.jsonl)."""
    output_dir: str | None = None
    """Folder of files without an --output (default: that of the file)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [
            f"--fraction {share} is not above 0 and at most 1"
            for share in self.fraction
            if not 0 < share <= 1
        ]
        problems += [f"--rows {rows} is not above 0" for rows in self.rows if rows < 1]
        if not self.train_file:
            problems.append("--train_file is needed")
        subsets = len(self.fraction) + len(self.rows)
        if not subsets:
            problems.append("--fraction or --rows is needed")
        if self.output and len(self.output) != subsets:
            problems.append(f"--output has {len(self.output)} files for {subsets} subsets")
        if len(set(self.output)) < len(self.output):
            problems.append("--output names a file twice")
        return problems


def main() -> int:
    """Write the subsets and say what was taken."""
    options = parse_options(SampleOptions)
    from instruction_modelling.sources.conversion.subsets import (
        index_rows,
        proportional,
        reading_notes,
        short_stem,
        subset_folder,
        write_subset,
    )

    path = Path(options.train_file)
    index = index_rows(path, options.columns, options.max_bad_rows)
    for note in reading_notes(index):
        print(note, file=sys.stderr)
    sizes = [
        (str(share).replace(".", ""), int(share * len(index)), {"fraction": share})
        for share in options.fraction
    ]
    sizes += [(f"rows{rows}", rows, {}) for rows in options.rows]
    # Without a seed the rows are taken in file order.
    seed, ending = (options.seed, f"_random_seed{options.seed}") if options.how == "random" else (None, "")
    outputs, folder = iter(options.output), Path(options.output_dir or subset_folder(path))
    for tag, size, asked in sizes:
        rows = proportional(index, size, seed)
        output = Path(next(outputs, folder / f"{short_stem(path)}_dataset_{tag}{ending}.jsonl"))
        card = write_subset(index, rows, output, {"how": options.how, "seed": seed, **asked})
        print(f"{output}: {len(rows):,} of {len(index):,} rows, {options.how}")
        for name, counts in card["sources"].items():
            print(f"  {name}: {counts['taken']:,} of {counts['rows']:,}")
    return 0


if __name__ == "__main__":
    run_main(main)
