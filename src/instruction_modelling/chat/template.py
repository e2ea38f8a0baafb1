"""Any Hugging Face chat template, unedited, with the spans of what it renders.

The conversation is rendered once as it is and once with each content wrapped in two private-use characters;
where the two agree after those characters are taken out, the positions of the characters are the bounds of
the spans (`renderings`, `marks`). What the assistant has to write is found by `turns`; where a template
rewrites earlier turns once more messages follow, the conversation becomes several sequences (`sequences`).
"""

import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2.utils import htmlsafe_json_dumps

from instruction_modelling.chat.marks import Mark, MarkedRange
from instruction_modelling.chat.renderer import TemplateRenderer
from instruction_modelling.chat.renderings import Renderings
from instruction_modelling.chat.sequences import SequencePlan, plan_sequences
from instruction_modelling.chat.settings import ChatSettings
from instruction_modelling.chat.spans import Rendered, Source, Span, SpanKind, without_empty
from instruction_modelling.chat.tulu import render_plain
from instruction_modelling.chat.turn_spans import Turn, common_prefix
from instruction_modelling.chat.turns import TurnFinder
from instruction_modelling.chat.user_ends import user_end_spans
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.messages import REASONING_KEYS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TemplateFormat:
    """Any Hugging Face chat template, through transformers' own renderer."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", template: str, name: str, for_tools: str | None = None
    ):
        """Take a template, and another (`for_tools`) that renders the rows with tools instead."""
        self.name, self.template, self.settings = name, template, ChatSettings.of(template)
        self._renderer = TemplateRenderer(tokenizer, template)
        self._finders: dict[str, TurnFinder] = {}
        self._with_tools = TemplateFormat(tokenizer, for_tools, name) if for_tools else None
        self.end_strings = self._finder({}).end_strings
        if self._with_tools is not None:
            self.end_strings = tuple(dict.fromkeys((*self.end_strings, *self._with_tools.end_strings)))
        self.user_end: str = self._finder({}).user_end
        self.identity = json.dumps([name, template, for_tools])

    def _finder(self, variables: Mapping[str, Any]) -> TurnFinder:
        """Return what finds turns in conversations with these variables of the template."""
        key = repr(sorted(variables.items()))
        if key not in self._finders:
            self._finders[key] = TurnFinder(self._renderer, dict(variables), self.settings.end_of_turn)
        return self._finders[key]

    def prompt(self, conversation: Conversation) -> Rendered:
        """Return the text and spans of a conversation with the generation prompt: what the model is asked.

        Raises:
            RowRefused: the template refuses the conversation, or changes with the marks.
        """
        if conversation.plain:
            return render_plain(conversation, self._renderer.eos, True)
        if self._with_tools is not None and conversation.tools:
            return self._with_tools.prompt(conversation)
        self._refuse_control_text(conversation)
        row, count = self._renderings(conversation), len(conversation.messages)
        text, ranges = row.text(count, prompted=True), row.ranges(count, prompted=True)
        spans = _content_spans(ranges)
        spans += user_end_spans(text, spans, self._finder(conversation.template_variables).user_end)
        return self._rendered(row, text, spans, ranges)

    def sequences(self, conversation: Conversation) -> tuple[Rendered, ...]:
        """Return the sequences that a conversation is trained as, in order; mostly one.

        Raises:
            RowRefused: the template refuses the conversation, leaves part of it out, or changes with the
                marks.
        """
        if conversation.plain:
            return (render_plain(conversation, self._renderer.eos),)
        if self._with_tools is not None and conversation.tools:
            return self._with_tools.sequences(conversation)
        self._refuse_control_text(conversation)
        row = self._renderings(conversation)
        whole = self.settings.history == "whole"
        try:
            if whole:
                _require_texts(row, row.missing(len(conversation.messages)), 0)
            plans = plan_sequences(row, self._finder(conversation.template_variables), whole)
            return tuple(self._sequence(row, plan, part) for part, plan in enumerate(plans))
        except RowRefused as refused:
            if not whole or refused.reason == "refused by the chat template":
                raise
            detail = f"{refused.detail} (--history whole trains the text of the whole conversation alone)"
            raise RowRefused(refused.reason, detail) from refused

    def _renderings(self, conversation: Conversation) -> Renderings:
        """Return a conversation's renderings, its reasoning under the first key that the template writes
        where it writes neither `reasoning_content` nor the row's own."""
        keys = self._finder(conversation.template_variables).reasoning_keys
        if keys and REASONING_KEYS[0] not in keys:
            messages = tuple(
                message
                if message.reasoning_content is None or message.reasoning_key in keys
                else replace(message, reasoning_key=keys[0])
                for message in conversation.messages
            )
            conversation = replace(conversation, messages=messages)
        return Renderings(self._renderer, conversation)

    def _sequence(self, row: Renderings, plan: SequencePlan, part: int) -> Rendered:
        """Return one sequence of a conversation: its text, spans, and what of it is trained."""
        text, ranges, shift = self._text_and_ranges(row, plan)
        written = [span for turn in plan.turns for span in turn.spans(shift)]
        answered = {turn.message for turn in plan.turns}
        spans = _content_spans([found for found in ranges if found.mark.message not in answered]) + written
        for turn in plan.turns:
            _require_calls(row, turn)
        spans += user_end_spans(text, spans, self._finder(row.conversation.template_variables).user_end)
        if row.conversation.tools and not plan.after_prompt:
            spans = self._tools_block(row, _messages_rendered(row, plan), spans)
        if plan.asked:
            start, length = plan.turns[0].start, len(plan.asked)
            text = text[:start] + plan.asked + text[start:]
            ranges = [part for found in ranges for part in found.opened(start, length)]
            spans = [span.moved(length) if span.start >= start else span for span in spans]
        rendered = self._rendered(row, text, spans, ranges)
        return replace(
            rendered,
            part=part,
            first_message=plan.first_owned,
            owned_start=self._owned_start(row, plan, text, spans),
            prompts_differ=sum(turn.prompt_differs for turn in plan.turns),
        )

    @staticmethod
    def _text_and_ranges(row: Renderings, plan: SequencePlan) -> tuple[str, list[MarkedRange], int]:
        """Return a sequence's text, where the data's texts lie in it, and how far its turns are moved.

        Raises:
            RowRefused: the template leaves out a text that the sequence owns.
        """
        count = _messages_rendered(row, plan)
        if plan.asked:
            (turn,) = plan.turns
            _require_texts(row, row.missing(count), plan.first_owned)
            through = [found for found in row.ranges(count) if found.end <= turn.end]
            return turn.text[: turn.end] + turn.appended, through, 0
        if not plan.after_prompt:
            _require_texts(row, row.missing(count), plan.first_owned)
            text, last = row.text(count), plan.turns[-1] if plan.turns else None
            if last is not None and last.appended and last.message == plan.through:
                text = text[: last.end] + last.appended
            return text, row.ranges(count), 0
        (turn,) = plan.turns
        _require_texts(row, row.missing(turn.message, prompted=True), plan.first_owned)
        _require_texts(row, row.missing(count), turn.message)
        prompt = row.text(turn.message, prompted=True)
        shift = len(prompt) - turn.start
        ranges = row.ranges(count)
        if any(
            turn.start <= found.start < turn.end and found.mark.message != turn.message for found in ranges
        ):
            raise RowRefused(
                "spans cannot be derived",
                f"message {turn.message}: the chat template writes another message behind it in its "
                "turn, so that the model would have to write that too; give another template (--chat_format)",
            )
        of_turn = [found for found in ranges if found.mark.message == turn.message]
        # Of a text that the prompt begins (`<think>` in a content), the turn has the rest.
        moved = [found.from_(turn.start).moved(shift) for found in of_turn if found.end > turn.start]
        return prompt + turn.written, [*row.ranges(turn.message, prompted=True), *moved], shift

    def _owned_start(self, row: Renderings, plan: SequencePlan, text: str, spans: Sequence[Span]) -> int:
        """Return where what the sequence owns begins: behind the last message of the sequence before it."""
        if not plan.first_owned:
            return 0
        first = min((s.start for s in spans if s.message >= plan.first_owned), default=len(text))
        earlier = [s.end for s in spans if 0 <= s.message < plan.first_owned and s.end <= first]
        position = max(earlier, default=first)
        if plan.before is not None and plan.before.message == plan.first_owned - 1:
            # Calls are no span where they are read again.
            position = plan.before.calls_end(text, position, first)
        end = self._finder(row.conversation.template_variables).answer_end
        after = position + len(text[position:]) - len(text[position:].lstrip())
        return after + len(end) if end and text.startswith(end, after) else position

    def _rendered(
        self, row: Renderings, text: str, spans: list[Span], ranges: Sequence[MarkedRange]
    ) -> Rendered:
        """Return a text with its spans in order.

        Raises:
            RowRefused: two of them overlap.
        """
        spans = sorted(spans, key=lambda span: (span.start, span.end))
        if any(after.start < before.end for before, after in pairwise(spans)):
            raise RowRefused(
                "spans cannot be derived",
                "the chat template writes the texts of two messages into one "
                "another, so it cannot be told which text came from which message",
            )
        data = tuple(sorted((found.start, found.end) for found in ranges))
        control = self._finder(row.conversation.template_variables).control_tokens
        sources = _sources(row.conversation, text, ranges)
        return Rendered(text, without_empty(spans), data, False, control, sources=sources)

    def _refuse_control_text(self, conversation: Conversation) -> None:
        """Refuse control tokens spelled by data that is not content: nothing tells them from the template's
        own."""
        control_tokens = {
            *self._renderer.special_tokens,
            *self._finder(conversation.template_variables).control_tokens,
        }
        fields: list[tuple[str, Any]] = [
            ("tools", conversation.tools),
            ("chat_template_kwargs", conversation.template_variables),
        ]
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

    def _tools_block(self, row: Renderings, count: int, spans: list[Span]) -> list[Span]:
        """Return the spans, and spans of kind `TOOLS` over what is written only because of `tools` and lies
        in no other span."""
        text, without = row.text(count), row.without_tools(count)
        if without is None:
            return spans
        if without == text:
            raise RowRefused(
                "tools not rendered",
                "the chat template leaves out `tools`; use one that renders them "
                "(--chat_format), or remove the column",
            )
        same_start = self._renderer.token_start(text, common_prefix(text, without))
        same_end = common_prefix(text[same_start:][::-1], without[same_start:][::-1])
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


def _messages_rendered(row: Renderings, plan: SequencePlan) -> int:
    """Return of how many messages a sequence's text is the rendering, or the beginning of one: in a long row
    of asked turns the text of the whole is known, and each of them has the beginning of that."""
    whole = len(row.conversation.messages)
    return whole if plan.asked and plan.turns[0].text == row.text(whole) else plan.through + 1


def _content_spans(ranges: Sequence[MarkedRange]) -> list[Span]:
    """Return the spans of the data's own texts."""
    return [Span(found.start, found.end, found.mark.kind, found.mark.message) for found in ranges]


def _sources(conversation: Conversation, text: str, ranges: Sequence[MarkedRange]) -> tuple[Source, ...]:
    """Return where a rendered text is a message's own, to the letter, in order: where the data's texts stand
    as the data has them, and the tags of thoughts between them."""
    of_message: dict[int, list[Source]] = {}
    for found in sorted(ranges, key=lambda found: found.start):
        message, length = found.mark.message, found.end - found.start
        own = conversation.messages[message].text
        if own[found.offset : found.offset + length] == text[found.start : found.end]:
            source = Source(found.start, found.end, message, found.offset)
            of_message.setdefault(message, []).append(source)
    sources = [source for own_sources in of_message.values() for source in own_sources]
    for message, own_sources in of_message.items():
        content = conversation.messages[message].content
        if "<think>" in content:
            sources += _tags(content, text, own_sources)
    return tuple(sorted(sources, key=lambda source: source.start))


def _tags(content: str, text: str, sources: Sequence[Source]) -> list[Source]:
    """Return where what a content has before and between the sources of its message, in order, stands in the
    rendered text: a template that takes a thought out of the content writes its tags itself."""
    out, cursor, offset = [], 0, 0
    for source in sources:
        if source.offset >= len(content) and source.end > source.start:
            # It is of the message's reasoning, not of its content.
            continue
        tag = content[offset : source.offset].strip()
        before = text[cursor : source.start].rstrip()
        if tag and before.endswith(tag):
            begin = offset + content[offset : source.offset].index(tag)
            out.append(Source(len(before) + cursor - len(tag), len(before) + cursor, source.message, begin))
        cursor, offset = source.end, source.offset + source.end - source.start
    return out


def _require_texts(row: Renderings, missing: Sequence[Mark], first: int) -> None:
    """Raise RowRefused where the template leaves out a text of a message from `first` on."""
    for mark in missing:
        if mark.message < first:
            continue
        message = row.conversation.messages[mark.message]
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


def _require_calls(row: Renderings, turn: Turn) -> None:
    """Raise RowRefused where the template leaves out one of a turn's tool calls, or their arguments.

    They are looked for in what the turn has beside the data's texts, which may speak of a call, too; each as
    often as the calls have it."""
    functions = [call.get("function") or call for call in row.conversation.messages[turn.message].tool_calls]
    written = turn.beside_texts() if functions else ""
    remedy = "use a template that renders them (--chat_format, such as arms/tool_chat.jinja)"
    names = Counter(str(function.get("name", "")) for function in functions)
    for name, count in names.items():
        if written.count(name) < count:
            which = "its tool_calls" if count == 1 else f"some of its {count} calls of {name}"
            raise RowRefused(
                "tool_calls not rendered",
                f"message {turn.message}: the chat template leaves out {which}; {remedy}",
            )
    values = [(function, value) for function in functions for value in _leaves(function.get("arguments"))]
    times = Counter(json.dumps(value) for _, value in values)
    for function, value in values:
        if _times_written(value, written) < times[json.dumps(value)]:
            raise RowRefused(
                "arguments not rendered",
                f"message {turn.message}: the chat template leaves out arguments of its call of "
                f"{function.get('name')}; {remedy}",
            )


def _leaves(value: Any) -> Iterator[Any]:
    """Yield every value within a JSON value that holds no further ones."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and value != "":
        yield value


def _times_written(value: Any, text: str) -> int:
    """Return how often, at most, a value stands in a text, in the ways that templates write it."""
    if isinstance(value, str):
        ways = [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]]
        # Jinja's `tojson` filter escapes signs of HTML, a template's own macro those of XML.
        ways += [
            html.escape(value, quote=True),
            html.escape(value, quote=False),
            htmlsafe_json_dumps(value)[1:-1],
        ]
        ways = [way.strip() for way in ways]
    else:
        ways = [str(value), json.dumps(value)]
    return sum(text.count(way) for way in {*ways})


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
