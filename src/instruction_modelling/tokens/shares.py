"""How the loss weight of a data set falls on the span kinds."""

from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.chat.spans import SpanKind

if TYPE_CHECKING:
    from instruction_modelling.training.batches import WeightedData


def totals_by_kind(weighted: "WeightedData") -> dict[str, dict[str, Any]]:
    """{kind: {"tokens", "tokens_with_loss", "loss_share"}} for the kinds present.

    `loss_share` is the part of the sum of all c_t that falls on the kind, with the whole data as one step:
    the share of the loss if every token had the same NLL."""
    data = weighted.data
    loss, _ = weighted.coefficients(range(len(data)))
    flat = np.concatenate([*loss, np.zeros(0)])
    whole = float(flat.sum()) or 1.0
    out = {}
    for kind in SpanKind:
        at = data.kinds == kind
        if at.any():
            out[kind.name.lower()] = {
                "tokens": int(at.sum()),
                "tokens_with_loss": int((flat[at] != 0).sum()),
                "loss_share": float(flat[at].sum()) / whole,
            }
    return out
