"""Overlaps of a training file with test files: what they are, in memory that does not grow with their number,
and summed up."""

import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("exact", "contained", "partial")
# Bytes of overlaps that are held in memory, about, before they go to a temporary file, and how many are read
# back at a time.
HELD_BYTES, _AT_ONCE = 24 << 20, 100
_ONE_BYTES = 400
# For what is held and what is read back.
RESULT_BYTES = 64 << 20


class TestText(NamedTuple):
    """A text of a test item: file, line, the item's own name, where in the item, and its words."""

    file: int
    line: int
    name: str | None
    field: str
    words: str


class Overlap(NamedTuple):
    """A test text found in a training row. `kind`: exact (a text of the row is this text), contained (all of
    its runs are in the row) or partial; `share`: of its distinct runs."""

    train_line: int
    train_name: str | None
    test: TestText
    kind: str
    share: float
    train_field: str

    @property
    def rank(self) -> tuple[int, float]:
        """Less for what says more."""
        return KINDS.index(self.kind), -self.share


def _place(one: Overlap) -> tuple[int, int, int, str, str]:
    return one.train_line, one.test.file, one.test.line, one.test.field, one.train_field


class Overlaps:
    """Overlaps, iterated over in the order of the training file; all but the last ones added are in a
    temporary file."""

    def __init__(self) -> None:
        self._held: list[Overlap] = []
        self._count = self._bytes = 0
        self._file: Any = None
        self._runs: list[list[int]] = []
        """Of each sorted run in the file, where its pieces begin."""

    def __len__(self) -> int:
        return self._count

    def extend(self, some: Iterable[Overlap]) -> None:
        """Adds overlaps, in any order."""
        for one in some:
            self._held.append(one)
            self._count += 1
            self._bytes += _ONE_BYTES + len(one.test.words)
            if self._bytes >= HELD_BYTES:
                self._put_away()

    def _put_away(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        self._held.sort(key=_place)
        self._file.seek(0, 2)
        run = []
        for begin in range(0, len(self._held), _AT_ONCE):
            run.append(self._file.tell())
            pickle.dump(self._held[begin : begin + _AT_ONCE], self._file)
        self._runs.append(run)
        self._held, self._bytes = [], 0

    def _read(self, run: list[int]) -> Iterator[Overlap]:
        for begin in run:
            self._file.seek(begin)
            yield from pickle.load(self._file)

    def __iter__(self) -> Iterator[Overlap]:
        self._held.sort(key=_place)
        return heapq.merge(*map(self._read, self._runs), self._held, key=_place)


@dataclass
class TestSummary:
    """What was found of one test file."""

    train_rows: int = 0
    worst: dict[int, tuple[tuple[int, float], int, str | None]] = field(default_factory=dict)
    """Of each item with an overlap, by its line: the rank of the one that says most, its training line, the
    item's name."""

    def by_kind(self) -> dict[str, int]:
        """Items by the kind of the overlap that says most."""
        ranks = [rank for (rank, _), _, _ in self.worst.values()]
        return {kind: ranks.count(number) for number, kind in enumerate(KINDS)}


def summed_up(overlaps: Iterable[Overlap], tests: int) -> list[TestSummary]:
    """A summary for each of so many test files, of overlaps in the order of the training file."""
    found, last = [TestSummary() for _ in range(tests)], [0] * tests
    for one in overlaps:
        number = one.test.file
        own = found[number]
        own.train_rows += one.train_line != last[number]
        last[number] = one.train_line
        known = own.worst.get(one.test.line)
        if known is None or one.rank < known[0]:
            own.worst[one.test.line] = one.rank, one.train_line, one.test.name
    return found


def worst_of_rows(overlaps: Iterable[Overlap]) -> Iterator[Overlap]:
    """Of each training row that has an overlap, the one that says most; of overlaps in the order of the
    training file."""
    worst: Overlap | None = None
    for one in overlaps:
        if worst is not None and one.train_line != worst.train_line:
            yield worst
            worst = None
        if worst is None or one.rank < worst.rank:
            worst = one
    if worst is not None:
        yield worst


def examples(overlaps: Iterable[Overlap], found: list[TestSummary], most: int) -> list[list[Overlap]]:
    """For each test file, so many of its overlaps, those first that say most; one an item."""
    wanted: dict[tuple[int, int], Mapping[str, Any]] = {}
    for number, own in enumerate(found):
        for line in heapq.nsmallest(
            most, own.worst, key=lambda line: (own.worst[line][0], own.worst[line][1])
        ):
            wanted[number, line] = {"rank": own.worst[line][0], "train_line": own.worst[line][1]}
    shown: dict[tuple[int, int], Overlap] = {}
    for one in overlaps if wanted else ():
        known = wanted.get((one.test.file, one.test.line))
        if known and (one.rank, one.train_line) == (known["rank"], known["train_line"]):
            shown.setdefault((one.test.file, one.test.line), one)
    return [[shown[key] for key in wanted if key[0] == number] for number in range(len(found))]
