"""Where a token's loss weight comes from: its span kind, its message's weight, and the options.

    tokens + spans -> span kind and message per token -> loss weight per token

A token takes the kind of its last character (a token may straddle two spans); a control token, which may have
swallowed whitespace around it, that of its own text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, RESPONSE_KINDS, Rendered, SpanKind
from instruction_modelling.tokens.encoder import Tokens, own_place

MaskStyle = Literal["exact", "released"]


@dataclass(frozen=True)
class WeightPolicy:
    """The loss weight of each span kind (paper Eq. 2: response 1, all else 0; Eq. 4: instruction 1 as
    well)."""

    instruction: float = 0.0
    response: float = 1.0
    template: float = 0.0
    mask_style: MaskStyle = "exact"

    def by_kind(self) -> np.ndarray:
        """float32[len(SpanKind)]: the weight of a token of each kind before its message's weight."""
        table = np.zeros(len(SpanKind), dtype=np.float32)
        table[list(INSTRUCTION_KINDS)] = self.instruction
        table[list(RESPONSE_KINDS)] = self.response
        table[[SpanKind.TEMPLATE, SpanKind.TOOLS]] = self.template
        table[SpanKind.TOOL] = 0.0
        table[SpanKind.TEXT] = 1.0
        return table


def span_kinds(tokens: Tokens, rendered: Rendered) -> tuple[np.ndarray, np.ndarray, int]:
    """Kind (int8) and message index (int16, -1 for none) of each token, and how many tokens straddle two
    kinds."""
    length = len(rendered.text)
    kind_at = np.zeros(length + 1, dtype=np.int8)
    message_at = np.full(length + 1, -1, dtype=np.int16)
    for span in rendered.spans:
        kind_at[span.start : span.end] = span.kind
        message_at[span.start : span.end] = span.message
    start, end = tokens.start.astype(np.int64), tokens.end.astype(np.int64)
    place = np.minimum(np.maximum(end - 1, start), length)
    for i in np.flatnonzero(tokens.control & (end - start > 1)):
        place[i] = own_place(rendered.text, start[i], end[i])[0]
    kinds, messages = kind_at[place], message_at[place]
    added = tokens.control & (end == start)
    kinds[added], messages[added] = SpanKind.TEMPLATE, -1
    inside = ~tokens.control & (end > start)
    straddling = int((kind_at[start[inside]] != kinds[inside]).sum())
    return kinds, messages, straddling


def loss_weights(
    kinds: np.ndarray,
    messages: np.ndarray,
    message_weights: Sequence[float] | np.ndarray,
    policy: WeightPolicy,
    released: np.ndarray | None = None,
) -> np.ndarray:
    """The loss weight of each token, float32[n].

    Args:
        kinds: int8[n], a `SpanKind` a token.
        messages: int16[n], the index of the token's message, -1 for none.
        message_weights: the `weight` of each message of the row.
        policy: what each kind weighs.
        released: uint8[n], bit 1 where the released IT mask trains, bit 2 where the released IM mask does;
            given
            where `policy.mask_style` is `released`; it then decides in place of the kinds.
    """
    if released is not None:
        # Between its two masks the instruction weight goes from one (0) to the other (1): a token that only
        # IT trains fades out as one that only IM trains fades in.
        modelled = np.where(released & 2, policy.instruction, 0.0)
        tuned = np.where(released & 2, policy.response, policy.response * max(0.0, 1.0 - policy.instruction))
        weights = np.where(released & 1, tuned, modelled)
    else:
        weights = policy.by_kind()[kinds]
    # Index -1 (no message) picks the 1.0 appended at the end.
    return (weights * np.append(np.asarray(message_weights, dtype=np.float32), 1.0)[messages]).astype(
        np.float32
    )
