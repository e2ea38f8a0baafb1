"""Rows split into a sealed test set, a validation set and a pool to train from, near-duplicates together.

Rows that say nearly the same (in what the user says, or as a whole) go to one part together: else a model is
tested on what it was trained on. The split is a function of the rows' texts alone, not of their order."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instruction_modelling.analysis.duplicates import normalised
from instruction_modelling.analysis.near_duplicates import DEFAULT_SETTINGS, find_near_duplicates
from instruction_modelling.comparison.row_sets import held_out_rows
from instruction_modelling.errors import UserError
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation

MOST_VALIDATION = 100
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
            f"{LEAST_TEST} are tested on and {LEAST_POOL} trained on. With fewer, src/compare.py shows the "
            "arms' losses side by side, without an answer"
        )
    clusters = near_duplicate_clusters(conversations)
    test_size, validation_size = _sizes(count)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for cluster in clusters:
        # A cluster goes where it fits; what is larger than a part has room for is trained on.
        if len(parts[0]) + len(cluster) <= test_size:
            parts[0].extend(cluster)
        elif len(parts[1]) + len(cluster) <= validation_size:
            parts[1].extend(cluster)
        else:
            parts[2].extend(cluster)
    test, validation, pool = (sorted(part) for part in parts)
    if len(test) < LEAST_TEST or len(pool) < LEAST_POOL:
        largest = max(map(len, clusters))
        raise UserError(
            f"{counted(count, 'row')}, of which {largest:,} say nearly the same: so no {LEAST_TEST} can be "
            "tested on without being trained on too; take the duplicates out (src/analyze_data.py lists them)"
        )
    return Split(test, validation, pool, sum(len(cluster) > 1 for cluster in clusters))


def _sizes(count: int) -> tuple[int, int]:
    """Return how many rows are tested and validated on."""
    return held_out_rows(count), min(MOST_VALIDATION, count // 10)


def _pool(count: int) -> int:
    return count - sum(_sizes(count))


def near_duplicate_clusters(conversations: Sequence[Conversation]) -> list[list[int]]:
    """Return all rows in clusters, most of one row, in an order that follows from their texts alone."""
    # Without system prompts: one that all rows share would make them all alike.
    texts = [_text(conversation, without={"system"}) for conversation in conversations]
    of_user = [_text(conversation, without={"system", "assistant", "tool"}) for conversation in conversations]
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for of_part in (texts, of_user):
        groups = find_near_duplicates(of_part.__getitem__, len(of_part), DEFAULT_SETTINGS).groups
        for first, *others in groups:
            for other in others:
                parent[root(other)] = root(first)
    members: dict[int, list[int]] = {}
    for row in range(len(texts)):
        members.setdefault(root(row), []).append(row)

    def key(cluster: list[int]) -> bytes:
        # The least hash of its texts: rows in another order, the same split.
        return min(hashlib.sha256(texts[row].encode("utf-8", "surrogatepass")).digest() for row in cluster)

    return sorted(members.values(), key=key)


def _text(conversation: Conversation, without: set[str]) -> str:
    """Return what a row says, as it is compared, without the messages of some roles."""
    said = (message.content for message in conversation.messages if message.role not in without)
    return "\n".join(map(normalised, said))


def training_subset(pool: int, size: int, seed: int) -> list[int]:
    """Return the rows of the pool that a seed trains on: `size` of them drawn without replacement, a function
    of the arguments, the same for every arm."""
    drawn = np.random.Generator(np.random.Philox(key=[seed, 20240514])).choice(pool, size, replace=False)
    return sorted(int(row) for row in drawn)
