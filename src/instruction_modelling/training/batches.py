"""The tensors of a micro-batch: its tokens, and the logit positions, labels and coefficients of those with a
loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.devices import sent
from instruction_modelling.training.plan import GlobalBatch, Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ExampleSpan:
    """The columns of a micro-batch's row that hold an example, or one of its sequences where it has several;
    `example` is its index in the data, `part` the sequence's number in it."""

    example: int
    row: int
    start: int
    length: int
    part: int = 0


@dataclass
class MicroBatch:
    """One forward and backward pass: R rows of L columns, in which T tokens (the targets) have a loss."""

    step: int
    example_spans: list[ExampleSpan]
    """Where each example lies; empty in the micro-batch that only keeps a rank in step with the others."""
    input_ids: "torch.Tensor"
    """int64[R, L]"""
    position_ids: "torch.Tensor"
    """int64[R, L], counted from 0 in each example."""
    attention_mask: "torch.Tensor | None"
    """int64[R, L], 0 on padding; None when packed."""
    boundaries: "torch.Tensor | None"
    """int32[examples + 1], the column where each packed example begins, and the end; None when padded."""
    lengths: tuple[int, ...] | None
    """Tokens of each packed example, and behind them of what fills the row up, known without asking a
    device; None when padded."""
    logit_positions: "torch.Tensor"
    """int64[T], flat index into [R, L] of the position before each target, whose logits predict it."""
    targets: "torch.Tensor"
    """int64[T], token ids."""
    coefficients: "torch.Tensor"
    """float32[T], c_t: the loss is the sum of c_t x nll_t."""
    kl_coefficients: "torch.Tensor"
    """float32[T], c_t as it would be with every weight 1, for the KL term."""
    kinds: "torch.Tensor"
    """int64[T], the `SpanKind` of each target."""
    example_of_target: "torch.Tensor"
    """int64[T], index into `example_spans`."""
    real_tokens: int
    """Tokens of examples, padding not counted."""
    tokens_with_loss: int
    max_targets_of_any_rank: int
    """The largest T of any rank's micro-batch of this number, which decides how often all run the head."""

    def tensors(self) -> dict[str, Any]:
        """Return the arguments of `LossModel.forward`."""
        names = (
            "input_ids",
            "position_ids",
            "attention_mask",
            "boundaries",
            "lengths",
            "logit_positions",
            "targets",
            "coefficients",
            "kl_coefficients",
            "max_targets_of_any_rank",
        )
        return {name: getattr(self, name) for name in names}

    def to(self, device: "torch.device | str") -> "MicroBatch":
        """Return the batch with the tensors that the forward pass reads on `device`."""
        import torch

        moved = {
            name: sent(value, device)
            for name, value in self.tensors().items()
            if isinstance(value, torch.Tensor)
        }
        return MicroBatch(**{**vars(self), **moved})


@dataclass(frozen=True)
class SequenceLoss:
    """A sequence (its index in the data) with c_t of each of its tokens, float32[length], for loss and KL
    term; `example` is the example that it belongs to, `part` its number in it."""

    sequence: int
    example: int
    part: int
    coefficients: np.ndarray
    kl_coefficients: np.ndarray


def make_micro_batch(
    data: EncodedData,
    step: int,
    sequences: Sequence[SequenceLoss],
    layout: Layout,
    max_targets_of_any_rank: int = 0,
) -> MicroBatch:
    """Return the tensors of one micro-batch, on the CPU.

    Args:
        sequences: none for the empty micro-batch, one padding token without a loss, that a rank with fewer
            micro-batches than another runs: else the other's all-gather waits for ever.
        layout: packed or padded.
        max_targets_of_any_rank: see `MicroBatch`; 0 where there is one rank.
    """
    import torch

    lengths = [len(own.coefficients) for own in sequences] or [1]
    filler = -sum(lengths) % layout.multiple if layout.packing else 0
    rows, columns = (1, sum(lengths) + filler) if layout.packing else (len(lengths), max(lengths))
    packed = (*lengths, filler) if filler else tuple(lengths)
    edges = np.cumsum([0, *packed])
    ids, positions, mask = (np.zeros((rows, columns), dtype=np.int64) for _ in range(3))
    spans, targets = [], _Targets()
    for number, length in enumerate(lengths):
        if layout.packing:
            row, start = 0, int(edges[number])
        else:
            row, start = number, columns - length if layout.padding_side == "left" else 0
        columns_of_example = slice(start, start + length)
        mask[row, columns_of_example] = 1
        positions[row, columns_of_example] = np.arange(length)
        if sequences:
            own = sequences[number]
            ids[row, columns_of_example] = data.ids[data.sequence_span(own.sequence)]
            spans.append(ExampleSpan(own.example, row, start, length, own.part))
            targets.add(data, own, number, row * columns + start)
    if filler:
        positions[0, -filler:] = np.arange(filler)
    if not targets.count:
        # One token of coefficient 0: without a target this rank would not run the head, and where weights are
        # sharded the other ranks' all-gather of it would wait for ever.
        targets.add_placeholder(int(ids[0, 0]))
    return MicroBatch(
        step=step,
        example_spans=spans,
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=None if layout.packing else torch.from_numpy(mask),
        boundaries=torch.from_numpy(edges.astype(np.int32)) if layout.packing else None,
        lengths=packed if layout.packing else None,
        **targets.tensors(),
        real_tokens=sum(lengths) if sequences else 0,
        tokens_with_loss=targets.with_loss,
        max_targets_of_any_rank=max(max_targets_of_any_rank, targets.count),
    )


# The fields of `MicroBatch` with one entry per target.
TARGET_DTYPES: dict[str, type] = {
    "logit_positions": np.int64,
    "targets": np.int64,
    "coefficients": np.float32,
    "kl_coefficients": np.float32,
    "kinds": np.int64,
    "example_of_target": np.int64,
}


class _Targets:
    """The tokens with a loss, gathered example by example."""

    def __init__(self) -> None:
        self.count = self.with_loss = 0
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in TARGET_DTYPES}

    def add(self, data: EncodedData, own: SequenceLoss, number: int, first: int) -> None:
        """Add the sequence's tokens of non-zero coefficient; `first` is the flat position of its first
        token."""
        span = data.sequence_span(own.sequence)
        tokens = np.flatnonzero(own.coefficients)
        self.with_loss += len(tokens)
        self._append(
            first + tokens - 1,
            data.ids[span][tokens],
            own.coefficients[tokens],
            own.kl_coefficients[tokens],
            data.kinds[span][tokens],
            np.full(len(tokens), number),
        )

    def add_placeholder(self, token: int) -> None:
        """Add a target whose loss counts nowhere."""
        self._append(*(np.array([value]) for value in (0, token, 0.0, 0.0, 0, 0)))

    def _append(self, *columns: np.ndarray) -> None:
        self.count += len(columns[0])
        for part, column in zip(self._parts.values(), columns, strict=True):
            part.append(column)

    def tensors(self) -> dict[str, Any]:
        """Return the fields of `MicroBatch` with one entry per target."""
        import torch

        return {
            name: torch.from_numpy(np.concatenate(part).astype(TARGET_DTYPES[name]))
            for name, part in self._parts.items()
        }


def step_micro_batches(
    weighted: WeightedData, batch: GlobalBatch, layout: Layout, rank: int = 0, ranks: int = 1
) -> list[MicroBatch]:
    """Return one rank's micro-batches of a step: as many on every rank, the k-th of each run at the same
    time."""
    losses = sequences_with_loss(weighted, batch)
    groups = layout.micro_batches([len(own.coefficients) for own in losses], ranks)
    targets = [int(np.count_nonzero(own.coefficients)) for own in losses]
    max_targets = [
        max(sum(targets[i] for i in group) for group in of_each_rank)
        for of_each_rank in zip(*groups, strict=True)
    ]
    return [
        make_micro_batch(weighted.data, batch.step, [losses[i] for i in group], layout, largest)
        for group, largest in zip(groups[rank], max_targets, strict=True)
    ]


def sequences_with_loss(weighted: WeightedData, batch: GlobalBatch) -> list[SequenceLoss]:
    """Return the sequences of a step's examples, in order; of an example of several, those with a loss."""
    data, losses = weighted.data, []
    of_examples = weighted.coefficients(batch.examples, batch.full_batch_examples)
    for example, coefficients, kl_coefficients in zip(batch.examples.tolist(), *of_examples, strict=True):
        first, sequences = data.span(example).start, data.sequences_of(example)
        for part, sequence in enumerate(sequences):
            span = data.sequence_span(sequence)
            own = slice(span.start - first, span.stop - first)
            if len(sequences) == 1 or coefficients[own].any():
                parts = coefficients[own], kl_coefficients[own]
                losses.append(SequenceLoss(sequence, example, part, *parts))
    return losses
