"""Subsets of a file of conversations: fractions of each source, sizes, and rows of some length ratio.

The file is read once, a row at a time; what is kept of a row is its offset, its source and its words. A
subset's rows are copied byte for byte, and a card beside it says which they are and how they were chosen.

Lines are read here, not by `rows.json_lines`, since the offset of each is needed to copy it; and by orjson,
since files have hundreds of thousands of rows."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import whole_file, write_json
from instruction_modelling.rows.words import length_ratio, row_words
from instruction_modelling.sources.conversion.report import beside


@dataclass(frozen=True)
class RowIndex:
    """A file's rows: where each begins (bytes), its source (a number into `sources`), instruction and output
    words."""

    path: Path
    sha256: str
    sources: list[str]
    offset: Any
    """[rows + 1] int64: where each row begins; the last is the end of the last row."""
    source: Any
    """[rows] int64."""
    instruction: Any
    """[rows] int64: words of all messages but the assistant's."""
    output: Any
    """[rows] int64: words of the assistant's messages; 0 where there is none."""

    def __len__(self) -> int:
        return len(self.source)


def index_rows(path: Path) -> RowIndex:
    """Read a file of rows with `dataset` and `messages`, JSON Lines.

    Raises:
        UserError: the file cannot be read, or a line is not such a row: a subset of some of the rows would
        not
            be one of the file.
    """
    import numpy as np

    numbers: dict[str, int] = {}
    offset, source, instruction, output = (array("q") for _ in range(4))
    digest, begin = hashlib.sha256(), 0
    try:
        with path.open("rb") as handle:
            for line, raw in enumerate(handle, start=1):
                digest.update(raw)
                if raw.strip():
                    name, counts = _row(raw, path, line)
                    offset.append(begin)
                    source.append(numbers.setdefault(name, len(numbers)))
                    instruction.append(counts[0])
                    output.append(counts[1])
                begin += len(raw)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not source:
        raise UserError(f"{path}: holds no rows")
    offset.append(begin)
    return RowIndex(
        path,
        digest.hexdigest(),
        list(numbers),
        *(np.asarray(column) for column in (offset, source, instruction, output)),
    )


def _row(raw: bytes, path: Path, line: int) -> tuple[str, tuple[int, int]]:
    """Return the source of a row, and its words of instruction and output."""
    try:
        row = orjson.loads(raw)
        return str(row.get("dataset", path.stem)), row_words(
            (message["role"], message["content"]) for message in row["messages"]
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}:{line}: is not a row with messages ({type(error).__name__}: {error}); subsets are taken "
            "from files that src/reformat_datasets.py wrote"
        ) from None


def quotas(counts: Sequence[int], size: int) -> list[int]:
    """Return the rows of each source in a sample of `size` rows, rounded down as the released script rounds
    (in floating point)."""
    total = sum(counts)
    return [int((count / total) * size) for count in counts]


def proportional(index: RowIndex, size: int, seed: int | None) -> Any:
    """Return a sample with each source's share of rows: [size] row numbers, in file order.

    Of each source its first rows up to its quota (`seed` None: in file order, as released), or its first in a
    random order; then, as the quotas are rounded down, the first of the other rows in that order. Samples of
    one file and seed all but nest.

    Raises:
        UserError: there are not so many rows.
    """
    import numpy as np

    if not 0 < size <= len(index):
        raise UserError(f"{index.path}: has {len(index)} rows, and {size} are wanted")
    order = np.arange(len(index)) if seed is None else np.random.default_rng(seed).permutation(len(index))
    source = index.source[order]
    by_source = np.argsort(source, kind="stable")
    counts = np.bincount(source)
    # The rank of each row among those of its source, in `order`.
    rank = np.empty(len(index), dtype=np.int64)
    rank[by_source] = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    within = rank < np.asarray(quotas(counts.tolist(), size))[source]
    spare = np.flatnonzero(~within)[: size - int(within.sum())]
    return np.sort(np.concatenate([order[within], order[spare]]))


def nearest_row_ratio(index: RowIndex, ratio: float, seed: int) -> Any:
    """Return the numbers of all rows with an answer, those first whose instruction / output words are nearest
    to `ratio`.

    Rows that are equally near are in random order. The first N of them are the subset of N rows, so subsets
    nest."""
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(len(index))
    shuffled = shuffled[index.output[shuffled] > 0]
    distance = np.abs(index.instruction[shuffled] / index.output[shuffled] - ratio)
    return shuffled[np.argsort(distance, kind="stable")]


def short_stem(path: Path) -> str:
    """Return what names of subsets begin with: `tulu` for tulu_v2_data.jsonl, as published, else the name
    without `_data`."""
    return "tulu" if path.stem == "tulu_v2_data" else path.stem.removesuffix("_data")


def taken_by_source(index: RowIndex, rows: Any) -> dict[str, dict[str, int]]:
    """Count the rows of each source, in the file and in a subset."""
    all_rows, taken = Counter(index.source.tolist()), Counter(index.source[rows].tolist())
    return {
        name: {"rows": all_rows[number], "taken": taken[number]} for number, name in enumerate(index.sources)
    }


def row_ratio_spread(index: RowIndex, rows: Any) -> dict[str, float | None]:
    """Return how the ratio of each row of a subset is spread (population standard deviation), and the length
    ratio of the subset, which is that of the mean lengths."""
    import numpy as np

    instruction, output = index.instruction[rows], index.output[rows]
    ratios = instruction / output
    quantiles = np.quantile(ratios, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return {
        **dict(zip(("least", "5 %", "median", "95 %", "most"), quantiles, strict=True)),
        "mean": float(ratios.mean()),
        "standard deviation": float(ratios.std()),
        "ratio of mean lengths": length_ratio(float(instruction.mean()), float(output.mean())),
    }


def write_subset(index: RowIndex, rows: Any, output: Path, how: dict[str, Any]) -> dict[str, Any]:
    """Write rows in the given order and, beside them, their card; return the card.

    Args:
        index: of the file.
        rows: row numbers.
        output: JSON Lines; has its name only once it is whole.
        how: what the card says of how they were chosen.

    Raises:
        UserError: the output cannot be written, or is the file itself.
    """
    if output.resolve() == index.path.resolve():
        raise UserError(f"{output}: is the file that the subset is taken from; choose another --output")
    card_path = beside(output, ".card.json")
    digest = hashlib.sha256()
    with whole_file(output) as handle:
        for lines in _raw_rows(index, rows):
            digest.update(lines)
            handle.write(lines)
        # The card goes first and comes last: where one is, what it describes is there too.
        card_path.unlink(missing_ok=True)
    card = {
        "subset": output.name,
        "sha256": digest.hexdigest(),
        "rows": len(rows),
        **how,
        "sources": taken_by_source(index, rows),
        "from": {"file": str(index.path), "sha256": index.sha256, "rows": len(index)},
    }
    write_json(card_path, card)
    return card


def _raw_rows(index: RowIndex, rows: Any) -> Iterator[bytes]:
    """Yield the rows' lines, some thousand at a time."""
    with index.path.open("rb") as handle:
        for begin in range(0, len(rows), 4096):
            lines = []
            for row in rows[begin : begin + 4096].tolist():
                handle.seek(int(index.offset[row]))
                lines.append(handle.readline().rstrip() + b"\n")
            yield b"".join(lines)
