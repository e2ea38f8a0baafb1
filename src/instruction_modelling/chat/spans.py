"""What a rendered conversation is made of: one text, and spans of characters that say who wrote what.

    conversation -> chat format -> Rendered(text, spans)

The kind of a span decides, later and elsewhere (`tokens.weights`), what its tokens weigh in the loss."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum


class SpanKind(IntEnum):
    """Who wrote a stretch of the rendered text. The numbers are kept in caches: never renumber them."""

    TEMPLATE = 0
    """What the format writes: role headers, separators, a BOS, default system prompts."""
    SYSTEM = 1
    """The content of a system message."""
    USER = 2
    """The content of a user's message."""
    ASSISTANT = 3
    """The content of an assistant's message: the response."""
    END = 4
    """The control token (or tokens) by which the assistant ends its response."""
    TOOL = 5
    """The content of a tool's message: what a tool returned."""
    TOOLS = 6
    """What the format writes only because the row has definitions of tools."""
    TOOL_CALLS = 7
    """The assistant's calls of tools, with the tags around them."""
    REASONING = 8
    """The assistant's reasoning, with the tags around it."""
    TEXT = 9
    """A token of a block of running text (language modelling), whose kind no longer matters."""

    OPENING = 10
    """What the assistant writes before its first text: an empty thought, a channel's header."""
    USER_END = 11
    """The control token (or tokens) behind a user's content, whatever comes next: where a user stops."""


# What the model itself has to write when it answers.
RESPONSE_KINDS = (SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.TOOL_CALLS, SpanKind.OPENING)
# Of that, what the data wrote: the rest stands there for an empty response, too.
RESPONSE_CONTENT_KINDS = (SpanKind.ASSISTANT, SpanKind.REASONING, SpanKind.TOOL_CALLS)
# What it is asked.
INSTRUCTION_KINDS = (SpanKind.SYSTEM, SpanKind.USER)
ROLE_KINDS = {
    "system": SpanKind.SYSTEM,
    "user": SpanKind.USER,
    "assistant": SpanKind.ASSISTANT,
    "tool": SpanKind.TOOL,
}


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the rendered text, of one kind; `message` is the 0-based index of the
    message that they come from, -1 for none."""

    start: int
    end: int
    kind: SpanKind
    message: int

    def moved(self, shift: int) -> "Span":
        """Return the span, `shift` characters on."""
        return replace(self, start=self.start + shift, end=self.end + shift)


@dataclass(frozen=True)
class Source:
    """Characters [start, end) of the rendered text, which are those of a message's own text
    (`Message.text`) from `offset` on, to the letter."""

    start: int
    end: int
    message: int
    offset: int


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation."""

    text: str
    spans: tuple[Span, ...]
    """In order, without overlap; what no span covers is of kind `TEMPLATE`."""
    data_ranges: tuple[tuple[int, int], ...]
    """The characters [start, end) that the data wrote: there the text of a control token stays plain text."""
    needs_bos: bool
    """Whether the tokenizer has to put its BOS in front; else the text holds what is needed."""
    control_tokens: tuple[str, ...] = ()
    """The added tokens that the format writes as its own signs, also those that the tokenizer does not call
    special."""
    part: int = 0
    """Which of its conversation's sequences this is, counted from 0."""
    first_message: int = 0
    """The first message that is trained here: what comes from those before it is context."""
    owned_start: int = 0
    """The first character that is trained here; what is before it is context."""
    prompts_differ: int = 0
    """Turns before which the generation prompt opens something that the turn does not go on with."""
    is_beside: bool = False
    """Whether it is no part of the conversation but the row's `text_beside`."""
    sources: tuple[Source, ...] = ()
    """Where the messages' own texts stand, without overlap; a text that the format changes has none."""


def without_empty(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return the spans that cover at least one character."""
    return tuple(span for span in spans if span.end > span.start)


KIND_NAMES = [kind.name.lower() for kind in SpanKind]
