"""The loss: per-token coefficients that sum to it, and a cross-entropy that never holds all the logits.

With w the weight and nll the negative log-likelihood of a token, n a token count and E the examples of a
step,

    example   1/|E| sum_e  sum_t w nll / n_e           (the paper's: micro-batches of one example, averaged)
    token     sum_e sum_t w nll / sum_e n_e
    sum       sum_e sum_t w nll

over the whole optimiser step: all micro-batches and all processes. Each is sum_t c_t nll_t with a coefficient
c_t that is known before anything is computed, so gradients add up to it however the step is split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    LogitsOf = Callable[[torch.Tensor], torch.Tensor]

# Logits held at once, in elements: 32 million are 128 MB in float32.
LOGITS_AT_ONCE = 2**25


@dataclass(frozen=True)
class KLAnchor:
    """The pull towards the model before tuning (paper Eq. 5): its hidden states [T, H] and its output
    head."""

    hidden: "torch.Tensor"
    logits_of: "LogitsOf"
    direction: Literal["tuned_to_base", "base_to_tuned"] = "tuned_to_base"


def token_losses(
    hidden: "torch.Tensor",
    targets: "torch.Tensor",
    logits_of: "LogitsOf",
    vocabulary: int,
    anchor: KLAnchor | None = None,
    most_targets: int = 0,
) -> tuple["torch.Tensor", "torch.Tensor | None"]:
    """The NLL of each target, float32[T], and with an anchor the KL at each position, float32[T].

    The output head runs on a few positions at a time and again in the backward pass, so that no more than
    `LOGITS_AT_ONCE` logits exist at any moment. Where its weights are sharded, each run of it is a gathering
    that every process takes part in, so it runs as often as the process with the most targets needs.

    Args:
        hidden: [T, H], the last hidden state at the position before each target; T is 1 or more.
        targets: int64[T].
        logits_of: [t, H] to [t, vocabulary].
        most_targets: the largest T of any process.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    nlls: list[torch.Tensor] = []
    kls: list[torch.Tensor] = []
    for start in range(0, max(len(targets), most_targets), rows):
        # Past its own targets a process runs the head on one row and keeps none of it, but for its place in
        # the graph.
        spare = start >= len(targets)
        part = slice(0, 1) if spare else slice(start, start + rows)
        nll, kl = checkpoint(
            _chunk,
            hidden[part],
            targets[part],
            logits_of,
            anchor.hidden[part] if anchor else None,
            anchor,
            use_reentrant=False,
        )
        kept = slice(0, 0) if spare else slice(None)
        nlls.append(nll[kept])
        if kl is not None:
            kls.append(kl[kept])
    return torch.cat(nlls), torch.cat(kls) if anchor else None


def _chunk(
    hidden: "torch.Tensor",
    targets: "torch.Tensor",
    logits_of: "LogitsOf",
    base_hidden: "torch.Tensor | None",
    anchor: KLAnchor | None,
) -> tuple["torch.Tensor", "torch.Tensor | None"]:
    import torch

    logits = _wide(logits_of(hidden))
    nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    if anchor is None or base_hidden is None:
        return nll, None
    with torch.no_grad():
        base = torch.log_softmax(_wide(anchor.logits_of(base_hidden)), dim=-1)
    tuned = torch.log_softmax(logits, dim=-1)
    first, second = (tuned, base) if anchor.direction == "tuned_to_base" else (base, tuned)
    return nll, (first.exp() * (first - second)).sum(dim=-1)


def _wide(logits: "torch.Tensor") -> "torch.Tensor":
    """At least float32: a softmax over a vocabulary in bfloat16 loses digits."""
    return logits if logits.dtype.itemsize >= 4 else logits.float()
