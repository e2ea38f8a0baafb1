"""The forward pass from a micro-batch to its part of the step's loss."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from instruction_modelling.models.compiled import compile_layers
from instruction_modelling.models.loading import causal_model
from instruction_modelling.options import KLEstimator
from instruction_modelling.training.fused_loss import can_fuse, fused_loss
from instruction_modelling.training.hidden_states import PackedRow, hidden_states, output_head
from instruction_modelling.training.loss import KLAnchor, token_losses
from instruction_modelling.training.model_check import check_model
from instruction_modelling.training.neftune import NeftuneNoise
from instruction_modelling.training.rounded_weights import RoundedLinear, round_once_a_step, round_weights


@dataclass(frozen=True)
class KLTerm:
    """What is added to the loss: `weight` x the KL divergence to the model before tuning (paper Eq. 5), or
    what the released code has in its place (`KLEstimator`). With a weight of 0 it is measured, where the
    model is in evaluation mode, and training does without it."""

    weight: float
    direction: Literal["tuned_to_base", "base_to_tuned"] = "tuned_to_base"
    base: nn.Module | None = None
    """The model before tuning; None to use the trained model with its adapters off."""
    estimator: KLEstimator = "exact"


class LossModel(nn.Module):
    """A language model whose forward pass takes a micro-batch and gives its part of the step's loss.

    Args:
        model: the model to train, with or without adapters.
        kl: the KL term, None for none. Its base is frozen here; being part of this module, it is sharded
            wherever the trained model is.
        noise: the NEFTune hook on the model's embeddings.
    """

    def __init__(self, model: nn.Module, kl: KLTerm | None = None, noise: NeftuneNoise | None = None):
        super().__init__()
        self.model, self.kl, self.noise = model, kl, noise
        self._compiled = False
        self._rounded: list[RoundedLinear] = []
        self.base = kl.base.requires_grad_(False).eval() if kl and kl.base is not None else None

    @property
    def config(self) -> Any:
        """Return the language model's configuration, which accelerate sizes DeepSpeed's buckets by."""
        return causal_model(self.model).config

    @property
    def _no_split_modules(self) -> Any:
        """Return the names of the decoder layers' classes, each of which accelerate shards on its own."""
        return causal_model(self.model)._no_split_modules

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's embeddings, which accelerate shards on their own."""
        return causal_model(self.model).get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's head, which accelerate shards on its own."""
        return causal_model(self.model).get_output_embeddings()

    def tie_weights(self) -> None:
        """Make head and embeddings one weight again where they were, after accelerate has moved them."""
        for model in filter(None, (self.model, self.base)):
            causal_model(model).tie_weights()

    def check(self, packing: bool, device: torch.device | str) -> None:
        """Run `check_model` on the model, through this module, so that the weights are gathered for it where
        they are sharded.

        Raises:
            UserError: the model cannot be trained as it is; see `check_model`.
        """
        check_model(self.model, packing, device)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Have the decoder layers compiled at their first call; they then take packed examples alone.

        Raises:
            UserError: it is not known which modules are the layers.
        """
        for model in filter(None, (self.model, self.base)):
            compile_layers(model, backend)
        self._compiled = True

    def round_once_a_step(self) -> None:
        """Have the weights rounded to bfloat16 by `train`, and not in every micro-batch; on one process."""
        self._rounded = round_once_a_step(self.model)

    def train(self, mode: bool = True) -> "LossModel":
        """Set training mode, for a step from the weights as they are now, or evaluation mode; the base stays
        in evaluation mode, without dropout."""
        super().train(mode)
        if self.base is not None:
            self.base.eval()
        if mode:
            round_weights(self._rounded)
        return self

    def forward(  # noqa: PLR0913 (the tensors of a micro-batch, by name: wrappers move and cast named tensors)
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        boundaries: torch.Tensor | None,
        lengths: tuple[int, ...] | None,
        logit_positions: torch.Tensor,
        targets: torch.Tensor,
        coefficients: torch.Tensor,
        kl_coefficients: torch.Tensor,
        max_targets_of_any_rank: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Compute a micro-batch's part of the step's loss; arguments as in `MicroBatch`.

        Returns:
            `loss`, a scalar with gradient: the sum of c_t x nll_t, and the KL term; `nll`, float32[T] in
            nats, without gradient; where there is a KL term `kl`, a scalar without gradient: the term before
            its weight, and `token_kl`, float32[T], without gradient.
        """
        packed = None
        if boundaries is not None and lengths is not None:
            packed = PackedRow(boundaries, lengths, self._compiled)
        inputs = (input_ids, position_ids, attention_mask, packed)
        hidden = _states_at(hidden_states(self.model, *inputs), logit_positions)
        head = output_head(self.model)
        term = self.kl if self.kl and (self.kl.weight or not self.training) else None
        if term is None and can_fuse(head, self):
            one_kernel = self._compiled and hidden.is_cuda
            linear = cast("nn.Linear", head.linear)
            loss, nll = fused_loss(hidden, targets, coefficients, linear, one_kernel)
            return {"loss": loss, "nll": nll}
        # After the trained pass: sharding takes from a weight's first use whether it has a gradient.
        anchor = self._anchor(term, inputs, logit_positions) if term else None
        nll, kl = token_losses(hidden, targets, head, anchor, max_targets_of_any_rank)
        loss = (coefficients * nll).sum()
        if term is None or kl is None:
            return {"loss": loss, "nll": nll.detach()}
        mean_kl, loss_parts = (kl_coefficients * kl).sum(), {"nll": nll.detach(), "token_kl": kl.detach()}
        return {"loss": loss + term.weight * mean_kl, "kl": mean_kl.detach(), **loss_parts}

    def _anchor(self, kl: KLTerm, inputs: tuple[Any, ...], logit_positions: torch.Tensor) -> KLAnchor:
        with torch.no_grad(), self._before_tuning() as base:
            hidden = _states_at(hidden_states(base, *inputs), logit_positions)
        # The head runs later, when adapters are on again.
        return KLAnchor(hidden, output_head(base, tuned=False), kl.direction, kl.estimator)

    @contextlib.contextmanager
    def _before_tuning(self) -> Iterator[nn.Module]:
        """Yield the model before tuning, without noise or dropout."""
        if self.base is not None:
            yield self.base
            return
        training = [module for module in self.model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            with self.model.disable_adapter():  # type: ignore[operator]
                yield self.model
        finally:
            for module in training:
                module.training = True


def _states_at(hidden: torch.Tensor, logit_positions: torch.Tensor) -> torch.Tensor:
    """Return the rows of [R, L, H] at flat positions: [T, H]."""
    return hidden.reshape(-1, hidden.shape[-1])[logit_positions]
