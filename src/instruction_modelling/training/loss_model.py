"""The forward pass from a micro-batch to its part of the step's loss, and the check of a model's way there."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import causal_model
from instruction_modelling.training.loss import KLAnchor, token_losses
from instruction_modelling.training.neftune import NeftuneNoise


def hidden_states(
    model: nn.Module,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    boundaries: torch.Tensor | None = None,
) -> torch.Tensor:
    """The last hidden states, [R, L, H], without the output head."""
    keywords: dict[str, Any] = {}
    if boundaries is not None:
        longest = int((boundaries[1:] - boundaries[:-1]).max())
        keywords = {
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    decoder = causal_model(model).get_decoder()
    return decoder(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=attention_mask,
        use_cache=False,
        **keywords,
    ).last_hidden_state


def logits_of(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The output head as a function of hidden states, with the scaling and capping some models apply to
    logits.

    The head runs as a module, so that sharding that gathers a module's weights around its forward works.
    """
    causal = causal_model(model)
    head, config = causal.get_output_embeddings(), causal.config.get_text_config()
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)

    def apply(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        if times:
            logits = logits * times
        if over:
            logits = logits / over
        return torch.tanh(logits / cap) * cap if cap else logits

    return apply


def vocabulary_size(model: nn.Module) -> int:
    """Rows of the output head."""
    return int(causal_model(model).config.get_text_config().vocab_size)


def draws_dropout(model: nn.Module) -> bool:
    """Whether training the model draws dropout, in adapters or as its own configuration says."""
    config = causal_model(model).config.get_text_config().to_dict()
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()) or any(
        "drop" in name and isinstance(value, int | float) and value > 0 for name, value in config.items()
    )


class LossModel(nn.Module):
    """A language model whose forward pass takes a micro-batch and gives its part of the step's loss.

    Args:
        model: the model to train, with or without adapters.
        kl_weight: weight of the KL term, 0 for none.
        kl_direction: see `KLAnchor`.
        base: the model of the KL term, which is frozen here; None to use `model` with its adapters off. Being
            part of this
            module, it is sharded wherever the trained model is.
        noise: the NEFTune hook on the model's embeddings.
        origin: what tells the model before tuning from others (`fingerprints.weights_sha256`).
    """

    def __init__(
        self,
        model: nn.Module,
        kl_weight: float = 0.0,
        kl_direction: Literal["tuned_to_base", "base_to_tuned"] = "tuned_to_base",
        base: nn.Module | None = None,
        noise: NeftuneNoise | None = None,
        origin: str = "",
    ):
        super().__init__()
        self.model = model
        self.base = base.requires_grad_(False).eval() if base is not None else None
        self.kl_weight, self.kl_direction, self.noise, self.origin = kl_weight, kl_direction, noise, origin

    @property
    def config(self) -> Any:
        """The language model's configuration, which accelerate fills in DeepSpeed's bucket sizes from."""
        return causal_model(self.model).config

    @property
    def _no_split_modules(self) -> Any:
        """The names of the decoder layers' classes, each of which accelerate shards on its own."""
        return causal_model(self.model)._no_split_modules

    def get_input_embeddings(self) -> nn.Module:
        """The language model's, which accelerate shards on their own."""
        return causal_model(self.model).get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head, likewise."""
        return causal_model(self.model).get_output_embeddings()

    def tie_weights(self) -> None:
        """Makes head and embeddings one weight again where they were, after accelerate has moved them."""
        for model in filter(None, (self.model, self.base)):
            causal_model(model).tie_weights()

    def check(self, packing: bool, device: torch.device | str) -> None:
        """See `check_model`; through this module, so that sharding sees it."""
        check_model(self.model, packing, device)

    def train(self, mode: bool = True) -> "LossModel":
        """Training or evaluation mode; the base stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.base is not None:
            self.base.eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        boundaries: torch.Tensor | None,
        at: torch.Tensor,
        targets: torch.Tensor,
        coefficients: torch.Tensor,
        kl_coefficients: torch.Tensor,
        most_targets: int = 0,
    ) -> dict[str, torch.Tensor]:
        """`loss`, a scalar, the sum of c_t x nll_t (plus the KL term); `nll`, float32[T], without gradient;
        `kl`, the KL term before its weight. Arguments as in `MicroBatch`."""
        inputs = (input_ids, position_ids, attention_mask, boundaries)
        hidden = _select(hidden_states(self.model, *inputs), at)
        # After the trained pass: sharding takes from a weight's first use whether it has a gradient.
        anchor = self._anchor(inputs, at) if self.kl_weight else None
        nll, kl = token_losses(
            hidden, targets, logits_of(self.model), vocabulary_size(self.model), anchor, most_targets
        )
        loss = (coefficients * nll).sum()
        out = {"loss": loss, "nll": nll.detach()}
        if kl is not None:
            out["kl"] = (kl_coefficients * kl).sum()
            out["loss"] = loss + self.kl_weight * out["kl"]
            out["kl"] = out["kl"].detach()
        return out

    def _anchor(self, inputs: tuple[Any, ...], at: torch.Tensor) -> KLAnchor:
        with torch.no_grad(), self._before_tuning() as base:
            hidden = _select(hidden_states(base, *inputs), at)
        # Adapters never touch the head.
        return KLAnchor(hidden, logits_of(base), self.kl_direction)

    @contextlib.contextmanager
    def _before_tuning(self) -> Iterator[nn.Module]:
        """The model before tuning, without noise or dropout."""
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


def _select(hidden: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return hidden.reshape(-1, hidden.shape[-1])[at]


@torch.no_grad()
def check_model(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    """Compares this module's way through the model with the model's own, on two short made-up examples.

    Raises:
        UserError: the logits differ from the model's own, or packed examples see each other.
    """
    training = model.training
    model.eval()
    try:
        _compare(model, packing, device)
    except ValueError as error:
        # The packed attention's refusal.
        raise UserError(f"{type(causal_model(model)).__name__}: {error}") from error
    finally:
        model.train(training)


def _compare(model: nn.Module, packing: bool, device: torch.device | str) -> None:
    size = min(vocabulary_size(model), 1000)
    ids = (torch.arange(23, device=device) * 37 + 5) % size
    examples = [ids[:9], ids[9:]]
    tolerance = (
        1e-3 if next(model.parameters()).dtype == torch.float32 and not torch.is_autocast_enabled() else 0.1
    )
    head = logits_of(model)
    alone = []
    for example in examples:
        row = example[None]
        positions = torch.arange(row.shape[1], device=device)[None]
        boundaries = torch.tensor([0, row.shape[1]], dtype=torch.int32, device=device) if packing else None
        mask = None if packing else torch.ones_like(row)
        logits = head(hidden_states(model, row, positions, mask, boundaries)).float()[0]
        keywords = (
            {}
            if boundaries is None
            else {
                "cu_seq_lens_q": boundaries,
                "cu_seq_lens_k": boundaries,
                "max_length_q": row.shape[1],
                "max_length_k": row.shape[1],
            }
        )
        own = causal_model(model)(
            input_ids=row, attention_mask=mask, position_ids=positions, use_cache=False, **keywords
        ).logits.float()[0]
        if not torch.allclose(logits, own, atol=tolerance, rtol=tolerance):
            raise UserError(
                f"{type(causal_model(model)).__name__} makes its logits in a way that is not known here "
                f"(largest difference {(logits - own).abs().max():.3g}); it cannot be trained with this loss"
            )
        alone.append(logits)
    if packing:
        positions = torch.cat([torch.arange(len(e), device=device) for e in examples])[None]
        boundaries = torch.tensor([0, 9, 23], dtype=torch.int32, device=device)
        packed = head(hidden_states(model, ids[None], positions, None, boundaries)).float()[0]
        if not torch.allclose(packed, torch.cat(alone), atol=tolerance, rtol=tolerance):
            raise UserError(
                f"{type(causal_model(model)).__name__} lets packed examples see each other (largest "
                f"difference {(packed - torch.cat(alone)).abs().max():.3g}): train it without --packing"
            )
