"""A connection whose other machine is gone without a word is noticed and broken; one whose other process is
merely busy is not. A filter that lets nothing through to the other end's socket stands for the cut cable."""

import contextlib
import ctypes
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instruction_modelling.errors import OwnError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.processes import connections
from instruction_modelling.processes.connections import ConnectionWatch
from instruction_modelling.training.at_hand import AtHand

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells of its connections")
SO_ATTACH_FILTER = 26


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """This end and the other end of a TCP connection on the loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as own,
    ):
        other, _ = server.accept()
        with other:
            own.settimeout(20)
            yield own, other


def cut(other: socket.socket) -> None:
    """Have the kernel drop whatever comes to that end, so that it answers nothing."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    other.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@contextlib.contextmanager
def watched(
    *own: socket.socket, seconds: int = 1, grace: float = 60.0
) -> Iterator[tuple[ConnectionWatch, list[str]]]:
    """A watch over these connections, and what it ended the process with."""
    said: list[str] = []
    mine = {each.getsockname() for each in own}
    watch = ConnectionWatch(seconds, "a test", lambda each: each.getsockname() in mine, grace, said.append)
    watch.start()
    try:
        yield watch, said
    finally:
        watch.lost = watch.lost or "the test is over"


def test_a_dead_connection_ends_for_whoever_waits_and_so_do_others_to_that_machine() -> None:
    with connection() as (own, other), connection() as (second, _), watched(own, second) as (watch, _):
        time.sleep(1.5)
        assert watch.lost is None
        began = time.monotonic()
        cut(other)
        assert own.recv(1) == b"" and second.recv(1) == b""
        assert time.monotonic() - began < 5 and watch.lost == "127.0.0.1"


def test_a_dead_connection_with_data_under_way_ends_too() -> None:
    with connection() as (own, other), watched(own) as (watch, _):
        cut(other)
        own.sendall(b"under way")
        assert own.recv(1) == b"" and watch.lost == "127.0.0.1"


def test_a_process_that_does_not_read_for_long_is_not_lost() -> None:
    """Its system answers that it has no room, at most twice a second, and that is no silence."""
    with connection() as (own, other), watched(own, seconds=2) as (watch, _):
        own.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += own.send(bytes(2**16))
        time.sleep(6)
        assert watch.lost is None
        own.setblocking(True)
        other.settimeout(20)
        while sent:
            sent -= len(other.recv(2**20))
        assert watch.lost is None


def test_a_process_that_does_not_end_by_the_broken_connection_is_ended() -> None:
    with connection() as (own, other), watched(own, grace=0.1) as (watch, said):
        cut(other)
        watch.join(20)
        assert (
            said == [watch.words()] and "a test: the machine at 127.0.0.1 has been silent for 1 s" in said[0]
        )


def test_the_run_says_which_machine_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    watch = ConnectionWatch(60)
    monkeypatch.setattr(connections, "_watch", watch)
    error = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    def told() -> str:
        with pytest.raises(OwnError) as raised, AtHand().told(FinetuneOptions("m")):
            raise error
        return str(raised.value)

    monkeypatch.setenv("WORLD_SIZE", "4")
    assert told() == "process 3: another process of this run has ended; its own message says why"
    watch.lost = "10.0.0.2"
    assert told() == (
        "process 3: the machine at 10.0.0.2 has been silent for 60 s (--lost_after): it is down, or the "
        "network to it is. Once that is mended, the same command on each machine goes on from the last "
        "checkpoint"
    )


@pytest.mark.parametrize(
    ("world", "here", "seconds", "watches"), [(4, 2, 60, True), (2, 2, 60, False), (4, 2, 0, False)]
)
def test_only_runs_on_several_machines_are_watched(
    world: int, here: int, seconds: int, watches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_watch", None)
    monkeypatch.setattr(ConnectionWatch, "start", lambda self: None)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    connections.watch_connections(seconds)
    assert (connections._watch is not None) == watches


def test_a_launcher_runs_under_the_watch_as_it_would_alone(tmp_path: Path) -> None:
    program = tmp_path / "launch"
    program.write_text(
        "import sys, threading\nif __name__ == '__main__':\n"
        "    print(sys.argv, [each.name for each in threading.enumerate()])\n    sys.exit(3)\n"
    )
    command = [sys.executable, "-m", "instruction_modelling.processes.launcher"]
    for seconds, threads in (("60", ["MainThread", "connections"]), ("0", ["MainThread"])):
        done = subprocess.run([*command, seconds, program, "--a", "b"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (3, "")
        assert done.stdout == f"{[str(program), '--a', 'b']} {threads}\n"
