"""Near-duplicates in 20,000 made-up rows, and in a crowd of rows that are nearly all alike: how many pairs
are found and how fast, by this project and, where they are installed, by the libraries that it was weighed
against.

    python -m pytest -s tests/analysis/test_near_duplicates_scale.py
"""

import random
import time
from collections.abc import Callable, Iterator

import pytest

from instruction_modelling.analysis.near_duplicates import (
    DEFAULT_SETTINGS,
    choose_scheme,
    find_near_duplicates,
)

VOCABULARY = [f"word{number}" for number in range(3000)]
SCHEME = choose_scheme(DEFAULT_SETTINGS.threshold)
Pairs = set[tuple[int, int]]


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[start : start + 3]) for start in range(max(len(words) - 2, 1))]


def similar(texts: list[str], pairs: Iterator[tuple[int, int]]) -> Pairs:
    """Return the pairs at or above the threshold, each compared exactly."""
    sets: dict[int, frozenset[str]] = {}
    kept = set()
    for pair in pairs:
        first, second = (sets.setdefault(row, frozenset(shingles(texts[row]))) for row in pair)
        if len(first & second) / len(first | second) >= DEFAULT_SETTINGS.threshold:
            kept.add(pair)
    return kept


def by_this_project(texts: list[str]) -> Pairs:
    groups = find_near_duplicates(lambda row: texts[row], len(texts), DEFAULT_SETTINGS).groups
    return {(group[0], other) for group in groups for other in group[1:]}


def by_rensa(texts: list[str]) -> Pairs:
    rensa = pytest.importorskip("rensa")
    index = rensa.RMinHashLSH(
        threshold=DEFAULT_SETTINGS.threshold, num_perm=SCHEME.hashes, num_bands=SCHEME.bands
    )

    def candidates() -> Iterator[tuple[int, int]]:
        for row, text in enumerate(texts):
            signature = rensa.RMinHash(num_perm=SCHEME.hashes, seed=0)
            signature.update(shingles(text))
            yield from ((earlier, row) for earlier in index.query(signature))
            index.insert(row, signature)

    return similar(texts, candidates())


def by_datasketch(texts: list[str]) -> Pairs:
    datasketch = pytest.importorskip("datasketch")
    index = datasketch.MinHashLSH(params=(SCHEME.bands, SCHEME.rows), num_perm=SCHEME.hashes)
    encoded = [[shingle.encode() for shingle in shingles(text)] for text in texts]

    def candidates() -> Iterator[tuple[int, int]]:
        for row, signature in enumerate(datasketch.MinHash.bulk(encoded, num_perm=SCHEME.hashes)):
            yield from ((earlier, row) for earlier in index.query(signature))
            index.insert(row, signature)

    return similar(texts, candidates())


@pytest.fixture(scope="module")
def copies() -> tuple[list[str], Pairs]:
    """16,000 rows, then a copy of every fourth with a run of words replaced; the pairs at or above the
    threshold."""
    draw = random.Random(3)
    originals = [draw.choices(VOCABULARY, k=draw.randint(60, 200)) for _ in range(16_000)]
    edited = []
    for words in originals[::4]:
        count = round(draw.choice((0.03, 0.06, 0.08, 0.09)) * len(words))
        start = draw.randrange(len(words) - count + 1)
        edited.append(words[:start] + draw.choices(VOCABULARY, k=count) + words[start + count :])
    texts = [" ".join(words) for words in originals + edited]
    return texts, similar(texts, ((4 * number, 16_000 + number) for number in range(len(edited))))


@pytest.mark.slow
@pytest.mark.parametrize("search", [by_this_project, by_rensa, by_datasketch])
def test_recall_and_time_of_copies(
    copies: tuple[list[str], Pairs], search: Callable[[list[str]], Pairs]
) -> None:
    texts, pairs = copies
    begin = time.monotonic()
    found = search(texts)
    recall = len(found & pairs) / len(pairs)
    print(
        f"\n{search.__name__}: {time.monotonic() - begin:.1f} s, recall {recall:.4f} of {len(pairs):,} pairs"
    )
    assert recall >= SCHEME.recall(DEFAULT_SETTINGS.threshold) and found <= pairs


@pytest.mark.slow
def test_a_crowd_of_rows_that_are_nearly_all_alike_takes_seconds() -> None:
    draw = random.Random(4)
    frame = draw.choices(VOCABULARY, k=60)
    texts = [" ".join([*frame, *draw.choices(VOCABULARY, k=2)]) for _ in range(6000)]
    begin = time.monotonic()
    assert {row for pair in by_this_project(texts) for row in pair} == set(range(6000))
    seconds = time.monotonic() - begin
    print(f"\n6,000 rows, {6000 * 5999 // 2:,} pairs: {seconds:.1f} s")
    assert seconds < 60
