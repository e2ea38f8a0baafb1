"""Any Hugging Face chat template, unedited, with the spans of what it renders.

The conversation is rendered once as it is and once with each content wrapped in two private-use characters;
where the two agree after those characters are taken out, their places are the spans.
"""

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.content_marks import Mark, Marker, Marks, marker, split_at_marks, widen
from instruction_modelling.conversations import Conversation, Message
from instruction_modelling.errors import RowRefused
from instruction_modelling.spans import Rendered, Span, SpanKind, without_empty
from instruction_modelling.tulu_format import render_plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateFormat:
    """Any Hugging Face chat template, through the library's own renderer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str, name: str):
        self.name, self.template, self._tokenizer = name, template, tokenizer
        self._eos = str(tokenizer.eos_token or "")
        self._added = sorted((token.content for token in tokenizer.added_tokens_decoder.values()),
                             key=len, reverse=True)
        self.end_strings = self._find_end_strings()

    # -- rendering -------------------------------------------------------------------------------------

    def _text(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = (),
              generation_prompt: bool = False) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, chat_template=self.template,
                add_generation_prompt=generation_prompt, tokenize=False))
        except (TemplateError, TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise RowRefused("refused by the chat template",
                             f"the chat template refuses the conversation: {error}") from error

    def render(self, conversation: Conversation, generation_prompt: bool = False) -> Rendered:
        """Text and spans of a conversation.

        Raises:
            RowRefused: the template refuses the conversation, leaves part of it out, or changes with the marks.
        """
        if conversation.plain:
            return render_plain(conversation, self._eos, generation_prompt)
        plain = self._text([m.for_template() for m in conversation.messages], conversation.tools, generation_prompt)
        places = None
        for mark_empty, split_thinking in ((True, False), (False, False), (True, True), (False, True)):
            mark = marker(mark_empty, split_thinking)
            places = self._places(conversation, plain, mark, generation_prompt)
            if places is not None:
                break
        if places is None:
            raise RowRefused("spans cannot be derived", "the chat template renders the conversation differently when "
                             "its contents are marked, so it cannot be told which text came from which message")
        spans = [Span(start, end, mark.kind, mark.message) for start, end, mark in places]
        self._require_rendered(conversation, spans)
        literal = tuple((span.start, span.end) for span in spans)
        spans = self._assistant_turns(conversation, plain, spans)
        if conversation.tools:
            spans = self._tools_block(conversation, plain, spans, generation_prompt)
        return Rendered(plain, without_empty(sorted(spans, key=lambda span: span.start)), literal, adds_bos=False)

    def _places(self, conversation: Conversation, plain: str, mark: "Marker",
                generation_prompt: bool) -> list[tuple[int, int, Mark]] | None:
        """Where each marked text lies in `plain`, edge whitespace included where the template keeps it;
        None where the template's output changes with the marks."""
        marks = Marks(conversation)
        try:
            marked = self._text(mark(conversation, marks, True), conversation.tools, generation_prompt)
            pieces = split_at_marks(marked, marks.marks)
            if pieces is None or "".join(text for text, _ in pieces) != plain:
                return None
            if any(mark.lead or mark.trail for mark in marks.marks):
                bare_marks = Marks(conversation)
                bare_text = self._text(mark(conversation, bare_marks, False), conversation.tools, generation_prompt)
                bare = split_at_marks(bare_text, bare_marks.marks)
            else:
                bare = pieces
        except RowRefused:
            return None
        if bare is None or [m and m.message for _, m in bare] != [m and m.message for _, m in pieces]:
            return None
        return widen(pieces, bare)

    @staticmethod
    def _require_rendered(conversation: Conversation, spans: Sequence[Span]) -> None:
        found = {(span.message, span.kind) for span in spans}
        for index, message in enumerate(conversation.messages):
            if message.content.strip() and not any(m == index and k != SpanKind.REASONING for m, k in found):
                raise RowRefused("content not rendered", f"message {index}: the chat template leaves out the "
                                 f"content of this {message.role} message")
            if message.reasoning_content and (index, SpanKind.REASONING) not in found:
                raise RowRefused("reasoning_content not rendered",
                                 f"message {index}: the chat template leaves out its reasoning_content; cut the "
                                 "conversation there, or remove the field")

    # -- what the assistant writes ---------------------------------------------------------------------

    def _assistant_turns(self, conversation: Conversation, text: str, spans: list[Span]) -> list[Span]:
        """Adds the end token of each response, and what surrounds reasoning and tool calls."""
        out = list(spans)
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            own = [span for span in spans if span.message == index]
            whole_turn = message.tool_calls or any(span.kind == SpanKind.REASONING for span in own)
            if own and not whole_turn:
                end = self._end_at(text, own[-1].end)
            else:
                before = max((s.end for s in spans if s.message < index), default=0)
                after = min((s.start for s in spans if s.message > index), default=len(text))
                end = self._last_end(text, max([before, *(s.end for s in own)]), after)
            if whole_turn:
                out += self._fill_turn(conversation, index, text, own, end)
            if end:
                out.append(Span(*end, SpanKind.END, index))
        return out

    def _fill_turn(self, conversation: Conversation, index: int, text: str, own: list[Span],
                   end: tuple[int, int] | None) -> list[Span]:
        """The stretches of a whole assistant turn that its contents do not cover: reasoning up to the end of the
        reasoning's tags, tool calls after."""
        message = conversation.messages[index]
        named = [str((call.get("function") or call).get("name", "")) for call in message.tool_calls]
        calls = str(message.tool_calls)
        if any(token in calls for token in self._added):
            raise RowRefused("control text in tool_calls", f"message {index}: its tool calls hold the text of a "
                             "control token, which cannot be told from the template's own")
        start = self._turn_start(conversation, index, text, own)
        if end is None or start is None:
            raise RowRefused("spans cannot be derived", f"message {index}: where the assistant's turn begins or ends "
                             "cannot be told from the chat template")
        if any(name not in text[start:end[0]] for name in named):
            raise RowRefused("tool_calls not rendered", f"message {index}: the chat template leaves out its "
                             "tool_calls; use a template that renders them (--chat_format)")
        answer = [span for span in own if span.kind != SpanKind.REASONING and span.end > span.start]
        reasoning = [span for span in own if span.kind == SpanKind.REASONING]
        turning = answer[0].start if answer else (end[0] if not message.tool_calls else
                                                  max((s.end for s in reasoning), default=start))
        filled, cursor = [], start
        for span in [*own, Span(end[0], end[0], SpanKind.END, index)]:
            middle = min(max(turning, cursor), span.start) if reasoning else cursor
            filled.append(Span(cursor, middle, SpanKind.REASONING, index))
            filled.append(Span(middle, span.start, SpanKind.TOOL_CALLS if message.tool_calls else SpanKind.TEMPLATE,
                               index))
            cursor = max(cursor, span.end)
        return list(without_empty(filled))

    def _turn_start(self, conversation: Conversation, index: int, text: str, own: list[Span]) -> int | None:
        """Where the assistant begins to write: after the generation prompt."""
        history = [m.for_template() for m in conversation.messages[:index]]
        if not history:
            return None
        before = self._text(history, conversation.tools)
        prompted = self._text(history, conversation.tools, generation_prompt=True)
        if text.startswith(prompted):
            return len(prompted)
        header = prompted[len(before):] if prompted.startswith(before) else ""
        place = text.rfind(header, 0, own[0].start) if header and own else -1
        return place + len(header) if place >= 0 else None

    def _tools_block(self, conversation: Conversation, text: str, spans: list[Span],
                     generation_prompt: bool) -> list[Span]:
        """Adds the text that is there only because of `tools`, less what other spans cover."""
        without = self._text([m.for_template() for m in conversation.messages], (), generation_prompt)
        if without == text:
            raise RowRefused("tools not rendered", "the chat template leaves out `tools`; use one that renders them "
                             "(--chat_format), or remove the column")
        start = _common_prefix(text, without)
        tail = _common_prefix(text[start:][::-1], without[start:][::-1])
        cursor, stop, out = start, len(text) - tail, list(spans)
        for span in sorted(spans, key=lambda span: span.start):
            if span.end <= start or span.start >= stop:
                continue
            out.append(Span(cursor, max(cursor, span.start), SpanKind.TOOLS, -1))
            cursor = max(cursor, span.end)
        out.append(Span(cursor, max(cursor, stop), SpanKind.TOOLS, -1))
        return list(without_empty(out))

    # -- end tokens ------------------------------------------------------------------------------------

    def _find_end_strings(self) -> tuple[str, ...]:
        """The texts of the tokens that end a response, found by rendering a probe of two exchanges.

        What follows the last response is its end token. What follows an earlier one is, too, where it is the same,
        is the EOS token, or also follows a user's message: otherwise it is the next message's header.
        """
        probe = [Message("user", "U1"), Message("assistant", "A1"), Message("user", "U2"), Message("assistant", "A2")]
        ends = []
        for size in (4, 2):
            try:
                text = self._text([m.for_template() for m in probe[:size]])
            except RowRefused:
                continue
            places = [(text.rfind(m.content), m.content) for m in probe[:size]]
            if any(place < 0 for place, _ in places):
                continue
            first = [self._added_at(text, place + len(content)) for place, content in places]
            last = first[-1]
            if last:
                ends.append(last)
            if size == 4 and first[1] and (first[1] in (last, self._eos, first[0])):
                ends.append(first[1])
            break
        return tuple(dict.fromkeys([*ends, *([self._eos] if self._eos else [])]))

    def _added_at(self, text: str, place: int) -> str | None:
        while place < len(text) and text[place].isspace():
            place += 1
        return next((token for token in self._added if token.strip() and text.startswith(token, place)), None)

    def _end_at(self, text: str, place: int) -> tuple[int, int] | None:
        while place < len(text) and text[place].isspace():
            place += 1
        for token in sorted(self.end_strings, key=len, reverse=True):
            if text.startswith(token, place):
                return place, place + len(token)
        return None

    def _last_end(self, text: str, start: int, stop: int) -> tuple[int, int] | None:
        found = [(text.rfind(token, start, stop), token) for token in self.end_strings]
        place, token = max(found, default=(-1, ""))
        return (place, place + len(token)) if place >= 0 else None


def _common_prefix(a: str, b: str) -> int:
    """The length of the longest common prefix of two strings."""
    return bisect.bisect_left(range(min(len(a), len(b))), True, key=lambda n: a[: n + 1] != b[: n + 1])
