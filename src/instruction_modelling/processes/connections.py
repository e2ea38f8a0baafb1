"""Connections to other machines that have died without a word: a cable that was cut, a machine without power.

torch waits for another process as long as the longest work that one may do alone. Here it is not processes
that are asked but the systems of their machines: Linux probes a connection on which nothing happens, and the
Linux at its other end answers whatever its processes are busy with."""

import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Looks at every connection, and half as many probes of it, in the time after which it counts as dead.
LOOKS = 12
# Seconds that a process has to end by the error of its broken connection; a GPU that waits for another
# reports none.
GRACE = 30.0
ESTABLISHED = 1
# Probes without an answer after which Linux itself ends a connection: more than there will ever be.
MOST_PROBES = 127


def to_another_machine(connection: socket.socket) -> bool:
    """Return whether a connection's other end has another address than its own."""
    return bool(connection.getsockname()[0] != connection.getpeername()[0])


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """Give a socket of this process that other code owns; None where the descriptor is gone or is no TCP
    connection."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        yield None
        return
    connection = socket.socket(fileno=copy)
    with connection:
        tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
        yield connection if tcp else None


def _silence(connection: socket.socket) -> float:
    """Return the seconds for which the other end's system has left something of ours unanswered; 0 where it
    answers."""
    # struct tcp_info of linux/tcp.h: eight bytes, then numbers of 32 bits.
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    state, _, retransmits, probes, *_, last_answer = struct.unpack("8B13I", info)
    # Where the other process does not read, probes become rare but are answered: no silence.
    return last_answer / 1000 if state == ESTABLISHED and (retransmits or probes) else 0.0


def _say_and_end(words: str) -> None:
    print(f"error: {words}", file=sys.stderr, flush=True)
    os._exit(2)


class ConnectionWatch(threading.Thread):
    """A thread that breaks this process's dead connections, so that whoever waits for them gets an error.

    Args:
        seconds: how long the other end's system has to be silent.
        who: what this process is called in the message.
        counts: whether a connection is watched.
        grace: seconds until `end` is called in a process that has not ended by then.
        end: ends the process, saying the words that it is given.

    Attributes:
        lost: the address of the machine that was lost; None as long as none is.
    """

    def __init__(
        self,
        seconds: int,
        who: str = "",
        counts: Callable[[socket.socket], bool] = to_another_machine,
        grace: float = GRACE,
        end: Callable[[str], None] = _say_and_end,
    ) -> None:
        super().__init__(name="connections", daemon=True)
        self.seconds, self.who = seconds, who or f"process {os.environ.get('RANK', '0')}"
        self.lost: str | None = None
        self._counts, self._grace, self._end = counts, grace, end
        self._suspected: set[str] = set()

    def run(self) -> None:
        """Look at every connection until one is dead, and break all to its machine."""
        while self.lost is None:
            time.sleep(self.seconds / LOOKS)
            self._look()
        ends = time.monotonic() + self._grace
        while time.monotonic() < ends:
            # New ones too: a library may try again.
            self._look()
            time.sleep(min(1.0, self._grace))
        self._end(self.words())

    def words(self) -> str:
        """Return what happened, for a message."""
        return (
            f"{self.who}: the machine at {self.lost} has been silent for {self.seconds} s (--lost_after): it "
            "is down, or the network to it is. Once that is mended, the same command on each machine goes on "
            "from the last checkpoint"
        )

    def _look(self) -> None:
        silent = set()
        for link in Path("/proc/self/fd").iterdir():
            try:
                name = os.readlink(link)
                if not name.startswith("socket:"):
                    continue
                with _borrowed(int(link.name)) as connection:
                    if connection is None or not self._counts(connection):
                        continue
                    address = connection.getpeername()[0].removeprefix("::ffff:")
                    if self._is_silent(connection):
                        silent.add(name)
                        # A probe that was sent this instant has no answer yet: the next look decides.
                        if name in self._suspected:
                            self.lost = self.lost or address
                    if address == self.lost:
                        connection.shutdown(socket.SHUT_RDWR)
            # Closed by its owner meanwhile, or not connected.
            except OSError:
                continue
        self._suspected = silent

    def _is_silent(self, connection: socket.socket) -> bool:
        every = max(1, self.seconds * 2 // LOOKS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, every),
            (socket.TCP_KEEPINTVL, every),
            (socket.TCP_KEEPCNT, MOST_PROBES),
        ):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        return _silence(connection) > self.seconds


_watch: ConnectionWatch | None = None


def watch_connections(seconds: int) -> None:
    """Watch this process's connections to other machines from now on, where its launcher says that there are
    some.

    On other systems than Linux nothing is done.

    Args:
        seconds: how long another machine may be silent; 0: for ever.
    """
    global _watch
    several = int(os.environ.get("WORLD_SIZE", "1")) > int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if seconds and several and sys.platform == "linux" and _watch is None:
        _watch = ConnectionWatch(seconds)
        _watch.start()


def lost_machine() -> str | None:
    """Return, in words, which machine was lost; None as long as none is."""
    return _watch.words() if _watch is not None and _watch.lost is not None else None
