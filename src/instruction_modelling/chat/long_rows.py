"""The turns of a long conversation from one rendering of the whole, where the template proves to be stable.

Rendering the messages before and through every turn takes time that grows with the square of their number.
Here turns of one shape (what comes before and after, reasoning, calls) are taken to be written alike: the
first, a middle and the last of each shape are found as `turns` finds them, and every other one must show the
same text between its content and its neighbours', to the letter. Where anything differs, the slow way, or
that of `windows`, decides."""

from collections.abc import Iterable, Mapping, Sequence

from instruction_modelling.chat.marks import Mark, MarkedRange, has_thinking
from instruction_modelling.chat.renderings import NotDerived, Renderings
from instruction_modelling.chat.spans import Span, SpanKind
from instruction_modelling.chat.turn_spans import Turn
from instruction_modelling.chat.turns import TurnFinder, thought_apart
from instruction_modelling.rows.conversations import Message

# Turns up to which the slow way is quick.
SHORT = 8

Shape = tuple[str, bool, bool, bool, bool, str]


def turns_of_long_row(row: Renderings, finder: TurnFinder, answers: Sequence[int]) -> list[Turn] | None:
    """Return the turns at the messages `answers`, each in place in the text of the whole row; None where the
    template rewrites one of them or writes two of one shape in different ways.

    Raises:
        RowRefused: the template refuses the conversation, or a turn cannot be found.
    """
    count = len(row.conversation.messages)
    if len(answers) <= SHORT or row.missing(count):
        return None
    text = row.text(count)
    of_message: dict[int, list[Span]] = {}
    for place in row.ranges(count):
        span = Span(place.start, place.end, place.mark.kind, place.mark.message)
        of_message.setdefault(span.message, []).append(span)
    found: dict[int, Turn] = {}
    behind: dict[int, str] = {}
    for indices in by_shape(row, answers):
        samples = _samples(row, finder, indices, text)
        if samples is None:
            return None
        found.update({turn.message: turn for turn in samples})
        for index in (index for index in indices if index not in found):
            # Some templates write the turns after the last user's message otherwise than those before it.
            alike = (_like(sample, index, text, of_message) for sample in reversed(samples))
            turn = next((turn for turn in alike if turn is not None), None)
            if turn is None:
                return None
            found[index] = turn
        tails = {turn.text[turn.end :] for turn in samples}
        if len(tails) == 1:
            behind.update(dict.fromkeys(indices, tails.pop()))
    if any(turn.asked for turn in found.values()):
        row.derived = _Stable(row, found, behind)
    return [found[index] for index in answers]


def _samples(row: Renderings, finder: TurnFinder, indices: Sequence[int], text: str) -> list[Turn] | None:
    """Return the first, a middle and the last of some turns; None where one does not stand in the text
    of the whole as it was written."""
    samples: list[Turn] = []
    for index in sorted({indices[0], indices[len(indices) // 2], indices[-1]}):
        samples.append(finder.turn(row, index))
        if samples[-1].rewrites_history or not text.startswith(samples[-1].text[: samples[-1].end]):
            return None
    return samples


class _Stable:
    """The renderings through the turns of a conversation that its template writes alike whatever follows: the
    beginning of the whole text, and what stands behind turns of their shape where they are the last."""

    def __init__(self, row: Renderings, turns: Mapping[int, Turn], behind: Mapping[int, str]):
        self._row, self._turns, self._behind = row, turns, behind
        self._count = len(row.conversation.messages)
        self._whole = row.text(self._count)

    def text(self, count: int, prompted: bool) -> str:
        """Return the text of the first `count` messages."""
        if prompted or count - 1 not in self._behind:
            raise NotDerived
        return self._whole[: self._turns[count - 1].end] + self._behind[count - 1]

    def ranges(self, count: int, prompted: bool) -> tuple[list[MarkedRange], list[Mark]]:
        """Return where the data's texts lie in `text(count, prompted)`; none is left out of the whole."""
        self.text(count, prompted)
        return [found for found in self._row.ranges(self._count) if found.mark.message < count], []

    def followed(self, count: int, follower: Sequence[Message]) -> str:
        """Leave to the template what follows."""
        raise NotDerived

    def without_tools(self, count: int) -> str | None:
        """Return the text of the first `count` messages without the row's tools, where these stand before
        the first turn."""
        text, without = self.text(count, False), self._row.without_tools(self._count)
        if without is None:
            return None
        start = min(turn.start for turn in self._turns.values())
        if not without.endswith(self._whole[start:]):
            raise NotDerived
        return without[: len(without) - len(self._whole) + start] + text[start:]


def by_shape(row: Renderings, answers: Iterable[int]) -> list[list[int]]:
    """Return the turns at the messages `answers` by what decides how a template writes them."""
    found: dict[Shape, list[int]] = {}
    for index in answers:
        found.setdefault(_shape(row, index), []).append(index)
    return list(found.values())


def _shape(row: Renderings, index: int) -> Shape:
    """Return what decides how a template writes the turn at message `index`."""
    messages = row.conversation.messages
    message = messages[index]
    before = messages[index - 1].role if index else ""
    after = messages[index + 1].role if index + 1 < len(messages) else ""
    has_calls, has_content = bool(message.tool_calls), bool(message.content)
    return before, bool(message.reasoning_content), has_thinking(message), has_calls, has_content, after


def _like(sample: Turn, index: int, text: str, of_message: dict[int, list[Span]]) -> Turn | None:
    """Return the turn at message `index` if the template writes it as it writes `sample`."""
    before = _text_before(sample.message, of_message)
    own_before = _text_before(index, of_message)
    if before is None or own_before is None:
        return None
    lead = text[before : sample.start]
    start = own_before + len(lead)
    if text[own_before:start] != lead:
        return None
    own = [span for span in of_message.get(index, []) if span.start >= start]
    spans = [part for span in own for part in thought_apart(span, text)]
    sample_texts = [span for span in sample.ranges if span.kind != SpanKind.TOOL_CALLS]
    if [span.kind for span in spans] != [span.kind for span in sample_texts]:
        return None
    has_calls = len(sample_texts) < len(sample.ranges)
    if not _same_gaps(sample, sample_texts, start, spans, text):
        return None
    content_end = max([start, *(span.end for span in spans)])
    end = sample.text[sample.end_start : sample.end] + sample.appended
    if not end:
        return None
    if has_calls:
        following = [span.start for span in of_message.get(index + 1, [])]
        end_start = text.find(end, content_end, min(following, default=len(text)))
    else:
        sample_end = max([sample.start, *(span.end for span in sample_texts)])
        gap = sample.text[sample_end : sample.end_start]
        end_start = content_end + len(gap) if text.startswith(gap + end, content_end) else -1
    if end_start < 0:
        return None
    written = end_start + len(end) - len(sample.appended)
    calls = [Span(end_start, end_start, SpanKind.TOOL_CALLS, index)] if has_calls else []
    return Turn(
        index,
        text,
        start,
        end_start,
        written,
        sample.appended,
        prompt_differs=sample.prompt_differs,
        asked=sample.asked,
        opening=sample.opening,
        ranges=(*spans, *calls),
    )


def _text_before(index: int, of_message: dict[int, list[Span]]) -> int | None:
    """Return where the text of the message before `index` ends; None where it has none."""
    return max((span.end for span in of_message.get(index - 1, [])), default=None)


def _same_gaps(
    sample: Turn, sample_texts: Sequence[Span], start: int, spans: Sequence[Span], text: str
) -> bool:
    """Return whether the template writes the same before and between the texts of both turns."""
    gaps, cursor = [], sample.start
    for span in sample_texts:
        gaps.append(sample.text[cursor : span.start])
        cursor = span.end
    for gap, span in zip(gaps, spans, strict=True):
        if text[start : span.start] != gap:
            return False
        start = span.end
    return True
