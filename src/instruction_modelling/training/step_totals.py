"""What the micro-batches of a step add up to, over all ranks, their losses divided already by the denominator
that `finetune.weigh` and `tokens.weighted.denominators` choose: the numbers of its line in metrics.jsonl."""

from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.processes.collectives import total

if TYPE_CHECKING:
    from accelerate import Accelerator

    from instruction_modelling.training.batches import MicroBatch


class StepTotals:
    """Sums over a rank's micro-batches, in float64; over all ranks after `over_ranks`."""

    def __init__(self) -> None:
        # NLL in nats and number of scored tokens, by span kind.
        self._by_kind = torch.zeros(2, len(KIND_NAMES), dtype=torch.float64)
        # Loss, KL term, tokens, tokens with a loss, positions computed.
        self._sums = torch.zeros(5, dtype=torch.float64)

    def add(self, batch: "MicroBatch", output: dict[str, torch.Tensor]) -> None:
        """Add a micro-batch and what `LossModel.forward` made of it."""
        scored = batch.coefficients != 0
        nll = output["nll"].double().cpu()[scored]
        self._by_kind[0].index_add_(0, batch.kinds[scored], nll)
        self._by_kind[1].index_add_(0, batch.kinds[scored], torch.ones_like(nll))
        numbers = [
            float(output["loss"].detach()),
            float(output.get("kl", 0.0)),
            batch.real_tokens,
            batch.tokens_with_loss,
            batch.input_ids.numel() if batch.example_spans else 0,
        ]
        self._sums += torch.tensor(numbers, dtype=torch.float64)

    def over_ranks(self, accelerator: "Accelerator") -> None:
        """Add up the sums of all ranks; every rank calls it."""
        self._by_kind, self._sums = total(accelerator, self._by_kind), total(accelerator, self._sums)

    @property
    def loss(self) -> float:
        """Return the step's loss: the ranks' parts already divide by the whole step."""
        return float(self._sums[0])

    def losses(self, with_kl: bool) -> dict[str, Any]:
        """Return the loss, the KL term where asked for, and the mean NLL in nats per token of each span
        kind."""
        nll, count = self._by_kind
        return {
            "loss": self.loss,
            **({"kl": float(self._sums[1])} if with_kl else {}),
            "nll": {
                name: float(nll[kind] / count[kind]) for kind, name in enumerate(KIND_NAMES) if count[kind]
            },
        }

    def tokens(self) -> dict[str, Any]:
        """Return how many tokens there were, how many had a loss, and what share of the positions was
        padding."""
        _, _, tokens, with_loss, positions = self._sums.tolist()
        return {
            "tokens": int(tokens),
            "tokens_with_loss": int(with_loss),
            "padding_fraction": 1 - tokens / positions,
        }
