"""What a rendered conversation is made of: a text, and spans of characters that say who wrote what."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class SpanKind(IntEnum):
    """What a stretch of the rendered text is."""

    TEMPLATE = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    END = 4
    TOOL = 5
    TOOLS = 6
    TOOL_CALLS = 7
    REASONING = 8
    TEXT = 9


RESPONSE_KINDS = (SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.TOOL_CALLS)
INSTRUCTION_KINDS = (SpanKind.SYSTEM, SpanKind.USER)
ROLE_KINDS = {
    "system": SpanKind.SYSTEM,
    "user": SpanKind.USER,
    "assistant": SpanKind.ASSISTANT,
    "tool": SpanKind.TOOL,
}


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the rendered text, of one kind, from one message (-1: from none)."""

    start: int
    end: int
    kind: SpanKind
    message: int


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation: text, spans in order without overlap (what no span covers is template).

    `literal` holds the character ranges that the data wrote, in which the text of a control token stays text.
    `adds_bos` says whether the tokenizer is to put its BOS in front (else the text holds what is needed).
    `control`: added tokens that the format writes as its own signs, whether or not the tokenizer calls them
    special."""

    text: str
    spans: tuple[Span, ...]
    literal: tuple[tuple[int, int], ...]
    adds_bos: bool
    control: tuple[str, ...] = ()


def without_empty(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The spans that cover at least one character."""
    return tuple(span for span in spans if span.end > span.start)


KIND_NAMES = [kind.name.lower() for kind in SpanKind]
