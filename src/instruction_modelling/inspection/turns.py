"""A row turn by turn: what the model sees before it answers, and what it must write."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.spans import RESPONSE_KINDS
from instruction_modelling.errors import RowRefused
from instruction_modelling.inspection.inspection import Inspection
from instruction_modelling.inspection.token_texts import TokenText, token_texts, visible
from instruction_modelling.tokens.encoded_rows import EncodedRow, EncodedSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters of a prompt, and of one piece of a turn, that are shown.
_OF_PROMPT, _OF_PIECE = 300, 600


@dataclass(frozen=True)
class TurnPiece:
    """A run of tokens of one kind and weight in what the model must write."""

    kind: str
    weight: float
    text: str


@dataclass(frozen=True)
class ShownTurn:
    """One assistant's turn as it is shown; long texts are shortened in their middle."""

    title: str
    sees: str
    """The text before the turn in the sequence that trains it."""
    writes: tuple[TurnPiece, ...]
    notes: tuple[str, ...]
    """What a reader would not expect: a part cut off, a prompt that the turn does not go on with."""
    part: int
    """The sequence that trains it."""


def shown_turns(
    inspection: Inspection, row: EncodedRow, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[ShownTurn]:
    """Yield the assistant's turns of a row, in order."""
    texts = [
        token_texts(sequence, weights, tokenizer)
        for sequence, weights in zip(row.sequences, inspection.weights(row), strict=True)
    ]
    answers = [i for i, message in enumerate(row.conversation.messages) if message.role == "assistant"]
    for number, index in enumerate(answers, start=1):
        part = _owner(row, index)
        sequence, tokens = row.sequences[part], texts[part]
        of_turn = np.flatnonzero(_of_response(sequence) & (sequence.messages == index))
        title = f"turn {number} of {len(answers)}, message {index}"
        if len(row.sequences) > 1:
            title += f", trained in sequence {part}"
        first = int(of_turn[0]) if len(of_turn) else None
        prompt = _prompt(inspection, row, index)
        sees = prompt if first is None else "".join(token.text for token in tokens[:first])
        yield ShownTurn(
            title,
            _on_one_line(sees, _OF_PROMPT),
            tuple(_pieces([tokens[i] for i in of_turn])),
            tuple(_notes(sequence, first, index, prompt)),
            part,
        )


def which_sequence(row: EncodedRow, sequence: EncodedSequence) -> str:
    """Return which sequence of its row this is, and whose turns it trains."""
    if sequence.rendered.is_beside:
        return f"sequence {sequence.rendered.part}, the text beside the conversation"
    answers = [i for i, message in enumerate(row.conversation.messages) if message.role == "assistant"]
    owned = [str(i) for i in answers if row.sequences[_owner(row, i)] is sequence]
    trains = (
        f"trains message{'s' if len(owned) > 1 else ''} {', '.join(owned)}" if owned else "trains no turn"
    )
    return f"sequence {sequence.rendered.part}, {trains}"


def _of_response(sequence: EncodedSequence) -> np.ndarray:
    """Return bool[n]: the tokens that the sequence owns of what the model writes."""
    return np.isin(sequence.kinds, RESPONSE_KINDS) & sequence.owned


def _owner(row: EncodedRow, index: int) -> int:
    """Return which sequence of a row owns message `index`."""
    return max(number for number, part in enumerate(row.sequences) if part.rendered.first_message <= index)


def _prompt(inspection: Inspection, row: EncodedRow, index: int) -> str:
    """Return what the model is asked at message `index`; "" where the template refuses to ask it."""
    conversation = row.conversation
    try:
        asked = replace(conversation, messages=conversation.messages[:index])
        return inspection.encoder.chat_format.prompt(asked).text if index else ""
    except RowRefused:
        return ""


def _notes(sequence: EncodedSequence, first: int | None, index: int, prompt: str) -> Iterator[str]:
    """Yield what a reader would not expect of a turn; `first` is its first token, None without any."""
    rendered = sequence.rendered
    last = max(
        (span.end for span in rendered.spans if span.message == index and span.kind in RESPONSE_KINDS),
        default=0,
    )
    kept = int(sequence.tokens.end.max(initial=0))
    if last > kept:
        whole = "as a whole" if first is None else "in part"
        yield f"cut off {whole}: it lies behind --max_seq_length"
    if first is None:
        return
    before = rendered.text[: int(sequence.tokens.start[first])]
    if prompt != before and prompt.startswith(before):
        rest = _on_one_line(prompt[len(before) :], _OF_PROMPT)
        yield f"the generation prompt goes on with {rest} and the turn does not"


def _pieces(tokens: Sequence[TokenText]) -> Iterator[TurnPiece]:
    for (kind, weight), run in groupby(tokens, key=lambda token: (token.kind, token.weight)):
        yield TurnPiece(kind, weight, _on_one_line("".join(token.text for token in run), _OF_PIECE))


def _on_one_line(text: str, limit: int) -> str:
    """Return a text with signs in place of its line breaks; a long one without its middle."""
    if len(text) > limit:
        head, tail = limit // 3, limit - limit // 3
        left_out = f" … {len(text) - limit:,} characters … "
        return _on_one_line(text[:head], limit) + left_out + _on_one_line(text[-tail:], limit)
    return visible(text).replace("⏎\n", "⏎")
