"""The items of test files: their texts, the runs that too many of them share, and parts that fit the
memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from instruction_modelling.analysis.overlap.batches import batches, decoded
from instruction_modelling.analysis.overlap.index import OverlapSettings, distinct_runs, word_count
from instruction_modelling.analysis.overlap.results import ItemText
from instruction_modelling.analysis.overlap.texts import SETTINGS, row_name, texts_of, words_of
from instruction_modelling.analysis.shingles import in_pieces
from instruction_modelling.errors import RowRefused

# Counters for the runs of all test items, by the low bits of their hashes, of two bytes each.
_COUNTERS = 1 << 24
COUNTER_BYTES = _COUNTERS * 2
_MOST_COUNTED = 65_535
# What a text and each of its runs take in an index.
RUN_BYTES, TEXT_BYTES = 64, 400


@dataclass
class FileCounts:
    """What a test file holds."""

    items: int = 0
    texts: int = 0
    short: int = 0
    """Texts with fewer words than are compared."""
    shared: int = 0
    """System prompts and tool definitions that several items have, which are not compared."""
    refused: int = 0


class ComparedItem(NamedTuple):
    """A row of a test file: its line, its own name, and (field, words) of each text that is compared."""

    line: int
    name: str | None
    texts: list[tuple[str, str]]


def shared_settings(tests: Sequence[Path]) -> frozenset[int]:
    """Return the hashes of the system prompts and tool definitions that more than one test item has."""
    seen: set[int] = set()
    shared: set[int] = set()
    for path in tests:
        for batch in batches(path):
            for _, value in decoded(batch):
                if not isinstance(value, RowRefused):
                    texts = texts_of(value)
                    of_item = {hash(words_of(text)) for field, text in texts if field in SETTINGS}
                    shared |= of_item & seen
                    seen |= of_item
    return frozenset(shared)


def compared_items(
    path: Path, settings: OverlapSettings, shared: frozenset[int], counts: FileCounts | None = None
) -> Iterator[ComparedItem]:
    """Yield each item of a test file, without what `shared_settings` names; `counts` is filled as they are
    read."""
    counts = counts or FileCounts()
    for batch in batches(path):
        for line, value in decoded(batch):
            if isinstance(value, RowRefused):
                counts.refused += 1
                continue
            texts = [(field, words_of(text)) for field, text in texts_of(value)]
            own = [text for text in texts if not (text[0] in SETTINGS and hash(text[1]) in shared)]
            long = [text for text in own if word_count(text[1]) >= settings.min_words]
            counts.items += 1
            counts.texts += len(texts)
            counts.shared += len(texts) - len(own)
            counts.short += len(own) - len(long)
            # A text that an item repeats is one text.
            yield ComparedItem(line, row_name(value), list(dict.fromkeys(long)))


def common_runs(
    tests: Sequence[Path], settings: OverlapSettings, shared: frozenset[int], counts: Sequence[FileCounts]
) -> np.ndarray:
    """Return the hashes of the runs that are in too many items to say anything (uint64, sorted), and fill the
    counts of each file.

    Counted by the low bits of the hashes first, which can only count too much, and then exactly.
    """
    counters = np.zeros(_COUNTERS, dtype=np.uint16)
    for path, file_counts in zip(tests, counts, strict=True):
        for hashes in _runs_of_items(path, settings, shared, file_counts):
            low_bits, items = np.unique(hashes & np.uint64(_COUNTERS - 1), return_counts=True)
            counters[low_bits] = np.minimum(counters[low_bits] + items, _MOST_COUNTED)
    limit = max(settings.common_items, sum(file_counts.items for file_counts in counts) // 100)
    limit = min(limit, _MOST_COUNTED - 1)
    suspects: dict[int, int] = {}
    for path in tests if (counters > limit).any() else ():
        for hashes in _runs_of_items(path, settings, shared):
            suspected = hashes[counters[hashes & np.uint64(_COUNTERS - 1)] > limit]
            values, items = np.unique(suspected, return_counts=True)
            for value, count in zip(values.tolist(), items.tolist(), strict=True):
                suspects[value] = suspects.get(value, 0) + count
    return np.array(sorted(value for value, items in suspects.items() if items > limit), dtype=np.uint64)


def _runs_of_items(
    path: Path, settings: OverlapSettings, shared: frozenset[int], counts: FileCounts | None = None
) -> Iterator[np.ndarray]:
    """Yield the hashes of the runs of some items at a time, each run of an item once."""

    def long_texts(item: ComparedItem) -> list[str]:
        return [words for _, words in item.texts if word_count(words) >= settings.ngram]

    items = map(long_texts, compared_items(path, settings, shared, counts))
    for piece in in_pieces(items, lambda texts: sum(map(len, texts))):
        owners = [number for number, texts in enumerate(piece) for _ in texts]
        if owners:
            yield distinct_runs([words for texts in piece for words in texts], owners, settings.ngram)[0]


def parts_in_memory(
    tests: Sequence[Path], settings: OverlapSettings, shared: frozenset[int], budget: int
) -> Iterator[list[ItemText]]:
    """Yield the test texts, as many at a time as can be indexed in `budget` bytes."""
    part: list[ItemText] = []
    size = 0
    for file, path in enumerate(tests):
        for item in compared_items(path, settings, shared):
            for field, words in item.texts:
                part.append(ItemText(file, item.line, item.name, field, words))
                runs = max(0, word_count(words) + 1 - settings.ngram)
                size += len(words) + TEXT_BYTES + RUN_BYTES * runs
                if size >= budget:
                    full, part, size = part, [], 0
                    yield full
                    # Freed before the next part is collected.
                    del full
    if part:
        yield part
