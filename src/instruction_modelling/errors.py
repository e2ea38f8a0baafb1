"""Errors a user can act on, and the one place that prints them."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from instruction_modelling.cpu import cycles_looked_for_seldom

if TYPE_CHECKING:
    import psutil


class UserError(Exception):
    """What a user can mend: the message says what is wrong, where, why and what to do."""


class OwnError(UserError):
    """What one process has met by itself, so that no other says it."""


class RowRefused(Exception):
    """Why one row of the data cannot be used: a short `reason` that can be counted, and a `detail` with what
    to do."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


# What torch, CUDA's libraries and the system say, in lower case.
_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has too little memory left."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or "os error 12" in str(error)
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(said in words for said in _MEMORY_WORDS)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _link_to_itself(error: BaseException) -> str | None:
    """Return the path in an error that `Path.resolve` raises, before Python 3.13, for a link that leads to
    itself; None for any other error."""
    words = "Symlink loop from "
    return str(error).removeprefix(words).strip("'") if str(error).startswith(words) else None


# The exit code of a program that Ctrl-C ended, as a shell names it.
EXIT_INTERRUPTED = 130
# For which a process that says nothing of an error waits for the one that does.
SECONDS_TO_SPEAK = 5.0
GOES_ON = "stopped; the same command goes on"
# In the environment of a process whose parent will say that it was stopped.
PARENT_SAYS_STOPPED = "IM_PARENT_SAYS_STOPPED"


def run_main(main: Callable[[], int | None], goes_on: bool = False) -> None:
    """Run a script's `main`, print a `UserError` as one message, and exit with its code (2 for an error, 130
    for Ctrl-C, which is one line too).

    Args:
        goes_on: the same command takes up what a stopped one has done.
    """
    try:
        with cycles_looked_for_seldom():
            code = main()
    except UserError as error:
        # Under a launcher every process raises it; one message is enough.
        if os.environ.get("RANK", "0") == "0" or isinstance(error, OwnError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            # The first one to end has its launcher end the others, and the one that speaks may be slower.
            time.sleep(SECONDS_TO_SPEAK)
        sys.exit(2)
    except KeyboardInterrupt:
        _end_interrupted(GOES_ON if goes_on else "stopped")
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; nothing is left to say.
        sys.stderr.close()
        sys.exit(141)
    except (RuntimeError, MemoryError, OSError) as error:
        if loop := _link_to_itself(error):
            print(f"error: {loop}: a link that leads to itself", file=sys.stderr, flush=True)
            sys.exit(2)
        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory: {first_line(error)}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(code or 0)


def _words(process: "psutil.Process") -> str:
    """Return the command of a process; "" where it has ended."""
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _end_interrupted(words: str) -> NoReturn:
    """Say that Ctrl-C has ended the program, end its children and itself."""
    import psutil

    # Once more would only interrupt the end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.get("RANK", "0") == "0" and PARENT_SAYS_STOPPED not in os.environ:
        # The terminal shows ^C, or half a line of progress.
        print(f"\n{words}" if sys.stderr.isatty() else words, file=sys.stderr, flush=True)
    words_of = {child: _words(child) for child in psutil.Process().children(recursive=True)}
    # It hears neither signal, and ends with us.
    children = [child for child, said in words_of.items() if "multiprocessing.resource_tracker" not in said]
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for child in children:
            # The one that jobs are forked from would print where Ctrl-C met it, and later not hear it.
            is_server = "multiprocessing.forkserver" in words_of[child]
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGTERM if is_server and sign == signal.SIGINT else sign)
        _, children = psutil.wait_procs(children, timeout=3)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # Threads that are still at work would be waited for.
    os._exit(EXIT_INTERRUPTED)
