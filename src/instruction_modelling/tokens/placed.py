"""Which characters of the messages a chat format writes to the letter, as they stand in the file."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from instruction_modelling.chat.spans import Rendered, Source
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation


def changed_messages(row: Conversation, sequences: Sequence[Rendered]) -> tuple[int, ...]:
    """Return the assistant's messages of which the sequence that owns them does not hold every character,
    whitespace aside, to the letter."""
    sources = _owned_sources(row, sequences)
    return tuple(
        index
        for index, message in enumerate(row.messages)
        if message.role == "assistant" and len(_not_written(message.text, sources[index]))
    )


def check_loss_spans(row: Conversation, sequences: Sequence[Rendered]) -> None:
    """Refuse a row with `loss_spans` on characters that the format does not write as the file has them.

    Raises:
        RowRefused: there is one.
    """
    if not any(message.loss_spans for message in row.messages):
        return
    sources = _owned_sources(row, sequences)
    for index, message in enumerate(row.messages):
        missing = _not_written(message.text, sources[index]) if message.loss_spans else np.zeros(0)
        for start, end, _ in message.loss_spans:
            if ((missing >= start) & (missing < end)).any():
                raise RowRefused(
                    "loss_spans on changed text",
                    f"message {index}: the chat format does not write characters {start} to {end - 1} of its "
                    "content as they stand in the file, so their weights cannot be placed; write the content "
                    "as the format does, or give the whole message a weight",
                )


def _owned_sources(row: Conversation, sequences: Sequence[Rendered]) -> dict[int, list[Source]]:
    """Return, for each message, where its own text stands in the sequence that owns it."""
    firsts = [rendered.first_message for rendered in sequences]
    owners = np.searchsorted(firsts, np.arange(len(row.messages)), "right") - 1
    out: dict[int, list[Source]] = defaultdict(list)
    for number, rendered in enumerate(sequences):
        for source in rendered.sources:
            if owners[source.message] == number:
                out[source.message].append(source)
    return out


def _not_written(text: str, sources: Sequence[Source]) -> np.ndarray:
    """Return int64[k]: the characters of a message's text that no source holds, whitespace aside."""
    written = np.zeros(len(text), dtype=bool)
    for source in sources:
        written[source.offset : source.offset + source.end - source.start] = True
    left = np.flatnonzero(~written)
    return left[[not text[place].isspace() for place in left]] if len(left) else left
