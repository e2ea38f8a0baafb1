"""Where a token's loss weight comes from: its span kind, its message's weight, and the options.

    tokens + spans -> (span_kinds) kind and message per token -> (loss_weights) loss weight per token

A token's weight is put together here: `WeightPolicy.by_kind` is the table of what each kind weighs, and a
weight of 0 means no loss. Two more sources feed in: `released_masks`, which takes the place of the table
under `mask_style` "released", and `weighted.WeightedData`, which gives the first token of a row 0.

A token takes the kind of its last character (a token may straddle two spans); a control token, which may have
swallowed whitespace around it, that of its own text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, RESPONSE_KINDS, Rendered, SpanKind
from instruction_modelling.tokens.encoder import Tokens, without_swallowed_space

# Bits of a token under the released masks: set where the IT (IM) mask trains the token.
IT_BIT, IM_BIT = 1, 2

MaskStyle = Literal["exact", "released"]


@dataclass(frozen=True)
class WeightPolicy:
    """The loss weights of one arm (paper Eq. 2, IT: response 1, all else 0; Eq. 4, IM: instruction 1 as
    well)."""

    instruction: float = 0.0
    """Of system and user contents."""
    response: float = 1.0
    """Of what the assistant writes: contents, ends, reasoning and tool calls."""
    template: float = 0.0
    """Of what the chat format writes, definitions of tools included."""
    mask_style: MaskStyle = "exact"
    """`released`: the masks of the authors' released code decide in place of the kinds (`released_masks`)."""

    def by_kind(self) -> np.ndarray:
        """Return float32[len(SpanKind)]: the weight of a token of each kind, before its message's weight."""
        table = np.zeros(len(SpanKind), dtype=np.float32)
        table[list(INSTRUCTION_KINDS)] = self.instruction
        table[list(RESPONSE_KINDS)] = self.response
        table[[SpanKind.TEMPLATE, SpanKind.TOOLS]] = self.template
        table[SpanKind.TOOL] = 0.0
        table[SpanKind.TEXT] = 1.0
        return table


def span_kinds(tokens: Tokens, rendered: Rendered) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the kind (int8[n]) and the message index (int16[n], -1 for none) of each token, and how many
    tokens straddle two kinds."""
    length = len(rendered.text)
    kind_of_character = np.zeros(length + 1, dtype=np.int8)
    message_of_character = np.full(length + 1, -1, dtype=np.int16)
    for span in rendered.spans:
        kind_of_character[span.start : span.end] = span.kind
        message_of_character[span.start : span.end] = span.message
    start, end = tokens.start.astype(np.int64), tokens.end.astype(np.int64)
    deciding = np.minimum(np.maximum(end - 1, start), length)
    for i in np.flatnonzero(tokens.is_control & (end - start > 1)):
        deciding[i] = without_swallowed_space(rendered.text, start[i], end[i])[0]
    kinds, messages = kind_of_character[deciding], message_of_character[deciding]
    added_by_tokenizer = tokens.is_control & (end == start)
    kinds[added_by_tokenizer], messages[added_by_tokenizer] = SpanKind.TEMPLATE, -1
    text_tokens = ~tokens.is_control & (end > start)
    straddling = int((kind_of_character[start[text_tokens]] != kinds[text_tokens]).sum())
    return kinds, messages, straddling


def loss_weights(
    kinds: np.ndarray,
    messages: np.ndarray,
    message_weights: Sequence[float] | np.ndarray,
    policy: WeightPolicy,
    released: np.ndarray | None = None,
) -> np.ndarray:
    """Return the loss weight of each token, float32[n]: what its kind weighs times the weight of its message.

    Args:
        kinds: int8[n], a `SpanKind` for each token.
        messages: int16[n], the index of the token's message, -1 for none.
        message_weights: the `weight` of each message of the row.
        policy: what each kind weighs.
        released: uint8[n], the bits of `released_masks`, given where `policy.mask_style` is `released`; they
            decide in place of the kinds.
    """
    weights = policy.by_kind()[kinds] if released is None else _released_weights(released, policy)
    # The index -1 (no message) picks the 1.0 appended at the end.
    weight_of_message = np.append(np.asarray(message_weights, dtype=np.float32), 1.0)
    return (weights * weight_of_message[messages]).astype(np.float32)


def _released_weights(released: np.ndarray, policy: WeightPolicy) -> np.ndarray:
    """Return the weights under the released code's masks, float64[n].

    It has a mask for IT and one for IM. Between the two the instruction weight goes from 0 to 1: a token that
    only IT trains fades out as one that only IM trains fades in."""
    in_it, in_im = released & IT_BIT, released & IM_BIT
    if_not_in_it = np.where(in_im, policy.instruction, 0.0)
    if_in_it = np.where(in_im, policy.response, policy.response * max(0.0, 1.0 - policy.instruction))
    return np.where(in_it, if_in_it, if_not_in_it)
