"""One row as tokens: its sequences, and what encoding a file's rows met."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instruction_modelling.chat.spans import RESPONSE_KINDS, Rendered
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.loss_spans import Stretch
from instruction_modelling.tokens.encoder import Tokens
from instruction_modelling.tokens.weights import WeightPolicy, has_response, loss_weights


@dataclass(frozen=True)
class EncodedSequence:
    """One sequence of a row, cut at the maximum length: the arrays are as long as what is kept of it."""

    rendered: Rendered
    tokens: Tokens
    kinds: np.ndarray
    """int8[n], a `SpanKind` for each token."""
    messages: np.ndarray
    """int16[n], the index of the token's message, -1 for none."""
    positions: np.ndarray
    """int32[n], where the token's last character stands in its message's own text, -1 for none
    (`weights.own_positions`)."""
    owned: np.ndarray
    """bool[n], whether the token is trained here; false for context, which an earlier sequence trains."""
    released: np.ndarray | None
    """uint8[n], the released masks' bits, where asked for."""
    factors: np.ndarray | None
    """float32[n], the weight of each token within its message by `loss_spans`; None where all are 1."""
    tokens_cut: int
    """How many tokens were cut off."""
    straddling: int
    """How many tokens, of the cut off ones too, have characters of two kinds."""

    def weights(self, message_weights: Sequence[float], policy: WeightPolicy) -> np.ndarray:
        """Return float32[n]: the loss weight of each token under `policy`; 0 for context."""
        weights = loss_weights(self.kinds, self.messages, message_weights, policy, self.released) * self.owned
        return weights if self.factors is None else weights * self.factors


@dataclass(frozen=True)
class EncodedRow:
    """One row: mostly one sequence, several where the chat template rewrites earlier turns."""

    conversation: Conversation
    sequences: tuple[EncodedSequence, ...]
    changed_messages: tuple[int, ...] = ()
    """The assistant's messages whose text the format does not write to the letter."""

    def weights(self, policy: WeightPolicy) -> list[np.ndarray]:
        """Return float32[n] for each sequence: the loss weight of each token under `policy`."""
        message_weights = [message.weight for message in self.conversation.messages]
        return [sequence.weights(message_weights, policy) for sequence in self.sequences]

    def has_response(self) -> bool:
        """Return whether something of the assistant's has a loss, where responses are trained."""
        weights = self.weights(WeightPolicy())
        return any(map(has_response, (sequence.kinds for sequence in self.sequences), weights))

    @property
    def first(self) -> EncodedSequence:
        """Return the first sequence, which begins with the conversation's first message."""
        return self.sequences[0]

    @property
    def kinds(self) -> np.ndarray:
        """Return int8[n], the kinds of the owned tokens of all sequences: each message's once."""
        return np.concatenate([sequence.kinds[sequence.owned] for sequence in self.sequences])

    @property
    def messages(self) -> np.ndarray:
        """Return int16[n], the messages of the owned tokens of all sequences."""
        return np.concatenate([sequence.messages[sequence.owned] for sequence in self.sequences])

    @property
    def length(self) -> int:
        """Return the number of tokens of all sequences, context too."""
        return sum(len(sequence.kinds) for sequence in self.sequences)

    @property
    def tokens_cut(self) -> int:
        """Return how many tokens were cut off its sequences."""
        return sum(sequence.tokens_cut for sequence in self.sequences)

    @property
    def straddling(self) -> int:
        """Return how many tokens have characters of two kinds."""
        return sum(sequence.straddling for sequence in self.sequences)


@dataclass(frozen=True)
class EncodingCounts:
    """What encoding a file met, counted over all its usable rows."""

    truncated_rows: int = 0
    """Rows that were cut at the maximum length, in one of their sequences or more."""
    tokens_cut: int = 0
    straddling: int = 0
    """Tokens that have characters of two kinds."""
    control_text_rows: int = 0
    """Rows whose data spells a control token."""
    turns_cut: int = 0
    """Assistant's turns that lie behind the maximum length as a whole."""
    prompts_differ: int = 0
    """Turns before which the generation prompt opens something that the turn does not go on with."""


def token_factors(
    row: Conversation, stretches: Mapping[int, Sequence[Stretch]], messages: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Return float32[n]: what the weight of each token is multiplied by, the product over the stretches in
    which its last character lies.

    Args:
        stretches: of messages of the row, in the positions of their own texts (`Message.text`).
        messages: int16[n], the message of each token.
        positions: int32[n], as `weights.own_positions` gives them.
    """
    factors = np.ones(len(messages), dtype=np.float32)
    for index, of_message in stretches.items():
        of_character = np.ones(len(row.messages[index].text), dtype=np.float32)
        for start, end, weight in of_message:
            of_character[start:end] *= np.float32(weight)
        tokens = np.flatnonzero((messages == index) & (positions >= 0))
        factors[tokens] = of_character[positions[tokens]]
    return factors


def count_rows(rows: Iterable[EncodedRow]) -> EncodingCounts:
    """Return what encoding these rows met."""
    totals: Counter[str] = Counter()
    for row in rows:
        parts = row.sequences
        totals["truncated_rows"] += any(part.tokens_cut for part in parts)
        totals["control_text_rows"] += any(part.tokens.control_text for part in parts)
        for part in parts:
            totals["tokens_cut"] += part.tokens_cut
            totals["straddling"] += part.straddling
            totals["prompts_differ"] += part.rendered.prompts_differ
            totals["turns_cut"] += turns_cut(part)
    return EncodingCounts(**totals)


def turns_cut(sequence: EncodedSequence) -> int:
    """Return how many of the assistant's turns that a sequence owns lost all their tokens to the length."""
    if not sequence.tokens_cut:
        return 0
    rendered = sequence.rendered
    owned = {
        span.message
        for span in rendered.spans
        if span.kind in RESPONSE_KINDS and span.message >= rendered.first_message
    }
    of_response = np.isin(sequence.kinds, RESPONSE_KINDS)
    return len(owned - set(sequence.messages[of_response].tolist()))
