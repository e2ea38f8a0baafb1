"""Near-duplicates: rows whose sets of word shingles overlap by at least a threshold (Jaccard similarity).

MinHash signatures (Broder 1997) are cut into bands; rows that agree in a band are candidates
(locality-sensitive hashing), and each candidate's similarity is then computed from the shingles themselves.
So what is found is no estimate; only a pair that agrees in no band is missed, with the probability that
`Scheme.recall` gives.

Texts have their words separated by white space; `duplicates.row_text` makes them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from instruction_modelling.progress import Progress

MOST_HASHES = 128
WANTED_RECALL = 0.995
# Texts whose shingles are hashed in one go, and the most shingles of them, so that arrays stay in the cache.
_TEXTS_AT_ONCE = 512
_CHARACTERS_AT_ONCE = 500_000
# Rows of one bucket that are compared pairwise; in a larger one each row is compared with this many others.
MOST_PAIRWISE = 400
_BASE = 0x9E3779B97F4A7C15 | 1


@dataclass(frozen=True)
class Scheme:
    """Signatures of bands x rows hashes: two texts of similarity s agree in a band with 1 - (1 -
    s^rows)^bands."""

    bands: int
    rows: int

    @property
    def hashes(self) -> int:
        """Hashes of a signature."""
        return self.bands * self.rows

    def recall(self, similarity: float) -> float:
        """The probability that a pair of this similarity becomes a candidate."""
        return 1.0 - (1.0 - similarity**self.rows) ** self.bands


def choose_scheme(threshold: float) -> Scheme:
    """The scheme with the longest bands, hence the fewest candidates, that finds all but half a percent of
    the pairs at the threshold."""
    schemes = [Scheme(MOST_HASHES // rows, rows) for rows in range(1, 17)]
    good = [scheme for scheme in schemes if scheme.recall(threshold) >= WANTED_RECALL]
    chosen = good[-1] if good else schemes[0]
    bands = next(
        (b for b in range(1, chosen.bands) if Scheme(b, chosen.rows).recall(threshold) >= WANTED_RECALL),
        chosen.bands,
    )
    return Scheme(bands, chosen.rows)


# -- shingles ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64[count] each: the powers of the base and of its inverse modulo 2^64."""
    steps = np.full(count, _BASE, dtype=np.uint64)
    back = np.full(count, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
    steps[0] = back[0] = 1
    return np.multiply.accumulate(steps), np.multiply.accumulate(back)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Each of the uint64 values stirred (the finaliser of SplitMix64), so that all bits depend on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shingle_hashes(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the shingles (runs of `size` words; a shorter text is one shingle) of all texts, end to
    end.

    Returns:
        (uint64[shingles], int64[texts + 1]: where each text's begin; a text without words has none)
    """
    joined = [" ".join(text.split()).encode("utf-8", "surrogatepass") for text in texts]
    buffer = np.frombuffer(b" ".join(joined) + b" ", dtype=np.uint8)
    powers, inverse = _powers(1 << max(16, len(buffer).bit_length()))
    # hash(word) = sum of byte_i x base^(i - start), all words from one running sum, modulo 2^64.
    running = np.concatenate(
        [
            np.zeros(1, dtype=np.uint64),
            np.cumsum((buffer.astype(np.uint64) + np.uint64(1)) * powers[: len(buffer)], dtype=np.uint64),
        ]
    )
    spaces = np.flatnonzero(buffer == 32)
    starts = np.concatenate([[0], spaces[:-1] + 1]).astype(np.int64)
    real = spaces > starts
    starts, ends = starts[real], spaces[real]
    words = _mixed((running[ends] - running[starts]) * inverse[starts])

    text_starts = np.cumsum([0, *(len(text) + 1 for text in joined)])
    first = np.searchsorted(starts, text_starts)
    counts = np.diff(first)
    shingles = np.where(counts == 0, 0, np.maximum(counts - size + 1, 1))
    offsets = np.concatenate([[0], np.cumsum(shingles)]).astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), shingles)
    at = first[owner] + np.arange(offsets[-1]) - offsets[owner]
    stop = first[owner + 1]
    hashes = np.zeros(len(at), dtype=np.uint64)
    for place in range(size):
        inside = at + place < stop
        word = (
            np.where(inside, words[np.minimum(at + place, max(len(words) - 1, 0))], np.uint64(0))
            if len(at)
            else hashes
        )
        hashes = _mixed(hashes * np.uint64(_BASE) + word + np.uint64(place + 1))
    return hashes, offsets


def shingle_set(text: str, size: int) -> np.ndarray:
    """uint64, sorted: the hashes of a text's shingles, each once."""
    return np.unique(shingle_hashes([text], size)[0])


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """The similarity of two sorted sets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both) if len(one) or len(other) else 0.0


# -- signatures -------------------------------------------------------------------------------------------


def _batches(texts: Callable[[int], str], rows: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """(Number of the first, texts), a few at a time."""
    batch: list[str] = []
    first = held = 0
    for number, row in enumerate(rows):
        batch.append(texts(row))
        held += len(batch[-1])
        if len(batch) == _TEXTS_AT_ONCE or held >= _CHARACTERS_AT_ONCE:
            yield first, batch
            first, batch, held = number + 1, [], 0
    if batch:
        yield first, batch


def signatures(
    texts: Callable[[int], str],
    rows: Sequence[int],
    size: int,
    scheme: Scheme,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """uint32[rows, hashes]: the MinHash signatures of the texts with these numbers, which all have words."""
    draw = np.random.default_rng(seed)
    factors = draw.integers(0, 2**32, scheme.hashes, dtype=np.uint32) | np.uint32(1)
    added = draw.integers(0, 2**32, scheme.hashes, dtype=np.uint32)
    out = np.empty((len(rows), scheme.hashes), dtype=np.uint32)
    for first, batch in _batches(texts, rows):
        hashes, offsets = shingle_hashes(batch, size)
        short = (hashes >> np.uint64(32)).astype(np.uint32)
        permuted = np.empty_like(short)
        for number in range(scheme.hashes):
            np.multiply(short, factors[number], out=permuted)
            permuted += added[number]
            # Products keep the low bits of what they multiply; folding the high ones in makes the order a
            # fresh one.
            permuted ^= permuted >> np.uint32(15)
            permuted *= np.uint32(0x2C1B3C6D)
            out[first : first + len(batch), number] = np.minimum.reduceat(permuted, offsets[:-1])
        if progress:
            progress.add(len(batch))
    return out


# -- groups -----------------------------------------------------------------------------------------------


class _Groups:
    """Disjoint sets of rows."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def find(self, row: int) -> int:
        """The row that stands for a row's group."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        """Makes one group of two; its earliest row stands for it."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


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


def find_near_duplicates(
    texts: Callable[[int], str],
    count: int,
    threshold: float = 0.8,
    size: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> NearDuplicates:
    """The groups of near-duplicates among texts number 0 to count - 1; equal texts are in one group, texts
    without words in none.

    Args:
        texts: gives a text by its number; it is asked more than once, so that not all need be held.
        threshold: least Jaccard similarity of two texts' sets of shingles.
        size: words of a shingle.
        seed: of the hash functions.
    """
    scheme = choose_scheme(threshold)
    groups = _Groups(count)
    first_of: dict[int, int] = {}
    similarity: dict[tuple[int, int], float] = {}
    distinct = []
    for row in range(count):
        text = texts(row)
        if not text.strip():
            continue
        first = first_of.setdefault(hash(text), row)
        if first == row or texts(first) != text:
            distinct.append(row)
        else:
            groups.join(first, row)
            similarity[first, row] = 1.0
    if progress and count > len(distinct):
        progress.add(count - len(distinct))
    large = 0
    if distinct:
        found = signatures(texts, distinct, size, scheme, seed, progress)
        large = _join_candidates(found, distinct, texts, size, threshold, scheme, groups, similarity)
    members: dict[int, list[int]] = {}
    for row in range(count):
        members.setdefault(groups.find(row), []).append(row)
    return NearDuplicates([rows for rows in members.values() if len(rows) > 1], similarity, scheme, large)


def _join_candidates(
    found: np.ndarray,
    rows: Sequence[int],
    texts: Callable[[int], str],
    size: int,
    threshold: float,
    scheme: Scheme,
    groups: _Groups,
    similarity: dict[tuple[int, int], float],
) -> int:
    """Joins the groups of all candidates that are similar enough; the number of large buckets."""

    @lru_cache(maxsize=4096)
    def shingles(number: int) -> np.ndarray:
        return shingle_set(texts(rows[number]), size)

    # Four standard errors of the signatures' estimate of the similarity at the threshold.
    margin = 4.0 * (threshold * (1.0 - threshold) / scheme.hashes) ** 0.5
    large = 0
    for band in range(scheme.bands):
        for bucket in _buckets(found[:, band * scheme.rows : (band + 1) * scheme.rows]):
            large += len(bucket) > MOST_PAIRWISE
            if len({groups.find(rows[number]) for number in bucket.tolist()}) == 1:
                continue
            for place, number in enumerate(bucket.tolist()):
                others = bucket[place + 1 : place + 1 + MOST_PAIRWISE]
                alike = (found[others] == found[number]).mean(axis=1)
                for other in others[alike >= threshold - margin].tolist():
                    one, two = rows[number], rows[other]
                    if groups.find(one) == groups.find(two):
                        continue
                    value = jaccard(shingles(number), shingles(other))
                    if value >= threshold:
                        groups.join(one, two)
                        similarity[one, two] = value
    return large


def _buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of the rows with equal keys, two or more, in ascending order."""
    flat = np.zeros(len(keys), dtype=np.uint64)
    for column in keys.T:
        flat = _mixed(flat * np.uint64(_BASE) + column)
    order = np.argsort(flat, kind="stable")
    new = np.concatenate([[True], flat[order][1:] != flat[order][:-1]])
    bounds = np.append(np.flatnonzero(new), len(order))
    for start in np.flatnonzero(np.diff(bounds) > 1).tolist():
        yield np.sort(order[bounds[start] : bounds[start + 1]])


def near_duplicate_statistics(found: NearDuplicates, threshold: float, size: int) -> dict[str, Any]:
    """What was searched for and how, as numbers."""
    return {
        "threshold": threshold,
        "shingle_words": size,
        "bands": found.scheme.bands,
        "rows_per_band": found.scheme.rows,
        "recall_at_threshold": found.scheme.recall(threshold),
        "large_buckets": found.large_buckets,
    }
