"""One assistant's turn in the text that a template writes of it, and the spans of its parts."""

import bisect
from dataclasses import dataclass, field

from instruction_modelling.chat.spans import Span, SpanKind, without_empty


@dataclass(frozen=True)
class Turn:
    """One assistant's turn: S is `text[start:end]` and then `appended`."""

    message: int
    """The 0-based index of its message."""
    text: str
    """R: the template's text of the messages through this one (or the next that it does not refuse)."""
    start: int
    end_start: int
    """Where the turn's end begins in R; `end` where there is none but `appended`."""
    end: int
    appended: str = ""
    """The role token that the model stops with, where the template ends a turn by nothing of its own."""
    rewrites_history: bool = False
    """R writes the messages before the turn otherwise than P does: the turn is trained after P."""
    prompt_differs: bool = False
    """P opens something that S does not go on with (`<think>` before a plain answer)."""
    asked: str = ""
    """What P has in place of S at `start`, where S takes it up: the turn is trained behind it."""
    opening: str = ""
    """What the template's plain answers open with (an empty thought)."""
    ranges: tuple[Span, ...] = field(default=())
    """The data's own texts of this message in R, in order."""

    @property
    def written(self) -> str:
        """S: what the model has to write."""
        return self.text[self.start : self.end] + self.appended

    def beside_texts(self) -> str:
        """Return S without the data's own texts, and without its end: calls, and what the template writes
        around them and the texts."""
        parts, cursor = [], self.start
        for span in self.ranges:
            if span.kind != SpanKind.TOOL_CALLS:
                parts.append(self.text[cursor : span.start])
                cursor = max(cursor, span.end)
        return "\n".join([*parts, self.text[cursor : max(cursor, self.end_start)]])

    def calls_end(self, text: str, start: int, stop: int) -> int:
        """Return where the turn's calls end in `text[start:stop]`, another text that writes them: behind its
        end, or else behind as much of the calls' last words as stands there. Return `start` where the turn
        has no calls, or they are not found."""
        if not any(span.kind == SpanKind.TOOL_CALLS for span in self.ranges):
            return start
        between, end = text[start:stop], self.text[self.end_start : self.end].strip()
        if end and end in between:
            return start + between.rindex(end) + len(end)
        written = self.text[self.start : self.end_start].strip()
        # Where a part of the last words stands, each shorter one stands too.
        lengths = range(1, len(written) + 1)
        found = bisect.bisect(lengths, False, key=lambda length: written[-length:] not in between)
        # A character alone says nothing.
        return start + between.rindex(written[-found:]) + found if found > 1 else start

    def spans(self, shift: int = 0) -> list[Span]:
        """Return the spans of the whole of S, by kind, moved by `shift` characters.

        The data's texts keep their kinds. Of what the template writes between them, the end is `END`; what
        comes before the first text is `OPENING` (or `REASONING`, before reasoning), and so is before calls
        alone what answers open with; up to the text that follows reasoning it is `REASONING`; else it belongs
        to the calls, or to the end where there are none.
        """
        has_calls = any(span.kind == SpanKind.TOOL_CALLS for span in self.ranges)
        texts = [span for span in self.ranges if span.kind != SpanKind.TOOL_CALLS]
        thoughts = [span.end for span in texts if span.kind == SpanKind.REASONING and span.end > span.start]
        filled, cursor = [], self.start
        if has_calls and not texts and self.text.startswith(self.opening.rstrip(), self.start):
            cursor += common_prefix(self.opening, self.text[self.start : self.end_start])
            filled.append(Span(self.start, cursor, SpanKind.OPENING, self.message))
        for number, span in enumerate(
            [*texts, Span(self.end_start, self.end_start, SpanKind.END, self.message)]
        ):
            last = number == len(texts)
            if (thoughts and span.start <= max(thoughts)) or (
                thoughts and cursor == max(thoughts) and not last
            ):
                kind = SpanKind.REASONING
            elif not last:
                kind = SpanKind.OPENING
            else:
                kind = SpanKind.TOOL_CALLS if has_calls else SpanKind.END if texts else SpanKind.OPENING
            filled.append(Span(cursor, span.start, kind, self.message))
            if not last:
                filled.append(Span(span.start, span.end, span.kind, self.message))
            cursor = max(cursor, span.end)
        filled.append(Span(cursor, self.end + len(self.appended), SpanKind.END, self.message))
        return [
            Span(span.start + shift, span.end + shift, span.kind, span.message)
            for span in without_empty(filled)
        ]


def common_prefix(a: str, b: str) -> int:
    """Return the length of the longest common prefix of two strings."""
    return bisect.bisect_left(range(min(len(a), len(b))), True, key=lambda n: a[: n + 1] != b[: n + 1])
