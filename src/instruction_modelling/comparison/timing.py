"""What jobs take: their token-passes, and the time these take on this machine."""

import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.comparison.warm_start import WarmProcess, can_start_warm
from instruction_modelling.errors import UserError
from instruction_modelling.progress import SPREAD, TimeRange
from instruction_modelling.runs.pace import seconds_said

if TYPE_CHECKING:
    from instruction_modelling.comparison.jobs import Job
    from instruction_modelling.processes.signals import StopSignals

# What a job with a model takes besides its token-passes, where it was not measured.
SECONDS_TO_START = 4.0
# What is guessed of a job by jobs of another kind is right within so much, up or down.
GUESSED = 1.4
# By model, token-passes a second of training and the seconds that such a job takes to start.
_MEASURED: dict[str | None, tuple[float, float]] = {}


def expected_seconds(jobs: Sequence["Job"], rate: float) -> float:
    """Return the seconds that jobs will take at so many token-passes a second."""
    start = max((start for _, start in _MEASURED.values()), default=SECONDS_TO_START)
    return sum(job.passes / rate + (start if job.passes else 0) for job in jobs)


def guessed_time(seconds: float) -> TimeRange:
    """Return in what range jobs will take so many seconds that `expected_seconds` gives."""
    return TimeRange.around(seconds, GUESSED)


def cost_words(jobs: Sequence["Job"], rate: float | None) -> str:
    """Return what jobs take, in words: token-passes, and the time at so many a second where that is known."""
    words = f"about {sum(job.passes for job in jobs):,.0f} token-passes"
    if rate is None:
        return words
    return f"{words}, about {guessed_time(expected_seconds(jobs, rate))} at {rate:,.0f} a second"


class JobTimes:
    """What jobs took so far, by which those to come are judged."""

    def __init__(self, rate: float | None) -> None:
        """Begin at so many token-passes a second of training."""
        self._rate = rate or math.inf
        self._taken: dict[str, list[tuple[float, float]]] = {}

    def note(self, job: "Job", seconds: float) -> None:
        """Take down what a job took."""
        self._taken.setdefault(job.script, []).append((self._expected(job), seconds))

    def left(self, jobs: Sequence["Job"]) -> TimeRange:
        """Return what jobs will take: each by those of its script, or, where none was run, by all that
        were."""
        everything = [each for of_script in self._taken.values() for each in of_script if each[0]]
        left = TimeRange(0, 0)
        for job in jobs:
            taken = self._taken.get(job.script)
            known = taken or everything or [(1.0, 1.0)]
            expected, seconds = (sum(column) for column in zip(*known, strict=True))
            if expected:
                left += TimeRange.around(
                    self._expected(job) * seconds / expected, SPREAD if taken else GUESSED
                )
            elif taken:
                left += TimeRange.around(seconds / len(taken))
        return left

    def _expected(self, job: "Job") -> float:
        return expected_seconds([job], self._rate)


def calibrate(jobs: Iterable["Job"], stop: "StopSignals | None" = None) -> float | None:
    """Return the token-passes a second of training on this machine: what src/finetune.py --dry_run says of
    the first of the jobs that trains, measured once in a process, as is how long such a job takes to start;
    None where none trains.

    Args:
        stop: signals that it receives are passed on to that run.

    Raises:
        UserError: that run would be refused, or its trial step fails.
    """
    job = next((job for job in jobs if job.script == "finetune"), None)
    if job is None:
        return None
    if job.model not in _MEASURED:
        said = seconds_said(_output_of([*job.command, "--dry_run"], stop))
        if said is None:
            raise UserError(f"{job.name}: a trial step failed; see the messages above")
        seconds, start = said
        _MEASURED[job.model] = job.passes / seconds, start
    return _MEASURED[job.model][0]


def _output_of(command: Sequence[str], stop: "StopSignals | None") -> str:
    """Return what a command prints; nothing where it failed."""
    with tempfile.TemporaryDirectory() as place:
        printed = Path(place) / "printed"
        if can_start_warm():
            process: Any = WarmProcess(command, env=os.environ, stdout=printed)
        else:
            with open(printed, "wb") as file:
                process = subprocess.Popen(command, stdout=file, start_new_session=True)
        if stop is not None:
            stop.forward = process.send_signal
        try:
            return printed.read_text(encoding="utf-8") if process.wait() == 0 else ""
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            raise
        finally:
            if stop is not None:
                stop.forward = None
