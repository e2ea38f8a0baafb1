"""Work side by side: what begins when, what waits for what, and what becomes of it when something fails, time
is up or a signal comes."""

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from instruction_modelling.comparison.jobs import Job
from instruction_modelling.errors import UserError
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.study.side_by_side import QueuedWork, SideBySide


class Process:
    def __init__(self, clock: "Clock", name: str) -> None:
        self.clock, self.name, self.left = clock, name, clock.takes[name]

    def poll(self) -> int | None:
        self.left -= 1
        if self.left >= 0:
            return None
        self.clock.events.append(f"-{self.name}")
        return self.clock.codes.get(self.name, 0)

    def wait(self) -> int:
        return -1

    def send_signal(self, number: int) -> None:
        self.clock.signals.append((self.name, number))


class Clock:
    """Processes that end after so many looks at them, with a code; what has begun and ended, in order."""

    def __init__(self, takes: dict[str, int], codes: dict[str, int] | None = None) -> None:
        self.takes, self.codes = takes, codes or {}
        self.events: list[str] = []
        self.signals: list[tuple[str, int]] = []
        self.kind = Process

    def __call__(self, command: Sequence[str], env: Mapping[str, str], log: Path | None = None) -> Process:
        name = command[-1]
        self.events.append(f"+{name}")
        if log is not None:
            log.write_text("a line\nerror: no such thing\n\n")
        return self.kind(self, name)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instruction_modelling.study.side_by_side._PAUSE", 0)


def work(folder: Path, name: str, *needs: str, ended: list[str] | None = None, jobs: int = 1) -> QueuedWork:
    """QueuedWork whose jobs are called a1, a2, ..."""
    made = [
        Job(f"job {name}{n}", "script", [f"{name}{n}"], [folder / f"{name}{n}"], [])
        for n in range(1, jobs + 1)
    ]
    finished = [] if ended is None else ended
    return QueuedWork(name, lambda: made, lambda: finished.append(name), frozenset(needs))


def test_a_free_place_takes_the_next_work_that_needs_nothing_unfinished(tmp_path: Path) -> None:
    clock, ended = Clock({"a1": 1, "a2": 1, "b1": 9, "c1": 1, "d1": 1, "e1": 1}), list[str]()
    works = [
        work(tmp_path, "a", jobs=2, ended=ended),
        work(tmp_path, "b", ended=ended),
        work(tmp_path, "c", "b", ended=ended),
        work(tmp_path, "d", ended=ended),
        QueuedWork("nothing", list, lambda: ended.append("nothing"), frozenset("b")),
        work(tmp_path, "e", "nothing", ended=ended),
    ]
    assert SideBySide([clock, clock], StopSignals()).run(works) == []
    # Jobs of one work follow each other; d goes before c, which waits for b.
    assert clock.events[:6] == ["+a1", "+b1", "-a1", "+a2", "-a2", "+d1"]
    assert clock.events.index("-b1") < clock.events.index("+c1")
    assert ended[:3] == ["a", "d", "b"] and ended.index("nothing") < ended.index("e")
    assert sorted(ended) == ["a", "b", "c", "d", "e", "nothing"]


def test_what_fails_is_told_with_its_last_words_and_stops_nothing_else(tmp_path: Path) -> None:
    def no_record() -> None:
        raise UserError("losses.jsonl: cannot be read")

    clock, ended = Clock({"a1": 1, "b1": 1, "d1": 1}, {"a1": 3}), list[str]()
    works = [
        work(tmp_path, "a", jobs=2, ended=ended),
        QueuedWork("unread", list, no_record),
        work(tmp_path, "b", ended=ended),
        work(tmp_path, "c", "a", ended=ended),
        work(tmp_path, "d", ended=ended),
    ]
    side_by_side = SideBySide([clock], StopSignals(), logs=tmp_path)
    assert side_by_side.run(works) == [] and ended == ["b", "d"]
    log = tmp_path / "place-1.log"
    assert side_by_side.failed == {
        "a": f"job a1: exit code 3; {log} ends with: error: no such thing",
        "unread": "losses.jsonl: cannot be read",
        "c": "needs a, which failed",
    }


def test_when_time_is_up_nothing_begins_and_what_runs_is_ended(tmp_path: Path) -> None:
    clock, ended = Clock({"a1": 0, "b1": 10**9}), list[str]()
    works = [work(tmp_path, name, ended=ended) for name in "abc"]
    until = time.monotonic() + 0.2
    side_by_side = SideBySide([clock], StopSignals(), until)
    assert side_by_side.run(works) == ["b", "c"] and ended == ["a"]
    assert clock.signals == [("b1", signal.SIGKILL)] and "+c1" not in clock.events
    assert side_by_side.failed == {}


def test_a_signal_is_passed_on_to_all_that_runs_and_nothing_more_begins(tmp_path: Path) -> None:
    class Interrupted(Process):
        def poll(self) -> None:
            super().poll()
            if (self.name, self.left) == ("a1", 5):
                signal.raise_signal(signal.SIGINT)

    clock = Clock(dict.fromkeys(("a1", "b1"), 10))
    clock.kind = Interrupted
    with StopSignals() as stop:
        side_by_side = SideBySide([clock] * 2, stop)
        assert side_by_side.run([work(tmp_path, name) for name in "abc"]) == ["a", "b", "c"]
        assert stop.received == signal.SIGINT and stop.forward is None
    assert sorted(set(clock.signals)) == [("a1", signal.SIGINT), ("b1", signal.SIGINT)]
    assert side_by_side.failed == {} and clock.events == ["+a1", "+b1"]
