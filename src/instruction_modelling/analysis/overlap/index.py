"""Test texts indexed by the hashes of their runs of words: which of them a training row shares enough runs
with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from instruction_modelling.analysis.overlap.results import TestText
from instruction_modelling.analysis.shingles import shingle_hashes

# Hashing takes many times the memory of what it leaves, so only so many characters are hashed in one go.
CHARACTERS_AT_ONCE = 500_000


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


class OverlapIndex:
    """A part of the test texts, by the hashes of their runs and of themselves."""

    def __init__(self, texts: list[TestText], common: np.ndarray, settings: OverlapSettings):
        self.texts, self.settings = texts, settings
        self.common = common
        long = [number for number, text in enumerate(texts) if text.words.count(" ") + 1 >= settings.ngram]
        hashes, self.owners = self._runs(long)
        self.counts = np.bincount(self.owners, minlength=len(texts)).astype(np.int64)
        first = np.ones(len(hashes), dtype=bool)
        first[1:] = hashes[1:] != hashes[:-1]
        self.runs, self.starts = hashes[first], np.append(np.flatnonzero(first), len(hashes))
        # Most runs of the training rows are in no test text: one bit tells most of them apart.
        self.bits = max(20, int(np.ceil(np.log2(max(1, len(self.runs)) * 16))))
        self.seen = np.zeros(1 << self.bits, dtype=bool)
        self.seen[self.runs >> np.uint64(64 - self.bits)] = True
        # A text made of common runs, and a short one, is looked for as a whole.
        whole = [number for number in range(len(texts)) if self.counts[number] == 0]
        self.whole: dict[str, list[int]] = {}
        for number in whole:
            self.whole.setdefault(texts[number].words, []).append(number)

    def _runs(self, long: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(hashes, numbers of texts) of the runs that count, each run of a text once, in the order of the
        hashes."""
        size = self.settings.ngram
        parts: list[tuple[np.ndarray, np.ndarray]] = [
            (np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32))
        ]
        # A few texts at a time: hashing takes many times the memory of what it leaves.
        parts += [
            distinct_runs([self.texts[number].words for number in some], some, size, self.common)
            for some in in_pieces(self.texts, long)
        ]
        hashes, owners = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        del parts
        order = np.argsort(hashes, kind="stable")
        return hashes[order], owners[order]

    def search(self, texts: list[str], rows: np.ndarray) -> dict[tuple[int, int], int]:
        """(row, test text) to the number of distinct runs they share, for those that share enough."""
        hashes, offsets = shingle_hashes(texts, self.settings.ngram)
        maybe = np.flatnonzero(self.seen[hashes >> np.uint64(64 - self.bits)])
        if not len(maybe) or not len(self.runs):
            return {}
        places = np.searchsorted(self.runs, hashes[maybe])
        places[places == len(self.runs)] = 0
        hit = self.runs[places] == hashes[maybe]
        places, at = places[hit], maybe[hit]
        owner = rows[np.searchsorted(offsets, at, side="right") - 1]
        pairs = np.unique(np.stack([owner, places]), axis=1)
        lengths = self.starts[pairs[1] + 1] - self.starts[pairs[1]]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        texts_hit = self.owners[np.repeat(self.starts[pairs[1]], lengths) + within].astype(np.int64)
        keys, shared = np.unique(
            np.repeat(pairs[0], lengths) * len(self.texts) + texts_hit, return_counts=True
        )
        enough = shared >= self.settings.min_share * self.counts[keys % len(self.texts)]
        return {
            (int(key) // len(self.texts), int(key) % len(self.texts)): int(count)
            for key, count in zip(keys[enough], shared[enough], strict=True)
        }


def in_pieces(texts: Sequence[TestText], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of texts, a few at a time."""
    piece: list[int] = []
    held = 0
    for number in numbers:
        piece.append(number)
        held += len(texts[number].words)
        if held >= CHARACTERS_AT_ONCE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def member(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Whether each value is one of the sorted ones."""
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return among[places] == values


def distinct_runs(
    texts: Sequence[str], owners: Sequence[int], size: int, common: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, owners) of the runs of texts, each run of an owner once; those that are common left out."""
    hashes, offsets = shingle_hashes(texts, size)
    each = np.repeat(np.array(owners, dtype=np.uint32), np.diff(offsets))
    if common is not None and len(common):
        counted = ~member(hashes, common)
        hashes, each = hashes[counted], each[counted]
    order = np.lexsort((hashes, each))
    hashes, each = hashes[order], each[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (each[1:] != each[:-1])
    return hashes[first], each[first]
