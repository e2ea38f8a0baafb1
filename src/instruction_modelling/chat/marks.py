"""Mark the data's own text before a template renders it, and find it again in what the template writes.

A mark is two private-use characters around a text. A template may strip the whitespace around a content; a
mark inside which that whitespace lies would keep it from doing so, hence the edge whitespace stays outside
the mark first, and `widen` works out afterwards how much of it the template kept."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from instruction_modelling.chat.spans import ROLE_KINDS, SpanKind
from instruction_modelling.rows.conversations import Conversation, Message

# The private-use planes, from which the marking characters come.
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")

# Which edge whitespace of the contents a template is given: before and after them, before alone, or none.
Edges = Literal["both", "lead", "none"]


@dataclass(frozen=True)
class Mark:
    """One text of the data: `core` is wrapped in the characters `open` and `close`, its edge whitespace
    (`lead`, `trail`) stays outside; `message` is the 0-based index of its message, `offset` where the core
    begins in that message's own text (`Message.text`)."""

    kind: SpanKind
    message: int
    lead: str
    core: str
    trail: str
    open: str
    close: str
    offset: int

    def wrapped(self, edges: Edges) -> str:
        """Return the core between the two marking characters, with the edge whitespace asked for around
        them."""
        lead, trail = (self.lead if edges != "none" else ""), (self.trail if edges == "both" else "")
        return lead + self.open + self.core + self.close + trail


class Marks:
    """Hands out marks with characters that do not occur in the conversation."""

    def __init__(self, conversation: Conversation):
        row = [[message.for_template() for message in conversation.messages], conversation.tools]
        taken = set(_PRIVATE.findall(json.dumps(row, ensure_ascii=False)))
        self.marks: list[Mark] = []
        self._free_characters = (
            chr(c)
            for plane in (0xF0000, 0x100000)
            for c in range(plane, plane + 0xFFFE)
            if chr(c) not in taken
        )

    def wrap(self, kind: SpanKind, place: tuple[int, int], text: str, edges: Edges, whole: bool) -> str:
        """Return the text, which stands at `place` (its message, and the offset in that message's own text),
        with a mark around it; `whole`: around its edge whitespace, too.

        Unless `whole`, a text of whitespace alone is taken for one that the template strips to nothing."""
        core = text if whole else text.strip()
        lead = text[: len(text) - len(text.lstrip())] if core and not whole else ""
        trail = text[len(text.rstrip()) :] if core and not whole else ""
        open_, close = next(self._free_characters), next(self._free_characters)
        mark = Mark(kind, place[0], lead, core, trail, open_, close, place[1] + len(lead))
        self.marks.append(mark)
        return mark.wrapped(edges)


# A content may begin within a thought: what a model wrote to a prompt that ends by `<think>`.
_THINK = re.compile(r"(<think>|\A(?=(?:(?!<think>).)*</think>))(.*?)(</think>)", re.DOTALL)


@dataclass(frozen=True)
class Marking:
    """One way to mark a conversation. Templates differ in what they do with a content, and each way is the
    right one for some of them."""

    whole_roles: tuple[str, ...]
    """Roles whose edge whitespace lies inside the mark, where the template cannot strip it: right for a
    template that keeps it."""
    blank_roles: tuple[str, ...]
    """Roles whose empty contents are marked, too: right for a template that does not ask whether a content is
    empty."""
    string_arguments: bool
    """Whether the template takes the arguments of calls as JSON strings."""
    split_thinking: bool
    """Whether the text in `<think>` tags has a mark of its own, so that the template finds the tags."""

    def messages(self, conversation: Conversation, marks: Marks, edges: Edges) -> list[dict[str, Any]]:
        """Return the messages as a template gets them, their texts marked, the edge whitespace asked for
        outside the marks."""
        return [
            self._message(index, message, marks, edges) for index, message in enumerate(conversation.messages)
        ]

    def _message(self, index: int, message: Message, marks: Marks, edges: Edges) -> dict[str, Any]:
        kind = ROLE_KINDS[message.role]

        def marked(text: str, kind: SpanKind = kind, offset: int = 0) -> str:
            return marks.wrap(kind, (index, offset), text, edges, message.role in self.whole_roles)

        fields, content = message.for_template(self.string_arguments), message.content
        # A mark in what is blank would make the template take it for a text.
        if message.reasoning_content and message.reasoning_content.strip():
            reasoning = marked(message.reasoning_content, SpanKind.REASONING, len(content))
            fields["reasoning_content"] = fields[message.reasoning_key] = reasoning
        thinking = _THINK.search(content) if self.split_thinking and kind == SpanKind.ASSISTANT else None
        if thinking:
            before, after = content[: thinking.start()], content[thinking.end() :]
            before = marked(before) if before.strip() else before
            inside = thinking[2]
            if inside.strip():
                inside = marked(inside, SpanKind.REASONING, thinking.start(2))
            after = marked(after, offset=thinking.end()) if after.strip() else after
            fields["content"] = f"{before}{thinking[1]}{inside}</think>{after}"
        elif content.strip() or (message.role in self.blank_roles and not message.tool_calls):
            fields["content"] = marked(content)
        return fields


def markings(
    conversation: Conversation, string_arguments: bool = False, split_thinking: bool = False
) -> Iterator[Marking]:
    """Yield the ways to mark the conversation that can make a difference, the plainest first.

    Args:
        split_thinking: those alone that mark the text in `<think>` tags by itself.
    """
    messages = conversation.messages
    roles = tuple(ROLE_KINDS)
    with_edge_whitespace = {
        message.role
        for message in messages
        for text in (message.content, message.reasoning_content or "", *_around_thinking(message.content))
        if text != text.strip()
    }
    whole_choices = [roles, ()] if with_edge_whitespace else [roles]
    if "tool" in with_edge_whitespace and len(with_edge_whitespace) > 1:
        # Templates that strip what people write often write a tool's output as it is.
        whole_choices.append(("tool",))
    blank_choices = [roles]
    if any(not message.content.strip() for message in messages):
        # Many templates leave out an empty system message, few any other.
        blank_choices += [tuple(role for role in roles if role != "system"), ()]
    split_choices = (False, True) if any(map(has_thinking, messages)) else (False,)
    split_choices = (True,) if split_thinking else split_choices
    for split_thinking, blank_roles, whole_roles in product(split_choices, blank_choices, whole_choices):
        yield Marking(whole_roles, blank_roles, string_arguments, split_thinking)


def has_thinking(message: Message) -> bool:
    """Return whether a message's content holds a thought in `<think>` tags, or begins within one."""
    return "</think>" in message.content and bool(_THINK.search(message.content))


def _around_thinking(content: str) -> tuple[str, ...]:
    """Return the text in the content's `<think>` tags and the text after them; nothing where it has none."""
    thinking = _THINK.search(content)
    return (thinking[2], content[thinking.end() :]) if thinking else ()


# Alternating pieces of a rendered text: (template text, None), (marked text, its mark), (template text,
# None), ...
Pieces = Sequence[tuple[str, Mark | None]]


def split_at_marks(marked: str, marks: Sequence[Mark]) -> list[tuple[str, Mark | None]] | None:
    """Return the marked text as `Pieces`, without the marking characters; None where a mark was torn
    apart."""
    opens = {mark.open: mark for mark in marks}
    closes = {mark.close for mark in marks}
    pieces: list[tuple[str, Mark | None]] = []
    rest = marked
    pattern = re.compile("[" + "".join(map(re.escape, opens)) + "]") if opens else None
    while pattern and (opening := pattern.search(rest)):
        mark = opens[opening[0]]
        stop = rest.find(mark.close, opening.end())
        if stop < 0:
            return None
        pieces += [(rest[: opening.start()], None), (rest[opening.end() : stop], mark)]
        rest = rest[stop + 1 :]
    pieces.append((rest, None))
    torn = any(c in opens or c in closes for text, _ in pieces for c in _PRIVATE.findall(text))
    return None if torn else pieces


@dataclass(frozen=True)
class MarkedRange:
    """The characters [start, end) of a rendered text that come from the text of a mark; `offset` is where
    they begin in the message's own text."""

    start: int
    end: int
    mark: Mark
    offset: int

    def from_(self, start: int) -> "MarkedRange":
        """Return the part of the range from `start` on."""
        skipped = max(0, start - self.start)
        return replace(self, start=self.start + skipped, offset=self.offset + skipped)

    def opened(self, at: int, length: int) -> list["MarkedRange"]:
        """Return the same text where `length` characters of another are put in at `at`: what stands before
        them and what stands behind them."""
        if at <= self.start:
            return [self.moved(length)]
        return [self] if at >= self.end else [replace(self, end=at), self.from_(at).moved(length)]

    def moved(self, shift: int) -> "MarkedRange":
        """Return the same text where it stands `shift` characters later."""
        return replace(self, start=self.start + shift, end=self.end + shift)


def widen(both: Pieces, lead: Pieces, none: Pieces) -> list[MarkedRange] | None:
    """Return where the marked texts lie in the rendered text, widened over the edge whitespace that the
    template kept; None where the three renderings do not fit together.

    Args:
        both: the conversation rendered with the edge whitespace before and after each content.
        lead: with that before each content alone.
        none: without any.

    A gap is the template text between two contents. What it has more in `both` than in `none` is the kept
    part of the whitespace after the content before it and of the whitespace before the content after it;
    `lead` tells the two apart.
    """
    ranges: list[MarkedRange] = []
    cursor, before = 0, None
    for number in range(0, len(both), 2):
        gap, template = both[number][0], none[number][0]
        after = both[number + 1][1] if number + 1 < len(both) else None
        kept_lead = len(lead[number][0]) - len(template)
        kept_trail = len(gap) - len(template) - kept_lead
        trail_before, lead_after = (before.trail if before else ""), (after.lead if after else "")
        if not (0 <= kept_trail <= len(trail_before) and 0 <= kept_lead <= len(lead_after)):
            return None
        if gap != trail_before[:kept_trail] + template + lead_after[len(lead_after) - kept_lead :]:
            return None
        if before:
            ranges[-1] = replace(ranges[-1], end=ranges[-1].end + kept_trail)
        if after:
            start = cursor + len(gap)
            cursor = start + len(both[number + 1][0])
            ranges.append(MarkedRange(start - kept_lead, cursor, after, after.offset - kept_lead))
        before = after
    return ranges
