"""Locks: a file or folder that one process at a time holds.

The system lets go of a lock when its process ends, however it ends, so nothing stale is ever left."""

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds between two looks at a lock that another process holds.
LOOK_AGAIN = 0.2


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(
    path: Path,
    patience: float = math.inf,
    on_wait: Callable[[], None] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[int]:
    """Hold the lock of a folder, or of a file that is made where it is absent, as long as the block.

    A folder is locked itself, so that nothing is left in it. A file system without locks is taken as it is.

    Args:
        path: the folder or file; the folder of the file exists.
        patience: seconds to wait for another process; 0 to try once.
        on_wait: called once, before the first wait.
        sleep: waits some seconds; true ends the waiting (`threading.Event.wait`).

    Yields:
        The lock's file descriptor: a process that inherits it holds the lock too.

    Raises:
        Locked: another process still holds it after `patience` seconds, or `sleep` ended the waiting.
        OSError: the path cannot be opened.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        _take(descriptor, path, time.monotonic() + patience, on_wait, sleep)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(
    descriptor: int,
    path: Path,
    deadline: float,
    on_wait: Callable[[], None] | None,
    sleep: Callable[[float], object],
) -> None:
    waiting = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Locked(path) from None
        except OSError:
            return
        if on_wait and not waiting:
            on_wait()
        waiting = True
        if sleep(LOOK_AGAIN):
            raise Locked(path)
