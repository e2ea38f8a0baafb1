"""Marking the data's own text before a template renders it, and finding it again in what comes out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from instruction_modelling.conversations import Conversation
from instruction_modelling.spans import ROLE_KINDS, SpanKind


@dataclass(frozen=True)
class Mark:
    """One stretch of the data's own text, wrapped in the characters `open` and `close` before rendering."""

    kind: SpanKind
    message: int
    text: str
    open: str
    close: str

    @property
    def core(self) -> str:
        return self.text.strip()

    @property
    def lead(self) -> str:
        return self.text[: len(self.text) - len(self.text.lstrip())] if self.core else self.text

    @property
    def trail(self) -> str:
        return self.text[len(self.text.rstrip()):] if self.core else ""

    def wrapped(self, edges: bool) -> str:
        """The text with its core between the two marking characters, with or without its edge whitespace."""
        inside = self.open + self.core + self.close
        return self.lead + inside + self.trail if edges else inside


class Marks:
    """Hands out marks with characters that do not occur in the conversation."""

    def __init__(self, conversation: Conversation):
        seen = {c for message in conversation.messages for value in message.for_template().values()
                for c in str(value) if ord(c) >= 0xF0000}
        seen |= {c for c in str(conversation.tools) if ord(c) >= 0xF0000}
        self.marks: list[Mark] = []
        self._free = (chr(c) for plane in (0xF0000, 0x100000) for c in range(plane, plane + 0xFFFE)
                      if chr(c) not in seen)

    def wrap(self, kind: SpanKind, message: int, text: str, edges: bool) -> str:
        mark = Mark(kind, message, text, next(self._free), next(self._free))
        self.marks.append(mark)
        return mark.wrapped(edges)


_THINK = re.compile(r"(<think>)(.*?)(</think>)", re.DOTALL)


Marker = Callable[[Conversation, Marks, bool], list[dict[str, Any]]]


def marker(mark_empty: bool, split_thinking: bool) -> Marker:
    """A function that gives a conversation's messages with their texts marked."""

    def mark(conversation: Conversation, marks: Marks, edges: bool) -> list[dict[str, Any]]:
        out = []
        for index, message in enumerate(conversation.messages):
            given = message.for_template()
            thinking = _THINK.search(message.content) if split_thinking and message.role == "assistant" else None
            if message.reasoning_content:
                given["reasoning_content"] = marks.wrap(SpanKind.REASONING, index, message.reasoning_content, edges)
            if thinking:
                before, after = message.content[: thinking.start()], message.content[thinking.end():]
                given["content"] = before + "<think>" + marks.wrap(
                    SpanKind.REASONING, index, thinking[2], edges) + "</think>" + marks.wrap(
                    ROLE_KINDS[message.role], index, after, edges)
            elif message.content.strip() or (mark_empty and not message.tool_calls):
                given["content"] = marks.wrap(ROLE_KINDS[message.role], index, message.content, edges)
            out.append(given)
        return out

    return mark


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
    torn = any(c in opens or c in closes for text, _ in pieces for c in text if ord(c) >= 0xF0000)
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
