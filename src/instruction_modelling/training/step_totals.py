"""What the micro-batches of a step add up to, over all ranks, their losses divided already by the denominator
that `finetune.weigh` and `tokens.weighted.denominators` choose: the numbers of its line in metrics.jsonl."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.processes.collectives import total

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

    def of(self, nll: torch.Tensor, kinds: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        """Return the sums of tokens, float64[2, kinds + data sets], from their NLL, float64[T], kinds and
        examples, int64[T]."""
        sums, ones = self._zeros(), torch.ones_like(nll)
        for columns in (kinds, self._column[examples]):
            sums[0].index_add_(0, columns, nll)
            sums[1].index_add_(0, columns, ones)
        return sums

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

    What the model gave stays on its device until then: to read it after every micro-batch would make the
    device wait for the next."""

    def __init__(self, window: NllSums) -> None:
        """Take the sums since the last logged step, to which `over_ranks` adds this one."""
        self._window = window
        self._nlls: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []
        # Of each scored target, its place among all targets, its kind and its example.
        self._scored: list[torch.Tensor] = []
        self._targets = 0
        # Loss, KL term, tokens, tokens with a loss, positions computed.
        self._sums = torch.zeros(5, dtype=torch.float64)

    def add(self, batch: "MicroBatch", output: dict[str, torch.Tensor]) -> None:
        """Add a micro-batch and what `LossModel.forward` made of it."""
        loss = output["loss"].detach()
        self._losses.append(torch.stack([loss, output.get("kl", torch.zeros_like(loss))]))
        self._nlls.append(output["nll"])
        scored = torch.nonzero(batch.coefficients)[:, 0]
        examples = torch.tensor([span.example for span in batch.example_spans] or [0])
        self._scored.append(
            torch.stack(
                [self._targets + scored, batch.kinds[scored], examples[batch.example_of_target[scored]]]
            )
        )
        self._targets += len(batch.targets)
        positions = batch.input_ids.numel() if batch.example_spans else 0
        self._sums[2:] += torch.tensor(
            [batch.real_tokens, batch.tokens_with_loss, positions], dtype=torch.float64
        )

    def over_ranks(self, accelerator: "Accelerator") -> None:
        """Add up the sums of all ranks; every rank calls it."""
        for loss_and_kl in torch.stack(self._losses).cpu().double():
            self._sums[:2] += loss_and_kl
        places, kinds, examples = torch.cat(self._scored, dim=1)
        nll = torch.cat(self._nlls).cpu()[places].double()
        by_label = self._window.of(nll, kinds, examples)
        every = total(accelerator, torch.cat([self._sums, by_label.flatten()]))
        self._sums = every[: len(self._sums)]
        self._window.add(every[len(self._sums) :].view_as(by_label))

    @property
    def loss(self) -> float:
        """Return the step's loss: the ranks' parts already divide by the whole step."""
        return float(self._sums[0])

    def losses(self, with_kl: bool) -> dict[str, Any]:
        """Return the loss, the KL term where asked for, and what `NllSums.means` gives of this step and those
        before it that were not logged."""
        kl = {"kl": float(self._sums[1])} if with_kl else {}
        return {"loss": self.loss, **kl, **self._window.means()}

    def tokens(self) -> dict[str, Any]:
        """Return how many tokens there were, how many had a loss, and what share of the positions was
        padding."""
        _, _, tokens, with_loss, positions = self._sums.tolist()
        return {
            "tokens": int(tokens),
            "tokens_with_loss": int(with_loss),
            "padding_fraction": 1 - tokens / positions,
        }
