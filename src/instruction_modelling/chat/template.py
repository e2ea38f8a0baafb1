"""Any Hugging Face chat template, unedited, with the spans of what it renders.

The conversation is rendered once as it is and once with each content wrapped in two private-use characters;
where the two agree after those characters are taken out, the positions of the characters are the bounds of
the spans (`marks`). What the assistant writes beside its contents is found by `turns`.
"""

import bisect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from instruction_modelling.chat.marks import (
    Edges,
    Mark,
    MarkedRange,
    Marking,
    Marks,
    Pieces,
    markings,
    split_at_marks,
    widen,
)
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.spans import Rendered, Span, SpanKind, without_empty
from instruction_modelling.chat.tulu import render_plain
from instruction_modelling.chat.turns import AssistantTurns
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateFormat:
    """Any Hugging Face chat template, through transformers' own renderer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str, name: str):
        self.name, self.template = name, template
        self._renderer = TemplateRenderer(tokenizer, template)
        self._turns = AssistantTurns(self._renderer)
        self.end_strings = self._turns.end_strings

    def render(self, conversation: Conversation, generation_prompt: bool = False) -> Rendered:
        """Return the text and spans of a conversation.

        Raises:
            RowRefused: the template refuses the conversation, leaves part of it out, or changes with the
                marks.
        """
        if conversation.plain:
            return render_plain(conversation, self._renderer.eos, generation_prompt)
        self._refuse_control_text(conversation)
        plain = self._renderer.render(conversation.messages, conversation.tools, generation_prompt)
        ranges = self._marked_ranges(conversation, plain, generation_prompt)
        spans = [Span(marked.start, marked.end, marked.mark.kind, marked.mark.message) for marked in ranges]
        data_ranges = tuple((span.start, span.end) for span in spans)
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
        return Rendered(plain, without_empty(spans), data_ranges, False, self._turns.control_tokens)

    def _marked_ranges(
        self, conversation: Conversation, plain: str, generation_prompt: bool
    ) -> list[MarkedRange]:
        """Return where each text of the data lies in `plain`, edge whitespace included where the template
        keeps it, by the first way of marking that does not change what the template writes."""
        for marking in markings(conversation):
            marks = Marks(conversation)
            ranges = self._ranges_by(marking, marks, conversation, plain, generation_prompt)
            if ranges is not None:
                self._require_rendered(conversation, marks.marks, ranges)
                return ranges
        raise RowRefused(
            "spans cannot be derived",
            "the chat template renders the conversation differently when "
            "its contents are marked, so it cannot be told which text came from which message",
        )

    def _ranges_by(
        self, marking: Marking, marks: Marks, conversation: Conversation, plain: str, generation_prompt: bool
    ) -> list[MarkedRange] | None:
        """Return where the texts marked in this way lie in `plain`; None where what the template writes
        changes with the marks."""

        def pieces(edges: Edges, given: Marks) -> Pieces | None:
            messages = marking.messages(conversation, given, edges)
            return split_at_marks(
                self._renderer.render_fields(messages, conversation.tools, generation_prompt), given.marks
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
        if lead is None or none is None or not _sources(lead) == _sources(none) == _sources(both):
            return None
        return widen(both, lead, none)

    @staticmethod
    def _require_rendered(
        conversation: Conversation, marks: Sequence[Mark], ranges: Sequence[MarkedRange]
    ) -> None:
        """Refuse a row of which the template leaves something out."""
        rendered = {marked.mark for marked in ranges}
        for mark in marks:
            if mark in rendered or not mark.core.strip():
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
        control_tokens = {*self._renderer.special_tokens, *self._turns.control_tokens}
        fields: list[tuple[str, Any]] = [("tools", conversation.tools)]
        for index, message in enumerate(conversation.messages):
            fields += [
                (f"message {index}: tool_calls", message.tool_calls),
                (f"message {index}: name", message.name),
                (f"message {index}: tool_call_id", message.tool_call_id),
            ]
        for name, value in fields:
            for text in _strings(value):
                spelled = next((token for token in control_tokens if token in text), None)
                if spelled:
                    raise RowRefused(
                        f"control text in {name.split()[-1]}",
                        f"{name} holds {spelled!r}, the text of a "
                        "control token, which cannot be told from the template's own; write it differently",
                    )

    def _tools_block(
        self, conversation: Conversation, text: str, spans: list[Span], generation_prompt: bool
    ) -> list[Span]:
        """Return the spans, and spans of kind `TOOLS` over what is written only because of `tools` and lies
        in no other span."""
        without = self._renderer.render(conversation.messages, (), generation_prompt)
        if without == text:
            raise RowRefused(
                "tools not rendered",
                "the chat template leaves out `tools`; use one that renders them "
                "(--chat_format), or remove the column",
            )
        same_start = _common_prefix(text, without)
        same_end = _common_prefix(text[same_start:][::-1], without[same_start:][::-1])
        length = len(text) - same_end - same_start
        start = self._moved_to_token(text, same_start, same_start + length, spans)
        cursor, stop, out = start, start + length, list(spans)
        for span in sorted(spans, key=lambda span: span.start):
            if span.end <= start or span.start >= stop:
                continue
            out.append(Span(cursor, max(cursor, span.start), SpanKind.TOOLS, -1))
            cursor = max(cursor, span.end)
        out.append(Span(cursor, max(cursor, stop), SpanKind.TOOLS, -1))
        return list(without_empty(out))

    def _moved_to_token(self, text: str, start: int, stop: int, spans: Sequence[Span]) -> int:
        """Return where the stretch [start, stop) begins once it is moved back to the start of one of the
        template's tokens; `start` where that cannot be.

        Two texts that differ by an insertion can be told apart only up to such a move: "[A]x[A]" is "[A]"
        with "x[A]" or with "[A]x" inserted. It can be moved back by a character where the one before it is
        also its last."""
        moved_start, moved_stop = start, stop
        while not any(text.startswith(token, moved_start) for token in self._renderer.added_tokens):
            in_content = any(span.start < moved_start <= span.end for span in spans)
            if not moved_start or text[moved_start - 1] != text[moved_stop - 1] or in_content:
                return start
            moved_start, moved_stop = moved_start - 1, moved_stop - 1
        return moved_start


def _sources(pieces: Pieces) -> list[tuple[int, int] | None]:
    """Return the message and the kind that each piece comes from; None for a piece of the template's."""
    return [(mark.message, mark.kind) if mark else None for _, mark in pieces]


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, keys included."""
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
    """Return the length of the longest common prefix of two strings."""
    return bisect.bisect_left(range(min(len(a), len(b))), True, key=lambda n: a[: n + 1] != b[: n + 1])
