"""Muon on the matrices of the hidden layers and AdamW on all other weights, as one optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# The name of a group's entry that says who steps its weights.
_BY_MUON = "by_muon"


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon and torch's fused AdamW, which share their groups and states with this optimiser: whoever
    sets a group's learning rate, or stores and restores states by weight, need not know of them.

    A matrix of A x B moves by 0.2 sqrt(max(A, B)) times the learning rate (Moonshot's rule, arXiv
    2502.16982), so that its updates are as large as AdamW's and one learning rate fits both."""

    counts_in_tensors = True
    """Whether its counts of steps are tensors, as torch's are."""

    def __init__(self, matrices: list[nn.Parameter], others: list[dict[str, Any]], **given: Any):
        """Take the matrices for Muon, and groups of the other weights, each with its `weight_decay`.

        Args:
            given: `lr`, `weight_decay` and `momentum` of Muon, and `betas` and `eps` of AdamW.
        """
        lr, decay = given["lr"], given["weight_decay"]
        muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=decay, momentum=given["momentum"], adjust_lr_fn="match_rms_adamw"
        )
        adamw = torch.optim.AdamW(others, lr=lr, betas=given["betas"], eps=given["eps"], fused=True)
        groups = [{**group, _BY_MUON: True} for group in muon.param_groups]
        groups += [{**group, _BY_MUON: False} for group in adamw.param_groups]
        super().__init__(groups, {})
        self._muon, self._adamw = muon, adamw
        self._share()

    def _share(self) -> None:
        """Give the two the groups and the states that are here now."""
        for optimizer, is_muon in ((self._muon, True), (self._adamw, False)):
            optimizer.param_groups = [group for group in self.param_groups if group[_BY_MUON] == is_muon]
            optimizer.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state, whose groups and states take the place of those here."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight."""
        loss = self._muon.step(closure)
        self._adamw.step()
        return loss


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable weights of two dimensions that are neither an embedding nor the output head."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        output = getattr(module, "get_output_embeddings", None)
        if callable(output) and (head := output()) is not None:
            tables.update(id(weight) for weight in head.parameters())
    return [
        weight
        for weight in model.parameters()
        if weight.requires_grad and weight.ndim == 2 and id(weight) not in tables
    ]
