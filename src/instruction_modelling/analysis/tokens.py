"""What a file is in tokens: lengths by span kind, what a maximum length cuts, how full micro-batches are, and
the share of the loss that falls on each span kind."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, RESPONSE_KINDS, SpanKind
from instruction_modelling.tokens.weighted import WeightedData, totals_by_kind
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.packing_fill import packing_fill

if TYPE_CHECKING:
    from instruction_modelling.tokens.encoded import EncodedData

# A length that cuts no row: rows are encoded once, and every maximum length is applied to that.
UNCUT = 2**31 - 1
_POLICIES = {"IT": WeightPolicy(), "IM": WeightPolicy(instruction=1.0)}


def cut(data: "EncodedData", length: int) -> "EncodedData":
    """The rows cut at `length` tokens, as training cuts them."""
    lengths = data.lengths
    kept = np.minimum(lengths, length)
    if (kept == lengths).all():
        return data
    place = np.arange(len(data.ids)) - np.repeat(data.offsets[:-1], lengths)
    keep = place < length
    return replace(
        data,
        ids=data.ids[keep],
        kinds=data.kinds[keep],
        messages=data.messages[keep],
        offsets=np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        truncated_rows=int((lengths > length).sum()),
        tokens_cut=int((lengths - kept).sum()),
    )


def _per_row(data: "EncodedData", wanted: np.ndarray) -> np.ndarray:
    """int64[rows]: tokens of each row for which `wanted` (bool[tokens]) is true."""
    sums = np.concatenate([[0], np.cumsum(wanted)])
    return sums[data.offsets[1:]] - sums[data.offsets[:-1]]


def length_statistics(counts: np.ndarray) -> dict[str, Any]:
    """Mean, population SD, median, 95 % quantile and most of int64[rows] counts."""
    return {
        "tokens": int(counts.sum()),
        "mean": float(counts.mean()),
        "sd": float(counts.std()),
        "median": float(np.median(counts)),
        "p95": float(np.quantile(counts, 0.95)),
        "most": int(counts.max()),
    }


def truncation(data: "EncodedData", length: int) -> dict[str, Any]:
    """What cutting rows at `length` tokens loses.

    `responses_lost`: rows that have response tokens and keep none; `responses_cut`: rows that lose some of
    them, those included; `last_response_lost`: rows of which the last assistant message keeps no token."""
    short = cut(data, length)
    response = np.isin(data.kinds, RESPONSE_KINDS)
    before, after = _per_row(data, response), _per_row(short, np.isin(short.kinds, RESPONSE_KINDS))
    last = np.array(
        [data.messages[at][response[at]].max(initial=-1) for at in map(data.span, range(len(data)))]
    )
    kept = np.array(
        [
            short.messages[at][np.isin(short.kinds[at], RESPONSE_KINDS)].max(initial=-1)
            for at in map(short.span, range(len(short)))
        ]
    )
    lost = data.lengths - short.lengths
    return {
        "max_seq_length": length,
        "rows_cut": int((lost > 0).sum()),
        "tokens_lost": int(lost.sum()),
        "token_share_lost": float(lost.sum() / data.lengths.sum()),
        "responses_cut": int((after < before).sum()),
        "response_tokens_lost": int((before - after).sum()),
        "responses_lost": int(((before > 0) & (after == 0)).sum()),
        "last_response_lost": int((kept < last).sum()),
    }


def loss_shares(data: "EncodedData") -> dict[str, dict[str, dict[str, float]]]:
    """{arm: {normalisation: {span kind: share of the loss}}} for IT and IM, the whole file as one step;
    `response` is the sum over the kinds of a response."""
    names = {kind.name.lower() for kind in RESPONSE_KINDS}
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for arm, policy in _POLICIES.items():
        weights = data.weights(policy)
        for normalisation in ("example", "token"):
            kinds = totals_by_kind(WeightedData(data, weights, normalisation))
            found = {kind: entry["loss_share"] for kind, entry in kinds.items()}
            found["response"] = sum(share for kind, share in found.items() if kind in names)
            shares.setdefault(arm, {})[normalisation] = found
    return shares


def token_statistics(
    data: "EncodedData",
    max_seq_length: int,
    batch_sizes: Sequence[int],
    capacity: int,
    padded_size: int,
    seed: int,
) -> dict[str, Any]:
    """All of it for rows that were encoded uncut; the packing and the shares of the loss are of the rows cut
    at `max_seq_length`, as training sees them."""
    short = cut(data, max_seq_length)
    by_kind = {kind.name.lower(): _per_row(data, data.kinds == kind) for kind in SpanKind}
    groups = {
        "total": data.lengths,
        "instruction": _per_row(data, np.isin(data.kinds, INSTRUCTION_KINDS)),
        "output": by_kind["assistant"],
    }
    fills = [asdict(packing_fill(short.lengths, size, capacity, padded_size, seed)) for size in batch_sizes]
    return {
        "rows": len(data),
        **{name: length_statistics(counts) for name, counts in groups.items()},
        "by_kind": {kind: length_statistics(counts) for kind, counts in by_kind.items() if counts.any()},
        "control_text_rows": data.control_text_rows,
        "straddling_tokens": data.straddling,
        "truncation": truncation(data, max_seq_length),
        "packing": {"capacity": capacity, "padded_size": padded_size, "seed": seed, "batch_sizes": fills},
        "loss_shares": loss_shares(short),
    }
