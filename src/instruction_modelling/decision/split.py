"""Rows split into a sealed test set, a validation set and a pool to train from, near-duplicates together.

Rows that say nearly the same (in what the user says, or as a whole) go to one part together: else a model is
tested on what it was trained on. The split is a function of the rows' texts alone, not of their order."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instruction_modelling.analysis.duplicates import normalised
from instruction_modelling.analysis.near_duplicates import DEFAULT_SETTINGS, find_near_duplicates
from instruction_modelling.comparison.row_sets import held_out_rows
from instruction_modelling.errors import UserError
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation

logger = logging.getLogger(__name__)
MOST_VALIDATION = 100
# Beyond this share of all rows, and this many, rows that are alike share a form.
MOST_ALIKE, LEAST_ALIKE = 0.1, 10
# A cluster of more than one in so many of the test rows is not tested on.
LARGE_CLUSTER = 20
# Words of a response from which on rows of one form that have it are near-duplicates: fewer are a label.
LEAST_RESPONSE = 10
# With fewer rows no interval would be narrow enough for any margin that matters.
LEAST_TEST, LEAST_POOL = 40, 40


@dataclass(frozen=True)
class Split:
    """Indices of the rows of each part, in the order of the file."""

    test: list[int]
    validation: list[int]
    pool: list[int]
    clusters: int
    """Clusters of two or more near-duplicates."""
    alike: list[list[int]]
    """Those of them that are tested on: each says one thing, and counts as one row."""

    @property
    def distinct(self) -> int:
        """Return the number of test rows that say something of their own, a cluster counted as one."""
        return len(self.test) - sum(len(cluster) - 1 for cluster in self.alike)


def split_rows(conversations: Sequence[Conversation]) -> Split:
    """Return the split of a file's rows.

    Raises:
        UserError: too few rows, or clusters so large that a part stays too small.
    """
    count = len(conversations)
    least = next(n for n in range(1, 10_000) if _sizes(n)[0] >= LEAST_TEST and _pool(n) >= LEAST_POOL)
    if count < least:
        raise UserError(
            f"{counted(count, 'usable row')}: too few to tell anything; it takes {least}, of which "
            f"{LEAST_TEST} are tested on and {_pool(least)} trained from, half of them by each seed. With "
            "fewer, src/compare.py shows the arms' losses side by side, without an answer"
        )
    clusters = near_duplicate_clusters(conversations)
    # To test on, a cluster counts as one row, so a large one takes the room of others; where these are few,
    # none of several rows is tested on.
    for largest in (max(1, _sizes(count)[0] // LARGE_CLUSTER), 1):
        split = _placed(clusters, count, largest)
        if split.distinct >= LEAST_TEST and len(split.pool) >= LEAST_POOL:
            return split
    copies = sum(len(cluster) for cluster in clusters if len(cluster) > 1)
    raise UserError(
        f"{counted(count, 'row')}, of which {copies:,} say or ask nearly the same as others: no {LEAST_TEST} "
        f"that differ can be tested on, and {LEAST_POOL} others trained from; take the duplicates out "
        "(src/analyze_data.py lists them), or give more rows that differ"
    )


def _placed(clusters: Sequence[Sequence[int]], count: int, largest: int) -> Split:
    """Return the split in which no cluster of more than `largest` rows is tested on."""
    test_size, validation_size = _sizes(count)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for cluster in clusters:
        # A cluster goes where it fits; what is larger than a part has room for is trained on.
        if len(cluster) <= min(test_size - len(parts[0]), largest):
            parts[0].extend(cluster)
        elif len(parts[1]) + len(cluster) <= validation_size:
            parts[1].extend(cluster)
        else:
            parts[2].extend(cluster)
    test, validation, pool = (sorted(part) for part in parts)
    several = [sorted(cluster) for cluster in clusters if len(cluster) > 1]
    alike = sorted(cluster for cluster in several if set(cluster) <= set(test))
    return Split(test, validation, pool, len(several), alike)


def _sizes(count: int) -> tuple[int, int]:
    """Return how many rows are tested and validated on."""
    return held_out_rows(count), min(MOST_VALIDATION, count // 10)


def _pool(count: int) -> int:
    return count - sum(_sizes(count))


def near_duplicate_clusters(conversations: Sequence[Conversation]) -> list[list[int]]:
    """Return all rows in clusters, most of one row, in an order that follows from their texts alone.

    What holds more than a tenth of all rows is no cluster of near-duplicates but a form that rows share, a
    long question with a gap, say: its rows are compared once more by what is not of that form. Where that is
    a few words only, a response of some length that is the same makes them near-duplicates too."""
    # Without system prompts: one that all rows share would make them all alike.
    texts = [_text(conversation, without={"system"}) for conversation in conversations]
    of_user = [_text(conversation, without={"system", "assistant", "tool"}) for conversation in conversations]
    found, clusters, most = _clusters([texts, of_user]), list[list[int]](), len(texts) * MOST_ALIKE
    for cluster in found:
        if len(cluster) <= max(most, LEAST_ALIKE):
            clusters.append(cluster)
            continue
        within = [_without_form([of_part[row] for row in cluster]) for of_part in (texts, of_user)]
        said = [_text(conversations[row], without={"system", "user"}) for row in cluster]
        # Else a row is compared as nothing that another one says: a label is what many texts are given.
        asked = [len(text.split()) < DEFAULT_SETTINGS.shingle_words for text in within[1]]
        own = [
            text if is_small and len(text.split()) >= LEAST_RESPONSE else str(n)
            for n, (text, is_small) in enumerate(zip(said, asked, strict=True))
        ]
        parts = _clusters([*within, _without_form(own)])
        clusters += [[cluster[row] for row in part] for part in parts]
        logger.info(
            "%s of %s share a form: compared by the rest of their texts, they are %s",
            *(f"{len(cluster):,}", counted(len(texts), "row"), counted(len(parts), "cluster")),
        )

    def key(cluster: list[int]) -> bytes:
        # The least hash of its texts: rows in another order, the same split.
        return min(hashlib.sha256(texts[row].encode("utf-8", "surrogatepass")).digest() for row in cluster)

    return sorted(clusters, key=key)


def _clusters(kinds: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return all rows in clusters: two are in one where their texts of one of the kinds are near-duplicates,
    or others are that they share with more."""
    parent = list(range(len(kinds[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for texts in kinds:
        groups = find_near_duplicates(texts.__getitem__, len(texts), DEFAULT_SETTINGS).groups
        for first, *others in groups:
            for other in others:
                parent[root(other)] = root(first)
    members: dict[int, list[int]] = {}
    for row in range(len(parent)):
        members.setdefault(root(row), []).append(row)
    return list(members.values())


def _without_form(texts: Sequence[str]) -> list[str]:
    """Return texts without the words that they share: those in a shingle that more than half of them have. A
    text of such words alone stays as it is, so that equal ones are still found."""
    size = DEFAULT_SETTINGS.shingle_words
    words = [text.split() for text in texts]
    shingles = [
        [tuple(of_text[i : i + size]) for i in range(max(1, len(of_text) - size + 1))] for of_text in words
    ]
    counts = Counter(shingle for of_text in shingles for shingle in set(of_text))
    rest = []
    for text, of_text, of_shingles in zip(texts, words, shingles, strict=True):
        shared = {
            place
            for start, shingle in enumerate(of_shingles)
            if counts[shingle] > len(texts) / 2
            for place in range(start, start + size)
        }
        rest.append(" ".join(word for place, word in enumerate(of_text) if place not in shared) or text)
    return rest


def _text(conversation: Conversation, without: set[str]) -> str:
    """Return what a row says, as it is compared, without the messages of some roles."""
    said = (message.content for message in conversation.messages if message.role not in without)
    return "\n".join(map(normalised, said))


def training_subset(pool: int, size: int, seed: int) -> list[int]:
    """Return the rows of the pool that a seed trains on: `size` of them drawn without replacement, a function
    of the arguments, the same for every arm."""
    drawn = np.random.Generator(np.random.Philox(key=[seed, 20240514])).choice(pool, size, replace=False)
    return sorted(int(row) for row in drawn)
