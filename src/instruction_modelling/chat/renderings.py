"""The texts that a template writes of one conversation, each rendered once: of its first messages, with or
without the generation prompt, and where the data's own texts lie in them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

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
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation, Message


class NotDerived(Exception):
    """A text cannot be told from others: the template has to be asked."""


class Derived(Protocol):
    """What tells some of a conversation's renderings from others (`windows.Windows`); each method raises
    `NotDerived` or `RowRefused` where the template has to be asked."""

    def text(self, count: int, prompted: bool) -> str:
        """Return `Renderings.text`."""
        ...

    def ranges(self, count: int, prompted: bool) -> tuple[list[MarkedRange], list[Mark]]:
        """Return `Renderings.ranges` and `missing`."""
        ...

    def followed(self, count: int, follower: Sequence[Message]) -> str:
        """Return `Renderings.followed`."""
        ...

    def without_tools(self, count: int) -> str | None:
        """Return `Renderings.without_tools`."""
        ...


class Renderings:
    """The renderings of one conversation by one template."""

    derived: Derived | None = None
    """What tells texts that are not rendered yet from others, in a long conversation."""
    split_thinking = False
    """Whether the text in `<think>` tags is marked by itself in any case."""

    def __init__(self, renderer: TemplateRenderer, conversation: Conversation):
        self.renderer, self.conversation = renderer, conversation
        self._whole = len(conversation.messages)
        self._texts: dict[tuple[int, bool], str | RowRefused] = {}
        self._ranges: dict[tuple[int, bool], list[MarkedRange]] = {}
        self._missing: dict[tuple[int, bool], list[Mark]] = {}
        self.splits: dict[tuple[int, bool], bool] = {}
        """Whether the text in `<think>` tags is marked by itself in a text's ranges."""
        self._without_tools: dict[int, str | None] = {}

    def text(self, count: int, prompted: bool = False) -> str:
        """Return the text of the first `count` messages, `prompted` with the generation prompt after it.

        Raises:
            RowRefused: the template refuses them.
        """
        key = (count, prompted)
        if key not in self._texts and self.derived is not None and count < self._whole:
            with suppress(NotDerived, RowRefused):
                self._texts[key] = self.derived.text(count, prompted)
        if key not in self._texts:
            try:
                self._texts[key] = self._render(self.conversation.messages[:count], prompted)
            except RowRefused as refused:
                self._texts[key] = refused
        found = self._texts[key]
        if isinstance(found, RowRefused):
            raise found
        return found

    def text_or_none(self, count: int, prompted: bool = False) -> str | None:
        """Return `text`; None where the template refuses the messages."""
        try:
            return self.text(count, prompted)
        except RowRefused:
            return None

    def rendered_from(self, count: int) -> int:
        """Return the least number of messages, `count` or more, that the template does not refuse.

        Raises:
            RowRefused: it refuses the whole conversation.
        """
        whole = len(self.conversation.messages)
        return next((n for n in range(count, whole) if self.text_or_none(n) is not None), whole)

    def followed(self, count: int, follower: Sequence[Message]) -> str | None:
        """Return the text of the first `count` messages and others after them; None where it is refused."""
        if self.derived is not None:
            with suppress(NotDerived, RowRefused):
                return self.derived.followed(count, follower)
        try:
            return self._render([*self.conversation.messages[:count], *follower], False)
        except RowRefused:
            return None

    def without_tools(self, count: int) -> str | None:
        """Return the text of the first `count` messages as it is without the row's `tools`; None where the
        template needs some."""
        row = self.conversation
        if count not in self._without_tools and self.derived is not None and count < self._whole:
            with suppress(NotDerived, RowRefused):
                self._without_tools[count] = self.derived.without_tools(count)
        if count not in self._without_tools:
            try:
                text = self.renderer.render(row.messages[:count], (), False, row.template_variables)
            except RowRefused:
                text = None
            self._without_tools[count] = text
        return self._without_tools[count]

    def _render(self, messages: Sequence[Message], prompted: bool) -> str:
        row = self.conversation
        return self.renderer.render(messages, row.tools, prompted, row.template_variables)

    # -- the data's own texts --------------------------------------------------------------------------

    def ranges(self, count: int, prompted: bool = False) -> list[MarkedRange]:
        """Return where each text of the data lies in `text(count, prompted)`, edge whitespace included where
        the template keeps it; texts that the template leaves out have no range.

        Of the ways of marking that do not change what the template writes, the one that finds most texts
        counts: a template that leaves a text out leaves it out however it is marked.

        Raises:
            RowRefused: what the template writes changes with every way of marking.
        """
        key = (count, prompted)
        if key not in self._ranges and self.derived is not None and count < self._whole:
            with suppress(NotDerived, RowRefused):
                self._ranges[key], self._missing[key] = self.derived.ranges(count, prompted)
        if key not in self._ranges:
            part = replace(self.conversation, messages=self.conversation.messages[:count])
            plain = self.text(count, prompted)
            best: list[MarkedRange] | None = None
            for marking in markings(part, self.renderer.string_arguments, self.split_thinking):
                marks = Marks(part)
                found = self._ranges_by(marking, marks, part, plain, prompted)
                if found is None:
                    continue
                rendered = {place.mark for place in found}
                missing = [mark for mark in marks.marks if mark not in rendered and mark.core.strip()]
                if best is None or len(missing) < len(self._missing[key]):
                    best, self._missing[key] = found, missing
                    self.splits[key] = marking.split_thinking
                if not missing:
                    break
            if best is None:
                raise RowRefused(
                    "spans cannot be derived",
                    "the chat template renders the conversation differently when "
                    "its contents are marked, so it cannot be told which text came from which message",
                )
            self._ranges[key] = best
        return self._ranges[key]

    def missing(self, count: int, prompted: bool = False) -> list[Mark]:
        """Return the marks of texts that the template leaves out of `text(count, prompted)`."""
        self.ranges(count, prompted)
        return self._missing[count, prompted]

    def _ranges_by(
        self, marking: Marking, marks: Marks, part: Conversation, plain: str, prompted: bool
    ) -> list[MarkedRange] | None:
        """Return where the texts marked in this way lie in `plain`; None where what the template writes
        changes with the marks."""

        def pieces(edges: Edges, given: Marks) -> Pieces | None:
            fields: list[dict[str, Any]] = marking.messages(part, given, edges)
            text = self.renderer.render_fields(fields, part.tools, prompted, part.template_variables)
            return split_at_marks(text, given.marks)

        try:
            both = pieces("both", marks)
            if both is None or "".join(text for text, _ in both) != plain:
                return None
            if not any(mark.lead or mark.trail for mark in marks.marks):
                return widen(both, both, both)
            lead, none = pieces("lead", Marks(part)), pieces("none", Marks(part))
        except RowRefused:
            return None
        if lead is None or none is None or not _sources(lead) == _sources(none) == _sources(both):
            return None
        return widen(both, lead, none)


def _sources(pieces: Pieces) -> list[tuple[int, SpanKind] | None]:
    """Return the message and the kind that each piece comes from; None for a piece of the template's."""
    return [(mark.message, mark.kind) if mark else None for _, mark in pieces]
