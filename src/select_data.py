"""Take the rows whose instruction is so many times as long as their output: the paper's ratio and size
sweeps.

    python src/select_data.py --train_file data/processed/tulu_v2/tulu_v2_data.jsonl --ratio 5 10 15
    python src/select_data.py --train_file F.jsonl --ratio 10 --rows 1000 3000 5000 10000 35000 --seed 1

Lengths are words as the paper counts them: white-space-separated, of the Tülu text, a role's header one word;
in Chinese, Japanese, Thai and other scripts without spaces as docs/data.md says. The rows nearest to the
ratio come first, so of one ratio and seed a smaller subset is the beginning of a larger one, and a larger one
strays further from the ratio: the card beside each (NAME.card.json) says how far, and where rows lie more
than a tenth of it away, a warning does."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main


@dataclass
class SelectOptions:
    """Selection."""

    train_file: str = field(default="", metadata={"also": ("data",)})
    """Conversations: any file, folder or data set of the hub that --train_file of src/finetune.py takes."""
    data_dir: str | None = field(default=None, metadata={"also": ("dir",)})
    """Folder of the file, whose name is then given without .jsonl: the authors' --dir and --data."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    max_bad_rows: int = 0
    """Unusable rows to go on without; they are counted and listed where there are more."""
    ratio: list[float] = field(default_factory=lambda: [1.0], metadata={"also": ("alpha",)})
    """Instruction words / output words of a row; a subset for each."""
    rows: list[int] = field(default_factory=lambda: [3000], metadata={"also": ("target_count",)})
    """Sizes of the subsets of each ratio."""
    seed: int = 42
    """Of the order of rows that are equally near to the ratio."""
    output: list[str] = field(default_factory=list)
    """A file for each subset, all sizes of the first ratio first (default: in --output_dir, such as
    tulu_ratio_10_3000.jsonl)."""
    output_dir: str | None = None
    """Folder of files without an --output (default: that of the file)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        problems = [
            f"--ratio {ratio} is not a positive number"
            for ratio in self.ratio
            if not 0 < ratio < float("inf")
        ]
        problems += [f"--rows {rows} is not above 0" for rows in self.rows if rows < 1]
        if not self.train_file:
            problems.append("--train_file is needed")
        if self.output and len(self.output) != len(self.ratio) * len(self.rows):
            problems.append(
                f"--output has {len(self.output)} files for {len(self.ratio) * len(self.rows)} subsets"
            )
        if len(set(self.output)) < len(self.output):
            problems.append("--output names a file twice")
        return problems


def main() -> int:
    """Write the subsets and say how near to the ratio they are."""
    options = parse_options(SelectOptions)
    from instruction_modelling.rows.files import file_in
    from instruction_modelling.sources.conversion.subsets import (
        index_rows,
        nearest_row_ratio,
        ratio_notes,
        reading_notes,
        row_ratio_spread,
        short_stem,
        subset_folder,
        write_subset,
    )

    path = Path(file_in(options.data_dir, options.train_file))
    index = index_rows(path, options.columns, options.max_bad_rows)
    outputs, folder = iter(options.output), Path(options.output_dir or subset_folder(path))
    for note in reading_notes(index):
        print(note, file=sys.stderr)
    for ratio in options.ratio:
        ranked = nearest_row_ratio(index, ratio, options.seed)
        for size in options.rows:
            if size > len(ranked):
                raise UserError(
                    f"{path}: has {len(ranked)} rows with an answer, and --rows {size} are wanted"
                )
            rows = ranked[:size]
            output = Path(next(outputs, folder / f"{short_stem(path)}_ratio_{ratio:g}_{size}.jsonl"))
            spread = row_ratio_spread(index, rows)
            how = {"how": "nearest ratio", "ratio": ratio, "seed": options.seed, "ratios": spread}
            notes = ratio_notes(index, rows, ratio)
            write_subset(index, rows, output, {**how, "notes": notes} if notes else how)
            print(
                f"{output}: {size:,} of {len(index):,} rows, instruction / output words "
                f"of a row {spread['least']:.2f} to {spread['most']:.2f}, mean {spread['mean']:.2f}; "
                f"length ratio of the subset {spread['ratio of mean lengths']:.2f}"
            )
            for note in notes:
                print(f"  {note}")
    return 0


if __name__ == "__main__":
    run_main(main)
