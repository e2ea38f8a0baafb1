"""Texts of test sets within training rows, found by runs of words, in memory that is bounded, on several
processes.

A test text of at least `ngram` words overlaps with a training row that has at least `min_share` of its
distinct runs of `ngram` words; a shorter one, of at least `min_words`, with a row one of whose texts, or
lines of texts, is the same. Runs that occur in many items of the test sets (a question's fixed opening,
answer formats) say nothing about one of them and do not count; a text made of such runs alone overlaps where
it is repeated as a whole. What the hashes find is compared word by word, so no pair is reported by accident.

The test texts are indexed a part at a time, each part as large as the memory allows, and the training file is
read once for each part: what is found does not depend on the parts."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from instruction_modelling.analysis.overlap.index import (
    CHARACTERS_AT_ONCE,
    OverlapIndex,
    OverlapSettings,
    distinct_runs,
    member,
)
from instruction_modelling.analysis.overlap.results import RESULT_BYTES, Overlap, Overlaps, TestText
from instruction_modelling.analysis.overlap.texts import Batch, batches, decoded, row_name, texts_of, words_of
from instruction_modelling.analysis.shingles import shingle_hashes
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.progress import Progress

# Counters for the runs of all test items, by the low bits of their hashes.
_COUNTERS = 1 << 24
# What a worker needs beside the index, in bytes, at its largest batches (measured).
WORKER_BYTES = 200 << 20
_RUN_BYTES, _TEXT_BYTES = 64, 400
_SHORT_LINE = 400
# In place of the test text until its number has come from a worker.
_TOLD_LATER = TestText(0, 0, None, "", "")
# Rows, rows that could not be read, bytes, and (number of the test text, overlap).
Compared = tuple[int, int, int, list[tuple[int, Overlap]]]


@dataclass
class TestCounts:
    """What a test file holds."""

    items: int = 0
    texts: int = 0
    short: int = 0
    """Texts with fewer words than are compared."""
    refused: int = 0


@dataclass
class Found:
    """Every overlap, in the order of the training file, and what was read."""

    overlaps: Overlaps = field(default_factory=Overlaps)
    tests: list[TestCounts] = field(default_factory=list)
    train_rows: int = 0
    train_refused: int = 0
    common_runs: int = 0
    """Distinct runs that do not count."""
    passes: int = 0


def find_overlaps(train: Path, tests: Sequence[Path], settings: OverlapSettings) -> Found:
    """Compares a training file with test files.

    Raises:
        UserError: a file cannot be read, a test file has nothing to compare, or the memory is too small for
        anything.
    """
    found = Found(tests=[TestCounts() for _ in tests])
    fixed = settings.processes * WORKER_BYTES + _COUNTERS * 2 + RESULT_BYTES
    budget = (settings.max_memory_mb << 20) - fixed
    if budget < 50 << 20:
        least = (fixed + (50 << 20)) >> 20
        raise UserError(
            f"--max_memory_mb {settings.max_memory_mb}: {settings.processes} processes need at least "
            f"{least}; give "
            "more, or fewer --num_processes"
        )
    common = _common_runs(tests, settings, found)
    for path, counts in zip(tests, found.tests, strict=True):
        if counts.texts == counts.short:
            raise UserError(
                f"{path}: none of its {counts.texts} texts has {settings.min_words} words, so nothing can be "
                "compared: check what the file holds, or lower --min_words"
            )
    for part in _parts(tests, settings, budget):
        found.passes += 1
        index = OverlapIndex(part, common, settings)
        # Every pass reads the same rows.
        found.train_rows = found.train_refused = 0
        for rows, refused, overlaps in _search(train, index, settings, found.passes):
            found.train_rows += rows
            found.train_refused += refused
            # The words are those of the index, not a copy of them for each overlap.
            found.overlaps.extend(one._replace(test=index.texts[number]) for number, one in overlaps)
        # Before the next part is collected.
        del index, part
    return found


def _items(
    path: Path, settings: OverlapSettings, counts: TestCounts | None = None
) -> Iterator[tuple[int, str | None, list[tuple[str, str]]]]:
    """(line, name, (field, words) of each text that is compared) of each item of a test file."""
    for batch in batches(path):
        for line, value in decoded(batch):
            if isinstance(value, RowRefused):
                if counts:
                    counts.refused += 1
                continue
            texts = []
            for where, text in texts_of(value):
                words = words_of(text)
                long = words.count(" ") + 1 >= settings.min_words
                if counts:
                    counts.texts += 1
                    counts.short += not long
                if long:
                    texts.append((where, words))
            if counts:
                counts.items += 1
            # A text that an item repeats is one text.
            yield line, row_name(value), list(dict.fromkeys(texts))


def _common_runs(tests: Sequence[Path], settings: OverlapSettings, found: Found) -> np.ndarray:
    """uint64, sorted: hashes of the runs that are in too many items to say anything; counts what the files
    hold.

    Counted by the low bits of the hashes first, which can only count too much, and then exactly.
    """
    counters = np.zeros(_COUNTERS, dtype=np.uint16)
    for path, counts in zip(tests, found.tests, strict=True):
        for hashes in _item_runs(path, settings, counts):
            places, more = np.unique(hashes & np.uint64(_COUNTERS - 1), return_counts=True)
            counters[places] = np.minimum(counters[places] + more, 65_535)
    limit = max(settings.common_items, sum(counts.items for counts in found.tests) // 100)
    limit = min(limit, 65_534)
    suspects: dict[int, int] = {}
    if (counters > limit).any():
        for path in tests:
            for hashes in _item_runs(path, settings, None):
                values, items = np.unique(
                    hashes[counters[hashes & np.uint64(_COUNTERS - 1)] > limit], return_counts=True
                )
                for value, more in zip(values.tolist(), items.tolist(), strict=True):
                    suspects[value] = suspects.get(value, 0) + more
    common = sorted(value for value, items in suspects.items() if items > limit)
    found.common_runs = len(common)
    return np.array(common, dtype=np.uint64)


def _item_runs(path: Path, settings: OverlapSettings, counts: TestCounts | None) -> Iterator[np.ndarray]:
    """Hashes of the runs of a few items at a time, each run of an item once."""
    texts: list[str] = []
    owners: list[int] = []
    held = 0
    for number, (_, _, own) in enumerate(_items(path, settings, counts)):
        long = [words for _, words in own if words.count(" ") + 1 >= settings.ngram]
        texts += long
        owners += [number] * len(long)
        held += sum(map(len, long))
        if held >= CHARACTERS_AT_ONCE:
            yield distinct_runs(texts, owners, settings.ngram)[0]
            texts, owners, held = [], [], 0
    if texts:
        yield distinct_runs(texts, owners, settings.ngram)[0]


def _parts(tests: Sequence[Path], settings: OverlapSettings, budget: int) -> Iterator[list[TestText]]:
    """The test texts, as many at a time as there is room for."""
    part: list[TestText] = []
    size = 0
    for number, path in enumerate(tests):
        for line, name, texts in _items(path, settings):
            for where, words in texts:
                part.append(TestText(number, line, name, where, words))
                size += len(words) + _TEXT_BYTES + _RUN_BYTES * max(0, words.count(" ") + 2 - settings.ngram)
                if size >= budget:
                    full, part, size = part, [], 0
                    yield full
                    del full
    if part:
        yield part


def _compare(index: OverlapIndex, batch: Batch) -> Compared:
    """What a batch of training rows gives."""
    lines, names, per_row, refused = [], [], [], 0
    for line, value in decoded(batch):
        if isinstance(value, RowRefused):
            refused += 1
            continue
        lines.append(line)
        names.append(row_name(value))
        per_row.append([(where, text, words_of(text)) for where, text in texts_of(value)])
    flat = [words for texts in per_row for _, _, words in texts]
    owner = np.repeat(np.arange(len(per_row)), [len(texts) for texts in per_row])
    found = (
        [
            (number, _by_runs(index, lines[row], names[row], per_row[row], number))
            for row, number in index.search(flat, owner)
        ]
        if flat
        else []
    )
    overlaps = [(number, one) for number, one in found if one]
    if index.whole:
        for row, texts in enumerate(per_row):
            overlaps += _as_wholes(index, lines[row], names[row], texts)
    return len(lines), refused, batch.size, overlaps


def _by_runs(
    index: OverlapIndex, line: int, name: str | None, texts: list[tuple[str, str, str]], number: int
) -> Overlap | None:
    """The overlap that the hashes promise, if the words bear it out."""
    test, size = index.texts[number], index.settings.ngram
    common = member(shingle_hashes([test.words], size)[0], index.common)
    counted = {
        run for run, out in zip(_runs_in_order(test.words, size), common.tolist(), strict=True) if not out
    }
    best = max(texts, key=lambda text: len(counted & runs_of(text[2], size)))
    shared = set().union(*(counted & runs_of(words, size) for _, _, words in texts))
    if not counted or len(shared) < index.settings.min_share * len(counted):
        return None
    exact = next((where for where, _, words in texts if words == test.words), None)
    kind = "exact" if exact is not None else "contained" if len(shared) == len(counted) else "partial"
    return Overlap(line, name, _TOLD_LATER, kind, len(shared) / len(counted), exact or best[0])


def _as_wholes(
    index: OverlapIndex, line: int, name: str | None, texts: list[tuple[str, str, str]]
) -> Iterator[tuple[int, Overlap]]:
    """The short texts, and those of common runs alone, that a row repeats as a text or as a line of one."""
    seen: set[int] = set()
    for where, _, words in texts:
        for number in index.whole.get(words, ()):
            if number not in seen:
                seen.add(number)
                yield number, Overlap(line, name, _TOLD_LATER, "exact", 1.0, where)
    # Lines come after all whole texts: the same as a text says more.
    for where, text, _ in texts:
        if "\n" in text:
            for part in text.split("\n"):
                if part and len(part) <= _SHORT_LINE:
                    for number in index.whole.get(words_of(part), ()):
                        if number not in seen:
                            seen.add(number)
                            yield number, Overlap(line, name, _TOLD_LATER, "contained", 1.0, where)


def runs_of(words: str, size: int) -> set[str]:
    """The distinct runs of `size` words; of fewer words, all of them as one."""
    return set(_runs_in_order(words, size))


def _runs_in_order(words: str, size: int) -> list[str]:
    split = words.split(" ")
    return [" ".join(split[at : at + size]) for at in range(max(1, len(split) - size + 1))] if words else []


_index: OverlapIndex | None = None


def _compare_here(batch: Batch) -> Compared:
    assert _index is not None
    return _compare(_index, batch)


@contextmanager
def _as_index(index: OverlapIndex) -> Iterator[None]:
    """Forked workers find the index where they were forked."""
    global _index
    _index = index
    try:
        yield
    finally:
        _index = None


def _search(
    train: Path, index: OverlapIndex, settings: OverlapSettings, number: int
) -> Iterator[tuple[int, int, list[tuple[int, Overlap]]]]:
    """(rows, rows that could not be read, (number of the test text, overlap)) of each batch of the training
    file."""
    _check_readable(train)
    progress = Progress(
        max(1, os.stat(train).st_size // 10**6),
        f"MB of {train.name}" + (f", pass {number}" if number > 1 else ""),
    )
    done = 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if done // 10**6 > progress.done:
            progress.add(done // 10**6 - progress.done)

    with _as_index(index):
        if settings.processes == 1:
            for batch in batches(train):
                rows, refused, size, overlaps = _compare(index, batch)
                told(size)
                yield rows, refused, overlaps
            return
        # The pool takes whatever it is offered; only so many batches may be on their way.
        room = BoundedSemaphore(settings.processes * 3)

        def offered() -> Iterator[Batch]:
            for batch in batches(train):
                room.acquire()
                yield batch

        with multiprocessing.get_context("fork").Pool(settings.processes) as pool:
            for rows, refused, size, overlaps in pool.imap(_compare_here, offered()):
                room.release()
                told(size)
                yield rows, refused, overlaps


def _check_readable(path: Path) -> None:
    """Raises what would be wrong before any process is made."""
    next(batches(path), None)


def overlap_record(one: Overlap, train: Path, tests: Sequence[Path]) -> dict[str, Any]:
    """An overlap for a file."""
    return {
        "train_file": str(train),
        "train_line": one.train_line,
        "train_id": one.train_name,
        "train_field": one.train_field,
        "test_file": str(tests[one.test.file]),
        "test_line": one.test.line,
        "test_id": one.test.name,
        "test_field": one.test.field,
        "kind": one.kind,
        "share": one.share,
        "words": one.test.words,
    }
