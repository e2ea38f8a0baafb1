"""Near-duplicates: rows whose sets of word shingles overlap by at least a threshold (Jaccard similarity).

MinHash signatures (Broder 1997) are cut into bands; rows that agree in a band are candidates
(locality-sensitive hashing), and each candidate's similarity is then computed from the shingles themselves.
So no similarity is an estimate; only a pair that agrees in no band is missed, with the probability that
`Scheme.recall` gives. docs/design.md says why no library does this.

Texts have their words separated by white space; `duplicates.compared_row_text` makes them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from instruction_modelling.analysis.shingles import (
    BASE,
    in_pieces,
    jaccard,
    mixed,
    shingle_hashes,
    shingle_set,
)
from instruction_modelling.progress import Progress

MOST_HASHES = 128
LEAST_RECALL = 0.995
# Rows of one bucket that are compared pairwise; in a larger one each row is compared with this many others.
MOST_PAIRWISE = 400


@dataclass(frozen=True)
class NearDuplicateSettings:
    """Which text of a row is compared, from which similarity on rows count, over shingles of how many
    words."""

    of: str = "row"
    threshold: float = 0.8
    shingle_words: int = 3
    seed: int = 0


DEFAULT_SETTINGS = NearDuplicateSettings()


@dataclass(frozen=True)
class Scheme:
    """Signatures of bands x rows hashes: two texts of similarity s agree in a band with 1 - (1 -
    s^rows)^bands."""

    bands: int
    rows: int

    @property
    def hashes(self) -> int:
        """Return the hashes of a signature."""
        return self.bands * self.rows

    def recall(self, similarity: float) -> float:
        """Return the probability that a pair of this similarity becomes a candidate."""
        return 1.0 - (1.0 - similarity**self.rows) ** self.bands


def choose_scheme(threshold: float) -> Scheme:
    """Return the scheme with the longest bands, hence the fewest candidates, that misses at most half a
    percent of the pairs at the threshold."""
    schemes = [Scheme(MOST_HASHES // rows, rows) for rows in range(1, 17)]
    good = [scheme for scheme in schemes if scheme.recall(threshold) >= LEAST_RECALL]
    chosen = good[-1] if good else schemes[0]
    shorter = (Scheme(bands, chosen.rows) for bands in range(1, chosen.bands))
    return next((scheme for scheme in shorter if scheme.recall(threshold) >= LEAST_RECALL), chosen)


def signatures(texts: Sequence[str], size: int, scheme: Scheme, seed: int = 0) -> np.ndarray:
    """Return the MinHash signatures of texts that all have words: uint32[texts, hashes], `size` words a
    shingle."""
    draw = np.random.default_rng(seed)
    factors = draw.integers(0, 2**32, scheme.hashes, dtype=np.uint32) | np.uint32(1)
    added = draw.integers(0, 2**32, scheme.hashes, dtype=np.uint32)
    hashes, offsets = shingle_hashes(texts, size)
    high = (hashes >> np.uint64(32)).astype(np.uint32)
    permuted = np.empty_like(high)
    least = np.empty((len(texts), scheme.hashes), dtype=np.uint32)
    for column in range(scheme.hashes):
        np.multiply(high, factors[column], out=permuted)
        permuted += added[column]
        # Products keep the low bits of what they multiply; folding the high ones in makes the order a fresh
        # one.
        permuted ^= permuted >> np.uint32(15)
        permuted *= np.uint32(0x2C1B3C6D)
        least[:, column] = np.minimum.reduceat(permuted, offsets[:-1])
    return least


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of near-duplicates: connected by pairs of at least the threshold's similarity."""

    groups: list[list[int]]
    """Row numbers, two or more each, in file order."""
    similarity: dict[tuple[int, int], float]
    """The similarity of each pair that joined two groups; pairs of rows already in one group are not
    compared."""
    scheme: Scheme
    large_buckets: int
    """Buckets of more than `MOST_PAIRWISE` distinct texts, in which not every pair was compared."""

    def statistics(self, settings: NearDuplicateSettings) -> dict[str, Any]:
        """Return what was searched for and how, as numbers."""
        return {
            "threshold": settings.threshold,
            "shingle_words": settings.shingle_words,
            "bands": self.scheme.bands,
            "rows_per_band": self.scheme.rows,
            "recall_at_threshold": self.scheme.recall(settings.threshold),
            "large_buckets": self.large_buckets,
        }


def find_near_duplicates(
    text_of: Callable[[int], str],
    count: int,
    settings: NearDuplicateSettings,
    progress: Progress | None = None,
) -> NearDuplicates:
    """Return the groups of near-duplicates among texts number 0 to count - 1; equal texts are in one group,
    texts without words in none.

    Args:
        text_of: gives a text by its number; it is asked more than once, so that not all need be held.
    """
    search = _Search(text_of, count, settings)
    distinct = search.join_equal_texts(count)
    if progress and count > len(distinct):
        progress.add(count - len(distinct))
    hashes = np.empty((len(distinct), search.scheme.hashes), dtype=np.uint32)
    first = 0
    for texts in in_pieces(map(text_of, distinct), len):
        last = first + len(texts)
        hashes[first:last] = signatures(texts, settings.shingle_words, search.scheme, settings.seed)
        first = last
        if progress:
            progress.add(len(texts))
    large_buckets = search.join_candidates(np.array(distinct, dtype=np.int64), hashes)
    groups = sorted(sorted(group) for group in search.members.values() if len(group) > 1)
    return NearDuplicates(groups, search.similarity, search.scheme, large_buckets)


class _Search:
    """The groups so far, and the similarity of each pair that joined two of them."""

    def __init__(self, text_of: Callable[[int], str], count: int, settings: NearDuplicateSettings):
        self.text_of, self.settings = text_of, settings
        self.scheme = choose_scheme(settings.threshold)
        # Each row's group, by the number of one of its rows, and the rows of the groups that were looked at.
        self.group_of = np.arange(count)
        self.members: dict[int, list[int]] = {}
        self.similarity: dict[tuple[int, int], float] = {}
        self._shingles = lru_cache(maxsize=4096)(
            lambda row: shingle_set(text_of(row), settings.shingle_words)
        )

    def join_equal_texts(self, count: int) -> list[int]:
        """Join rows of equal texts; return the first row of each text that has words."""
        first_of: dict[int, int] = {}
        distinct = []
        for row in range(count):
            text = self.text_of(row)
            if not text.strip():
                continue
            first = first_of.setdefault(hash(text), row)
            if first == row or self.text_of(first) != text:
                distinct.append(row)
            else:
                self._join(first, row, 1.0)
        return distinct

    def join_candidates(self, rows: np.ndarray, hashes: np.ndarray) -> int:
        """Join the candidates among `rows` (int64) that are similar enough, given each one's signature;
        return how many buckets were too large to compare every pair."""
        large = 0
        for start in range(0, self.scheme.hashes, self.scheme.rows):
            for bucket in _buckets(hashes[:, start : start + self.scheme.rows]):
                large += len(bucket) > MOST_PAIRWISE
                self._join_bucket(rows[bucket], hashes[bucket])
        return large

    def _join_bucket(self, rows: np.ndarray, hashes: np.ndarray) -> None:
        """Join the similar rows of one bucket; each is compared with the next `MOST_PAIRWISE`."""
        threshold = self.settings.threshold
        # Four standard errors below the threshold, for a similarity estimated from a signature.
        least_estimate = threshold - 4.0 * (threshold * (1.0 - threshold) / self.scheme.hashes) ** 0.5
        for number, row in enumerate(rows[:-1].tolist()):
            later = rows[number + 1 : number + 1 + MOST_PAIRWISE]
            apart = np.flatnonzero(self.group_of[later] != self.group_of[row])
            if len(apart):
                estimates = (hashes[number + 1 + apart] == hashes[number]).mean(axis=1)
                for other in later[apart[estimates >= least_estimate]].tolist():
                    self._compare(row, other)

    def _compare(self, row: int, other: int) -> None:
        if self.group_of[row] != self.group_of[other]:
            similarity = jaccard(self._shingles(row), self._shingles(other))
            if similarity >= self.settings.threshold:
                self._join(row, other, similarity)

    def _join(self, row: int, other: int, similarity: float) -> None:
        larger, smaller = sorted(
            (self.members.setdefault(int(self.group_of[number]), [number]) for number in (row, other)),
            key=len,
            reverse=True,
        )
        del self.members[int(self.group_of[smaller[0]])]
        self.group_of[smaller] = self.group_of[larger[0]]
        larger += smaller
        self.similarity[row, other] = similarity


def _buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the numbers of the rows with equal keys (uint32[rows, columns]), two or more, in ascending
    order."""
    flat = np.zeros(len(keys), dtype=np.uint64)
    for column in keys.T:
        flat = mixed(flat * np.uint64(BASE) + column)
    order = np.argsort(flat, kind="stable")
    first_of_key = np.concatenate([[True], flat[order][1:] != flat[order][:-1]])
    bounds = np.append(np.flatnonzero(first_of_key), len(order))
    for start in np.flatnonzero(np.diff(bounds) > 1).tolist():
        yield order[bounds[start] : bounds[start + 1]]
