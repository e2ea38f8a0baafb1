"""Which examples meet in a step, and how that step is laid out as micro-batches.

The first is a pure function of (seed, step). The second (packed or padded, how many micro-batches, on how
many processes) only decides how the step's sum is computed, never what it is."""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens.encoded import EncodedData, dropped_rows
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.loss import coefficients, denominators

if TYPE_CHECKING:
    import torch


# -- which examples ---------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the examples in an epoch, int64[examples]: a pure function of its arguments."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)


@dataclass(frozen=True)
class StepPlan:
    """The global batch of every step."""

    examples: int
    batch_size: int
    """Examples a step: per-device size x accumulation x processes."""
    seed: int
    total_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may have fewer examples; no step crosses into the next epoch."""
        return -(-self.examples // self.batch_size)

    def batch(self, step: int) -> np.ndarray:
        """int64[<= batch_size]: the examples of step `step` (counted from 0)."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.batch_size
        return epoch_order(self.examples, self.seed, epoch)[start : start + self.batch_size]


# -- how it is laid out -----------------------------------------------------------------------------------


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit-decreasing: indices into `lengths` in bins that hold at most `capacity` tokens each.

    Raises:
        ValueError: a length above the capacity.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    # Bins by the room left in them; a bin is (room, number), so equal rooms go to the earlier bin.
    rooms: list[tuple[int, int]] = []
    for index in order:
        length = int(lengths[index])
        if length > capacity:
            raise ValueError(f"an example of {length} tokens does not fit {capacity}")
        place = bisect.bisect_left(rooms, (length, -1))
        if place < len(rooms):
            room, number = rooms.pop(place)
            bins[number].append(index)
        else:
            room, number = capacity, len(bins)
            bins.append([index])
        bisect.insort(rooms, (room - length, number))
    return bins


def groups_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in groups of `size`, the longest together, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def share_out(groups: Sequence[list[int]], lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
    """The groups dealt to ranks back and forth by size; ranks with fewer get empty ones, so all have as
    many."""
    by_size = sorted(groups, key=lambda group: -sum(lengths[i] for i in group))
    dealt: list[list[list[int]]] = [[] for _ in range(ranks)]
    for number, group in enumerate(by_size):
        turn, place = divmod(number, ranks)
        dealt[place if turn % 2 == 0 else ranks - 1 - place].append(group)
    most = max(1, *(len(own) for own in dealt))
    return [own + [[] for _ in range(most - len(own))] for own in dealt]


@dataclass(frozen=True)
class Layout:
    """How a step is computed; nothing here changes its result."""

    packing: bool
    per_device_batch_size: int
    max_tokens: int
    padding_side: str = "right"

    def micro_batches(self, lengths: Sequence[int], ranks: int) -> list[list[list[int]]]:
        """For each rank, its micro-batches as indices into `lengths`."""
        groups = (
            pack(lengths, self.max_tokens)
            if self.packing
            else groups_by_length(lengths, self.per_device_batch_size)
        )
        return share_out(groups, lengths, ranks)


# -- tensors ----------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class WeightedData:
    """Encoded rows with the loss weights of one arm, and the formula that makes a loss of them."""

    data: "EncodedData"
    weights: np.ndarray
    """float32[tokens], flat like the data's arrays."""
    normalization: str = "example"
    denominator: str = "nonzero"

    def rows(self, examples: Sequence[int] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The weights and the kinds of each example's tokens."""
        spans = [self.data.span(int(i)) for i in examples]
        return [self.weights[at] for at in spans], [self.data.kinds[at] for at in spans]

    def sha256(self) -> str:
        """The hex digest of the rows' tokens, bounds and weights."""
        digest = hashlib.sha256()
        for array in (self.data.ids, self.data.offsets, self.weights):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def coefficients(
        self, examples: Sequence[int] | np.ndarray, full: int | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """c_t of every token of a step's examples: the loss's, and the KL term's (every weight 1)."""
        weights, kinds = self.rows(examples)
        counts = denominators(weights, kinds, self.denominator)
        covered = [(weight != 0).astype(np.float32) for weight in weights]
        return (
            coefficients(weights, counts, self.normalization, full),
            coefficients(covered, denominators(weights, kinds, "nonzero"), self.normalization, full),
        )


def weigh_rows(
    data: "EncodedData", policy: WeightPolicy, normalization: str, denominator: str
) -> tuple[WeightedData, dict[int, str]]:
    """The rows with their tokens' loss weights, less those that no loss can be taken of (index to reason)."""
    weighted = WeightedData(data, data.weights(policy), normalization, denominator)
    weights, kinds = weighted.rows(range(len(data)))
    some = denominators(weights, kinds, "nonzero")
    counts = some if normalization == "sum" else denominators(weights, kinds, denominator)
    dropped = dropped_rows(counts, some)
    if not dropped:
        return weighted, dropped
    kept = data.take(np.array([i for i in range(len(data)) if i not in dropped], dtype=np.int64))
    return WeightedData(kept, kept.weights(policy), normalization, denominator), dropped


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
        tokens = np.flatnonzero(loss[slot] != 0)
        # The first token of an example is predicted by nothing.
        tokens = tokens[tokens > 0]
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
    # The first token of an example is predicted by nothing.
    targets = [int(np.count_nonzero(own[1:])) for own in loss]
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


KIND_NAMES = [kind.name.lower() for kind in SpanKind]
