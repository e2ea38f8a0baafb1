"""Texts of test sets within training rows, found by runs of words, in memory that is bounded, on several
processes.

A test text of at least `ngram` words overlaps with a training row that has at least `min_share` of its
distinct runs of `ngram` words; a shorter one, of at least `min_words`, with a row one of whose texts, or
lines of texts, is the same. Runs that occur in many items of the test sets (a question's fixed opening,
answer formats) say nothing about one of them and do not count, nor do system prompts and tool definitions
that several test items have; a text made of such runs alone overlaps where
it is repeated as a whole. What the hashes find is compared word by word, so no pair is reported by accident.

The test texts are indexed a part at a time, each part as large as the memory allows, and the training file is
read once for each part: what is found does not depend on the parts."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import NamedTuple

import numpy as np

from instruction_modelling.analysis.overlap.batches import Batch, batches, decoded
from instruction_modelling.analysis.overlap.index import OverlapIndex, OverlapSettings, is_member
from instruction_modelling.analysis.overlap.items import (
    COUNTER_BYTES,
    FileCounts,
    common_runs,
    parts_in_memory,
    shared_settings,
)
from instruction_modelling.analysis.overlap.results import RESULT_BYTES, Overlap, Overlaps
from instruction_modelling.analysis.overlap.texts import row_name, texts_of, words_of
from instruction_modelling.analysis.shingles import shingle_hashes
from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.progress import Progress

# What a worker needs beside the index, in bytes, at its largest batches (measured).
WORKER_BYTES = 200 << 20
_LEAST_BUDGET = 50 << 20
_SHORT_LINE = 400
_MEGABYTE = 10**6


@dataclass
class SearchResult:
    """Every overlap, in the order of the training file, and what was read."""

    overlaps: Overlaps = field(default_factory=Overlaps)
    tests: list[FileCounts] = field(default_factory=list)
    train_rows: int = 0
    train_refused: int = 0
    common_runs: int = 0
    """Distinct runs that do not count."""
    passes: int = 0


def find_overlaps(train: Path, tests: Sequence[Path], settings: OverlapSettings) -> SearchResult:
    """Compare a training file with test files.

    Raises:
        UserError: a file cannot be read, a test file has nothing to compare, or the memory is too small for
        anything.
    """
    budget = _index_budget(settings)
    result = SearchResult(tests=[FileCounts() for _ in tests])
    shared = shared_settings(tests)
    common = common_runs(tests, settings, shared, result.tests)
    result.common_runs = len(common)
    for path, counts in zip(tests, result.tests, strict=True):
        if counts.texts == counts.short + counts.shared:
            raise UserError(
                f"{path}: none of its {counts.texts} texts has {settings.min_words} words, so nothing can be "
                "compared: check what the file holds, or lower --min_words"
            )
    for part in parts_in_memory(tests, settings, shared, budget):
        result.passes += 1
        index = OverlapIndex(part, common, settings)
        # Every pass reads the same rows.
        result.train_rows = result.train_refused = 0
        for hits in _search(train, index, result.passes):
            result.train_rows += hits.rows
            result.train_refused += hits.refused
            result.overlaps.extend(_overlap(hit, index) for hit in hits.hits)
        # Freed before the next part is collected.
        del index, part
    return result


def _index_budget(settings: OverlapSettings) -> int:
    """Return the bytes that one part's index may take."""
    fixed = settings.processes * WORKER_BYTES + COUNTER_BYTES + RESULT_BYTES
    budget = (settings.max_memory_mb << 20) - fixed
    if budget < _LEAST_BUDGET:
        raise UserError(
            f"--max_memory_mb {settings.max_memory_mb}: {settings.processes} processes need at least "
            f"{(fixed + _LEAST_BUDGET) >> 20}; give more, or fewer --num_processes"
        )
    return budget


# -- one batch of training rows -----------------------------------------------------------------------------


class TrainText(NamedTuple):
    """A text of a training row: the field that holds it, as it stands there, and its words."""

    field: str
    text: str
    words: str


class TrainRow(NamedTuple):
    """A row of the training file."""

    line: int
    name: str | None
    texts: list[TrainText]


class Hit(NamedTuple):
    """An overlap with the number of its test text in the index, whose words no worker need send back."""

    text: int
    train_line: int
    train_name: str | None
    kind: str
    share: float
    train_field: str


def _overlap(hit: Hit, index: OverlapIndex) -> Overlap:
    """Return a hit as an overlap that shares the words of the index, not a copy of them."""
    return Overlap(
        hit.train_line, hit.train_name, index.texts[hit.text], hit.kind, hit.share, hit.train_field
    )


class BatchHits(NamedTuple):
    """What a batch of training rows gives."""

    rows: int
    refused: int
    bytes: int
    hits: list[Hit]


def compare_batch(index: OverlapIndex, batch: Batch) -> BatchHits:
    """Return the overlaps of a batch of training rows with the texts of an index."""
    rows, refused = [], 0
    for line, value in decoded(batch):
        if isinstance(value, RowRefused):
            refused += 1
            continue
        texts = [TrainText(field, text, words_of(text)) for field, text in texts_of(value)]
        rows.append(TrainRow(line, row_name(value), texts))
    words = [text.words for row in rows for text in row.texts]
    row_of_text = np.repeat(np.arange(len(rows)), [len(row.texts) for row in rows])
    pairs = index.search(words, row_of_text) if words else {}
    hits = [hit for row, text in pairs if (hit := _hit_by_runs(index, rows[row], text))]
    if index.whole:
        for row in rows:
            hits += _hits_as_wholes(index, row)
    return BatchHits(len(rows), refused, batch.bytes, hits)


def _hit_by_runs(index: OverlapIndex, row: TrainRow, number: int) -> Hit | None:
    """Return the overlap that the hashes promise, or None where the words do not bear it out."""
    words, size = index.texts[number].words, index.settings.ngram
    is_common = is_member(shingle_hashes([words], size)[0], index.common).tolist()
    counted = {run for run, common in zip(_runs_in_order(words, size), is_common, strict=True) if not common}
    shared_with = [counted & runs_of(text.words, size) for text in row.texts]
    shared = set().union(*shared_with)
    if not counted or len(shared) < index.settings.min_share * len(counted):
        return None
    share = len(shared) / len(counted)
    for text in row.texts:
        if text.words == words:
            return Hit(number, row.line, row.name, "exact", share, text.field)
    most_shared = max(range(len(row.texts)), key=lambda number: len(shared_with[number]))
    kind = "contained" if len(shared) == len(counted) else "partial"
    return Hit(number, row.line, row.name, kind, share, row.texts[most_shared].field)


def _hits_as_wholes(index: OverlapIndex, row: TrainRow) -> Iterator[Hit]:
    """Yield the short texts, and those of common runs alone, that a row repeats as a text or as a line of
    one."""
    seen: set[int] = set()
    # Lines come after all whole texts, for a whole text says more.
    wholes = [("exact", text.field, text.words) for text in row.texts]
    lines = [
        ("contained", text.field, words_of(line))
        for text in row.texts
        if "\n" in text.text
        for line in text.text.split("\n")
        if line and len(line) <= _SHORT_LINE
    ]
    for kind, field_name, words in [*wholes, *lines]:
        for number in index.whole.get(words, ()):
            if number not in seen:
                seen.add(number)
                yield Hit(number, row.line, row.name, kind, 1.0, field_name)


def runs_of(words: str, size: int) -> set[str]:
    """Return the distinct runs of `size` words; of fewer words, all of them as one."""
    return set(_runs_in_order(words, size))


def _runs_in_order(words: str, size: int) -> list[str]:
    split = words.split(" ")
    last = max(1, len(split) - size + 1)
    return [" ".join(split[start : start + size]) for start in range(last)] if words else []


# -- all batches, on several processes ----------------------------------------------------------------------

# The index of a worker, which it has from the process that forked it.
_worker_index: OverlapIndex | None = None


def _keep_index(index: OverlapIndex) -> None:
    global _worker_index
    _worker_index = index
    # Ctrl-C is sent to all processes of a terminal: the first one ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _compare_in_worker(batch: Batch) -> BatchHits:
    assert _worker_index is not None
    return compare_batch(_worker_index, batch)


def _search(train: Path, index: OverlapIndex, pass_number: int) -> Iterator[BatchHits]:
    """Yield the hits of each batch of the training file, in its order."""
    # Raises what would be wrong with the file before any process is made.
    next(batches(train), None)
    noun = f"MB of {train.name}" + (f", pass {pass_number}" if pass_number > 1 else "")
    progress = Progress(max(1, train.stat().st_size // _MEGABYTE), noun)
    bytes_read = 0
    for hits in _compare_batches(train, index):
        bytes_read += hits.bytes
        if bytes_read // _MEGABYTE > progress.done:
            progress.add(bytes_read // _MEGABYTE - progress.done)
        yield hits


def _compare_batches(train: Path, index: OverlapIndex) -> Iterator[BatchHits]:
    processes = index.settings.processes
    if processes == 1:
        for batch in batches(train):
            yield compare_batch(index, batch)
        return
    # The pool takes whatever it is offered, the whole file if need be; so only so many batches may be under
    # way.
    under_way = BoundedSemaphore(processes * 3)

    def offered() -> Iterator[Batch]:
        for batch in batches(train):
            under_way.acquire()
            yield batch

    # Forked, so that the index is shared and not copied.
    with multiprocessing.get_context("fork").Pool(processes, _keep_index, (index,)) as pool:
        for hits in pool.imap(_compare_in_worker, offered()):
            under_way.release()
            yield hits
