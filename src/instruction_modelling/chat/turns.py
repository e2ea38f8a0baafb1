"""What an assistant writes in a template's chat beside its contents: the end of each response, and whatever
surrounds reasoning and tool calls."""

from collections.abc import Sequence

from instruction_modelling.chat.renderer import TemplateText
from instruction_modelling.chat.spans import Span, SpanKind, without_empty
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation, Message

# Tags that a model writes in its answers too, so they are never only the format's own.
_THINK_TAGS = ("<think>", "</think>")


class AssistantTurns:
    """The assistant's turns as one template writes them.

    `ends`: what ends a response, each a run of added tokens (mostly one), the longest first. `end_strings`:
    the last token of each. `control`: the added tokens by which the template tells turns apart."""

    def __init__(self, text: TemplateText):
        self._text = text
        self._header = ""
        ends, self.control = self._probe()
        self.end_strings = tuple(dict.fromkeys(run[-1] for run in ends))
        self.ends = tuple(sorted(("".join(run) for run in ends), key=len, reverse=True))

    # -- the ends of responses -------------------------------------------------------------------------

    def _probe(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """The runs of tokens that end a response, and the template's own tokens, from a rendering of two
        exchanges.

        What follows the last response ends it. What follows an earlier one does, too, where it is the same,
        is the EOS token, or also follows a user's message: otherwise it is the next message's header."""
        messages = [
            Message("user", "U1"),
            Message("assistant", "A1"),
            Message("user", "U2"),
            Message("assistant", "A2"),
        ]
        ends: list[tuple[str, ...]] = []
        control: list[str] = []
        for size in (4, 2):
            try:
                text = self._text.of_messages(messages[:size])
            except RowRefused:
                continue
            places = [text.rfind(message.content) for message in messages[:size]]
            if min(places) < 0:
                continue
            runs = [self._run_at(text, place + 2) for place in places]
            ends = [runs[-1]] if runs[-1] else []
            first = runs[1][:1]
            if (
                size == 4
                and first
                and runs[1][: len(runs[-1])] != runs[-1]
                and first in ((self._text.eos,), runs[0][:1])
            ):
                ends.append(first)
            written = text[: places[2] if size == 4 else places[1]] + self._rendered(
                Message("system", "S1"), messages[0]
            )
            control = [token for token in self._text.added if token in written]
            before = self._rendered(messages[0])
            self._header = text[len(before) : places[1]] if text.startswith(before) else ""
            break
        if self._text.eos:
            ends.append((self._text.eos,))
        control += [token for run in ends for token in run]
        # A word that is an added token (`user`, say) is a word in the data, too.
        own = (token for token in control if token not in _THINK_TAGS and not token.isalnum())
        return list(dict.fromkeys(ends)), tuple(dict.fromkeys(own))

    def _rendered(self, *messages: Message) -> str:
        try:
            return self._text.of_messages(messages)
        except RowRefused:
            return ""

    def _run_at(self, text: str, place: int) -> tuple[str, ...]:
        """The added tokens that follow, one right after the other, after whitespace."""
        place = _skip_space(text, place)
        run: list[str] = []
        while token := next((token for token in self._text.added if text.startswith(token, place)), None):
            run.append(token)
            place += len(token)
        return tuple(run)

    def _end_at(self, text: str, place: int, stop: int) -> tuple[int, int] | None:
        place = _skip_space(text, place)
        return next(
            (
                (place, place + len(end))
                for end in self.ends
                if text.startswith(end, place) and place + len(end) <= stop
            ),
            None,
        )

    def _first_end(self, text: str, start: int, stop: int) -> tuple[int, int] | None:
        found = [(text.find(end, start, stop), -len(end)) for end in self.ends]
        place, length = min(((at, size) for at, size in found if at >= 0), default=(-1, 0))
        return (place, place - length) if place >= 0 else None

    def _last_end(self, text: str, start: int, stop: int, exact: bool) -> tuple[int, int] | None:
        """The end of a turn that holds tool calls: the control token it closes with where it is known to stop
        at `stop`, else the last end before."""
        if exact:
            closed = text[start:stop].rstrip()
            for end in (*self.ends, *(token for token in self._text.added if token in self._text.special)):
                if closed.endswith(end):
                    return start + len(closed) - len(end), start + len(closed)
            return None
        found = [(text.rfind(end, start, stop), len(end)) for end in self.ends]
        place, length = max(found, default=(-1, 0))
        return (place, place + length) if place >= 0 else None

    # -- turns -----------------------------------------------------------------------------------------

    def spans(self, conversation: Conversation, text: str, contents: Sequence[Span]) -> list[Span]:
        """The spans of the assistant's turns beside those of the contents, which are in order of place.

        Raises:
            RowRefused: where a turn begins or ends cannot be told, or its tool calls are left out.
        """
        out: list[Span] = []
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            own = [span for span in contents if span.message == index]
            if message.tool_calls or any(span.kind == SpanKind.REASONING for span in own):
                out += self._whole_turn(conversation, index, text, contents, own)
                continue
            if own:
                after = min(
                    (s.start for s in contents if s.message != index and s.start >= own[-1].end),
                    default=len(text),
                )
                end = self._end_at(text, own[-1].end, after)
            else:
                end = self._empty_turn(conversation, index, text, contents)
            out += [Span(*end, SpanKind.END, index)] if end else []
        return out

    def _empty_turn(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> tuple[int, int] | None:
        """The end of a turn without content, which is not marked; None where the template leaves the turn
        out."""
        messages = conversation.messages
        start = self._start(conversation, index, text, contents, ())
        stop, _ = self._stop(conversation, index, text, contents)
        if start is not None and stop is not None:
            return self._first_end(text, start, stop)
        try:
            left_out = (
                self._text.of_messages([*messages[:index], *messages[index + 1 :]], conversation.tools)
                == text
            )
        except RowRefused:
            left_out = False
        if not left_out:
            raise _underivable(index)
        return None

    def _whole_turn(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span], own: Sequence[Span]
    ) -> list[Span]:
        """The stretches of a whole turn that its contents do not cover, and its end: reasoning up to the end
        of the reasoning's tags, tool calls after."""
        message = conversation.messages[index]
        start = self._start(conversation, index, text, contents, own)
        stop, exact = self._stop(conversation, index, text, contents)
        if start is None or stop is None:
            raise _underivable(index)
        lower = max([start, *(span.end for span in own)])
        answers = [span for span in own if span.kind != SpanKind.REASONING]
        if message.tool_calls:
            end = self._last_end(text, lower, stop, exact)
        elif answers:
            end = self._end_at(text, answers[-1].end, stop)
        else:
            end = self._first_end(text, lower, stop)
        if end:
            finish = end[0]
        elif answers and not message.tool_calls:
            finish = answers[-1].end
        elif exact:
            finish = start + len(text[start:stop].rstrip())
        else:
            raise _underivable(index)
        named = [str((call.get("function") or call).get("name", "")) for call in message.tool_calls]
        if any(name not in text[start:finish] for name in named):
            raise RowRefused(
                "tool_calls not rendered",
                f"message {index}: the chat template leaves out its "
                "tool_calls; use a template that renders them (--chat_format)",
            )
        filled = _fill(start, finish, index, own, bool(message.tool_calls))
        return [*filled, *([Span(*end, SpanKind.END, index)] if end else [])]

    def _start(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span], own: Sequence[Span]
    ) -> int | None:
        """Where the assistant begins to write: after the generation prompt."""
        history = conversation.messages[:index]
        if not history:
            return None
        before = self._text.of_messages(history, conversation.tools)
        prompted = self._text.of_messages(history, conversation.tools, generation_prompt=True)
        first = own[0].start if own else len(text)
        # Where a prompt opens a thought that the answer lacks, or adds nothing at all, what the template
        # writes before an earlier answer counts.
        headed = before + self._header if self._header else ""
        leads = (headed, prompted) if prompted == before else (prompted, prompted.rstrip(), headed)
        for lead in leads:
            if lead and text.startswith(lead) and len(lead) <= first:
                return len(lead)
        # The history may be rendered differently once an answer follows; the header is looked for after it.
        header = prompted[len(before) :] if prompted.startswith(before) else ""
        earlier = max(
            (span.end for span in contents if span.message != index and span.end <= first), default=0
        )
        place = text.rfind(header, earlier, first) if header and own else -1
        return place + len(header) if place >= 0 else None

    def _stop(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> tuple[int | None, bool]:
        """A place behind the turn and before what follows it, and whether the turn is known to stop right
        there."""
        try:
            upto = self._text.of_messages(conversation.messages[: index + 1], conversation.tools)
        except RowRefused:
            upto = ""
        if upto and text.startswith(upto):
            return len(upto), True
        return min((span.start for span in contents if span.message == index + 1), default=None), False


def _fill(start: int, finish: int, index: int, own: Sequence[Span], has_calls: bool) -> list[Span]:
    """The stretches of [start, finish) between the contents of one turn: reasoning up to the answer that
    follows it, or where none does, to the end of the turn or to its tool calls; then tool calls."""
    thought = max((span.end for span in own if span.kind == SpanKind.REASONING), default=start)
    turning = next(
        (
            span.start
            for span in own
            if span.kind != SpanKind.REASONING and span.start >= thought and span.end > span.start
        ),
        thought if has_calls else finish,
    )
    has_reasoning = any(span.kind == SpanKind.REASONING for span in own)
    filled, cursor = [], start
    for span in [*own, Span(finish, finish, SpanKind.END, index)]:
        middle = min(max(turning, cursor), span.start) if has_reasoning else cursor
        filled.append(Span(cursor, middle, SpanKind.REASONING, index))
        filled.append(
            Span(middle, span.start, SpanKind.TOOL_CALLS if has_calls else SpanKind.TEMPLATE, index)
        )
        cursor = max(cursor, span.end)
    return list(without_empty(filled))


def _underivable(index: int) -> RowRefused:
    return RowRefused(
        "spans cannot be derived",
        f"message {index}: where the assistant's turn begins or ends cannot be told from the chat template",
    )


def _skip_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place
