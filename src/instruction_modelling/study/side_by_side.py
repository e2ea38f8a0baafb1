"""Work of several jobs each, side by side: one queue for all places, so that none stands idle while there is
work."""

import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from instruction_modelling.comparison.begun import BegunJob, StartsCommands
from instruction_modelling.comparison.jobs import Job
from instruction_modelling.errors import UserError
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import TimeRange

logger = logging.getLogger(__name__)
# Seconds between two looks at what runs.
_PAUSE = 0.02


@dataclass(frozen=True)
class QueuedWork:
    """Jobs that are done one after another, and what is done with what they leave."""

    name: str
    jobs: Callable[[], Sequence[Job]]
    """Asked for when it begins: what they are may follow from what it needs."""
    finish: Callable[[], object]
    """Called once all its jobs are done; may raise UserError."""
    needs: frozenset[str] = frozenset()
    """Names of work that is to be finished before it begins."""
    is_exploratory: bool = False
    """Whether it leads to nothing that is confirmed."""


@dataclass
class _Begun:
    work: QueuedWork
    waiting: list[Job]
    start: StartsCommands | None
    log: Path | None
    job: BegunJob | None = None

    def failure(self) -> str | None:
        """Go on with the next jobs as far as they are done; return why one failed, in words."""
        while True:
            if self.job is not None:
                code = self.job.poll()
                if code is None:
                    return None
                if code:
                    return f"{self.job.job.name}: exit code {code}{_last_line(self.log)}"
                self.job.job.mark_done()
                self.job = None
            if not self.waiting:
                return None
            self.job = BegunJob(self.waiting.pop(0), self.start, self.log)


@dataclass
class SideBySide:
    """A queue of work and the places where it is done."""

    places: Sequence[StartsCommands | None]
    """What starts the jobs in each place; None as `BegunJob` does it by itself."""
    stop: StopSignals
    until: float = math.inf
    """When, by `time.monotonic`, no work begins any more and what runs is ended."""
    logs: Path | None = None
    """The folder where what jobs say is kept, a file for each place (default: it goes where ours goes)."""
    failed: dict[str, str] = field(default_factory=dict)
    """By name of the work that failed, why; and of that which needs it."""

    def run(self, works: Sequence[QueuedWork]) -> list[str]:
        """Do all work, in its order as far as it needs nothing that is not finished; return the names of what
        is left: of all that was not begun, or not ended, before `until` or a signal to stop. A signal is
        passed on to all jobs."""
        waiting, done = list(works), set[str]()
        begun = dict[int, _Begun]()
        begin = time.monotonic()
        self.stop.forward = partial(_tell, begun)
        try:
            while waiting or begun:
                if self.stop.received:
                    return self._ended(begun, waiting)
                if time.monotonic() > self.until:
                    # Nothing of it is needed: it is done anew.
                    _tell(begun, signal.SIGKILL)
                    return self._ended(begun, waiting)
                self._fill(begun, waiting, done)
                assert begun or not waiting, f"needs what is no work: {waiting[0].name}"
                ended = self._ended_places(begun, done)
                for place in ended:
                    work = begun.pop(place).work
                    if work.name in done:
                        left = (time.monotonic() - begin) / len(done) * (len(waiting) + len(begun))
                        logger.info(
                            "%d of %d: %s is done; about %s left",
                            *(len(done), len(works), work.name, TimeRange.around(left)),
                        )
                if not ended and begun:
                    time.sleep(_PAUSE)
        finally:
            self.stop.forward = None
        return []

    def _fill(self, begun: dict[int, _Begun], waiting: list[QueuedWork], done: set[str]) -> None:
        for work in list(waiting):
            if of_failed := next((name for name in sorted(work.needs) if name in self.failed), None):
                self.failed[work.name] = f"needs {of_failed}, which failed"
                waiting.remove(work)
        free = [place for place in range(len(self.places)) if place not in begun]
        for work in list(waiting):
            if not free:
                return
            if work.needs <= done:
                place = free.pop(0)
                log = None if self.logs is None else self.logs / f"place-{place + 1}.log"
                begun[place] = _Begun(work, list(work.jobs()), self.places[place], log)
                waiting.remove(work)

    def _ended_places(self, begun: dict[int, _Begun], done: set[str]) -> list[int]:
        ended = []
        for place, one in begun.items():
            why = one.failure()
            if why is None and one.job is not None:
                continue
            if why is None:
                try:
                    one.work.finish()
                except UserError as error:
                    why = str(error)
            elif self.stop.received:
                # It was told to end.
                continue
            if why is None:
                done.add(one.work.name)
            else:
                self.failed[one.work.name] = why
                logger.info("%s failed: %s", one.work.name, why)
            ended.append(place)
        return ended

    def _ended(self, begun: dict[int, _Begun], waiting: Sequence[QueuedWork]) -> list[str]:
        for one in begun.values():
            if one.job:
                one.job.wait()
        return [*(one.work.name for one in begun.values()), *(work.name for work in waiting)]


def _tell(begun: Mapping[int, _Begun], number: int) -> None:
    """Send a signal to every process that runs."""
    for one in begun.values():
        if one.job:
            one.job.send_signal(number)


def _last_line(log: Path | None) -> str:
    if log is None:
        return "; see above"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line for line in reversed(lines) if line.strip()), "nothing")
    return f"; {log} ends with: {last.strip()}"
