"""Limits for what a stranger's chat template may take while it writes one conversation.

The sandbox that transformers renders templates in keeps them from files and attributes, not from loops that
never end or from texts that fill the memory. A timer's signal ends the first, also within Python's own long
computations: a timer of the processor's time, since on a busy machine the clock says nothing about a
template. A limit on the address space ends the second. Both are there on the main thread of a Unix alone:
elsewhere a template runs without them."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from instruction_modelling.errors import UserError

# Of the processor's time, for a conversation of a million characters; a shorter one gets the same, a
# longer one more.
SECONDS = 10.0
# Beside what the process has already; for each character of the conversation there is some more.
BYTES, BYTES_A_CHARACTER = 2**31, 64
# A text may be this long, or this many times as long as the conversation.
CHARACTERS, TIMES = 2**25, 50
_MEMORY = Path("/proc/self/statm")
# Seconds for which the size of the process is taken to be what it was.
_KNOWN_FOR = 0.2
# Seconds between the timer's signals.
_AGAIN = 0.1
# The limits of the process, soft and hard, as its user set them.
_ADDRESS_SPACE = resource.getrlimit(resource.RLIMIT_AS)

Result = TypeVar("Result")


class _TooLong(BaseException):
    """Raised by the timer's signal; not an `Exception`, which a template's environment may catch."""


class _Alarm:
    """The timer's signal. Its handler stays in place, since setting it takes as long as a short rendering."""

    def __init__(self) -> None:
        self.is_set = self.is_awaited = False

    def __call__(self, *_: object) -> None:
        """Handle the signal."""
        if self.is_awaited:
            raise _TooLong
        # Somebody else's, which ends a process that does not handle it.
        self.is_set = False
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPROF)

    def set(self) -> None:
        """Become the handler, if that was not done yet."""
        if not self.is_set:
            signal.signal(signal.SIGPROF, self)
            self.is_set = True


class _ProcessSize:
    """The bytes of address space that the process has, looked at a few times a second."""

    def __init__(self) -> None:
        self._looked, self._bytes = float("-inf"), 0

    def bytes(self, now: float) -> int:
        """Return the size, 0 where the system does not say it."""
        if not 0 <= now - self._looked < _KNOWN_FOR:
            try:
                self._bytes = int(_MEMORY.read_text().split()[0]) * resource.getpagesize()
            except (OSError, ValueError):
                self._bytes = 0
            self._looked = now
        return self._bytes

    def forget(self) -> None:
        """Look anew the next time."""
        self._looked = float("-inf")


_size, _alarm = _ProcessSize(), _Alarm()


def within_limits(render: Callable[[], Result], characters: int) -> Result:
    """Return what `render` returns.

    Args:
        render: writes one conversation, or compiles a template, and changes nothing.
        characters: of the conversation, which the limits grow with.

    Raises:
        UserError: it takes too much time or memory.
    """
    if threading.current_thread() is not threading.main_thread():
        return render()
    seconds = SECONDS * max(1.0, characters / 1e6)
    room = BYTES + BYTES_A_CHARACTER * characters
    try:
        try:
            return _within_memory(render, seconds, room)
        except MemoryError:
            # The process may have grown since its size was looked at.
            _size.forget()
            return _within_memory(render, seconds, room)
    except _TooLong:
        raise UserError(
            _said(f"takes more than {seconds:g} seconds of the processor's time", characters)
        ) from None
    except MemoryError:
        raise UserError(_said(f"takes more than {room / 2**30:.2g} GiB of memory", characters)) from None


def _within_memory(render: Callable[[], Result], seconds: float, room: int) -> Result:
    """Return what `render` returns; the process may grow by `room` bytes meanwhile, or to a lower limit of
    the user's."""
    size, (soft, hard) = _size.bytes(time.monotonic()), _ADDRESS_SPACE
    wanted = size + room
    if not size or any(limit != resource.RLIM_INFINITY and limit <= wanted for limit in (soft, hard)):
        return _within_time(render, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        return _within_time(render, seconds)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _within_time(render: Callable[[], Result], seconds: float) -> Result:
    """Return what `render` returns; a timer that was running goes on behind it.

    Raises:
        _TooLong: the time is over.
    """
    # Again and again: what a destructor raises is lost, and the signal may come in one.
    left, interval = signal.setitimer(signal.ITIMER_PROF, seconds, _AGAIN)
    started, others = time.process_time(), None
    if left:
        others = signal.signal(signal.SIGPROF, _alarm)
    else:
        _alarm.set()
    _alarm.is_awaited = True
    try:
        return render()
    finally:
        _alarm.is_awaited = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        if left:
            signal.signal(signal.SIGPROF, others)
            signal.setitimer(signal.ITIMER_PROF, max(left - (time.process_time() - started), 1e-3), interval)


def require_length(text: str, characters: Callable[[], int]) -> None:
    """Refuse a text that is far longer than its conversation.

    Args:
        characters: returns how many the conversation has; asked for a long text only.

    Raises:
        UserError: it is.
    """
    if len(text) > CHARACTERS and len(text) > TIMES * (given := characters()):
        raise UserError(_said(f"writes {len(text):,} characters", given))


def _said(what: str, characters: int) -> str:
    return (
        f"the chat template {what} for one conversation of {characters:,} characters: a loop of it does not "
        "end, or what it writes grows without bound; mend it, or name another (--chat_format)"
    )
