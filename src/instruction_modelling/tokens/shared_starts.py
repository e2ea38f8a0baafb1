"""Sequences of one conversation begin alike: what the one before has been encoded to is not encoded again.

A tokenizer takes its added tokens out of a text first, and encodes each stretch between them by itself. So a
text may be cut where such a token begins: its tokens are those of both parts. Left out are tokens that take
whitespace before them, or are looked for in normalised text, or as whole words: what stands before the cut
would decide about them. A longer token may begin where a shorter one does, so the text must go on alike for
as long as the longest."""

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from instruction_modelling.chat.spans import Rendered
from instruction_modelling.chat.turn_spans import common_prefix
from instruction_modelling.tokens.control_tokens import ControlTokens

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Start:
    """How a text is encoded."""

    cut: int
    """The character at which what is not encoded yet begins; 0 for a text that is encoded whole."""
    spells: bool
    """Whether the text of a control token overlaps what the data wrote."""


class Dividers:
    """The added tokens at which a text may be cut."""

    def __init__(self, added_tokens: Iterable[Mapping[str, Any]]):
        """Take the added tokens as a tokenizer's file has them."""
        given = list(added_tokens)
        fixed = [t for t in given if not (t["normalized"] or t["lstrip"] or t["single_word"])]
        self._texts = {token["content"] for token in fixed}
        self._longest = max((len(token["content"]) for token in given), default=0)

    def last(self, text: str, ranges: Ranges, same: int) -> int:
        """Return the number of the last of the control tokens at `ranges` at which a text may be cut that
        goes on as another for `same` characters; -1 without one."""
        number = bisect.bisect_right(ranges, same - self._longest, key=lambda place: place[1]) - 1
        while number >= 0 and text[slice(*ranges[number])] not in self._texts:
            number -= 1
        return number


def starts_of(
    rendered: Sequence[Rendered], control_of: Callable[[Rendered], ControlTokens], dividers: Dividers
) -> list[Start]:
    """Return how each text is encoded; those of one conversation stand side by side."""
    out: list[Start] = []
    before, ranges = None, list[tuple[int, int]]()
    for text in rendered:
        cut, kept = 0, list[tuple[int, int]]()
        if before is not None and _goes_on(before, text) and not out[-1].spells:
            same = common_prefix(before.text, text.text)
            number = dividers.last(text.text, ranges, same)
            if number > 0 and _data_before(before, ranges[number][0]) == _data_before(
                text, ranges[number][0]
            ):
                cut, kept = ranges[number][0], ranges[:number]
        found = control_of(text).ranges_in(text.text, cut)
        data = text.data_ranges[len(_data_before(text, cut)) :]
        out.append(Start(cut, any_overlap(found, data)))
        before, ranges = text, kept + found
    return out


def _goes_on(before: Rendered, text: Rendered) -> bool:
    """Return whether two texts may be of one conversation, one after the other."""
    follows = text.part == before.part + 1 and text.control_tokens == before.control_tokens
    return follows and not (text.needs_bos or before.needs_bos)


def _data_before(text: Rendered, position: int) -> Ranges:
    """Return what the data wrote before a position."""
    return text.data_ranges[: bisect.bisect_left(text.data_ranges, (position, -1))]


def tokens_before(start: np.ndarray, end: np.ndarray, is_control: np.ndarray, cut: int) -> int | None:
    """Return how many tokens stand before the control token that begins at a character; None where there is
    none.

    Args:
        start: int32[n], the first character of each token; `end`: int32[n], the one behind its last.
        is_control: bool[n].
    """
    number = int(np.searchsorted(start, cut))
    if number == len(start) or start[number] != cut or not is_control[number] or end[number] <= cut:
        return None
    return number if not number or end[:number].max() <= cut else None


def any_overlap(ranges: Ranges, others: Ranges) -> bool:
    """Return whether one of the ranges [start, end) shares a character with one of the others."""
    if not (ranges and others):
        return False
    others = sorted(others)
    firsts = [first for first, _ in others]
    # How far the others reach that begin no later than each.
    reach = list(accumulate((stop for _, stop in others), max))
    before = ((start, bisect.bisect_left(firsts, end)) for start, end in ranges)
    return any(count and reach[count - 1] > start for start, count in before)
