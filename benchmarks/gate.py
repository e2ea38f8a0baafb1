"""Turns: a contender waits until it is its turn, and what the turn took is measured here."""

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Gate(Protocol):
    """What a contender calls before each turn, and once after the last."""

    def turn(self, **facts: Any) -> str:
        """End the turn before, with its `facts`, and return whose turn it is now."""

    def finished(self, **facts: Any) -> None:
        """End the last turn where the contender goes on to something else, such as saving."""


class Clock:
    """Measures a turn: this process's CPU time, or on CUDA the device's time between two events."""

    def __init__(self) -> None:
        import torch

        self._events: Any = None
        if torch.cuda.is_available():
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def start(self) -> None:
        """Begin a turn."""
        self._wall = time.perf_counter()
        if self._events:
            self._events[0].record()
        self._cpu = time.process_time()

    def stop(self) -> dict[str, float]:
        """End it: {"seconds": of the CPU, or of the device, "wall": seconds}."""
        seconds = time.process_time() - self._cpu
        if self._events:
            self._events[1].record()
            self._events[1].synchronize()
            seconds = self._events[0].elapsed_time(self._events[1]) / 1000
        return {"seconds": seconds, "wall": time.perf_counter() - self._wall}


class PairedGate:
    """Turns that another process gives, over a pipe."""

    def __init__(self, connection: Any):
        self._connection, self._clock, self._begun = connection, Clock(), False

    def turn(self, **facts: Any) -> str:
        """End the turn before, with its `facts`, and wait for the next; return the contender whose turn it
        is. After the last one the process ends here."""
        reading = self._clock.stop() if self._begun else {}
        self._connection.send({**reading, **facts})
        name = self._connection.recv()
        if name is None:
            # Nothing is saved, and no library's clean-up is waited for.
            os._exit(0)
        self._begun = True
        self._clock.start()
        return str(name)

    def finished(self, **facts: Any) -> None:
        """End the last turn."""
        self.turn(**facts)


class FreeGate:
    """Turns that follow each other without waiting: when the first begins and the last ends is written down,
    in seconds of this process's CPU time."""

    def __init__(self, path: Path):
        self._path = path
        self._marks: dict[str, float] = {}

    def turn(self, **facts: Any) -> str:
        """Note the first turn's beginning."""
        self._marks.setdefault("first_step", time.process_time())
        return ""

    def finished(self, **facts: Any) -> None:
        """Note the last turn's end."""
        self._marks["last_step"] = time.process_time()
        self._marks["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
        self._path.write_text(json.dumps(self._marks), encoding="utf-8")


def repeat(gate: Gate, once: Callable[[str], dict[str, Any]]) -> None:
    """Do the same work at every turn; `once` takes the contender's name and returns the turn's facts."""
    facts: dict[str, Any] = {}
    while True:
        facts = once(gate.turn(**facts))
