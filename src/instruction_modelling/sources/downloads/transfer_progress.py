"""Progress of several transfers side by side, on one line."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from instruction_modelling.progress import Progress

MB = 10**6


class TransferProgress:
    """The bytes of all files on one line, in megabytes; the total grows as servers say how long files are."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._progress: Progress | None = None
        self._bytes = self._expected = self._shown = 0

    def received(self, count: int, expected: int | None) -> None:
        """Count `count` bytes that have come, and `expected` more that are now known to come."""
        with self._mutex:
            self._bytes += count
            self._expected += expected or 0
            if self._progress is None:
                self._progress = Progress(1, "MB")
            self._progress.total = max(-(-self._expected // MB), self._bytes // MB + 1)
            megabytes = self._bytes // MB
            if megabytes > self._shown:
                speed = self._bytes / MB / max(self._progress.seconds, 1e-3)
                self._progress.add(megabytes - self._shown, f"{speed:.1f} MB/s")
                self._shown = megabytes

    def break_line(self) -> None:
        """End the line on a terminal, so that something else can be written."""
        with self._mutex:
            if self._progress is not None:
                self._progress.break_line()


@contextmanager
def messages_between(progress: TransferProgress) -> Iterator[None]:
    """Show what the library logs, each message on a line of its own, as long as the block."""

    class LineBreakingHandler(logging.StreamHandler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.break_line()
            super().emit(record)

    handler, logger = LineBreakingHandler(sys.stderr), logging.getLogger("instruction_modelling")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        progress.break_line()
        logger.removeHandler(handler)
        logger.setLevel(level)
