"""Shingles: runs of so many words of a text, hashed for a few hundred thousand characters at a time.

Near-duplicates and overlaps are both sets of shared shingles, so both use these hashes. Texts have their
words separated by white space."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

# Hashing takes many times the memory of what it leaves, and arrays of this length stay in the cache.
CHARACTERS_AT_ONCE = 500_000
BASE = 0x9E3779B97F4A7C15 | 1
Item = TypeVar("Item")


def in_pieces(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield the items in lists of about `CHARACTERS_AT_ONCE` characters; `characters` counts those of an
    item."""
    piece: list[Item] = []
    held = 0
    for item in items:
        piece.append(item)
        held += characters(item)
        if held >= CHARACTERS_AT_ONCE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


@lru_cache(maxsize=8)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint64[count] each: the powers of the base and of its inverse modulo 2^64."""
    powers = np.full(count, BASE, dtype=np.uint64)
    inverse = np.full(count, pow(BASE, -1, 1 << 64), dtype=np.uint64)
    powers[0] = inverse[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverse)


def mixed(values: np.ndarray) -> np.ndarray:
    """Return uint64 values stirred by the finaliser of SplitMix64, so that every bit depends on all bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word_hashes(encoded: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash of every word (uint64[words]) and each text's first word (int64[texts + 1])."""
    buffer = np.frombuffer(b" ".join(encoded) + b" ", dtype=np.uint8)
    powers, inverse = _powers(1 << max(16, len(buffer).bit_length()))
    # hash(word) = sum of byte_i x base^(i - start), all words from one running sum, modulo 2^64.
    running = np.zeros(len(buffer) + 1, dtype=np.uint64)
    np.cumsum((buffer.astype(np.uint64) + np.uint64(1)) * powers[: len(buffer)], out=running[1:])
    ends = np.flatnonzero(buffer == ord(" "))
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    nonempty = ends > starts
    starts, ends = starts[nonempty], ends[nonempty]
    text_starts = np.cumsum([0, *(len(text) + 1 for text in encoded)])
    return mixed((running[ends] - running[starts]) * inverse[starts]), np.searchsorted(starts, text_starts)


def shingle_hashes(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all texts' shingles (runs of `size` words; a shorter text is one shingle), end to
    end.

    Returns:
        (uint64[shingles], int64[texts + 1]: where each text's shingles begin; a text without words has none)
    """
    words, first = _word_hashes([" ".join(text.split()).encode("utf-8", "surrogatepass") for text in texts])
    counts = np.diff(first)
    shingles = np.where(counts == 0, 0, np.maximum(counts - size + 1, 1))
    offsets = np.concatenate([[0], np.cumsum(shingles)]).astype(np.int64)
    text = np.repeat(np.arange(len(texts)), shingles)
    # The number of each shingle's first word, and where its text's words end.
    word, end = first[text] + np.arange(offsets[-1]) - offsets[text], first[text + 1]
    hashes = np.zeros(len(word), dtype=np.uint64)
    if not len(word):
        return hashes, offsets
    for step in range(size):
        within = np.minimum(word + step, len(words) - 1)
        next_word = np.where(word + step < end, words[within], np.uint64(0))
        hashes = mixed(hashes * np.uint64(BASE) + next_word + np.uint64(step + 1))
    return hashes, offsets


def shingle_set(text: str, size: int) -> np.ndarray:
    """Return the hashes of a text's shingles, each once: uint64, sorted."""
    return np.unique(shingle_hashes([text], size)[0])


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sorted sets; 0 of two empty ones."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - shared
    return shared / union if union else 0.0
