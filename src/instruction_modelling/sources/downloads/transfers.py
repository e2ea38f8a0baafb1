"""How much of several files, fetched side by side, has come."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from instruction_modelling.progress import Progress

MB = 10**6


class TransferProgress:
    """Counts the bytes of all files on one line, in megabytes; what there is to come is known as servers
    tell."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._progress: Progress | None = None
        self._bytes = self._expected = self._shown = 0

    def received(self, count: int, expected: int | None) -> None:
        """`count` bytes have come; `expected` more are now known to come."""
        with self._mutex:
            self._bytes += count
            self._expected += expected or 0
            if self._progress is None:
                self._progress = Progress(1, "MB")
            self._progress.total = max(-(-self._expected // MB), self._bytes // MB + 1)
            whole = self._bytes // MB
            if whole > self._shown:
                self._progress.add(
                    whole - self._shown, f"{self._bytes / MB / max(self._progress.seconds, 1e-3):.1f} MB/s"
                )
                self._shown = whole

    def break_line(self) -> None:
        """Ends the line on a terminal, so that something else can be written."""
        with self._mutex:
            if self._progress is not None:
                self._progress.break_line()


@contextmanager
def messages_between(progress: TransferProgress) -> Iterator[None]:
    """Shows what the library has to say, each message on a line of its own, as long as the block."""

    class Handler(logging.StreamHandler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.break_line()
            super().emit(record)

    handler, logger = Handler(sys.stderr), logging.getLogger("instruction_modelling")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        progress.break_line()
        logger.removeHandler(handler)
        logger.setLevel(level)
