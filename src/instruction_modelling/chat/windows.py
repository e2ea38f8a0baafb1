"""The renderings of a long conversation from those of short ones, where a template rewrites earlier turns.

There the text of the messages through each turn is another, and rendering each takes time that grows with the
square of their number. But most templates write a message by what stands near it. So a *window* is rendered
instead: the messages that begin the conversation, and behind them the last exchange before the one at hand
and this one. The text of the messages through it is then the text W of the whole conversation, up to the
user's words that begin the exchange at hand, and the window's text from there on.

Nothing of that is taken on trust: in every window the exchange before must be written as W has it, to the
letter; and for turns of every shape (`long_rows`), the last among them, text, ranges and what is left out are
held against the template's own. Where one differs, or a template refuses a window, the conversation's own
messages are rendered."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from instruction_modelling.chat.marks import Mark, MarkedRange, has_thinking
from instruction_modelling.chat.renderings import NotDerived, Renderings
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Message

# How much longer than its window a conversation has to be for a window to be worth while.
_LONGER = 2


@dataclass(frozen=True)
class _Way:
    """How windows are cut: `head` messages begin each, and behind them stand the messages from one of
    `boundaries` on; `spare` exchanges lie between the one that is compared with W and the one at hand."""

    head: int
    boundaries: tuple[int, ...]
    spare: int = 0


class _Window:
    """The messages from `first` to `stop`, behind those that begin the conversation."""

    def __init__(self, row: Renderings, way: _Way, first: int, cut: int, stop: int):
        conversation = row.conversation
        messages = (*conversation.messages[: way.head], *conversation.messages[first:stop])
        self.own = Renderings(row.renderer, replace(conversation, messages=messages))
        # A thought that the template drops from earlier messages decides how those here are marked.
        thoughts = any(map(has_thinking, conversation.messages[way.head : first]))
        self.own.split_thinking = thoughts and row.splits[len(conversation.messages), False]
        self.first, self.cut, self.shift = first, cut, first - way.head
        self._known: tuple[str, int, int] | None = None

    def places(self, count: int, prompted: bool) -> tuple[int, int]:
        """Return where the texts of the messages `first` and `cut` begin in the window's text of the first
        `count` messages of the conversation."""
        text = self.own.text(count - self.shift, prompted)
        if self._known and text.startswith(self._known[0]):
            return self._known[1:]
        found = starts(self.own.ranges(count - self.shift, prompted))
        try:
            before, (at, stop) = found[self.first - self.shift][0], found[self.cut - self.shift]
        except KeyError:
            raise NotDerived from None
        self._known = text[:stop], before, at
        return before, at


class Windows:
    """The renderings of one conversation's first messages, put together from its whole text and windows.

    Every method raises `NotDerived` or `RowRefused` where the template itself has to be asked."""

    def __init__(self, row: Renderings, way: _Way):
        self._row, self._way = row, way
        self._count = len(row.conversation.messages)
        self._whole = row.text(self._count)
        self._ranges = row.ranges(self._count)
        self._starts = starts(self._ranges)
        self._windows: dict[int, _Window] = {}
        self._bare: Windows | None = None

    def text(self, count: int, prompted: bool) -> str:
        """Return the text of the first `count` messages, `prompted` with the generation prompt."""
        window, own_count = self._window(count)
        own = window.own.text(own_count, prompted)
        return self._put_together(window, own, *window.places(count, prompted))

    def followed(self, count: int, follower: Sequence[Message]) -> str:
        """Return the text of the first `count` messages and others after them."""
        window, own_count = self._window(count)
        own = window.own.followed(own_count, follower)
        before, at = window.places(count, False)
        alone = window.own.text(own_count)
        if own is None or not own.startswith(alone[:at]):
            raise NotDerived
        return self._put_together(window, own, before, at)

    def ranges(self, count: int, prompted: bool) -> tuple[list[MarkedRange], list[Mark]]:
        """Return where the data's texts lie in `text(count, prompted)`, and the marks of those that the
        template leaves out."""
        window, own_count = self._window(count)
        self.text(count, prompted)
        own = window.own.ranges(own_count, prompted)
        missing = window.own.missing(own_count, prompted)
        _, at = window.places(count, prompted)
        cut, start = window.cut, self._starts[window.cut][0]
        early = [found for found in self._ranges if found.mark.message < cut]
        late = [found for found in own if found.mark.message + window.shift >= cut]
        if any(found.end > start for found in early) or any(found.start < at for found in late):
            raise NotDerived
        moved = [_moved(found, start - at, window.shift) for found in late]
        kept = [mark for mark in self._row.missing(self._count) if mark.message < cut]
        left_out = [mark for mark in missing if mark.message + window.shift >= cut]
        return early + moved, kept + [_of_row(mark, window.shift) for mark in left_out]

    def without_tools(self, count: int) -> str | None:
        """Return the text of the first `count` messages without the row's tools; None where the template
        needs some."""
        window, own_count = self._window(count)
        whole, own = self._row.without_tools(self._count), window.own.without_tools(own_count)
        if whole is None and own is None:
            return None
        text = self.text(count, False)
        before, _ = window.places(count, False)
        start = self._starts[window.first][0]
        same = whole and own and own.endswith(window.own.text(own_count)[before:])
        if whole and same and whole.endswith(self._whole[start:]):
            return whole[: len(whole) - len(self._whole) + start] + text[start:]
        # Tools that stand before the last user's message, say: the conversation without them has windows too.
        if self._bare is None:
            bare = replace(self._row.conversation, tools=())
            self._bare = Windows(Renderings(self._row.renderer, bare), self._way)
        return self._bare.text(count, False)

    def _window(self, count: int) -> tuple[_Window, int]:
        """Return the window for the first `count` messages, and how many of its own these are."""
        boundaries = self._way.boundaries
        number = bisect.bisect_left(boundaries, count) - 1
        before = number - self._way.spare - 1
        if before < 0:
            raise NotDerived
        if number not in self._windows:
            first, cut = boundaries[before], boundaries[before + 1]
            if first not in self._starts or cut not in self._starts:
                raise NotDerived
            stop = boundaries[number + 1] if number + 1 < len(boundaries) else self._count
            self._windows[number] = _Window(self._row, self._way, first, cut, stop)
        window = self._windows[number]
        own_count = count - window.shift
        if own_count * _LONGER > count:
            raise NotDerived
        return window, own_count

    def _put_together(self, window: _Window, own: str, before: int, at: int) -> str:
        start = self._starts[window.cut][0]
        if own[before:at] != self._whole[self._starts[window.first][0] : start]:
            raise NotDerived
        return self._whole[:start] + own[at:]


def open_windows(row: Renderings, shapes: Iterable[Sequence[int]]) -> None:
    """Have a row's texts put together from windows, if the template proves to allow it for turns of every
    shape.

    Args:
        shapes: the assistant's messages, by what decides how a template writes them (`long_rows.by_shape`).
    """
    shapes = list(shapes)
    for way in _ways(row):
        windows = Windows(row, way)
        if all(_holds(row, windows, indices) for indices in shapes):
            row.derived = windows
            return


def _ways(row: Renderings) -> list[_Way]:
    """Return the ways to cut windows, that with the shortest windows first."""
    messages = row.conversation.messages
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    if len(users) > 1:
        lead = users[0]
        first_exchange = _Way(users[1], tuple(users[1:]))
        alone = _Way(lead, tuple(users[1:]))
        return [alone, first_exchange, replace(first_exchange, spare=1)]
    # One long loop of calls: each result begins an exchange.
    results = [
        index
        for index, message in enumerate(messages)
        if index and message.role == "tool" and messages[index - 1].role == "assistant"
    ]
    return [_Way(results[0], tuple(results), 1)] if results else []


def _holds(row: Renderings, windows: Windows, indices: Sequence[int]) -> bool:
    """Return whether windows give what the template writes for turns of one shape: the first that is put
    together, one in the middle, and the last."""
    first = next((index for index in indices if _derives(windows, index)), None)
    if first is None:
        # Too few to be put together, all are rendered.
        return len(indices) <= _LONGER * 4
    middle, last = indices[(indices.index(first) + len(indices)) // 2], indices[-1]
    return all(
        _same_texts(row, windows, index, index == last)
        and (index == middle or _same_ranges(row, windows, index))
        and (index != first or _same_without_tools(row, windows, index))
        for index in dict.fromkeys((last, first, middle))
    )


def _same_texts(row: Renderings, windows: Windows, index: int, required: bool) -> bool:
    """Return whether windows give the prompt and the text of a turn, or, unless that is `required`, leave
    them to the template."""
    try:
        prompt, text = windows.text(index, True), windows.text(index + 1, False)
    except (NotDerived, RowRefused):
        return not required
    return prompt == row.text_or_none(index, True) and text == row.text_or_none(index + 1)


def _same_ranges(row: Renderings, windows: Windows, index: int) -> bool:
    try:
        ranges, missing = windows.ranges(index + 1, False)
    except (NotDerived, RowRefused):
        return True
    own = row.ranges(index + 1)
    same = list(map(_compared, ranges)) == list(map(_compared, own))
    return same and list(map(_key, missing)) == list(map(_key, row.missing(index + 1)))


def _same_without_tools(row: Renderings, windows: Windows, index: int) -> bool:
    try:
        return not row.conversation.tools or windows.without_tools(index + 1) == row.without_tools(index + 1)
    except (NotDerived, RowRefused):
        return True


def _key(mark: Mark) -> tuple[object, ...]:
    """Return what a mark says but its two characters."""
    return mark.kind, mark.message, mark.lead, mark.core, mark.trail, mark.offset


def _compared(found: MarkedRange) -> tuple[object, ...]:
    return found.start, found.end, found.offset, _key(found.mark)


def _derives(windows: Windows, index: int) -> bool:
    try:
        windows.text(index, True), windows.text(index + 1, False)
    except (NotDerived, RowRefused):
        return False
    return True


def starts(ranges: Iterable[MarkedRange]) -> dict[int, tuple[int, int]]:
    """Return the characters [start, end) of the content of each message that has one."""
    found: dict[int, tuple[int, int]] = {}
    for place in ranges:
        if place.end > place.start and place.mark.kind != SpanKind.REASONING:
            found.setdefault(place.mark.message, (place.start, place.end))
    return found


def _of_row(mark: Mark, shift: int) -> Mark:
    return replace(mark, message=mark.message + shift)


def _moved(found: MarkedRange, by: int, shift: int) -> MarkedRange:
    """Return a window's range where it lies in the conversation's text."""
    return MarkedRange(found.start + by, found.end + by, _of_row(found.mark, shift), found.offset)
