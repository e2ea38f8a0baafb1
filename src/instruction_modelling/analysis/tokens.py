"""What a file is in tokens: lengths by span kind, what a maximum length cuts, how full micro-batches are, and
the share of the loss that falls on each span kind."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, RESPONSE_KINDS, SpanKind
from instruction_modelling.tokens.encoded import EncodedData, bounds
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weighted import WeightedData, totals_by_kind
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.packing_fill import packing_fill

# A length that cuts no row: rows are encoded once, and every maximum length is applied to that.
UNCUT = 2**31 - 1
_POLICIES = {"IT": WeightPolicy(), "IM": WeightPolicy(instruction=1.0)}


@dataclass(frozen=True)
class TokenSettings:
    """What the token statistics are computed for."""

    encoder: RowEncoder
    """An encoder that cuts no row (`UNCUT`)."""
    max_seq_length: int
    """Tokens at which rows are cut."""
    batch_sizes: list[int]
    """Examples a step."""
    capacity: int
    """Tokens of a packed micro-batch."""
    padded_size: int
    """Examples of a padded micro-batch."""
    seed: int = 0
    overwrite_cache: bool = False


def cut(data: EncodedData, length: int) -> EncodedData:
    """Return the rows, each of their sequences cut at `length` tokens, as training cuts them."""
    lengths = data.sequence_lengths
    kept = np.minimum(lengths, length)
    if (kept == lengths).all():
        return data
    offset_in_sequence = np.arange(len(data.ids)) - np.repeat(data.sequence_offsets[:-1], lengths)
    keep = offset_in_sequence < length
    sequence_offsets = bounds(kept)
    return replace(
        data,
        ids=data.ids[keep],
        kinds=data.kinds[keep],
        messages=data.messages[keep],
        positions=data.positions[keep],
        owned=data.owned[keep],
        factors=None if data.factors is None else data.factors[keep],
        offsets=sequence_offsets[data.first_sequence],
        sequence_offsets=sequence_offsets,
        tokens_cut=data.tokens_cut + lengths - kept,
    )


def _count_per_row(data: EncodedData, chosen: np.ndarray) -> np.ndarray:
    """Return how many owned tokens of each row are chosen: int64[rows] of bool[tokens]."""
    sums = np.concatenate([[0], np.cumsum(chosen & data.owned)])
    return sums[data.offsets[1:]] - sums[data.offsets[:-1]]


def length_statistics(counts: np.ndarray) -> dict[str, Any]:
    """Return sum, mean, population SD, median, 95 % quantile and most of int64[rows] counts of tokens."""
    return {
        "tokens": int(counts.sum()),
        "mean": float(counts.mean()),
        "sd": float(counts.std()),
        "median": float(np.median(counts)),
        "p95": float(np.quantile(counts, 0.95)),
        "most": int(counts.max()),
    }


def truncation(data: EncodedData, length: int) -> dict[str, Any]:
    """Return what cutting rows at `length` tokens loses.

    `responses_lost`: rows that have response tokens and keep none; `responses_cut`: rows that lose some of
    them, those included; `last_response_lost`: rows of which the last assistant message keeps no token."""
    short = cut(data, length)
    before, after = (_count_per_row(rows, _in_response(rows)) for rows in (data, short))
    lost = data.lengths - short.lengths
    return {
        "max_seq_length": length,
        "rows_cut": int((lost > 0).sum()),
        "tokens_lost": int(lost.sum()),
        "token_share_lost": float(lost.sum() / data.lengths.sum()),
        "responses_cut": int((after < before).sum()),
        "response_tokens_lost": int((before - after).sum()),
        "responses_lost": int(((before > 0) & (after == 0)).sum()),
        "last_response_lost": int((_last_response(short) < _last_response(data)).sum()),
    }


def _in_response(data: EncodedData) -> np.ndarray:
    """Return whether each token is of a response that its sequence owns: bool[tokens]."""
    return np.isin(data.kinds, RESPONSE_KINDS) & data.owned


def _last_response(data: EncodedData) -> np.ndarray:
    """Return the number of the last message of each row that has a response token, -1 without any:
    int64[rows]."""
    messages = np.where(_in_response(data), data.messages, -1)
    return np.array([messages[data.span(row)].max(initial=-1) for row in range(len(data))])


def loss_shares(data: EncodedData) -> dict[str, dict[str, dict[str, float]]]:
    """Return {arm: {normalisation: {span kind: share of the loss}}} for IT and IM, the whole file as one
    step; `response` is the sum over the kinds of a response."""
    names = {kind.name.lower() for kind in RESPONSE_KINDS}
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for arm, policy in _POLICIES.items():
        weights = data.weights(policy)
        for normalisation in ("example", "token"):
            kinds = totals_by_kind(WeightedData(data, weights, normalisation))
            by_kind = {kind: entry["loss_share"] for kind, entry in kinds.items()}
            by_kind["response"] = sum(share for kind, share in by_kind.items() if kind in names)
            shares.setdefault(arm, {})[normalisation] = by_kind
    return shares


def token_statistics(data: EncodedData, settings: TokenSettings) -> dict[str, Any]:
    """Return everything about rows that were encoded uncut; the packing and the shares of the loss are of the
    rows cut at `max_seq_length`, as training sees them."""
    short = cut(data, settings.max_seq_length)
    by_kind = {kind.name.lower(): _count_per_row(data, data.kinds == kind) for kind in SpanKind}
    groups = {
        "total": data.lengths,
        "instruction": _count_per_row(data, np.isin(data.kinds, INSTRUCTION_KINDS)),
        "output": by_kind["assistant"],
    }
    shape = {"capacity": settings.capacity, "padded_size": settings.padded_size}
    order = settings.seed, None
    fills = [asdict(packing_fill(short.lengths, size, order=order, **shape)) for size in settings.batch_sizes]
    return {
        "rows": len(data),
        **{name: length_statistics(counts) for name, counts in groups.items()},
        "by_kind": {kind: length_statistics(counts) for kind, counts in by_kind.items() if counts.any()},
        "control_text_rows": data.counts.control_text_rows,
        "straddling_tokens": data.counts.straddling,
        "truncation": truncation(data, settings.max_seq_length),
        "packing": {**shape, "seed": settings.seed, "batch_sizes": fills},
        "loss_shares": loss_shares(short),
    }
