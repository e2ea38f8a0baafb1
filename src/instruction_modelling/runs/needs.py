"""What the run at hand needs (--dry_run): steps, memory, disk and hours, counted of its own rows and model
and measured in a trial step. `runs.estimates` has the formulas for runs that are not at hand."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.processes.collectives import from_main
from instruction_modelling.progress import TimeRange, counted
from instruction_modelling.runs.checkpoints import size_in_words
from instruction_modelling.runs.pace import seconds_of_script, tokens_of_epoch
from instruction_modelling.runs.save_trial import saved_bytes
from instruction_modelling.runs.state import TrainedWeights, training_state
from instruction_modelling.training.batches import MicroBatch, sequences_with_loss, step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout, StepPlan
from instruction_modelling.training.sharding import is_deepspeed, is_fsdp

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.runs.model import SavedForm
    from instruction_modelling.tokens.weighted import WeightedData

# Steps of an epoch that are laid out to see how full their micro-batches are.
STEPS_LAID_OUT = 100
# Seconds of the trial, roughly, beyond its first micro-batch.
TRIAL_SECONDS = 20.0


@dataclass(frozen=True)
class LaidOut:
    """The micro-batches of some steps of the first epoch."""

    steps: int
    sequences: int
    tokens: int
    micro_batches: int
    """Of all ranks, those included that only keep a rank in step with the others."""
    positions: int
    """What is computed, padding included; of packed micro-batches the room in them."""

    @property
    def fill(self) -> float:
        """Return the part of the positions that are tokens."""
        return self.tokens / max(self.positions, 1)


@dataclass(frozen=True)
class Memory:
    """Bytes that a device holds."""

    weights: int
    gradients: int
    optimizer: int
    """Its states, and under DeepSpeed the float32 weights that they belong to."""
    activations: int
    """What the trial's first micro-batch, one of the largest, kept for its backward pass."""
    peak: int | None = None
    """The most that a GPU held in the trial; None on a CPU."""

    def line(self) -> str:
        """Return the sum and its parts in words."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "activations": self.activations,
        }
        words = ", ".join(f"{name} {size_in_words(size)}" for name, size in parts.items())
        at_most = f"; at most {size_in_words(self.peak)} in the trial" if self.peak is not None else ""
        return f"{size_in_words(sum(parts.values()))} of a device: {words}{at_most}"


@dataclass(frozen=True)
class Disk:
    """Bytes that a run writes."""

    model: int
    checkpoint: int
    checkpoints: int
    """All that are written."""
    kept: int
    """Those that are there at the end."""
    best: int = 0
    """The weights of the best measurement, where they are kept; twice while a better one is written."""

    def most(self) -> int:
        """Return the most at any time: a checkpoint is written before the oldest goes, the model last."""
        held = self.kept + (self.checkpoints > self.kept)
        return max(held * self.checkpoint, self.kept * self.checkpoint + self.model) + 2 * self.best

    def line(self) -> str:
        """Return it in words."""
        kept = f"{counted(self.kept, 'checkpoint')} of {size_in_words(self.checkpoint)}" if self.kept else ""
        return (
            f"{size_in_words(self.most())} at most: the model {size_in_words(self.model)}"
            + (f", {kept}" if kept else ", no checkpoints (--checkpointing_steps)")
            + (f", the best weights {size_in_words(self.best)}, twice" if self.best else "")
        )


@dataclass(frozen=True)
class TimedStep:
    """A step, or the first part of one, that was taken for its time."""

    seconds: float
    tokens: int
    """Of all ranks."""
    micro_batches: int
    of: int
    """Micro-batches that the whole step has, a rank."""
    processor_seconds: float = 0.0
    """Of this process and its threads: fewer than `seconds` where other jobs share a CPU."""


@dataclass(frozen=True)
class Needs:
    """What a run needs."""

    examples: int
    laid_out: LaidOut
    tokens_of_epoch: int
    longest: int
    steps: int
    """That are not done yet."""
    steps_per_epoch: int
    batch_size: int
    ranks: int
    layout: Layout
    memory: Memory
    disk: Disk
    trial: TimedStep
    start: float
    """Seconds from the start of the process to where training would begin."""

    @property
    def tokens(self) -> float:
        """Return the tokens of all steps that are not done yet."""
        return self.tokens_of_epoch * self.steps / self.steps_per_epoch

    @property
    def hours(self) -> float:
        """Return the hours that they take at the trial's rate."""
        return self.tokens * self.trial.seconds / max(self.trial.tokens, 1) / 3600

    def lines(self) -> list[str]:
        """Return all of it in words."""
        laid_out, trial, layout = self.laid_out, self.trial, self.layout
        each = f"up to {counted(layout.per_device_batch_size, 'example')} padded"
        if layout.packing:
            each = f"up to {layout.max_tokens:,} tokens packed"
        part = "one step"
        if trial.micro_batches < trial.of:
            of_step = counted(trial.of, "micro-batch", "micro-batches")
            part = f"an update after {trial.micro_batches} of a step's {of_step}"
        return [
            f"rows: {counted(self.examples, 'example')}, {self.tokens_of_epoch:,} tokens an epoch, the "
            f"longest sequence {self.longest:,}",
            f"steps: {self.steps:,} ({self.steps / self.steps_per_epoch:.3g} epochs of "
            f"{self.steps_per_epoch:,}), up to {counted(self.batch_size, 'example')} each, "
            f"{counted(self.ranks, 'process', 'processes')}",
            f"micro-batches: {laid_out.micro_batches / laid_out.steps:.1f} a step, {each}, "
            f"{laid_out.fill:.1%} filled ({counted(laid_out.steps, 'step')} laid out, of "
            f"{laid_out.sequences / laid_out.steps:.1f} sequences)",
            f"memory: {self.memory.line()}",
            f"disk: {self.disk.line()}",
            f"time: about {TimeRange.around(3600 * self.hours)} for {self.tokens:,.0f} tokens at "
            f"{_rate_in_words(trial.tokens / trial.seconds)} tokens a second, measured here: {part} of this "
            "model took "
            f"{trial.seconds:.3g} s ({trial.processor_seconds:.3g} s of a processor), and the start "
            f"{self.start:.3g} s; evaluation and checkpoints come on top",
        ]


def _rate_in_words(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def measure_needs(  # noqa: PLR0913 (what a run has gathered, each by its name)
    options: "FinetuneOptions",
    accelerator: "Accelerator",
    model: Any,
    optimizer: Any,
    weighted: "WeightedData",
    plan: StepPlan,
    layout: Layout,
    form: "SavedForm",
    done: int,
    train_step: Callable[[list[MicroBatch]], Mapping[str, Any]],
) -> Needs:
    """Return what the run needs, and take a trial step for it, which changes the model; every process calls
    it.

    Args:
        done: steps that are done already.
        train_step: trains on these micro-batches, and returns the step's line of metrics.jsonl.

    Raises:
        UserError: the trial step's loss or gradient is not finite.
    """
    rows, ranks, start = weighted.data, accelerator.num_processes, seconds_of_script()
    batch = GlobalBatch(done, plan.batch(min(done, plan.total_steps - 1)))
    micro_batches = step_micro_batches(weighted, batch, layout, accelerator.process_index, ranks)
    with kept_for_backward(model) as kept:
        first = timed(train_step, micro_batches[:1], accelerator)
    count = max(1, min(len(micro_batches), int(TRIAL_SECONDS / max(first[0], 1e-3))))
    count = from_main(accelerator, count)
    seconds, tokens, processor = timed(train_step, micro_batches[:count], accelerator)
    return Needs(
        examples=len(rows),
        laid_out=lay_out(weighted, plan, layout, ranks),
        tokens_of_epoch=tokens_of_epoch(rows.lengths, plan),
        longest=int(rows.sequence_lengths.max()),
        steps=plan.total_steps - done,
        steps_per_epoch=plan.steps_per_epoch,
        batch_size=plan.batch_size,
        ranks=ranks,
        layout=layout,
        memory=device_memory(accelerator, model, optimizer, kept.bytes()),
        disk=disk_needs(options, accelerator, model, optimizer, form, plan),
        trial=TimedStep(seconds, tokens, count, len(micro_batches), processor),
        start=start,
    )


def timed(
    train_step: Callable[[list[MicroBatch]], Mapping[str, Any]],
    micro_batches: Sequence[MicroBatch],
    accelerator: "Accelerator",
) -> tuple[float, int, float]:
    """Return the seconds that a step takes, its tokens, and the seconds of the processor.

    Raises:
        UserError: its loss or its gradient is not finite.
    """
    started, processor = time.monotonic(), time.process_time()
    line = train_step(list(micro_batches))
    if accelerator.device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    if not (math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])):
        raise UserError(
            f"the trial step has a loss of {line['loss']:g} and a gradient norm of {line['grad_norm']:g}: "
            "the run would end in its first step; look at the model and the learning rate"
        )
    return time.monotonic() - started, int(line["tokens"]), time.process_time() - processor


def lay_out(weighted: "WeightedData", plan: StepPlan, layout: Layout, ranks: int) -> LaidOut:
    """Lay out steps of the first epoch, spread over it, as training would."""
    steps = np.unique(np.linspace(0, plan.steps_per_epoch - 1, STEPS_LAID_OUT).astype(int)).tolist()
    sequences = tokens = micro_batches = positions = 0
    for step in steps:
        losses = sequences_with_loss(weighted, GlobalBatch(step, plan.batch(step)))
        lengths = [len(own.coefficients) for own in losses]
        sequences, tokens = sequences + len(lengths), tokens + sum(lengths)
        for of_rank in layout.micro_batches(lengths, ranks):
            micro_batches += len(of_rank)
            for group in filter(None, of_rank):
                padded = len(group) * max(lengths[index] for index in group)
                positions += layout.max_tokens if layout.packing else padded
    return LaidOut(len(steps), sequences, tokens, micro_batches, positions)


class KeptBytes:
    """Counts the memory of tensors that autograd keeps, each piece once."""

    def __init__(self, not_counted: set[int]):
        self._pieces: dict[int, int] = {}
        self._not_counted = not_counted

    def add(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """Count a tensor; return one that shares its memory and holds no node of the graph."""
        piece = tensor.untyped_storage()
        if piece._cdata not in self._not_counted:
            self._pieces[piece._cdata] = piece.nbytes()
        return tensor.detach()

    def bytes(self) -> int:
        """Return the sum."""
        return sum(self._pieces.values())


@contextmanager
def kept_for_backward(model: "torch.nn.Module") -> Iterator[KeptBytes]:
    """Count what autograd keeps for the backward passes of the block, the model's own weights left out."""
    import torch

    kept = KeptBytes({weight.untyped_storage()._cdata for weight in model.parameters()})
    with torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def device_memory(accelerator: "Accelerator", model: Any, optimizer: Any, activations: int) -> Memory:
    """Return what one device holds, once the optimiser has stepped."""
    import torch

    shards = accelerator.num_processes if is_deepspeed(accelerator) or is_fsdp(accelerator) else 1
    sizes = [
        (getattr(weight, "ds_numel", weight.numel()) * weight.element_size(), weight.requires_grad)
        for weight in accelerator.unwrap_model(model).parameters()
    ]
    trained = sum(size for size, is_trained in sizes if is_trained)
    states = training_state(accelerator, model, optimizer).bytes()
    # DeepSpeed's weights are beside the float32 ones that its optimiser steps.
    states -= 0 if is_deepspeed(accelerator) else trained
    peak = torch.cuda.max_memory_allocated() if accelerator.device.type == "cuda" else None
    weights = sum(size for size, _ in sizes)
    return Memory(weights // shards, trained // shards, states // shards, activations, peak)


def disk_needs(  # noqa: PLR0913 (what a run has gathered)
    options: "FinetuneOptions",
    accelerator: "Accelerator",
    model: Any,
    optimizer: Any,
    form: "SavedForm",
    plan: StepPlan,
) -> Disk:
    """Return what a run writes, once the optimiser has stepped."""
    every = options.checkpointing_steps
    steps = plan.steps_per_epoch if every == "epoch" else int(every or 0)
    count = plan.total_steps // steps if steps else 0
    tuned = accelerator.unwrap_model(model).model
    state = training_state(accelerator, model, optimizer)
    kept = min(count, options.save_total_limit or count)
    best = TrainedWeights(state).bytes() if options.keep_best else 0
    return Disk(saved_bytes(tuned, form), state.bytes(), count, kept, best)
