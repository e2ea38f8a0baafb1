"""How long a run takes, judged by its first step: a range, said before the second one."""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from instruction_modelling.progress import Progress, TimeRange, counted

if TYPE_CHECKING:
    import numpy as np

    from instruction_modelling.runs.run import Run
    from instruction_modelling.training.batches import MicroBatch
    from instruction_modelling.training.plan import StepPlan

logger = logging.getLogger(__name__)

# When the script began, by the monotonic clock, where its process is older.
_script_began: float | None = None

# The line of `runs.needs` that says how long a run takes.
_TIME_SAID = re.compile(
    r"time: about .* for ([\d,]+) tokens at ([\d,.e+-]+) tokens a second, measured here"
    r".*, and the start ([\d.e+-]+) s;"
)


class TimedMicroBatches(list["MicroBatch"]):
    """A step's micro-batches, each timed from when it is taken until the next one is asked for."""

    def __init__(
        self,
        micro_batches: Sequence["MicroBatch"],
        finish: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Time these; `finish` waits until a device has done what it was given."""
        super().__init__(micro_batches)
        self.taken: list[tuple[float, int]] = []
        """Of each: seconds, and tokens."""
        self._finish, self._clock = finish, clock

    def __iter__(self) -> Iterator["MicroBatch"]:
        """Yield them in order."""
        for batch in super().__iter__():
            begin = self._clock()
            yield batch
            self._finish()
            self.taken.append((self._clock() - begin, batch.input_ids.numel()))


def later_steps(taken: Sequence[tuple[float, int]], seconds: float) -> TimeRange:
    """Return what a step takes that is not a process's first one, judged by that one.

    What is done only once is done in the first micro-batch, which is given the rate of the others; where
    there are no others, it may be half of the step.

    Args:
        taken: seconds and tokens of the first step's micro-batches.
        seconds: of that step as a whole.
    """
    (first, tokens), *others = taken
    if not others:
        return TimeRange(seconds / 2, seconds)
    rate = sum(of_one for of_one, _ in others) / max(sum(count for _, count in others), 1)
    return TimeRange.around(seconds - max(0.0, first - tokens * rate))


def seconds_said(output: str) -> tuple[float, float] | None:
    """Return the seconds of training that the lines of a run's needs (`runs.needs`) speak of, and those of
    its start; None where they do not."""
    found = _TIME_SAID.search(output)
    if found is None:
        return None
    tokens, rate, start = (float(number.replace(",", "")) for number in found.groups())
    return (tokens / rate, start) if rate else None


def tokens_of_epoch(lengths: "np.ndarray", plan: "StepPlan") -> int:
    """Return the tokens that an epoch takes.

    Args:
        lengths: int[examples], the tokens of each.
    """
    return round(float((lengths * plan.quotas.times() if plan.quotas else lengths).sum()))


def begin_training(run: "Run") -> Progress:
    """Say what will be trained and where; return what counts its steps."""
    from instruction_modelling.training.devices import device_words

    plan, ranks = run.plan, run.accelerator.num_processes
    size = (
        f"{counted(plan.total_steps, 'step')} of up to {counted(plan.batch_size, 'example')} "
        f"({counted(ranks, 'process', 'processes')})"
    )
    where = device_words(run.accelerator, run.options.mixed_precision)
    logger.info("%s: %s, %s", run.options.arm(), size, where)
    shown = run.accelerator.is_main_process and sys.stderr.isatty()
    return Progress(plan.total_steps, "steps", done=run.done, shown=shown)


def timed(run: "Run", micro_batches: Sequence["MicroBatch"]) -> TimedMicroBatches:
    """Return the micro-batches of a process's first step, to be timed."""

    def finish() -> None:
        if run.accelerator.device.type == "cuda":
            import torch

            torch.cuda.synchronize()

    return TimedMicroBatches(micro_batches, finish)


def say_time(run: "Run", progress: Progress, first: TimedMicroBatches, seconds: float, tokens: int) -> None:
    """Say what the run takes, start and all, once its first step is taken and before that is counted; the
    time left goes by the same measurement.

    Args:
        seconds: of the first step.
        tokens: of the first step, of all ranks.
    """
    lengths, plan = run.data.weighted.data.lengths, run.plan
    of_step = tokens_of_epoch(lengths, plan) / plan.steps_per_epoch
    progress.measured = later_steps(first.taken, seconds) * (of_step / max(tokens, 1))
    rest = plan.total_steps - run.done - 1
    if rest <= 0:
        return
    started = seconds_of_script()
    logger.info(
        "this run will take about %s: %s to start with its first step, measured, and %s like it; evaluation, "
        "checkpoints and saving come on top",
        progress.measured * rest + TimeRange(started, started),
        TimeRange(started, started),
        counted(rest, "step"),
    )


def begin_script() -> None:
    """Say that a script begins now, in a process that may have run others before."""
    global _script_began
    _script_began = time.monotonic()


def seconds_of_script() -> float:
    """Return how long the script has run that runs now; as long as its process, unless `begin_script` said
    otherwise."""
    if _script_began is not None:
        return time.monotonic() - _script_began
    import psutil

    return time.time() - psutil.Process().create_time()
