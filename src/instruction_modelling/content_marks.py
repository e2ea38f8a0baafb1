"""Marking the data's own text before a template renders it, and finding it again in what comes out."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from instruction_modelling.conversations import Conversation
from instruction_modelling.spans import ROLE_KINDS, SpanKind

# The private-use planes, from which the marking characters come.
_PRIVATE = re.compile("[\U000f0000-\U0010ffff]")


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

    def wrapped(self, edges: bool) -> str:
        """The core between the two marking characters, with or without the edge whitespace around them."""
        inside = self.open + self.core + self.close
        return self.lead + inside + self.trail if edges else inside


class Marks:
    """Hands out marks with characters that do not occur in the conversation."""

    def __init__(self, conversation: Conversation):
        rows = [[message.for_template() for message in conversation.messages], conversation.tools]
        seen = set(_PRIVATE.findall(json.dumps(rows, ensure_ascii=False)))
        self.marks: list[Mark] = []
        self._free = (chr(c) for plane in (0xF0000, 0x100000) for c in range(plane, plane + 0xFFFE)
                      if chr(c) not in seen)

    def wrap(self, kind: SpanKind, message: int, text: str, edges: bool, outer: bool) -> str:
        """The text with a mark around it; `outer`: its edge whitespace is inside. A text of whitespace alone is
        otherwise taken for one that the template strips to nothing."""
        core = text if outer else text.strip()
        lead = text[: len(text) - len(text.lstrip())] if core and not outer else ""
        trail = text[len(text.rstrip()):] if core and not outer else ""
        mark = Mark(kind, message, lead, core, trail, next(self._free), next(self._free))
        self.marks.append(mark)
        return mark.wrapped(edges)


_THINK = re.compile(r"(<think>)(.*?)(</think>)", re.DOTALL)


@dataclass(frozen=True)
class Marking:
    """One way to mark a conversation. Templates differ in what they do with a content, and each way is the right
    one for some: a mark keeps a template from stripping edge whitespace (so it goes inside only where the template
    keeps it, `outer` roles), from seeing that a content is empty or whitespace alone (so such a content is marked only
    where the template does not look, `blank` roles), and from finding `<think>` tags."""

    outer: tuple[str, ...]
    blank: tuple[str, ...]
    split_thinking: bool

    def messages(self, conversation: Conversation, marks: Marks, edges: bool) -> list[dict[str, Any]]:
        """The conversation's messages as a template gets them, with their texts marked, with or without the edge
        whitespace outside the marks."""
        out = []
        for index, message in enumerate(conversation.messages):
            given, outer, kind = message.for_template(), message.role in self.outer, ROLE_KINDS[message.role]
            thinking = _THINK.search(message.content) if self.split_thinking and kind == SpanKind.ASSISTANT else None
            if message.reasoning_content:
                given["reasoning_content"] = marks.wrap(SpanKind.REASONING, index, message.reasoning_content, edges,
                                                        outer)
            if thinking:
                before, after = message.content[: thinking.start()], message.content[thinking.end():]
                if before.strip():
                    before = marks.wrap(kind, index, before, edges, outer)
                inside = marks.wrap(SpanKind.REASONING, index, thinking[2], edges, outer)
                given["content"] = f"{before}<think>{inside}</think>{marks.wrap(kind, index, after, edges, outer)}"
            elif message.content.strip() or (message.role in self.blank and not message.tool_calls):
                given["content"] = marks.wrap(kind, index, message.content, edges, outer)
            out.append(given)
        return out


def markings(conversation: Conversation) -> Iterator[Marking]:
    """The ways to mark the conversation that can make a difference, the plainest first."""
    messages = conversation.messages
    roles = tuple(ROLE_KINDS)
    edged = {m.role for m in messages for text in (m.content, m.reasoning_content or "", *_inside(m.content))
             if text != text.strip()}
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
    return (found[2], content[found.end():]) if found else ()


def split_at_marks(marked: str, marks: Sequence[Mark]) -> list[tuple[str, Mark | None]] | None:
    """The marked text as alternating pieces (template text, None), (marked text, its mark), ...; None where a mark
    was torn apart."""
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
        pieces += [(rest[: found.start()], None), (rest[found.end():stop], mark)]
        rest = rest[stop + 1:]
    pieces.append((rest, None))
    torn = any(c in opens or c in closes for text, _ in pieces for c in _PRIVATE.findall(text))
    return None if torn else pieces


@dataclass
class _Place:
    start: int
    end: int
    mark: Mark


def widen(pieces: list[tuple[str, Mark | None]],
          bare: list[tuple[str, Mark | None]]) -> list[tuple[int, int, Mark]] | None:
    """The marked places in the text without marks, widened over the edge whitespace that the template kept: what a
    gap has more than the same gap of the rendering without edge whitespace is the kept part of the trail before it
    and of the lead after it. None where the two renderings do not match."""
    places, at = [], 0
    for text, mark in pieces:
        if mark:
            places.append(_Place(at, at + len(text), mark))
        at += len(text)
    for number in range(0, len(pieces), 2):
        gap, template = pieces[number][0], bare[number][0]
        before = places[number // 2 - 1] if number else None
        after = places[number // 2] if number // 2 < len(places) else None
        trail, lead = (before.mark.trail if before else ""), (after.mark.lead if after else "")
        extra = len(gap) - len(template)
        for kept in range(min(extra, len(trail)), -1, -1):
            if extra - kept <= len(lead) and gap == trail[:kept] + template + lead[len(lead) - (extra - kept):]:
                break
        else:
            return None
        if before:
            before.end += kept
        if after:
            after.start -= extra - kept
    return [(place.start, place.end, place.mark) for place in places]
