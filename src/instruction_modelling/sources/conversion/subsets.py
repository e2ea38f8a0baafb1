"""Subsets of a file of conversations: fractions of each source, sizes, and rows of some length ratio.

The rows come from whatever training reads. What is kept of a row is where it stands, its source and its
lengths; rows of JSON Lines are copied byte for byte, rows of other files are written as messages
(`rows.clean`). A card beside a subset says which rows they are and how they were chosen.

A file of nothing but rows of `dataset`, `id` and `messages`, as src/reformat_datasets.py writes them, is read
here, by orjson, since such files have hundreds of thousands of rows; every other one by `rows.conversations`,
which holds all rows at once."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import whole_file, write_json
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import (
    ROLES,
    ConversationFile,
    bad_rows_table,
    check_bad_rows,
    read_conversations,
)
from instruction_modelling.rows.files import file_stem, is_packed
from instruction_modelling.rows.words import Characters, length_ratio, needs_setting_apart, row_words
from instruction_modelling.sources.conversion.report import beside

# Of each row: words that white space parts, words set apart, characters, and those of scripts without spaces.
_LENGTHS = ("instruction", "output", "instruction_apart", "output_apart", "characters", "unspaced")


# A row's ratio is far from the one that was asked for beyond this share of it.
FAR = 0.1


class _NotPlain(Exception):
    """A row is not one of `dataset`, `id` and `messages` of role and content."""


@dataclass(frozen=True)
class RowIndex:
    """A file's usable rows: what is needed to choose among them, and to copy them."""

    path: Path
    sha256: str
    sources: list[str]
    source: Any
    """[rows] int64: a number into `sources`."""
    lengths: dict[str, Any]
    """[rows] int64 each, by the names of `_LENGTHS`."""
    copies: Callable[[Any], Iterator[bytes]]
    """Yields the lines of rows by their numbers, some thousand at a time."""
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Unusable rows, which are in no subset, by reason."""
    unread_keys: str = ""
    """Columns and keys of messages that nothing reads and no subset holds, with counts."""

    def __len__(self) -> int:
        return len(self.source)

    def words(self, rows: Any) -> tuple[Any, Any]:
        """Return the words of instructions and of outputs ([rows] int64 each; output is 0 where there is no
        answer), counted as a file of these rows alone would be (`rows.words`)."""
        apart = "_apart" if self._set_apart(rows) else ""
        return self.lengths[f"instruction{apart}"][rows], self.lengths[f"output{apart}"][rows]

    def row_ratios(self, rows: Any) -> Any:
        """Return instruction / output words of each row ([rows] float64), each row's words counted as a file
        of it alone would be; NaN without an answer."""
        import numpy as np

        named = {name: column[rows] for name, column in self.lengths.items()}
        apart = needs_setting_apart(named["unspaced"], named["characters"])
        instruction, output = (
            np.where(apart, named[f"{name}_apart"], named[name]) for name in ("instruction", "output")
        )
        return np.divide(instruction, output, out=np.full(len(output), np.nan), where=output > 0)

    def rows_set_apart(self, rows: Any) -> int:
        """Return how many of the rows have words that white space does not part."""
        named = (self.lengths["unspaced"][rows], self.lengths["characters"][rows])
        return int(needs_setting_apart(*named).sum())

    def _set_apart(self, rows: Any) -> bool:
        return bool(
            needs_setting_apart(self.lengths["unspaced"][rows].sum(), self.lengths["characters"][rows].sum())
        )


def index_rows(path: Path, columns: str | None = None, max_bad_rows: int = 0) -> RowIndex:
    """Read a file, a folder or a data set of the hub, as training does.

    Args:
        columns: what its columns are, as `read_conversations` takes it.
        max_bad_rows: unusable rows to go on without.

    Raises:
        UserError: it cannot be read, or more rows than that are unusable.
    """
    if columns is None and path.is_file():
        try:
            return _index_plain_rows(path)
        except _NotPlain:
            pass
    file = read_conversations(path, columns)
    check_bad_rows(file, max_bad_rows)
    index = _Columns()
    for row in file.conversations:
        index.add(row.dataset, [(message.role, message.content) for message in row.messages])
    copies = _copies_of(file, may_copy_lines=columns is None)
    return index.rows(path, file.sha256, copies, file)


class _Columns:
    """The columns of an index, filled a row at a time."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.source = array("q")
        self.lengths = {name: array("q") for name in _LENGTHS}

    def add(self, source: str, messages: Sequence[tuple[str, str]]) -> None:
        """Add a row of (role, content)."""
        self.source.append(self.numbers.setdefault(source, len(self.numbers)))
        characters = Characters.of(*(content for _, content in messages))
        words = row_words(messages, apart=False)
        apart = row_words(messages, apart=True) if characters.unspaced else words
        for column, value in zip(
            self.lengths.values(), (*words, *apart, characters.all, characters.unspaced), strict=True
        ):
            column.append(value)

    def rows(
        self,
        path: Path,
        sha256: str,
        copies: Callable[[Any], Iterator[bytes]],
        file: ConversationFile | None = None,
    ) -> RowIndex:
        """Return the index; `file` is what the rows were read by, where it is not this module."""
        import numpy as np

        lengths = {name: np.asarray(column) for name, column in self.lengths.items()}
        source = np.asarray(self.source)
        index = RowIndex(path, sha256, list(self.numbers), source, lengths, copies)
        if file is None:
            return index
        lost = "" if isinstance(copies, _LineCopies) else file.unread_keys()
        return replace(index, bad_rows=bad_rows_table(file.bad_rows), unread_keys=lost)


def _index_plain_rows(path: Path) -> RowIndex:
    """Index a file of rows of `dataset`, `id` and `messages` of role and content, in JSON Lines.

    Raises:
        UserError: the file cannot be read.
        _NotPlain: a line is not such a row, or there is none.
    """
    index, offsets = _Columns(), array("q")
    digest, begin = hashlib.sha256(), 0
    try:
        with path.open("rb") as handle:
            for raw in handle:
                digest.update(raw)
                if raw.strip():
                    index.add(*_plain_row(raw, path))
                    offsets.append(begin)
                begin += len(raw)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not offsets:
        raise _NotPlain
    return index.rows(path, digest.hexdigest(), _LineCopies(path, offsets))


def _plain_row(raw: bytes, path: Path) -> tuple[str, list[tuple[str, str]]]:
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _NotPlain from None
    if not isinstance(row, dict) or not row.keys() <= {"dataset", "id", "messages"}:
        raise _NotPlain
    source, messages = row.get("dataset", path.stem), row.get("messages")
    if not isinstance(source, str) or not isinstance(messages, list) or not messages:
        raise _NotPlain
    return source, [_plain_message(message) for message in messages]


def _plain_message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or message.keys() != {"role", "content"}:
        raise _NotPlain
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str):
        raise _NotPlain
    return role, content


@dataclass(frozen=True)
class _LineCopies:
    """Copies rows byte for byte from where each begins in the file (int64, bytes)."""

    path: Path
    offsets: Sequence[int]

    def __call__(self, rows: Any) -> Iterator[bytes]:
        """Yield the rows' lines, some thousand at a time."""
        with self.path.open("rb") as handle:
            for begin in range(0, len(rows), 4096):
                lines = []
                for row in rows[begin : begin + 4096].tolist():
                    handle.seek(self.offsets[row])
                    lines.append(handle.readline().strip().removeprefix(b"\xef\xbb\xbf") + b"\n")
                yield b"".join(lines)


def _copies_of(file: ConversationFile, may_copy_lines: bool) -> Callable[[Any], Iterator[bytes]]:
    """Return what copies the usable rows of a file: as they stand there, where each is a line of one text,
    else as `clean_row` writes them."""
    path, rows = file.path, file.conversations
    in_lines = path.is_file() and len(file.parts) == 1 and file.parts[0].unit == "line"
    if may_copy_lines and in_lines and not is_packed(path):
        offsets, begin = [], 0
        with path.open("rb") as handle:
            for raw in handle:
                offsets.append(begin)
                begin += len(raw)
        return _LineCopies(path, [offsets[row.line - 1] for row in rows])

    def written(numbers: Any) -> Iterator[bytes]:
        for number in numbers.tolist():
            line = json.dumps(clean_row(rows[number]), ensure_ascii=False)
            yield line.encode("utf-8", "surrogatepass") + b"\n"

    return written


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
    ratios = index.row_ratios(shuffled)
    answered = ~np.isnan(ratios)
    shuffled, distance = shuffled[answered], np.abs(ratios[answered] - ratio)
    return shuffled[np.argsort(distance, kind="stable")]


def ratio_notes(index: RowIndex, rows: Any, ratio: float) -> list[str]:
    """Return what is to be said of a subset that was chosen by ratio: how far it is from what was asked for,
    and how words were counted where white space does not part them."""
    import numpy as np

    ratios, notes = index.row_ratios(rows), []
    far = int((np.abs(ratios - ratio) > FAR * ratio).sum())
    if far:
        notes.append(
            f"warning: --ratio {ratio:g} cannot be met with {len(rows):,} rows: {far:,} of them have a ratio "
            f"more than {FAR:.0%} away from it, the nearest there are, and the mean is {ratios.mean():.2f}; "
            "take fewer rows or another ratio, or name the subset by what it is"
        )
    if apart := index.rows_set_apart(rows):
        notes.append(
            f"{apart:,} row{' holds' if apart == 1 else 's hold'} text without spaces between words: there a "
            "Chinese character or kana counts as a word, and words of Thai, Lao, Khmer and Burmese are those "
            "of a dictionary"
        )
    return notes


def reading_notes(index: RowIndex) -> list[str]:
    """Return which rows and which keys of rows no subset will hold."""
    notes = []
    if index.bad_rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in index.bad_rows.items())
        notes.append(f"{index.path}: unusable rows, which no subset holds: {reasons}")
    if index.unread_keys:
        notes.append(f"{index.path}: left out, since nothing reads them: {index.unread_keys}")
    return notes


def short_stem(path: Path) -> str:
    """Return what names of subsets begin with: `tulu` for tulu_v2_data.jsonl, as published, else the name
    without `_data`."""
    stem = file_stem(path)
    return "tulu" if stem == "tulu_v2_data" else stem.removesuffix("_data")


def subset_folder(path: Path) -> Path:
    """Return where subsets go if nothing else is said: beside the file or folder, or, of a data set of the
    hub, where one is."""
    return path.parent if path.exists() else Path()


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

    instruction, output = index.words(rows)
    ratios = index.row_ratios(rows)
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
        for lines in index.copies(rows):
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
        "from": {
            "file": str(index.path),
            "sha256": index.sha256,
            "rows": len(index),
            **({"bad_rows": index.bad_rows} if index.bad_rows else {}),
        },
    }
    write_json(card_path, card)
    return card
