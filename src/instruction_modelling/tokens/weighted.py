"""From loss weights to coefficients: which rows have a loss, the denominator n, and c_t of every token.

With w the weight and nll the negative log-likelihood of a token, n the tokens of an example that
--loss_denominator counts and E the examples of a step,

    example   1/|E| sum_e  sum_t w nll / n_e           (the paper's: micro-batches of one example, averaged)
    token     sum_e sum_t w nll / sum_e n_e
    square    sum_e (sum_t w nll / sqrt(n_e)) / sum_e sqrt(n_e)   (between the two: long examples count more
                                                                  than short ones, but less than by tokens)
    sum       sum_e sum_t w nll

over the whole optimiser step: all micro-batches and all ranks. Each is sum_t c_t nll_t with a coefficient c_t
that is known before anything is computed, so gradients add up to it however the step is split."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.large_arrays import copy_of
from instruction_modelling.tokens.weights import WeightPolicy

DROPPED_NO_WEIGHT = "no token with a loss weight"
DROPPED_ALL_CUT = f"{DROPPED_NO_WEIGHT} within the maximum length"
DROPPED_NO_RESPONSE = "no response token for the denominator"


@dataclass(frozen=True)
class WeightedData:
    """Encoded rows with the loss weights of one arm, and the formula that makes a loss of them.

    Here, and nowhere else, the first token of a sequence gets weight 0: nothing predicts it, so it has no
    loss.
    What follows (coefficients, denominators, micro-batches) needs no rule for it."""

    data: EncodedData
    weights: np.ndarray
    """float32[tokens], flat like the data's arrays; the first token of every sequence weighs 0, whatever was
    given."""
    normalization: str = "example"
    denominator: str = "nonzero"
    as_in_im: np.ndarray | None = None
    """float32[tokens], the weights that Instruction Modelling gives the same tokens: what the denominator
    `messages` counts."""

    def __post_init__(self) -> None:
        first = self.data.sequence_offsets[:-1][self.data.sequence_lengths > 0]
        for name in ("weights", "as_in_im"):
            if (given := getattr(self, name)) is not None:
                weights = copy_of(given)
                weights[first] = 0.0
                # The class is frozen, so that no one changes weights that coefficients were made from.
                object.__setattr__(self, name, weights)

    def weights_and_kinds(
        self, examples: Sequence[int] | np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the weights and the kinds of each example's tokens."""
        spans = [self.data.span(int(i)) for i in examples]
        return [self.weights[span] for span in spans], [self.data.kinds[span] for span in spans]

    def counts(self, examples: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the denominator n of each example, int64[examples]."""
        weights, kinds = self.weights_and_kinds(examples)
        if self.as_in_im is not None:
            in_im = [self.as_in_im[self.data.span(int(i))] for i in examples]
            return denominators(in_im, kinds, "nonzero")
        return denominators(weights, kinds, self.denominator)

    def all_counts(self) -> np.ndarray:
        """Return the denominator n of every example, int64[rows], some rows at once."""
        return np.concatenate([*map(self.counts, self.data.chunks()), np.zeros(0, dtype=np.int64)])

    def all_nonzero(self) -> np.ndarray:
        """Return the tokens of non-zero weight of every example, int64[rows], some rows at once."""
        counts = [denominators(*self.weights_and_kinds(rows), "nonzero") for rows in self.data.chunks()]
        return np.concatenate([*counts, np.zeros(0, dtype=np.int64)])

    def sha256(self) -> str:
        """Return the hex digest of the rows' tokens, bounds and weights."""
        digest = hashlib.sha256()
        for array in (self.data.ids, self.data.sequence_offsets, self.weights):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def coefficients(
        self, examples: Sequence[int] | np.ndarray, example_count: int | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return c_t of every token of a step's examples, float32: the loss's, and the KL term's (every
        weight 1); `example_count` as in the function `coefficients`."""
        weights, kinds = self.weights_and_kinds(examples)
        counts = self.counts(examples)
        ones = [(weight != 0).astype(np.float32) for weight in weights]
        return (
            coefficients(weights, counts, self.normalization, example_count),
            coefficients(ones, denominators(weights, kinds, "nonzero"), self.normalization, example_count),
        )


def weigh_rows(
    data: EncodedData, policy: WeightPolicy, normalization: str, denominator: str
) -> tuple[WeightedData, dict[int, str]]:
    """Return the rows that have a loss, with their tokens' weights (`weights.loss_weights`), and the reason
    of each row that has none, by its index in `data`."""
    weighted = _weigh(data, policy, normalization, denominator)
    nonzero = weighted.all_nonzero()
    counts = nonzero if normalization == "sum" else weighted.all_counts()
    dropped = dropped_rows(counts, nonzero)
    for index, reason in dropped.items():
        cut = sum(int(data.tokens_cut[sequence]) for sequence in data.sequences_of(index))
        if cut and reason == DROPPED_NO_WEIGHT:
            dropped[index] = DROPPED_ALL_CUT
    if not dropped:
        return weighted, dropped
    kept = data.take(np.array([i for i in range(len(data)) if i not in dropped], dtype=np.int64))
    return _weigh(kept, policy, normalization, denominator), dropped


def _weigh(data: EncodedData, policy: WeightPolicy, normalization: str, denominator: str) -> WeightedData:
    in_im = data.weights(policy.with_groups(1.0, 1.0)) if denominator == "messages" else None
    return WeightedData(data, data.weights(policy), normalization, denominator, in_im)


def denominators(weights: Sequence[np.ndarray], kinds: Sequence[np.ndarray], denominator: str) -> np.ndarray:
    """Return n of each example, int64[examples]: its tokens of non-zero weight, all (`nonzero`) or those of
    the response (`response`)."""
    counts = []
    for weight, kind in zip(weights, kinds, strict=True):
        counted = weight != 0
        if denominator == "response":
            counted = counted & np.isin(kind, RESPONSE_KINDS)
        counts.append(int(counted.sum()))
    return np.array(counts, dtype=np.int64)


def coefficients(
    weights: Sequence[np.ndarray], counts: np.ndarray, normalization: str, example_count: int | None = None
) -> list[np.ndarray]:
    """Return c_t of every token of a step's examples, float32 arrays as long as the examples.

    Args:
        weights: the loss weights of each example's tokens.
        counts: the denominator n of each example.
        normalization: example, token, square or sum.
        example_count: |E| where it is not the number of examples (the released code divides an epoch's last,
            partial step by the full one's).
    """
    scale = scales(counts, normalization, example_count)
    return [
        (weight.astype(np.float64) * factor).astype(np.float32)
        for weight, factor in zip(weights, scale, strict=True)
    ]


def scales(counts: np.ndarray, normalization: str, example_count: int | None = None) -> np.ndarray:
    """Return float64[examples]: what the weights of each example's tokens are multiplied by to be c_t;
    arguments as of `coefficients`."""
    if normalization == "example":
        return 1.0 / (np.maximum(counts, 1) * float(example_count or len(counts)))
    if normalization == "token":
        return np.full(len(counts), 1.0 / max(int(counts.sum()), 1))
    if normalization == "square":
        roots = np.sqrt(np.maximum(counts, 1))
        return 1.0 / (roots * max(float(np.sqrt(counts).sum()), 1.0))
    return np.ones(len(counts))


def dropped_rows(counts: np.ndarray, nonzero: np.ndarray) -> dict[int, str]:
    """Return the rows that have no loss: index to reason.

    Args:
        counts: int64[rows], the denominator n of each row.
        nonzero: int64[rows], its tokens of non-zero weight.
    """
    reasons = {int(i): DROPPED_NO_WEIGHT for i in np.flatnonzero(nonzero == 0)}
    reasons.update({int(i): DROPPED_NO_RESPONSE for i in np.flatnonzero((nonzero > 0) & (counts == 0))})
    return reasons


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Return how often each reason occurs, most first."""
    return dict(Counter(reasons).most_common())


def totals_by_kind(weighted: WeightedData, times: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
    """Return {kind: {"tokens", "tokens_with_loss", "loss_share"}} for the kinds present among owned tokens.

    `loss_share` is the part of the sum of all c_t that falls on the kind, with the whole data as one step:
    the share of the loss if every token had the same NLL.

    Args:
        times: float64[rows], how often an epoch has each row; None for once each.
    """
    data = weighted.data
    scale = scales(weighted.all_counts(), weighted.normalization) * (1.0 if times is None else times)
    whole = 0.0
    sums = {kind: [0, 0, 0.0] for kind in SpanKind}
    for rows in data.chunks():
        tokens = slice(int(data.offsets[rows.start]), int(data.offsets[rows.stop]))
        of_token = np.repeat(scale[rows.start : rows.stop], data.lengths_of(rows))
        # Rounded as the coefficients themselves are.
        flat = (weighted.weights[tokens] * of_token).astype(np.float32).astype(np.float64)
        whole += float(flat.sum())
        for kind, of_kind in sums.items():
            chosen = (data.kinds[tokens] == kind) & data.owned[tokens]
            of_kind[0] += int(chosen.sum())
            of_kind[1] += int((flat[chosen] != 0).sum())
            of_kind[2] += float(flat[chosen].sum())
    return {
        kind.name.lower(): {
            "tokens": int(count),
            "tokens_with_loss": int(with_loss),
            "loss_share": share / (whole or 1.0),
        }
        for kind, (count, with_loss, share) in sums.items()
        if count
    }
