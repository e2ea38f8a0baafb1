"""Where a conversation is split so that no piece is longer than a number of tokens."""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

# Tokens that the chat format is reckoned to put around each message.
_TOKENS_AROUND = 6


class Piece(Enum):
    """What becomes of some turns; the values of those that are lost are the reasons they are listed under."""

    KEPT = "kept"
    TOO_LONG = "one turn is longer than a piece may be"
    LOST = "last turn, lost as the published splitter does"


class Turns(NamedTuple):
    """Messages `start` up to, not with, `end` of a conversation."""

    start: int
    end: int
    kind: Piece


def split_conversation(counts: Sequence[int], most: int, released: bool = False) -> Iterator[Turns]:
    """The pieces of a conversation, in order, and the turns between them that are too long by themselves.

    A turn is a question and its answer, and is never split. Turns are added to a piece as long as it stays
    within `most`.

    Args:
        counts: tokens of each message, question and answer by turns.
        most: most tokens of a piece, with six for the chat format around each message.
        released: as the published splitter: a last turn that does not fit into the piece before it is lost.
    """
    start = total = 0
    last = len(counts) - 2
    for place in range(0, len(counts), 2):
        turn = counts[place] + counts[place + 1] + 2 * _TOKENS_AROUND
        if total + turn > most:
            if start < place:
                yield Turns(start, place, Piece.KEPT)
            start, total = place, 0
            if turn > most:
                yield Turns(place, place + 2, Piece.TOO_LONG)
                start = place + 2
                # The published splitter takes the next turn for one that does not fit, too.
                total = turn if released else 0
                continue
            if released and place == last:
                yield Turns(place, place + 2, Piece.LOST)
                return
        total += turn
    if start < len(counts):
        yield Turns(start, len(counts), Piece.KEPT)


def token_counter(tokenizer: Any) -> Callable[[list[str]], list[int]]:
    """Counts the tokens of texts with a transformers tokenizer, those it puts around a text included."""

    def counts(texts: list[str]) -> list[int]:
        # Of a half character, for which its piece is refused later, tokenizers make an error.
        whole = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [len(ids) for ids in tokenizer(whole, verbose=False)["input_ids"]]

    return counts
