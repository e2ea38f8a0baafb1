"""Overlaps of a training file with test files: what they are, in memory that does not grow with their number,
and their summaries."""

import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("exact", "contained", "partial")
# Bytes of overlaps, about, that are held in memory before they go to a temporary file.
BYTES_IN_MEMORY = 24 << 20
# Overlaps that are read back from the temporary file in one go, and about the bytes of one beside its words.
_READ_AT_ONCE, _OVERLAP_BYTES = 100, 400
# For what is in memory and what is read back.
RESULT_BYTES = 64 << 20


class ItemText(NamedTuple):
    """A text of a test item: number of the file, line, the item's own name, field of the item, and its
    words."""

    file: int
    line: int
    name: str | None
    field: str
    words: str


class Overlap(NamedTuple):
    """A test text that a training row has. `kind`: exact (a text of the row is this text), contained (all of
    its runs are in the row) or partial; `share`: of its distinct runs."""

    train_line: int
    train_name: str | None
    test: ItemText
    kind: str
    share: float
    train_field: str

    @property
    def rank(self) -> tuple[int, float]:
        """Return what sorts overlaps, the strongest first: the kind's number, and the share negated."""
        return KINDS.index(self.kind), -self.share


def _file_order(overlap: Overlap) -> tuple[int, int, int, str, str]:
    test = overlap.test
    return overlap.train_line, test.file, test.line, test.field, overlap.train_field


class Overlaps:
    """Overlaps, iterated over in the order of the training file; all but the last ones added are in a
    temporary file."""

    def __init__(self) -> None:
        self._in_memory: list[Overlap] = []
        self._count = self._bytes = 0
        self._file: Any = None
        self._sorted_runs: list[list[int]] = []
        """The offsets of the pickled pieces of each sorted run in the file."""

    def __len__(self) -> int:
        return self._count

    def extend(self, overlaps: Iterable[Overlap]) -> None:
        """Add overlaps, in any order."""
        for overlap in overlaps:
            self._in_memory.append(overlap)
            self._count += 1
            self._bytes += _OVERLAP_BYTES + len(overlap.test.words)
            if self._bytes >= BYTES_IN_MEMORY:
                self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._in_memory.sort(key=_file_order)
        self._file.seek(0, 2)
        offsets = []
        for begin in range(0, len(self._in_memory), _READ_AT_ONCE):
            offsets.append(self._file.tell())
            pickle.dump(self._in_memory[begin : begin + _READ_AT_ONCE], self._file)
        self._sorted_runs.append(offsets)
        self._in_memory, self._bytes = [], 0

    def _read(self, offsets: list[int]) -> Iterator[Overlap]:
        for offset in offsets:
            self._file.seek(offset)
            yield from pickle.load(self._file)

    def __iter__(self) -> Iterator[Overlap]:
        self._in_memory.sort(key=_file_order)
        return heapq.merge(*map(self._read, self._sorted_runs), self._in_memory, key=_file_order)


class Strongest(NamedTuple):
    """The strongest overlap of a test item; of several, the first in the training file."""

    rank: tuple[int, float]
    train_line: int
    item_name: str | None

    @property
    def kind(self) -> str:
        """Return its kind."""
        return KINDS[self.rank[0]]

    @property
    def share(self) -> float:
        """Return its share of the test text's runs."""
        return -self.rank[1]


@dataclass
class FileSummary:
    """The overlaps of one test file."""

    train_rows: int = 0
    """Training rows that overlap with it."""
    items: dict[int, Strongest] = field(default_factory=dict)
    """The strongest overlap of each item that has any, by the item's line."""

    def by_kind(self) -> dict[str, int]:
        """Return items by the kind of their strongest overlap."""
        kinds = [strongest.kind for strongest in self.items.values()]
        return {kind: kinds.count(kind) for kind in KINDS}


def summaries_of_files(overlaps: Iterable[Overlap], files: int) -> list[FileSummary]:
    """Return a summary for each of so many test files, of overlaps in the order of the training file."""
    summaries, last_train_line = [FileSummary() for _ in range(files)], [0] * files
    for overlap in overlaps:
        test = overlap.test
        summary = summaries[test.file]
        summary.train_rows += overlap.train_line != last_train_line[test.file]
        last_train_line[test.file] = overlap.train_line
        known = summary.items.get(test.line)
        if known is None or overlap.rank < known.rank:
            summary.items[test.line] = Strongest(overlap.rank, overlap.train_line, test.name)
    return summaries


def strongest_of_rows(overlaps: Iterable[Overlap]) -> Iterator[Overlap]:
    """Yield the strongest overlap of each training row that has any; `overlaps` come in the order of the
    training file."""
    strongest: Overlap | None = None
    for overlap in overlaps:
        if strongest is not None and overlap.train_line != strongest.train_line:
            yield strongest
            strongest = None
        if strongest is None or overlap.rank < strongest.rank:
            strongest = overlap
    if strongest is not None:
        yield strongest


def strongest_examples(
    overlaps: Iterable[Overlap], summaries: list[FileSummary], most: int
) -> list[list[Overlap]]:
    """Return at most so many overlaps of each test file, the strongest first, one an item."""
    chosen: dict[tuple[int, int], Strongest] = {}
    for file, summary in enumerate(summaries):
        items = summary.items
        for line in heapq.nsmallest(most, items, key=lambda line: items[line][:2]):
            chosen[file, line] = items[line]
    shown: dict[tuple[int, int], Overlap] = {}
    for overlap in overlaps if chosen else ():
        item = overlap.test.file, overlap.test.line
        if item in chosen and (overlap.rank, overlap.train_line) == chosen[item][:2]:
            shown.setdefault(item, overlap)
    return [[shown[item] for item in chosen if item[0] == file] for file in range(len(summaries))]
