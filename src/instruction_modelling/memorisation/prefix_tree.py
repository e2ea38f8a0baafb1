"""The NLL of many token sequences that begin alike, with each shared token computed once.

The sequences are laid out as the tree of their prefixes, in one row: a token sits at its depth's position and
sees its ancestors alone, so its hidden state is what it would be in each sequence by itself. A thousand codes
of four digits behind forty shared tokens are 780 tokens in place of 44,000."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import causal_model
from instruction_modelling.training.hidden_states import hidden_states, output_head
from instruction_modelling.training.loss import rows_at_once

# By what part sums of some NLLs may differ by rounding. With two bytes a number, 0.1 to 0.4 nats were seen
# for a secret of four digits, so there half a nat is allowed too.
_ROUNDING, _ROUNDING_IN_TWO_BYTES, _NATS_IN_TWO_BYTES = 0.01, 0.05, 0.5


@dataclass(frozen=True)
class PrefixTree:
    """Prefixes of token sequences: the `n` that something follows are computed, and `t` tokens are scored."""

    ids: np.ndarray
    """int64[n], the last token of each prefix that is computed; parents come before children."""
    parents: np.ndarray
    """int64[n], the prefix that each one continues; -1 for the first token."""
    targets: np.ndarray
    """int64[t], the tokens that are scored, each once per prefix before it."""
    predicted_by: np.ndarray
    """int64[t], the prefix before each of them."""
    paths: list[list[int]]
    """For each sequence, which of the targets it has."""

    def depths(self) -> np.ndarray:
        """Return int64[n], the number of tokens before each prefix's last one."""
        depths = np.zeros(len(self.ids), dtype=np.int64)
        for node, parent in enumerate(self.parents):
            depths[node] = depths[parent] + 1 if parent >= 0 else 0
        return depths

    def visible(self) -> np.ndarray:
        """Return bool[n, n]: row i sees itself and the prefixes of it."""
        seen = np.eye(len(self.ids), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def prefix_tree(sequences: Sequence[Sequence[int]], first_scored: int) -> PrefixTree:
    """Return the tree of token sequences, of which those from `first_scored` (1 or more) on are scored."""
    assert first_scored >= 1
    nodes: dict[tuple[int, ...], int] = {}
    targets: dict[tuple[int, ...], int] = {}
    paths = []
    for sequence in sequences:
        whole = tuple(map(int, sequence))
        for length in range(1, len(whole)):
            nodes.setdefault(whole[:length], len(nodes))
        scored = [whole[:length] for length in range(first_scored + 1, len(whole) + 1)]
        paths.append([targets.setdefault(prefix, len(targets)) for prefix in scored])
    return PrefixTree(
        ids=np.array([prefix[-1] for prefix in nodes], dtype=np.int64),
        parents=np.array([nodes.get(prefix[:-1], -1) for prefix in nodes], dtype=np.int64),
        targets=np.array([prefix[-1] for prefix in targets], dtype=np.int64),
        predicted_by=np.array([nodes[prefix[:-1]] for prefix in targets], dtype=np.int64),
        paths=paths,
    )


@torch.no_grad()
def sequence_nlls(
    model: torch.nn.Module, sequences: Sequence[Sequence[int]], first_scored: int
) -> list[float]:
    """Return the NLL in nats of each sequence's tokens from `first_scored` on, given those before.

    Args:
        model: a causal language model in evaluation mode, on its device.
        sequences: token ids, each longer than `first_scored`.

    Raises:
        UserError: a loss is no finite number, or the model's attention does not follow the mask of a tree.
    """
    tree = prefix_tree(sequences, first_scored)
    device = next(model.parameters()).device
    allowed = torch.from_numpy(tree.visible())[None, None].to(device)
    positions = torch.from_numpy(tree.depths())[None].to(device)
    ids = torch.from_numpy(tree.ids)[None].to(device)
    hidden = hidden_states(model, ids, positions, _additive(allowed, causal_model(model).dtype))[0]
    nll = _losses(model, hidden, tree.predicted_by, tree.targets)
    if not np.isfinite(nll).all():
        raise UserError(
            "the model computes losses that are no finite numbers: its weights hold such numbers, or number "
            "formats that are too small; measure it with --dtype float32, or train it again"
        )
    sums = [float(nll[path].sum()) for path in tree.paths]
    # The last one has the most tokens in front of it that it must not see.
    alone = _alone(model, sequences[-1], first_scored)
    allowed_difference = max(_NATS_IN_TWO_BYTES, _ROUNDING_IN_TWO_BYTES * abs(alone))
    if causal_model(model).dtype.itemsize >= 4:
        allowed_difference = _ROUNDING * max(1.0, abs(alone))
    # Not "more than": a loss that is no number is neither more nor less.
    if not abs(alone - sums[-1]) <= allowed_difference:
        raise UserError(
            f"this model computes {sums[-1]:.3f} nats where sequences share their first tokens and "
            f"{alone:.3f} nats for the same one alone: its layers do not follow a mask, so candidates "
            "cannot be ranked here"
        )
    return sums


def _alone(model: torch.nn.Module, sequence: Sequence[int], first_scored: int) -> float:
    """Return what `sequence_nlls` does of one sequence, computed plainly."""
    ids = torch.tensor([list(sequence)], device=next(model.parameters()).device)
    hidden = hidden_states(model, ids, torch.arange(ids.shape[1], device=ids.device)[None])[0]
    before = np.arange(first_scored - 1, len(sequence) - 1)
    return float(_losses(model, hidden, before, ids[0, first_scored:].cpu().numpy()).sum())


def _losses(
    model: torch.nn.Module, hidden: torch.Tensor, predicted_by: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Return float64[t], the NLL of each target; targets behind one prefix share its logits."""
    head = output_head(model)
    prefixes, which = np.unique(predicted_by, return_inverse=True)
    nll = np.zeros(len(targets))
    chunk = rows_at_once(head.vocabulary, len(prefixes), hidden.device)
    for start in range(0, len(prefixes), chunk):
        at = torch.from_numpy(prefixes[start : start + chunk]).to(hidden.device)
        logits = head.logits_of(hidden[at]).float()
        log_totals = torch.logsumexp(logits, dim=-1)
        own = np.flatnonzero((which >= start) & (which < start + len(at)))
        rows, tokens = torch.from_numpy(which[own] - start), torch.from_numpy(targets[own])
        nll[own] = (log_totals[rows] - logits[rows, tokens]).double().cpu().numpy()
    return nll


def _additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask [1, 1, n, n] as what is added to attention logits."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )
