"""How far a long computation is: one line that is rewritten on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO, TypeVar

Item = TypeVar("Item")
# What was measured on a machine without other work comes again within so much of it, up or down.
SPREAD = 1.15


def duration(seconds: float) -> str:
    """Return `42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclass(frozen=True)
class TimeRange:
    """Seconds that are not known exactly: `12 to 16 min`."""

    least: float
    most: float

    @classmethod
    def around(cls, seconds: float, spread: float = SPREAD) -> "TimeRange":
        """Return the range from a `spread`-th of so many seconds to `spread` times as many."""
        return cls(seconds / spread, seconds * spread)

    def __add__(self, other: "TimeRange") -> "TimeRange":
        """Return what two of them take together."""
        return TimeRange(self.least + other.least, self.most + other.most)

    def __mul__(self, factor: float) -> "TimeRange":
        """Return so many times the range."""
        return TimeRange(self.least * factor, self.most * factor)

    def __str__(self) -> str:
        """Return it in words, each end with two digits; one number where they are the same."""
        if self.most < 1:
            return "1 s"
        unit, seconds = ("s", 1) if self.most < 120 else ("min", 60) if self.most < 7200 else ("h", 3600)
        least, most = (
            f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
            for value in (self.least / seconds, self.most / seconds)
        )
        return f"{most} {unit}" if least == most else f"{least} to {most} {unit}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return `1 row` or `2,000 rows`; the plural has an s where none is given."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


@dataclass
class Progress:
    """Counts towards `total` and says how much is done and how long the rest will take."""

    total: int
    noun: str
    """What is counted, in the plural."""
    stream: TextIO | None = None
    """Where to write (default: standard error)."""
    interval: float = 30.0
    """Least seconds between two lines where the stream is not a terminal."""
    clock: Callable[[], float] = time.monotonic
    """Gives seconds."""
    done: int = 0
    """How many are done, those before the start included."""
    shown: bool = True
    """Whether to write at all (one process of many does)."""
    measured: TimeRange | None = None
    """What a count takes, where that is known apart from what the first one took."""

    def __post_init__(self) -> None:
        self._before = self.done
        self._stream = self.stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = self._last = self.clock()
        self._line_shown = self._note = ""
        self._first: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self._start

    @property
    def on_terminal(self) -> bool:
        """Return whether the stream is a terminal, on which one line is rewritten."""
        return self._terminal

    def left(self) -> str:
        """Return how long the rest will take: after the first count a range, by what was measured of a count
        or else from half of what the first took, which may hold what is done only once; later by all
        counts but the first, where that took longer."""
        fresh, rest = self.done - self._before, self.total - self.done
        if not fresh or self._first is None:
            return "unknown"
        first_count, first_seconds = self._first
        if fresh == first_count:
            most = first_seconds / first_count
            return str((self.measured or TimeRange(most / 2, most)) * rest)
        later = (self.seconds - first_seconds) / (fresh - first_count)
        return duration(min(later, self.seconds / fresh) * rest)

    def add(self, count: int, note: str = "") -> None:
        """Count `count` more as done; `note` is shown behind the count."""
        self.done += count
        if self._first is None and count:
            self._first = count, self.seconds
        if not self.shown:
            return
        last = self.done >= self.total
        self._note = note
        if self._terminal:
            line = self._line()
            self._stream.write("\r" + line.ljust(len(self._line_shown)) + ("\n" if last else ""))
            self._line_shown = line
        elif last or self.clock() - self._last >= self.interval:
            self._last = self.clock()
            self._stream.write(self._line() + "\n")
        self._stream.flush()

    def break_line(self) -> None:
        """End the line on a terminal, so that another message can follow."""
        if self._terminal and self._line_shown and self.done < self.total:
            self._stream.write("\n")
            self._stream.flush()
            self._line_shown = ""

    def _line(self) -> str:
        share = self.done / self.total if self.total else 1.0
        text = f"{self.done} of {self.total} {self.noun} ({share:.0%}) in {duration(self.seconds)}"
        if self._before < self.done < self.total:
            text += f", about {self.left()} left"
        return f"{text}  {self._note}" if self._note else text


def counting(
    items: Sequence[Item],
    noun: str,
    patience: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
    stream: TextIO | None = None,
) -> Iterator[Item]:
    """Yield the items, and show how far the work on them is, once it has taken `patience` seconds.

    Args:
        noun: what is counted, in the plural.
        clock: gives seconds.
        stream: where to write (default: standard error).
    """
    progress, begin = None, clock()
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None:
            progress.add(1)
        elif clock() - begin > patience and done < len(items):
            progress = Progress(len(items), noun, stream, clock=clock, done=done)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines; a terminal that is not UTF-8 shows other signs rather than none."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    for line in lines:
        print(line)


def say_written(*paths: str | None) -> None:
    """Say on the standard error which files were written; None stands for one that was not asked for."""
    if names := [path for path in paths if path]:
        print(f"written: {', '.join(names)}", file=sys.stderr)
