"""Any Hugging Face chat template, unedited, with the spans of what it renders.

The conversation is rendered once as it is and once with each content wrapped in two private-use characters;
where the two agree after those characters are taken out, their places are the spans.
"""

import bisect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.marks import Edges, Mark, Marking, Marks, markings, split_at_marks, widen
from instruction_modelling.chat.renderer import TemplateText
from instruction_modelling.chat.spans import Rendered, Span, SpanKind, without_empty
from instruction_modelling.chat.tulu import render_plain
from instruction_modelling.chat.turns import AssistantTurns
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateFormat:
    """Any Hugging Face chat template, through the library's own renderer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str, name: str):
        self.name, self.template = name, template
        self._text = TemplateText(tokenizer, template)
        self._turns = AssistantTurns(self._text)
        self.end_strings = self._turns.end_strings

    def render(self, conversation: Conversation, generation_prompt: bool = False) -> Rendered:
        """Text and spans of a conversation.

        Raises:
            RowRefused: the template refuses the conversation, leaves part of it out, or changes with the
            marks.
        """
        if conversation.plain:
            return render_plain(conversation, self._text.eos, generation_prompt)
        self._refuse_control_text(conversation)
        plain = self._text.of_messages(conversation.messages, conversation.tools, generation_prompt)
        places = self._places(conversation, plain, generation_prompt)
        spans = [Span(start, end, mark.kind, mark.message) for start, end, mark in places]
        literal = tuple((span.start, span.end) for span in spans)
        spans += self._turns.spans(conversation, plain, spans)
        if conversation.tools:
            spans = self._tools_block(conversation, plain, spans, generation_prompt)
        spans.sort(key=lambda span: (span.start, span.end))
        if any(after.start < before.end for before, after in pairwise(spans)):
            raise RowRefused(
                "spans cannot be derived",
                "the chat template writes the texts of two messages into one "
                "another, so it cannot be told which text came from which message",
            )
        return Rendered(plain, without_empty(spans), literal, False, self._turns.control)

    def _places(
        self, conversation: Conversation, plain: str, generation_prompt: bool
    ) -> list[tuple[int, int, Mark]]:
        """Where each marked text lies in `plain`, edge whitespace included where the template keeps it."""
        for marking in markings(conversation):
            marks = Marks(conversation)
            places = self._marked_places(conversation, plain, marking, marks, generation_prompt)
            if places is not None:
                self._require_rendered(conversation, marks.marks, places)
                return places
        raise RowRefused(
            "spans cannot be derived",
            "the chat template renders the conversation differently when "
            "its contents are marked, so it cannot be told which text came from which message",
        )

    def _marked_places(
        self, conversation: Conversation, plain: str, marking: Marking, marks: Marks, generation_prompt: bool
    ) -> list[tuple[int, int, Mark]] | None:
        """None where the template's output changes with the marks."""

        def pieces(edges: Edges, given: Marks) -> list[tuple[str, Mark | None]] | None:
            messages = marking.messages(conversation, given, edges)
            return split_at_marks(
                self._text.of_fields(messages, conversation.tools, generation_prompt), given.marks
            )

        try:
            both = pieces("both", marks)
            if both is None or "".join(text for text, _ in both) != plain:
                return None
            if not any(mark.lead or mark.trail for mark in marks.marks):
                return widen(both, both, both)
            lead, none = pieces("lead", Marks(conversation)), pieces("none", Marks(conversation))
        except RowRefused:
            return None
        if lead is None or none is None or not _owners(lead) == _owners(none) == _owners(both):
            return None
        return widen(both, lead, none)

    @staticmethod
    def _require_rendered(
        conversation: Conversation, marks: Sequence[Mark], places: Sequence[tuple[int, int, Mark]]
    ) -> None:
        """Refuse a row of which the template leaves something out."""
        found = {mark for _, _, mark in places}
        for mark in marks:
            if mark in found or not mark.core.strip():
                continue
            message = conversation.messages[mark.message]
            if mark.kind != SpanKind.REASONING:
                raise RowRefused(
                    "content not rendered",
                    f"message {mark.message}: the chat template leaves out the "
                    f"content of this {message.role} message, or a part of it",
                )
            name = "reasoning_content" if message.reasoning_content else "<think> text"
            raise RowRefused(
                f"{name} not rendered",
                f"message {mark.message}: the chat template leaves out its {name}; "
                "cut the conversation there, or remove it",
            )

    def _refuse_control_text(self, conversation: Conversation) -> None:
        """Refuse control tokens spelled by data that is not content: nothing tells them from the template's
        own."""
        control = {*self._text.special, *self._turns.control}
        fields: list[tuple[str, Any]] = [("tools", conversation.tools)]
        for index, message in enumerate(conversation.messages):
            fields += [
                (f"message {index}: tool_calls", message.tool_calls),
                (f"message {index}: name", message.name),
                (f"message {index}: tool_call_id", message.tool_call_id),
            ]
        for name, value in fields:
            for text in _strings(value):
                spelled = next((token for token in control if token in text), None)
                if spelled:
                    raise RowRefused(
                        f"control text in {name.split()[-1]}",
                        f"{name} holds {spelled!r}, the text of a "
                        "control token, which cannot be told from the template's own; write it differently",
                    )

    def _tools_block(
        self, conversation: Conversation, text: str, spans: list[Span], generation_prompt: bool
    ) -> list[Span]:
        """Adds the text that is there only because of `tools`, less what other spans cover."""
        without = self._text.of_messages(conversation.messages, (), generation_prompt)
        if without == text:
            raise RowRefused(
                "tools not rendered",
                "the chat template leaves out `tools`; use one that renders them "
                "(--chat_format), or remove the column",
            )
        first = start = _common_prefix(text, without)
        tail = _common_prefix(text[start:][::-1], without[start:][::-1])
        start = self._token_before(text, start, len(text) - tail, spans)
        cursor, stop, out = start, start + len(text) - tail - first, list(spans)
        for span in sorted(spans, key=lambda span: span.start):
            if span.end <= start or span.start >= stop:
                continue
            out.append(Span(cursor, max(cursor, span.start), SpanKind.TOOLS, -1))
            cursor = max(cursor, span.end)
        out.append(Span(cursor, max(cursor, stop), SpanKind.TOOLS, -1))
        return list(without_empty(out))

    def _token_before(self, text: str, start: int, stop: int, spans: Sequence[Span]) -> int:
        """Where the stretch [start, stop) begins if it is moved back over text that stands before it and at
        its end alike, to the start of a token of the template's; `start` where there is none."""
        place, end = start, stop
        while not any(text.startswith(token, place) for token in self._text.added):
            if not place or text[place - 1] != text[end - 1] or any(s.start < place <= s.end for s in spans):
                return start
            place, end = place - 1, end - 1
        return place


def _owners(pieces: Sequence[tuple[str, Mark | None]]) -> list[tuple[int, int] | None]:
    return [(mark.message, mark.kind) if mark else None for _, mark in pieces]


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _common_prefix(a: str, b: str) -> int:
    """The length of the longest common prefix of two strings."""
    return bisect.bisect_left(range(min(len(a), len(b))), True, key=lambda n: a[: n + 1] != b[: n + 1])
