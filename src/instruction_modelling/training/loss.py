"""A cross-entropy per token, and a KL divergence per position, that never hold all the logits at once and are
not yet divided by anything: the denominator is chosen in `finetune.weigh` and `tokens.weighted.denominators`.

The formulas that make a step's loss of them are in `tokens.weighted`: sum_t c_t nll_t, with coefficients
known before anything is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from instruction_modelling.options import KLEstimator

if TYPE_CHECKING:
    import torch

# Logits held at once, in elements: 32 million are 128 MB in float32.
LOGITS_AT_ONCE = 2**25
# On a GPU, whose memory is larger and whose kernels need more work each, and there in no more of the whole.
LOGITS_AT_ONCE_ON_GPU = 2**27
CHUNKS_ON_GPU = 8


@dataclass(frozen=True)
class OutputHead:
    """The last layer of a model."""

    logits_of: "Callable[[torch.Tensor], torch.Tensor]"
    """Hidden states [t, H] to logits [t, vocabulary]."""
    vocabulary: int
    linear: "torch.nn.Module | None" = None
    """The layer that makes the logits, where nothing is done to them behind it."""


@dataclass(frozen=True)
class KLAnchor:
    """The model before tuning, which the KL term (paper Eq. 5) pulls towards: hidden states [T, H], head, and
    what is computed of them."""

    hidden: "torch.Tensor"
    head: OutputHead
    direction: Literal["tuned_to_base", "base_to_tuned"] = "tuned_to_base"
    estimator: KLEstimator = "exact"


def rows_at_once(vocabulary: int, targets: int, device: "torch.device") -> int:
    """Return of how many positions logits may exist at once, 1 or more.

    Args:
        targets: positions in all; where weights are sharded, the most of any rank, so that all agree.
    """
    if device.type == "cpu":
        return max(1, LOGITS_AT_ONCE // vocabulary)
    return max(1, min(LOGITS_AT_ONCE_ON_GPU // vocabulary, -(-targets // CHUNKS_ON_GPU)))


def token_losses(
    hidden: "torch.Tensor",
    targets: "torch.Tensor",
    head: OutputHead,
    anchor: KLAnchor | None = None,
    max_targets_of_any_rank: int = 0,
) -> tuple["torch.Tensor", "torch.Tensor | None"]:
    """Return the NLL of each target in nats, float32[T], and with an anchor the KL at each position by its
    estimator, float32[T].

    The output head runs on a few positions at a time and again in the backward pass, so that the logits of no
    more than `rows_at_once` exist at any moment. Where its weights are sharded, each run is an all-gather,
    which every rank has to take part in, so it runs as often as the rank with the most targets needs.
    `training.fused_loss` does without the second run where the head is a plain layer.

    Args:
        hidden: [T, H], the last hidden state at the position before each target; T is 1 or more.
        targets: int64[T], token ids.
        max_targets_of_any_rank: the largest T of any rank.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    most = max(len(targets), max_targets_of_any_rank)
    chunk = rows_at_once(head.vocabulary, most, hidden.device)
    nlls: list[torch.Tensor] = []
    kls: list[torch.Tensor] = []
    for start in range(0, most, chunk):
        # A rank whose targets are used up runs the head on one position more, so that the others' all-gather
        # does not wait for ever. Its result is dropped, but the empty slice keeps it in the graph: the
        # backward pass then runs the head again, as it does on the other ranks.
        used_up = start >= len(targets)
        part = slice(0, 1) if used_up else slice(start, start + chunk)
        nll, kl = checkpoint(
            _chunk_losses,
            hidden[part],
            targets[part],
            head,
            anchor.hidden[part] if anchor else None,
            anchor,
            use_reentrant=False,
        )
        kept = slice(0, 0) if used_up else slice(None)
        nlls.append(nll[kept])
        if kl is not None:
            kls.append(kl[kept])
    return torch.cat(nlls), torch.cat(kls) if anchor else None


def _chunk_losses(
    hidden: "torch.Tensor",
    targets: "torch.Tensor",
    head: OutputHead,
    base_hidden: "torch.Tensor | None",
    anchor: KLAnchor | None,
) -> tuple["torch.Tensor", "torch.Tensor | None"]:
    import torch

    logits = _at_least_float32(head.logits_of(hidden))
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    if anchor is None or base_hidden is None:
        return nll, None
    with torch.no_grad():
        base = torch.log_softmax(_at_least_float32(anchor.head.logits_of(base_hidden)), dim=-1)
    if anchor.estimator == "released":
        # Lines 87 to 119 of the released utils module: log p_tuned(target) - log p_base(target).
        return nll, torch.nn.functional.nll_loss(base, targets, reduction="none") - nll
    tuned = torch.log_softmax(logits, dim=-1)
    # KL(p || q) = sum over the vocabulary of p (log p - log q).
    log_p, log_q = (tuned, base) if anchor.direction == "tuned_to_base" else (base, tuned)
    return nll, (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _at_least_float32(logits: "torch.Tensor") -> "torch.Tensor":
    """Return the logits in float32 or wider: a softmax over a vocabulary in bfloat16 loses digits."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()
