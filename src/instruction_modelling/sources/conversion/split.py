"""Splitting of conversations so that no piece is longer than a number of tokens."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

# Tokens that the chat format is reckoned to put around each message.
_TOKENS_AROUND = 6


class PieceKind(Enum):
    """What becomes of some turns; the values of those that are lost are the reasons they are listed under."""

    KEPT = "kept"
    TOO_LONG = "one turn is longer than a piece may be"
    LOST = "last turn, lost as the published splitter does"


class Turns(NamedTuple):
    """Messages `start` up to, not with, `end` of a conversation."""

    start: int
    end: int
    kind: PieceKind


def split_conversation(counts: Sequence[int], max_tokens: int, released: bool = False) -> Iterator[Turns]:
    """Yield the pieces of a conversation, in order, and the turns between them that are too long by
    themselves.

    A turn is a question and its answer, and is never split. Turns are added to a piece as long as it stays
    within `max_tokens`.

    Args:
        counts: tokens of each message, question and answer by turns.
        max_tokens: most tokens of a piece, with six for the chat format around each message.
        released: as the published splitter: a last turn that does not fit into the piece before it is lost.
    """
    start = total = 0
    last = len(counts) - 2
    for index in range(0, len(counts), 2):
        turn = counts[index] + counts[index + 1] + 2 * _TOKENS_AROUND
        if total + turn > max_tokens:
            if start < index:
                yield Turns(start, index, PieceKind.KEPT)
            start, total = index, 0
            if turn > max_tokens:
                yield Turns(index, index + 2, PieceKind.TOO_LONG)
                start = index + 2
                # The published splitter takes the next turn for one that does not fit, too.
                total = turn if released else 0
                continue
            if released and index == last:
                yield Turns(index, index + 2, PieceKind.LOST)
                return
        total += turn
    if start < len(counts):
        yield Turns(start, len(counts), PieceKind.KEPT)


def token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    """Count the tokens of each text with a transformers tokenizer, those it puts around a text included."""
    # Of a half character, for which its piece is refused later, tokenizers make an error.
    encodable = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    return [len(ids) for ids in tokenizer(encodable, verbose=False)["input_ids"]]
