"""The tensors of a micro-batch: its tokens, the logit positions, labels and coefficients of those with a loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.plan import Layout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Place:
    """Where an example lies in a micro-batch: its row, first column and length; `example` is its index in the
    data."""

    example: int
    row: int
    start: int
    length: int


@dataclass
class MicroBatch:
    """One forward and backward pass. R rows of L columns; T tokens with a loss."""

    step: int
    places: list[Place]
    input_ids: "torch.Tensor"
    """int64[R, L]"""
    position_ids: "torch.Tensor"
    """int64[R, L], counted from 0 in each example."""
    attention_mask: "torch.Tensor | None"
    """int64[R, L], 0 on padding; None when packed."""
    boundaries: "torch.Tensor | None"
    """int32[examples + 1], where each packed example begins; None when padded."""
    at: "torch.Tensor"
    """int64[T], the flat position before each token with a loss: the one that predicts it."""
    targets: "torch.Tensor"
    """int64[T]"""
    coefficients: "torch.Tensor"
    """float32[T], c_t: the loss is the sum of c_t x nll_t."""
    kl_coefficients: "torch.Tensor"
    """float32[T], the same with every weight 1, for the KL term."""
    kinds: "torch.Tensor"
    """int64[T], the `SpanKind` of each target."""
    slots: "torch.Tensor"
    """int64[T], which of `places` each target belongs to."""
    real_tokens: int
    """Tokens of examples."""
    tokens_with_loss: int
    most_targets: int
    """The largest T of any process's micro-batch of this number."""

    def tensors(self) -> dict[str, Any]:
        """What the model's forward takes."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "attention_mask": self.attention_mask,
            "boundaries": self.boundaries,
            "at": self.at,
            "targets": self.targets,
            "coefficients": self.coefficients,
            "kl_coefficients": self.kl_coefficients,
            "most_targets": self.most_targets,
        }

    def to(self, device: "torch.device | str") -> "MicroBatch":
        """The batch with its tensors on `device`."""
        import torch

        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return MicroBatch(**{**vars(self), **moved})


def make_micro_batch(
    weighted: WeightedData,
    step: int,
    examples: Sequence[int],
    loss: Sequence[np.ndarray],
    kl: Sequence[np.ndarray],
    layout: Layout,
    most_targets: int = 0,
) -> MicroBatch:
    """The tensors of one micro-batch.

    Args:
        examples: indices into the data; none for the empty micro-batch that keeps processes in step.
        loss: c_t of each example's tokens.
        kl: the KL term's c_t.
        layout: packed or padded.
        most_targets: see `MicroBatch`.
    """
    import torch

    data = weighted.data
    lengths = [int(data.lengths[i]) for i in examples] or [1]
    packed = layout.packing
    rows, columns = (1, sum(lengths)) if packed else (len(lengths), max(lengths))
    ids = np.zeros((rows, columns), dtype=np.int64)
    positions = np.zeros((rows, columns), dtype=np.int64)
    mask = np.zeros((rows, columns), dtype=np.int64)
    places, at, chosen = [], [], []
    begin = 0
    for slot, length in enumerate(lengths):
        row = 0 if packed else slot
        start = begin if packed else (columns - length if layout.padding_side == "left" else 0)
        begin += length
        mask[row, start : start + length] = 1
        positions[row, start : start + length] = np.arange(length)
        if not examples:
            break
        span = data.span(examples[slot])
        ids[row, start : start + length] = data.ids[span]
        places.append(Place(int(examples[slot]), row, start, length))
        tokens = np.flatnonzero(loss[slot])
        at.append(row * columns + start + tokens - 1)
        chosen.append(
            (
                data.ids[span][tokens],
                loss[slot][tokens],
                kl[slot][tokens],
                data.kinds[span][tokens],
                np.full(len(tokens), slot),
            )
        )
    if not sum(len(part) for part in at):
        # One token of coefficient 0, so that every process runs the same modules.
        at = [np.zeros(1, dtype=np.int64)]
        chosen = [(ids.ravel()[:1], np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64), np.zeros(1))]
    targets, coefs, kls, kinds, slots = (np.concatenate(column) for column in zip(*chosen, strict=True))
    edges = np.cumsum([0, *lengths])
    return MicroBatch(
        step=step,
        places=places,
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=None if packed else torch.from_numpy(mask),
        boundaries=torch.from_numpy(edges.astype(np.int32)) if packed else None,
        at=torch.from_numpy(np.concatenate(at).astype(np.int64)),
        targets=torch.from_numpy(targets.astype(np.int64)),
        coefficients=torch.from_numpy(coefs.astype(np.float32)),
        kl_coefficients=torch.from_numpy(kls.astype(np.float32)),
        kinds=torch.from_numpy(kinds.astype(np.int64)),
        slots=torch.from_numpy(slots.astype(np.int64)),
        real_tokens=sum(lengths) if examples else 0,
        tokens_with_loss=int((coefs != 0).sum()),
        most_targets=max(most_targets, len(targets)),
    )


def step_micro_batches(
    weighted: WeightedData,
    step: int,
    examples: np.ndarray,
    layout: Layout,
    rank: int = 0,
    ranks: int = 1,
    full: int | None = None,
) -> list[MicroBatch]:
    """One process's micro-batches of a step over `examples` (all processes' examples).

    `full`: divide by this number of examples instead of their own (the released code's last, partial step).
    """
    loss, kl = weighted.coefficients(examples, full)
    lengths = [int(weighted.data.lengths[i]) for i in examples]
    groups = layout.micro_batches(lengths, ranks)
    targets = [int(np.count_nonzero(own)) for own in loss]
    most = [max(sum(targets[i] for i in group) for group in same) for same in zip(*groups, strict=True)]
    return [
        make_micro_batch(
            weighted,
            step,
            [int(examples[i]) for i in group],
            [loss[i] for i in group],
            [kl[i] for i in group],
            layout,
            at_most,
        )
        for group, at_most in zip(groups[rank], most, strict=True)
    ]
