"""The three counts of tokens that a rate may mean."""

from collections.abc import Sequence
from typing import Any

IGNORED = -100
COUNTS = ("positions", "tokens", "weighted")
MEANING = {
    "positions": "all that is computed, padding counted",
    "tokens": "tokens of examples, padding not counted",
    "weighted": "tokens with a loss",
}


def count_batch(labels: Any, attention_mask: Any | None) -> dict[str, int]:
    """Return the counts of one micro-batch of a trainer that takes `labels`.

    Args:
        labels: int64[R, L], -100 where there is no loss; the label of a row's first token has none either,
            for nothing predicts it.
        attention_mask: int64[R, L], 0 on padding; None where nothing is padded.
    """
    tokens = labels.numel() if attention_mask is None else int(attention_mask.sum())
    return {"positions": labels.numel(), "tokens": tokens, "weighted": int((labels[:, 1:] != IGNORED).sum())}


def add_counts(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Return the sum of the counts of several micro-batches."""
    return {name: sum(part[name] for part in parts) for name in COUNTS}
