import io

import pytest

from instruction_modelling.progress import Progress, TimeRange, counted, counting, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counts_have_their_singular() -> None:
    assert [counted(count, "row") for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(count, "process", "processes") for count in (1, 2)] == ["1 process", "2 processes"]


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.4, 60, 185, 3599, 3600, 7620)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
        "59 min 59 s",
        "1 h 00 min",
        "2 h 07 min",
    ]


def test_a_time_that_is_not_known_exactly_is_a_range_of_two_digits() -> None:
    words = {
        (0.004, 0.03): "1 s",
        (0.55, 1.23): "0.55 to 1.2 s",
        (41.3, 55.2): "41 to 55 s",
        (110, 119.4): "110 to 119 s",
        (60, 150): "1 to 2.5 min",
        (725, 961): "12 to 16 min",
        (900, 905): "15 min",
        (6900, 9000): "1.9 to 2.5 h",
        (3.6e6, 5.4e6): "1,000 to 1,500 h",
    }
    assert {ends: str(TimeRange(*ends)) for ends in words} == words
    assert TimeRange.around(60, 1.2) == TimeRange(50, 72)
    assert TimeRange(1, 2) * 3 + TimeRange(4, 5) == TimeRange(7, 11)


def test_a_log_gets_a_line_now_and_then_and_the_last_one() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(8, "rows", stream, interval=30, clock=clock)
    for seconds in (10, 30, 10, 5):
        clock.now += seconds
        progress.add(2)
    assert stream.getvalue() == ("4 of 8 rows (50%) in 40 s, about 40 s left\n8 of 8 rows (100%) in 55 s\n")
    assert progress.seconds == 55


def test_a_terminal_gets_one_line_that_leaves_no_rest_of_a_longer_one() -> None:
    clock, stream = Clock(), Terminal()
    progress = Progress(4, "rows", stream, clock=clock)
    clock.now += 2
    progress.add(1)
    progress.add(3)
    first, last = stream.getvalue().split("\r")[1:]
    assert first == "1 of 4 rows (25%) in 2 s, about 3 to 6 s left"
    assert last.rstrip() == "4 of 4 rows (100%) in 2 s" and last.endswith("\n")
    assert len(last) - 1 == len(first)


def test_a_message_in_between_stands_on_its_own_line() -> None:
    stream = Terminal()
    progress = Progress(4, "rows", stream)
    progress.break_line()
    assert stream.getvalue() == ""
    progress.add(1)
    progress.break_line()
    assert stream.getvalue().endswith("\n")


def test_work_of_a_moment_shows_nothing_and_longer_work_how_far_it_is() -> None:
    for seconds, lines in ((0.5, []), (2.0, ["\r2 of 4", "\r3 of 4", "\r4 of 4"])):
        clock, stream = Clock(), Terminal()
        items = []
        for item in counting(["a", "b", "c", "d"], "rows", 3.0, clock, stream):
            items.append(item)
            clock.now += seconds
        assert items == ["a", "b", "c", "d"]
        shown = [
            part.split(" rows")[0] for part in stream.getvalue().replace("\r", "\n\r").split("\n") if part
        ]
        assert shown == lines[1:]


@pytest.mark.parametrize("first", [1.0, 1.4, 2.0, 9.0])
def test_the_time_left_is_right_from_the_second_step_on_however_long_the_first_took(first: float) -> None:
    """Steps of 1 s behind a first one that takes longer: what is left is known to half of it."""
    now = [0.0]
    progress = Progress(100, "steps", io.StringIO(), clock=lambda: now[0])
    assert progress.left() == "unknown"
    now[0] += first
    progress.add(1)
    assert progress.left() == str(TimeRange(99 * first / 2, 99 * first))
    for step in range(2, 100):
        now[0] += 1.0
        progress.add(1)
        assert progress.left() == duration(100 - step)
