"""Test texts indexed by the hashes of their runs of words: which of them a training row shares enough runs
with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instruction_modelling.analysis.overlap.results import ItemText
from instruction_modelling.analysis.shingles import in_pieces, shingle_hashes


@dataclass(frozen=True)
class OverlapSettings:
    """What counts as an overlap."""

    ngram: int = 8
    """Words of a run."""
    min_share: float = 0.5
    """Share of a test text's runs that a training row must have."""
    min_words: int = 4
    """Words of the shortest text that is compared."""
    common_items: int = 20
    """A run in more test items than this, and in more than one in a hundred of them, is common and does not
    count."""
    max_memory_mb: int = 4000
    """Memory for all processes together."""
    processes: int = 1


def word_count(words: str) -> int:
    """Return how many words `words_of` gave."""
    return words.count(" ") + 1 if words else 0


class OverlapIndex:
    """A part of the test texts, by the hashes of their runs and of themselves."""

    def __init__(self, texts: list[ItemText], common: np.ndarray, settings: OverlapSettings):
        """Index texts; `common` (uint64, sorted) are the hashes of the runs that do not count."""
        self.texts, self.settings, self.common = texts, settings, common
        hashes, self.text_of_run = self._runs()
        self.counts = np.bincount(self.text_of_run, minlength=len(texts)).astype(np.int64)
        first = np.ones(len(hashes), dtype=bool)
        first[1:] = hashes[1:] != hashes[:-1]
        # Each distinct run, and where the texts that have it begin in `text_of_run`.
        self.runs, self.starts = hashes[first], np.append(np.flatnonzero(first), len(hashes))
        # Most runs of the training rows are in no test text: one bit tells most of them apart.
        self.bits = max(20, int(np.ceil(np.log2(max(1, len(self.runs)) * 16))))
        self.seen = np.zeros(1 << self.bits, dtype=bool)
        self.seen[self.runs >> np.uint64(64 - self.bits)] = True
        # A text made of common runs, and a short one, is looked for as a whole.
        self.whole: dict[str, list[int]] = {}
        for number in np.flatnonzero(self.counts == 0).tolist():
            self.whole.setdefault(texts[number].words, []).append(number)

    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (hashes, numbers of texts) of the runs that count, each run of a text once, in the order of
        the hashes."""
        size = self.settings.ngram
        long = (number for number, text in enumerate(self.texts) if word_count(text.words) >= size)
        parts = [(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32))]
        for numbers in in_pieces(long, lambda number: len(self.texts[number].words)):
            words = [self.texts[number].words for number in numbers]
            parts.append(distinct_runs(words, numbers, size, self.common))
        hashes, numbers_of_texts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        # Freed before the sort, which needs as much memory again.
        del parts
        order = np.argsort(hashes, kind="stable")
        return hashes[order], numbers_of_texts[order]

    def search(self, texts: list[str], rows: np.ndarray) -> dict[tuple[int, int], int]:
        """Return {(row, number of the test text): distinct runs they share}, for those that share enough.

        `rows` (int64[texts]) is the row of each training text, ascending."""
        hashes, offsets = shingle_hashes(texts, self.settings.ngram)
        candidates = np.flatnonzero(self.seen[hashes >> np.uint64(64 - self.bits)])
        if not len(candidates) or not len(self.runs):
            return {}
        runs = np.minimum(np.searchsorted(self.runs, hashes[candidates]), len(self.runs) - 1)
        known = self.runs[runs] == hashes[candidates]
        runs, candidates = runs[known], candidates[known]
        row_of_run = rows[np.searchsorted(offsets, candidates, side="right") - 1]
        # Each run of a row once, then once for each test text that has it.
        row_of_run, runs = np.unique(np.stack([row_of_run, runs]), axis=1)
        texts_with_run = self.starts[runs + 1] - self.starts[runs]
        within = np.arange(texts_with_run.sum()) - np.repeat(
            np.cumsum(texts_with_run) - texts_with_run, texts_with_run
        )
        numbers = self.text_of_run[np.repeat(self.starts[runs], texts_with_run) + within].astype(np.int64)
        pairs, shared = np.unique(
            np.repeat(row_of_run, texts_with_run) * len(self.texts) + numbers, return_counts=True
        )
        enough = shared >= self.settings.min_share * self.counts[pairs % len(self.texts)]
        return {
            divmod(pair, len(self.texts)): count
            for pair, count in zip(pairs[enough].tolist(), shared[enough].tolist(), strict=True)
        }


def is_member(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return, for each value, whether it is one of the sorted `members`: bool[values]."""
    if not len(members):
        return np.zeros(len(values), dtype=bool)
    nearest = np.minimum(np.searchsorted(members, values), len(members) - 1)
    return members[nearest] == values


def distinct_runs(
    texts: Sequence[str], owners: Sequence[int], size: int, common: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (hashes, owners) of the runs of texts, each run of an owner once and those that are common left
    out; `owners` has the number of each text's item."""
    hashes, offsets = shingle_hashes(texts, size)
    owner_of_run = np.repeat(np.array(owners, dtype=np.uint32), np.diff(offsets))
    if common is not None and len(common):
        counted = ~is_member(hashes, common)
        hashes, owner_of_run = hashes[counted], owner_of_run[counted]
    order = np.lexsort((hashes, owner_of_run))
    hashes, owner_of_run = hashes[order], owner_of_run[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owner_of_run[1:] != owner_of_run[:-1])
    return hashes[first], owner_of_run[first]
