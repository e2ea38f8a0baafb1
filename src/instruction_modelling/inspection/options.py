"""What src/inspect_weights.py shows and writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FILES = ("html", "output_file", "summary_file", "write_clean", "export")
_OF_ROWS = ("html", "summary_file", "write_clean", "export")


@dataclass
class InspectionOptions:
    """Inspection."""

    num_examples: int = 2
    """Rows to show token by token and turn by turn, the first ones of the file."""
    html: str | None = None
    """Write a page with the totals and these rows to this file: one HTML file, for any browser."""
    output_file: str | None = None
    """Write a JSON line for every row to this file: row, id, text, dropped, and id, start, end, kind and
    weight of each token (start and end are characters of the text); a row of several sequences has a line for
    each, its part. With --describe_format: the description, as JSON."""
    summary_file: str | None = None
    """Write the totals, lengths, warnings and shares of the loss to this file, as JSON."""
    write_clean: str | None = None
    """Write the rows that can be used to this file: JSON Lines of messages, with tools, ids and weights."""
    export: str | None = None
    """Write ids, labels, loss weights and kinds of every sequence that is trained on to this Parquet file,
    for another trainer."""
    describe_format: bool = False
    """Say in plain words what the chat format does, found by trying it: how turns end, where a model stops,
    whether earlier turns are rewritten, what is dropped or refused. Needs no --train_file."""

    def inspection_problems(self, train_files: list[str] | None) -> Iterator[str]:
        """Yield what is wrong with these options, in words."""
        if self.num_examples < 0:
            yield f"--num_examples {self.num_examples}: must be 0 or more"
        taken = {Path(name).resolve(): "--train_file" for name in train_files or ()}
        for name in _FILES:
            value = getattr(self, name)
            if value is None:
                continue
            if self.describe_format and name in _OF_ROWS:
                yield f"--{name}: --describe_format reads no rows; leave one of them out"
            other = taken.setdefault(Path(value).resolve(), f"--{name}")
            if other != f"--{name}":
                yield f"--{name} {value}: is the file of {other} too; choose another name"
