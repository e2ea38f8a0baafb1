"""How far a long computation is: one line that is rewritten on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable
from typing import TextIO


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Counts towards `total` and says how much is done and how long the rest will take.

    Args:
        total: how many there are.
        noun: what is counted, in the plural.
        stream: where to write (default: standard error).
        interval: least seconds between two lines where the stream is not a terminal.
        clock: gives seconds.
        done: how many were done before.
        shown: whether to write at all (one process of many does).
    """

    def __init__(
        self,
        total: int,
        noun: str,
        stream: TextIO | None = None,
        interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        done: int = 0,
        shown: bool = True,
    ):
        self.total, self.noun, self.done = total, noun, done
        self._before, self._speaks = done, shown
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval, self._clock = interval, clock
        self._start = self._last = clock()
        self._shown = self._note = ""

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def on_terminal(self) -> bool:
        """Whether the stream is a terminal, on which one line is rewritten."""
        return self._terminal

    def left(self) -> str:
        """How long the rest will take, judged by what was done so far."""
        fresh = self.done - self._before
        return duration(self.seconds / fresh * (self.total - self.done)) if fresh else "unknown"

    def add(self, count: int, note: str = "") -> None:
        """`count` more are done; `note` is shown behind the count."""
        self.done += count
        if not self._speaks:
            return
        last = self.done >= self.total
        self._note = note
        if self._terminal:
            line = self._line()
            self._stream.write("\r" + line.ljust(len(self._shown)) + ("\n" if last else ""))
            self._shown = line
        elif last or self._clock() - self._last >= self._interval:
            self._last = self._clock()
            self._stream.write(self._line() + "\n")
        self._stream.flush()

    def break_line(self) -> None:
        """Ends the line on a terminal, so that another message can follow."""
        if self._terminal and self._shown and self.done < self.total:
            self._stream.write("\n")
            self._stream.flush()
            self._shown = ""

    def _line(self) -> str:
        share = self.done / self.total if self.total else 1.0
        text = f"{self.done} of {self.total} {self.noun} ({share:.0%}) in {duration(self.seconds)}"
        if self._before < self.done < self.total:
            text += f", about {self.left()} left"
        return f"{text}  {self._note}" if self._note else text
