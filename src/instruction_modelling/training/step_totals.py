"""What the micro-batches of a step add up to, over all ranks, their losses divided already by the denominator
that `finetune.weigh` and `tokens.weighted.denominators` choose: the numbers of its line in metrics.jsonl."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.training.devices import sent

if TYPE_CHECKING:
    from accelerate import Accelerator

    from instruction_modelling.training.batches import MicroBatch

# Data sets that are told apart, those with the most rows; a mixture of thousands would fill every line.
MOST_DATASETS = 100
OTHER_DATASETS = "(other)"
# Of a block that holds tokens of several data sets.
SEVERAL_DATASETS = "(several)"


class NllSums:
    """NLL in nats and number of the tokens with a loss, by span kind and by data set, over all ranks and all
    steps since the last logged one."""

    def __init__(self, datasets: Sequence[str]):
        """Begin with nothing; `datasets` names that of each example, "" for several at once."""
        counts = Counter(name or SEVERAL_DATASETS for name in datasets)
        names = [name for name, _ in counts.most_common(MOST_DATASETS)]
        if len(counts) > len(names):
            names.append(OTHER_DATASETS)
        self._labels = {"nll": KIND_NAMES, "dataset_nll": tuple(names)}
        number = {name: index for index, name in enumerate(names)}
        # Of each example, the column of its data set, behind those of the kinds.
        self._column = torch.tensor(
            [len(KIND_NAMES) + number.get(name or SEVERAL_DATASETS, len(number) - 1) for name in datasets],
            dtype=torch.int64,
        )
        # float64[2, kinds + data sets]
        self._sums = self._zeros()

    def _zeros(self) -> torch.Tensor:
        return torch.zeros(2, sum(map(len, self._labels.values())), dtype=torch.float64)

    @property
    def columns(self) -> int:
        """Count the kinds and data sets."""
        return self._sums.shape[1]

    def columns_of(self, kinds: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        """Return the columns that tokens count in, int64[2, T], from their kinds and examples, int64[T]."""
        return torch.stack([kinds, self._column[examples]])

    def add(self, sums: torch.Tensor) -> None:
        """Add a step's sums over all ranks, as `of` gives them."""
        self._sums += sums

    def clear(self) -> None:
        """Begin anew, once a line was logged."""
        self._sums.zero_()

    def means(self) -> dict[str, dict[str, float]]:
        """Return the mean NLL and the number of tokens of each kind and data set that had any, as `nll`,
        `nll_tokens`, `dataset_nll` and `dataset_nll_tokens`."""
        means: dict[str, dict[str, float]] = {}
        for name, table in self._tables().items():
            means[name] = {label: nll / count for label, (nll, count) in table.items()}
            means[f"{name}_tokens"] = {label: int(count) for label, (_, count) in table.items()}
        return means

    def state(self) -> dict[str, dict[str, list[float]]]:
        """Return the sums as JSON: {"nll" or "dataset_nll": {label: [nats, tokens]}}; {} where none were
        added."""
        return {name: table for name, table in self._tables().items() if table}

    def restore(self, state: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        """Take the sums up where `state` left them; the labels are those of the same data."""
        self.clear()
        first = 0
        for name, labels in self._labels.items():
            for label, pair in state.get(name, {}).items():
                self._sums[:, first + labels.index(label)] = torch.tensor(pair, dtype=torch.float64)
            first += len(labels)

    def _tables(self) -> dict[str, dict[str, list[float]]]:
        tables, first = {}, 0
        for name, labels in self._labels.items():
            pairs = self._sums[:, first : first + len(labels)].T.tolist()
            tables[name] = {label: pair for label, pair in zip(labels, pairs, strict=True) if pair[1]}
            first += len(labels)
        return tables


class StepTotals:
    """Sums over a rank's micro-batches, in float64; over all ranks after `over_ranks`.

    What the model gives is added up on its device and read once, at the end of the step: each reading makes
    the program wait for the device, and then the device for the program."""

    def __init__(self, window: NllSums, device: torch.device | str = "cpu") -> None:
        """Take the sums since the last logged step, to which `over_ranks` adds this one.

        Args:
            device: of what the model gives.
        """
        self._window, self._device = window, device
        self._loss_and_kl, self._tokens = [math.nan] * 2, [0.0] * 3
        # Of what the model gives: loss, KL term, and the NLL in each column of the window.
        self._given = torch.zeros(2 + window.columns, dtype=torch.float64, device=device)
        # Of what the batch says: tokens, tokens with a loss, positions computed, and tokens in each column.
        self._counted = torch.zeros(3 + window.columns, dtype=torch.float64)
        self.grad_norm = math.nan
        """Of the step's gradient, before clipping; known after `over_ranks`."""

    def add(self, batch: "MicroBatch", output: dict[str, torch.Tensor]) -> None:
        """Add a micro-batch, whose columns are on the CPU, and what `LossModel.forward` made of it."""
        self._given[0].add_(output["loss"].detach())
        if "kl" in output:
            self._given[1].add_(output["kl"])
        positions = batch.input_ids.numel() if batch.example_spans else 0
        self._counted[:3] += torch.tensor(
            [batch.real_tokens, batch.tokens_with_loss, positions], dtype=torch.float64
        )
        if not batch.tokens_with_loss:
            # Its one target is a placeholder.
            return
        examples = torch.tensor([span.example for span in batch.example_spans])
        both = self._window.columns_of(batch.kinds, examples[batch.example_of_target])
        nll, nlls = output["nll"].double(), self._given[2:]
        for columns, there in zip(both, sent(both, self._device), strict=True):
            nlls.index_add_(0, there, nll)
            self._counted[3:] += torch.bincount(columns, minlength=len(nlls))

    def over_ranks(self, accelerator: "Accelerator", grad_norm: torch.Tensor) -> None:
        """Add up the sums of all ranks and read them, and the gradient's norm, from the device, in one copy;
        every rank calls it.

        Args:
            grad_norm: a scalar, the same on all ranks.
        """
        every = torch.cat([self._given, sent(self._counted, self._device)])
        if accelerator.num_processes > 1:
            every = accelerator.reduce(every, reduction="sum")
        norm = grad_norm.detach().reshape(1).to(every)
        sums = torch.cat([every, norm]).cpu()
        self._loss_and_kl, nlls, self._tokens, counts, (self.grad_norm,) = (
            part.tolist() for part in sums.split([2, self._window.columns, 3, self._window.columns, 1])
        )
        self._window.add(torch.tensor([nlls, counts], dtype=torch.float64))

    @property
    def finite(self) -> bool:
        """Return whether the loss and the gradient are finite, so that a step can be taken."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    @property
    def loss(self) -> float:
        """Return the step's loss: the ranks' parts already divide by the whole step."""
        return self._loss_and_kl[0]

    def losses(self, with_kl: bool) -> dict[str, Any]:
        """Return the loss, the KL term where asked for, and what `NllSums.means` gives of this step and those
        before it that were not logged."""
        kl = {"kl": self._loss_and_kl[1]} if with_kl else {}
        return {"loss": self.loss, **kl, **self._window.means()}

    def tokens(self) -> dict[str, Any]:
        """Return how many tokens there were, how many had a loss, and what share of the positions was
        padding."""
        tokens, with_loss, positions = self._tokens
        return {
            "tokens": int(tokens),
            "tokens_with_loss": int(with_loss),
            "padding_fraction": 1 - tokens / positions,
        }
