"""Signals that ask a run to stop: a scheduler's warning, or a Ctrl-C, ends it after the step at hand, with a
checkpoint."""

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from instruction_modelling.processes.collectives import total

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

EXIT_STOPPED = 75
"""The exit code of a run that a signal stopped and that can be continued (sysexits' EX_TEMPFAIL)."""

# What the system sends a process whose launcher is gone (see training.launch.end_with_launcher).
LAUNCHER_GONE = signal.SIGUSR2
# SIGUSR1 is what Slurm is usually asked to send before a job's time is up.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, LAUNCHER_GONE)


def exit_code() -> int:
    """Return the exit code of a run that a signal stopped: `EXIT_STOPPED`; 0 under a launcher that may
    restart failed processes, which would take any other code for a failure."""
    return 0 if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) else EXIT_STOPPED


class StopSignals:
    """A context in which the first SIGTERM, SIGINT or SIGUSR1 is remembered and the second ends the process.

    The launcher's end is a first signal too, but never a second: one signal to a whole job ends launchers
    before their workers. A process that waits for another one sets `forward`, which is called with each
    signal.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.forward: Callable[[signal.Signals], object] | None = None
        self.nothing_done = False
        """Whether Ctrl-C may end the process at once, for there is nothing to save yet."""

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.nothing_done and number == signal.SIGINT and os.environ.get("WORLD_SIZE", "1") == "1":
            raise KeyboardInterrupt
        if self.forward:
            self.forward(signal.Signals(number))
        if number == LAUNCHER_GONE and self.received:
            return
        if self.received not in (None, LAUNCHER_GONE):
            # 128 + the signal's number is how a shell names such an end.
            os._exit(128 + number)
        self.received = signal.Signals(number)
        if self.forward:
            # The other process says what it does about it.
            return
        logger.info(
            "%s: ending after this step, with a checkpoint; once more ends at once", self.received.name
        )

    def agreed(self, accelerator: "Accelerator") -> str | None:
        """Return the name of a signal that any process has received, the same on every process; every process
        calls it."""
        import torch

        counts = total(accelerator, torch.tensor([float(self.received == number) for number in SIGNALS]))
        return next(
            (number.name for number, count in zip(SIGNALS, counts.tolist(), strict=True) if count), None
        )
