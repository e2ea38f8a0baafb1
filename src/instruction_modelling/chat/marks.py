"""Marking the data's own text before a template renders it, and finding it again in what comes out."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from instruction_modelling.chat.spans import ROLE_KINDS, SpanKind
from instruction_modelling.rows.conversations import Conversation

# The private-use planes, from which the marking characters come.
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")

# Which edge whitespace of the contents to give to a template.
Edges = Literal["both", "lead", "none"]


@dataclass(frozen=True)
class Mark:
    """One stretch of the data's own text: its core is wrapped in the characters `open` and `close`, its edge
    whitespace stays outside."""

    kind: SpanKind
    message: int
    lead: str
    core: str
    trail: str
    open: str
    close: str

    def wrapped(self, edges: Edges) -> str:
        """The core between the two marking characters, with the edge whitespace asked for around them."""
        lead, trail = (self.lead if edges != "none" else ""), (self.trail if edges == "both" else "")
        return lead + self.open + self.core + self.close + trail


class Marks:
    """Hands out marks with characters that do not occur in the conversation."""

    def __init__(self, conversation: Conversation):
        rows = [[message.for_template() for message in conversation.messages], conversation.tools]
        seen = set(_PRIVATE.findall(json.dumps(rows, ensure_ascii=False)))
        self.marks: list[Mark] = []
        self._free = (
            chr(c)
            for plane in (0xF0000, 0x100000)
            for c in range(plane, plane + 0xFFFE)
            if chr(c) not in seen
        )

    def wrap(self, kind: SpanKind, message: int, text: str, edges: Edges, outer: bool) -> str:
        """The text with a mark around it; `outer`: its edge whitespace is inside. A text of whitespace alone
        is otherwise taken for one that the template strips to nothing."""
        core = text if outer else text.strip()
        lead = text[: len(text) - len(text.lstrip())] if core and not outer else ""
        trail = text[len(text.rstrip()) :] if core and not outer else ""
        mark = Mark(kind, message, lead, core, trail, next(self._free), next(self._free))
        self.marks.append(mark)
        return mark.wrapped(edges)


_THINK = re.compile(r"(<think>)(.*?)(</think>)", re.DOTALL)


@dataclass(frozen=True)
class Marking:
    """One way to mark a conversation. Templates differ in what they do with a content, and each way is the
    right one for some: a mark keeps a template from stripping edge whitespace (so it goes inside only where
    the template keeps it, `outer` roles), from seeing that a content is empty or whitespace alone (so such a
    content is marked only where the template does not look, `blank` roles), and from finding `<think>`
    tags."""

    outer: tuple[str, ...]
    blank: tuple[str, ...]
    split_thinking: bool

    def messages(self, conversation: Conversation, marks: Marks, edges: Edges) -> list[dict[str, Any]]:
        """The conversation's messages as a template gets them, with their texts marked and the edge
        whitespace asked for outside the marks."""
        out = []
        for index, message in enumerate(conversation.messages):
            given, outer, kind = message.for_template(), message.role in self.outer, ROLE_KINDS[message.role]
            thinking = (
                _THINK.search(message.content) if self.split_thinking and kind == SpanKind.ASSISTANT else None
            )
            if message.reasoning_content:
                given["reasoning_content"] = marks.wrap(
                    SpanKind.REASONING, index, message.reasoning_content, edges, outer
                )
            if thinking:
                before, after = message.content[: thinking.start()], message.content[thinking.end() :]
                if before.strip():
                    before = marks.wrap(kind, index, before, edges, outer)
                inside = marks.wrap(SpanKind.REASONING, index, thinking[2], edges, outer)
                given["content"] = (
                    f"{before}<think>{inside}</think>{marks.wrap(kind, index, after, edges, outer)}"
                )
            elif message.content.strip() or (message.role in self.blank and not message.tool_calls):
                given["content"] = marks.wrap(kind, index, message.content, edges, outer)
            out.append(given)
        return out


def markings(conversation: Conversation) -> Iterator[Marking]:
    """The ways to mark the conversation that can make a difference, the plainest first."""
    messages = conversation.messages
    roles = tuple(ROLE_KINDS)
    edged = {
        m.role
        for m in messages
        for text in (m.content, m.reasoning_content or "", *_inside(m.content))
        if text != text.strip()
    }
    outers = [roles, ()] if edged else [roles]
    if "tool" in edged and len(edged) > 1:
        # Templates that strip what people write often write a tool's output as it is.
        outers.append(("tool",))
    blanks = [roles]
    if any(not m.content.strip() for m in messages):
        # Many templates leave out an empty system message, few any other.
        blanks += [tuple(role for role in roles if role != "system"), ()]
    thinkings = (False, True) if any(_THINK.search(m.content) for m in messages) else (False,)
    for thinking, blank, outer in product(thinkings, blanks, outers):
        yield Marking(outer, blank, thinking)


def _inside(content: str) -> tuple[str, ...]:
    found = _THINK.search(content)
    return (found[2], content[found.end() :]) if found else ()


def split_at_marks(marked: str, marks: Sequence[Mark]) -> list[tuple[str, Mark | None]] | None:
    """The marked text as alternating pieces (template text, None), (marked text, its mark), ...; None where a
    mark was torn apart."""
    opens = {mark.open: mark for mark in marks}
    closes = {mark.close for mark in marks}
    pieces: list[tuple[str, Mark | None]] = []
    rest = marked
    pattern = re.compile("[" + "".join(map(re.escape, opens)) + "]") if opens else None
    while pattern and (found := pattern.search(rest)):
        mark = opens[found[0]]
        stop = rest.find(mark.close, found.end())
        if stop < 0:
            return None
        pieces += [(rest[: found.start()], None), (rest[found.end() : stop], mark)]
        rest = rest[stop + 1 :]
    pieces.append((rest, None))
    torn = any(c in opens or c in closes for text, _ in pieces for c in _PRIVATE.findall(text))
    return None if torn else pieces


def widen(
    both: Sequence[tuple[str, Mark | None]],
    lead: Sequence[tuple[str, Mark | None]],
    none: Sequence[tuple[str, Mark | None]],
) -> list[tuple[int, int, Mark]] | None:
    """The marked places in the text without marks, widened over the edge whitespace that the template kept:
    what a gap has more with the whitespace than without is the kept part of the trail before it and of the
    lead after it, and the rendering with leads alone tells the two apart. None where the renderings do not
    match."""
    places: list[tuple[int, int, Mark]] = []
    at, before = 0, None
    for number in range(0, len(both), 2):
        gap, template = both[number][0], none[number][0]
        after = both[number + 1][1] if number + 1 < len(both) else None
        kept_lead = len(lead[number][0]) - len(template)
        kept_trail = len(gap) - len(template) - kept_lead
        trail, led = (before.trail if before else ""), (after.lead if after else "")
        if not (0 <= kept_trail <= len(trail) and 0 <= kept_lead <= len(led)):
            return None
        if gap != trail[:kept_trail] + template + led[len(led) - kept_lead :]:
            return None
        if before:
            start, end, _ = places[-1]
            places[-1] = (start, end + kept_trail, before)
        if after:
            start = at + len(gap)
            at = start + len(both[number + 1][0])
            places.append((start - kept_lead, at, after))
        before = after
    return places
