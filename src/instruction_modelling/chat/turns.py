"""Find what an assistant writes in a template's chat beside its contents: the end of each response, and
whatever surrounds reasoning and tool calls.

How a template ends a response is learnt once, from a probe: a chat of two exchanges with known contents.
Where a turn begins and ends in a given conversation is learnt from the template's text of the messages up to
it."""

from collections.abc import Sequence
from typing import Any

from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.spans import Span, SpanKind, without_empty
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation, Message

# Tags that a model writes in its answers too: they are no sign that only the format writes.
_THINK_TAGS = ("<think>", "</think>")


class AssistantTurns:
    """The assistant's turns as one template writes them."""

    ends: tuple[str, ...]
    """What ends a response: each a run of added tokens (mostly one), the longest first."""
    end_strings: tuple[str, ...]
    """The last token of each end."""
    control_tokens: tuple[str, ...]
    """The added tokens by which the template tells turns apart."""

    def __init__(self, renderer: TemplateRenderer):
        self._renderer = renderer
        # What the template writes between a user's content and the response, where it is known.
        self._header = ""
        ends, control_tokens = self._probe()
        if self._renderer.eos:
            ends.append((self._renderer.eos,))
        control_tokens += [token for run in ends for token in run]
        # A word that is an added token (`user`, say) is a word in the data, too.
        signs = (token for token in control_tokens if token not in _THINK_TAGS and not token.isalnum())
        self.control_tokens = tuple(dict.fromkeys(signs))
        ends = list(dict.fromkeys(ends))
        self.end_strings = tuple(dict.fromkeys(run[-1] for run in ends))
        self.ends = tuple(sorted(("".join(run) for run in ends), key=len, reverse=True))

    # -- the ends of responses -------------------------------------------------------------------------

    def _probe(self) -> tuple[list[tuple[str, ...]], list[str]]:
        """Return the runs of tokens that end a response, and the tokens that the template writes itself, from
        a chat of two exchanges, or of one where the template refuses two.

        What follows the last response ends it. What follows an earlier one does, too, where it is the same,
        is the EOS token, or also follows a user's message: otherwise it is the next message's header."""
        roles = ("user", "assistant", "user", "assistant")
        contents = ("U1", "A1", "U2", "A2")
        messages = [Message(role, content) for role, content in zip(roles, contents, strict=True)]
        for count in (4, 2):
            text = self._rendered(*messages[:count])
            starts = [text.rfind(content) for content in contents[:count]]
            if min(starts) < 0:
                continue
            runs = [self._tokens_after(text, start + 2) for start in starts]
            last = runs[-1]
            ends = [last] if last else []
            first = runs[1][:1]
            is_end = first in ((self._renderer.eos,), runs[0][:1])
            if count == 4 and first and runs[1][: len(last)] != last and is_end:
                ends.append(first)
            # The last content is left out: what follows it may be written for a chat's end alone.
            written = text[: starts[2] if count == 4 else starts[1]]
            written += self._rendered(Message("system", "S1"), messages[0])
            before = self._rendered(messages[0])
            self._header = text[len(before) : starts[1]] if text.startswith(before) else ""
            return ends, [token for token in self._renderer.added_tokens if token in written]
        return [], []

    def _rendered(self, *messages: Message, tools: Sequence[dict[str, Any]] = ()) -> str:
        """Return the text of messages; "" where the template refuses them."""
        try:
            return self._renderer.render(messages, tools)
        except RowRefused:
            return ""

    def _tokens_after(self, text: str, position: int) -> tuple[str, ...]:
        """Return the added tokens that follow, one right after the other, after whitespace."""
        position = _skip_whitespace(text, position)
        run: list[str] = []
        tokens = self._renderer.added_tokens
        while token := next((token for token in tokens if text.startswith(token, position)), None):
            run.append(token)
            position += len(token)
        return tuple(run)

    # Each of the next three returns the characters [start, end) of an end of a response.

    def _end_right_after(self, text: str, position: int, stop: int) -> tuple[int, int] | None:
        """Return the end that follows after whitespace, if it lies before `stop`."""
        position = _skip_whitespace(text, position)
        lengths = (len(end) for end in self.ends if text.startswith(end, position))
        return next(((position, position + length) for length in lengths if position + length <= stop), None)

    def _first_end(self, text: str, start: int, stop: int) -> tuple[int, int] | None:
        """Return the first end in [start, stop), the longest where several begin there."""
        candidates = [(text.find(end, start, stop), len(end)) for end in self.ends]
        candidates = [(position, length) for position, length in candidates if position >= 0]
        if not candidates:
            return None
        position, length = min(candidates, key=lambda candidate: (candidate[0], -candidate[1]))
        return position, position + length

    def _last_end(self, text: str, start: int, stop: int, exact: bool) -> tuple[int, int] | None:
        """Return the end of a turn that holds tool calls: the control token it closes with where it is known
        to stop at `stop` (`exact`), else the last end before."""
        if exact:
            turn = text[start:stop].rstrip()
            special = self._renderer.special_tokens
            for end in (*self.ends, *(token for token in self._renderer.added_tokens if token in special)):
                if turn.endswith(end):
                    return start + len(turn) - len(end), start + len(turn)
            return None
        candidates = [(text.rfind(end, start, stop), len(end)) for end in self.ends]
        position, length = max(candidates, default=(-1, 0))
        return (position, position + length) if position >= 0 else None

    # -- turns -----------------------------------------------------------------------------------------

    def spans(self, conversation: Conversation, text: str, contents: Sequence[Span]) -> list[Span]:
        """Return the spans of the assistant's turns beside those of the contents, which are given in order.

        Raises:
            RowRefused: where a turn begins or ends cannot be told, or its tool calls are left out.
        """
        out: list[Span] = []
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            in_turn = [span for span in contents if span.message == index]
            if message.tool_calls or any(span.kind == SpanKind.REASONING for span in in_turn):
                out += self._whole_turn(conversation, index, text, contents)
                continue
            if in_turn:
                response_end = in_turn[-1].end
                later = (s.start for s in contents if s.message != index and s.start >= response_end)
                end = self._end_right_after(text, response_end, min(later, default=len(text)))
            else:
                end = self._empty_turn(conversation, index, text, contents)
            out += [Span(*end, SpanKind.END, index)] if end else []
        return out

    def _empty_turn(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> tuple[int, int] | None:
        """Return the end of a turn without content, which no mark shows; None where the template leaves the
        turn out."""
        messages = conversation.messages
        start = self._start(conversation, index, text, contents)
        stop, _ = self._stop(conversation, index, text, contents)
        if start is not None and stop is not None:
            return self._first_end(text, start, stop)
        others = [*messages[:index], *messages[index + 1 :]]
        if self._rendered(*others, tools=conversation.tools) != text:
            raise _underivable(index)
        return None

    def _whole_turn(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> list[Span]:
        """Return the stretches of a whole turn that its contents do not cover, and its end: reasoning up to
        the end of the reasoning's tags, tool calls after."""
        message = conversation.messages[index]
        in_turn = [span for span in contents if span.message == index]
        start = self._start(conversation, index, text, contents)
        stop, exact = self._stop(conversation, index, text, contents)
        if start is None or stop is None:
            raise _underivable(index)
        contents_end = max([start, *(span.end for span in in_turn)])
        responses = [span for span in in_turn if span.kind != SpanKind.REASONING]
        if message.tool_calls:
            end = self._last_end(text, contents_end, stop, exact)
        elif responses:
            end = self._end_right_after(text, responses[-1].end, stop)
        else:
            end = self._first_end(text, contents_end, stop)
        if end:
            finish = end[0]
        elif responses and not message.tool_calls:
            finish = responses[-1].end
        elif exact:
            finish = start + len(text[start:stop].rstrip())
        else:
            raise _underivable(index)
        called = [str((call.get("function") or call).get("name", "")) for call in message.tool_calls]
        if any(name not in text[start:finish] for name in called):
            raise RowRefused(
                "tool_calls not rendered",
                f"message {index}: the chat template leaves out its "
                "tool_calls; use a template that renders them (--chat_format)",
            )
        filled = _fill(start, finish, index, in_turn, bool(message.tool_calls))
        return [*filled, *([Span(*end, SpanKind.END, index)] if end else [])]

    def _start(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> int | None:
        """Return where the assistant begins to write: after the generation prompt; None where it is not
        known."""
        history = conversation.messages[:index]
        if not history:
            return None
        in_turn = [span for span in contents if span.message == index]
        first = in_turn[0].start if in_turn else len(text)
        before = self._renderer.render(history, conversation.tools)
        prompted = self._renderer.render(history, conversation.tools, generation_prompt=True)
        # Where a prompt opens a thought that the answer lacks, or adds nothing at all, what the template
        # writes before an earlier answer counts.
        headed = before + self._header if self._header else ""
        prompts = (headed, prompted) if prompted == before else (prompted, prompted.rstrip(), headed)
        for prompt in prompts:
            if prompt and text.startswith(prompt) and len(prompt) <= first:
                return len(prompt)
        # The history may be rendered differently once an answer follows; the header is looked for after it.
        header = prompted[len(before) :] if prompted.startswith(before) else ""
        earlier = (span.end for span in contents if span.message != index and span.end <= first)
        position = text.rfind(header, max(earlier, default=0), first) if header and in_turn else -1
        return position + len(header) if position >= 0 else None

    def _stop(
        self, conversation: Conversation, index: int, text: str, contents: Sequence[Span]
    ) -> tuple[int | None, bool]:
        """Return a position behind the turn and before what follows it (None where there is none), and
        whether the turn is known to stop right there."""
        through_turn = self._rendered(*conversation.messages[: index + 1], tools=conversation.tools)
        if through_turn and text.startswith(through_turn):
            return len(through_turn), True
        return min((span.start for span in contents if span.message == index + 1), default=None), False


def _fill(start: int, finish: int, index: int, in_turn: Sequence[Span], has_calls: bool) -> list[Span]:
    """Return spans over the gaps of [start, finish) between the contents of one turn.

    Up to the response that follows the reasoning a gap is reasoning (where none follows it, up to the tool
    calls or the end of the turn); after that it is tool calls, or template where there are none."""
    has_reasoning = any(span.kind == SpanKind.REASONING for span in in_turn)
    reasoning_end = max((span.end for span in in_turn if span.kind == SpanKind.REASONING), default=start)
    responses = (
        span.start
        for span in in_turn
        if span.kind != SpanKind.REASONING and span.start >= reasoning_end and span.end > span.start
    )
    boundary = next(responses, reasoning_end if has_calls else finish)
    kind_after = SpanKind.TOOL_CALLS if has_calls else SpanKind.TEMPLATE
    filled, cursor = [], start
    for span in [*in_turn, Span(finish, finish, SpanKind.END, index)]:
        middle = min(max(boundary, cursor), span.start) if has_reasoning else cursor
        filled.append(Span(cursor, middle, SpanKind.REASONING, index))
        filled.append(Span(middle, span.start, kind_after, index))
        cursor = max(cursor, span.end)
    return list(without_empty(filled))


def _underivable(index: int) -> RowRefused:
    return RowRefused(
        "spans cannot be derived",
        f"message {index}: where the assistant's turn begins or ends cannot be told from the chat template",
    )


def _skip_whitespace(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
