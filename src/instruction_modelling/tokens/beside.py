"""Documents of a row: the text that it has beside its conversation (`text_beside`).

A document neither sees nor is seen by the conversation, and belongs to its example. It has one token with a
loss for each token of the instruction, weighing what Instruction Modelling gives that token: so a row under
IT with a text beside it has as many tokens with a loss, and the same coefficients (one over the tokens of
instruction and response), as the row itself under IM. What differs is the text alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, Rendered, SpanKind
from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.tokens.encoded_rows import EncodedSequence
from instruction_modelling.tokens.encoder import Tokens


def rendered_beside(conversation: Conversation, sequences: Sequence[Rendered]) -> Rendered:
    """Return the row's text as it is tokenised: all of it data, so that no control token is read in it."""
    text = conversation.text_beside
    # It owns no message: those of the conversation all belong to sequences before it.
    owned_from, part = len(conversation.messages), len(sequences)
    controls = sequences[0].control_tokens
    return Rendered(
        text, (), ((0, len(text)),), False, controls, part=part, first_message=owned_from, is_beside=True
    )


def documents(
    sequences: Sequence[EncodedSequence], rendered: Rendered, text: Tokens
) -> list[EncodedSequence]:
    """Return a document for each sequence of a conversation that has tokens of an instruction to train.

    Each begins with the first token of its sequence (a BOS, mostly), which has no loss in either; its other
    tokens are the next ones of the text, which begins again where it ends too early. So no document is longer
    than its sequence.

    Args:
        sequences: the conversation's, cut at the maximum length.
        rendered: the text (`rendered_beside`), and `text` its tokens.

    Raises:
        RowRefused: the text has no tokens.
    """
    found: list[EncodedSequence] = []
    taken = 0
    for sequence in sequences:
        trained = np.isin(sequence.kinds, INSTRUCTION_KINDS) & sequence.owned
        trained[:1] = False
        of_instruction = np.flatnonzero(trained)
        if not len(of_instruction):
            continue
        if not len(text.ids):
            raise RowRefused("bad text_beside", "text_beside has no token; write another text")
        chosen = np.arange(taken, taken + len(of_instruction)) % len(text.ids)
        taken += len(of_instruction)
        part = replace(rendered, part=rendered.part + len(found))
        found.append(_document(sequence, of_instruction, part, _tokens(sequence.tokens, text, chosen)))
    return found


def _tokens(before: Tokens, text: Tokens, chosen: np.ndarray) -> Tokens:
    zero = np.zeros(1, dtype=np.int32)
    return Tokens(
        np.concatenate([before.ids[:1], text.ids[chosen]]),
        np.concatenate([zero, text.start[chosen]]).astype(np.int32),
        np.concatenate([zero, text.end[chosen]]).astype(np.int32),
        np.concatenate([before.is_control[:1], text.is_control[chosen]]),
        text.control_text,
    )


def _document(
    sequence: EncodedSequence, of_instruction: np.ndarray, rendered: Rendered, tokens: Tokens
) -> EncodedSequence:
    count = len(of_instruction)
    kinds = np.full(count + 1, SpanKind.TEXT, dtype=np.int8)
    kinds[0] = SpanKind.TEMPLATE
    # By its message a token has the weight that the data give to the instruction's.
    messages = np.concatenate([[-1], sequence.messages[of_instruction]]).astype(np.int16)
    factors = None
    if sequence.factors is not None:
        factors = np.concatenate([[1], sequence.factors[of_instruction]]).astype(np.float32)
    return EncodedSequence(
        rendered,
        tokens,
        kinds,
        messages,
        np.full(count + 1, -1, dtype=np.int32),
        np.ones(count + 1, dtype=bool),
        None,
        factors,
        tokens_cut=0,
        straddling=0,
    )
