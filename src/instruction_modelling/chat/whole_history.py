"""The assistant's turns where all of them stand in the text of the whole conversation (--history whole).

There an earlier turn may stand otherwise than the model writes it: without its opening, or with another end.
What stands there is trained, but no end that is not the turn's own, at which generation stops."""

from collections.abc import Sequence
from dataclasses import replace

from instruction_modelling.chat.renderings import Renderings
from instruction_modelling.chat.spans import Span, SpanKind
from instruction_modelling.chat.turn_spans import Turn
from instruction_modelling.chat.turns import TurnFinder, thought_apart
from instruction_modelling.errors import RowRefused


def turns_in_whole(row: Renderings, finder: TurnFinder, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns as they stand in the text of the whole conversation.

    Args:
        turns: each in the text of the messages through it.

    Raises:
        RowRefused: a turn is not found there.
    """
    whole = _Whole(row, finder)
    found: list[Turn] = []
    for turn in turns:
        if turn.asked:
            # What the prompt has in place of the chat's text does not stand here: the turn leaves the prompt.
            turn = replace(turn, asked="", prompt_differs=True)
        found.append(whole.turn(turn, found[-1].end if found else 0))
    return tuple(found)


class _Whole:
    """The text of a whole conversation, in which turns are found."""

    def __init__(self, row: Renderings, finder: TurnFinder):
        self._row, self._finder = row, finder
        self._count = len(row.conversation.messages)
        self._text = row.text(self._count)
        self._texts: dict[int, list[Span]] = {}
        for place in row.ranges(self._count):
            span = Span(place.start, place.end, place.mark.kind, place.mark.message)
            self._texts.setdefault(span.message, []).append(span)

    def turn(self, turn: Turn, before: int) -> Turn:
        """Return a turn as it stands here, behind the position `before`."""
        if turn.message == self._count - 1 and self._text == turn.text:
            return turn
        earlier = [span.end for i, spans in self._texts.items() if i < turn.message for span in spans]
        start, end_start, texts = self._written(turn, max([before, *earlier]))
        written_end = turn.text[turn.end_start : turn.end]
        is_own_end = self._text.startswith(written_end + turn.appended, end_start)
        has_calls = any(span.kind == SpanKind.TOOL_CALLS for span in turn.ranges)
        calls = [Span(end_start, end_start, SpanKind.TOOL_CALLS, turn.message)] if has_calls else []
        return replace(
            turn,
            text=self._text,
            start=start,
            end_start=end_start,
            end=end_start + len(written_end) if is_own_end else end_start,
            appended=turn.appended if is_own_end else "",
            ranges=(*texts, *calls),
        )

    def _written(self, turn: Turn, before: int) -> tuple[int, int, list[Span]]:
        """Return where a turn begins here, where its end would, and its texts.

        Raises:
            RowRefused: it cannot be told.
        """
        text = self._text
        own = [span for span in turn.ranges if span.kind != SpanKind.TOOL_CALLS]
        if text.startswith(turn.text[: turn.end_start]):
            return turn.start, turn.end_start, own
        if not own:
            return self._calls_alone(turn, before)
        marked = self._texts.get(turn.message, [])
        texts = [part for span in marked for part in thought_apart(span, text)]
        texts = [span for span in texts if span.end > span.start or span.kind == SpanKind.ASSISTANT]
        if not texts:
            raise _not_found(turn)
        lead = turn.text[turn.start : own[0].start]
        start = texts[0].start - len(lead)
        if start < before or not text.startswith(lead, start):
            start = self._finder.start(self._row, turn.message, text, before, texts)[0]
        rest = turn.text[max(span.end for span in own) : turn.end_start]
        content_end = max(span.end for span in texts)
        if text.startswith(rest, content_end):
            return start, content_end + len(rest), texts
        if rest.strip():
            raise _not_found(turn)
        return start, content_end, texts

    def _calls_alone(self, turn: Turn, before: int) -> tuple[int, int, list[Span]]:
        """Return as `_written` of a turn without a text of the data's, which may stand here without its
        opening."""
        body = turn.text[turn.start : turn.end_start]
        position = self._text.find(body, before)
        if position >= 0:
            return position, position + len(body), []
        start = self._finder.start(self._row, turn.message, self._text, before, [])[0]
        for begin, _, _ in self._finder.renderer.tokens_in(body):
            if self._text.startswith(body[begin:], start):
                return start, start + len(body) - begin, []
        raise _not_found(turn)


def _not_found(turn: Turn) -> RowRefused:
    return RowRefused(
        "turn not in the whole text",
        f"message {turn.message}: in the text of the whole conversation the chat template writes this turn "
        "otherwise than the model would, so it cannot be told which text is its; leave out --history whole",
    )
