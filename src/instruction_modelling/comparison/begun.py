"""A job that has begun: its process, the signals that are passed on to it, and how it ends."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from instruction_modelling.comparison.warm_start import WarmProcess, can_start_warm
from instruction_modelling.errors import PARENT_SAYS_STOPPED
from instruction_modelling.files.stamps import content_of, mark_made, read_stamp, stamp_path
from instruction_modelling.files.whole import write_text
from instruction_modelling.processes.signals import StopSignals

if TYPE_CHECKING:
    from instruction_modelling.comparison.jobs import Job

DELETE_WEIGHTS = "delete"


class Started(Protocol):
    """A process that has been started."""

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""

    def wait(self) -> int:
        """Return its exit code once it has ended."""

    def send_signal(self, number: int) -> None:
        """Send it a signal."""


class StartsCommands(Protocol):
    """What starts a command."""

    def __call__(self, command: Sequence[str], env: Mapping[str, str], log: Path | None = None) -> Started:
        """Start a command in an environment; what it says goes where ours goes, or is appended to `log`."""


def start_anew(command: Sequence[str], env: Mapping[str, str], log: Path | None = None) -> Started:
    """Start a command as a new process."""
    with contextlib.nullcontext() if log is None else log.open("ab") as said:
        # A session of its own: a Ctrl-C is ours to pass on, else the job would get it twice.
        return subprocess.Popen(command, env=env, stdout=said, stderr=said, start_new_session=True)


class BegunJob:
    """A job that has begun: what may be done again is taken back when it begins, and put back where it fails
    before it has written anything."""

    def __init__(self, job: "Job", start: StartsCommands | None = None, log: Path | None = None) -> None:
        """Begin a job.

        Args:
            start: starts a command (default: as a new process, which has the libraries imported already where
                that can be).
            log: the file that what it says is appended to (default: it goes where ours goes).
        """
        self.job = job
        self._before, self._was_done = content_of(job.outputs[0]), read_stamp(stamp_path(job.outputs[0]))
        job.forget()
        self._process: Started | None = None
        if job.script == DELETE_WEIGHTS:
            write_text(job.outputs[0], "")
            # Of checkpoints too, where an arm keeps some.
            for path in Path(job.arguments[0]).rglob("*.safetensors"):
                path.unlink()
            return
        sys.stdout.flush()
        start = start or (WarmProcess if can_start_warm() else start_anew)
        self._process = start(job.command, env={**os.environ, PARENT_SAYS_STOPPED: "1"}, log=log)

    def send_signal(self, number: int) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def poll(self) -> int | None:
        """Return its exit code, negative where a signal ended it; None while it runs."""
        return self._ended(0 if self._process is None else self._process.poll())

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        code = 0 if self._process is None else self._process.wait()
        self._ended(code)
        return code

    def _ended(self, code: int | None) -> int | None:
        if code and self._was_done is not None and content_of(self.job.outputs[0]) == self._before:
            # It failed before it wrote anything: what is there is still what another command made.
            mark_made(self.job.outputs[0], self._was_done)
        return code


def run_job(job: "Job", stop: StopSignals, start: StartsCommands | None = None) -> int:
    """Run one job to its end and return its exit code, negative where a signal ended it; signals that `stop`
    receives are passed on to it.

    Args:
        start: as `BegunJob`.
    """
    if stop.received:
        return 128 + stop.received
    begun = BegunJob(job, start)
    stop.forward = begun.send_signal
    if stop.received:
        begun.send_signal(stop.received)
    try:
        return begun.wait()
    finally:
        stop.forward = None
