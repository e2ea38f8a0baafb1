"""What is done about bad rows: the count by reason, and the limit."""

from pathlib import Path

import pytest
from row_files import GOOD_MESSAGES

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    bad_rows_table,
    check_bad_rows,
)


def bad_row(row: int, reason: str) -> BadRow:
    return BadRow(row, row + 1, None, reason, f"detail {row}")


def file_with(good: int, bad_rows: list[BadRow]) -> ConversationFile:
    conversations = [Conversation(row, row + 1, str(row), "d", GOOD_MESSAGES) for row in range(good)]
    return ConversationFile(Path("train.jsonl"), "", conversations, bad_rows, 0)


def test_bad_rows_table_counts_by_reason_most_first() -> None:
    bad_rows = [bad_row(0, "a"), bad_row(1, "b"), bad_row(2, "b"), bad_row(3, "c")]
    assert list(bad_rows_table(bad_rows).items()) == [("b", 2), ("a", 1), ("c", 1)]
    assert bad_rows_table([]) == {}


def test_bad_rows_within_the_limit_pass() -> None:
    check_bad_rows(file_with(5, []), 0)
    check_bad_rows(file_with(5, [bad_row(5, "a")]), 1)
    check_bad_rows(file_with(5, [bad_row(5, "a")]), 2, more_bad=[bad_row(1, "b")])


def test_bad_rows_past_the_limit_stop_with_reasons_places_and_a_way_on() -> None:
    with pytest.raises(UserError) as caught:
        check_bad_rows(
            file_with(5, [bad_row(6, "not JSON"), bad_row(7, "not JSON")]),
            2,
            more_bad=[bad_row(1, "no span")],
        )
    assert str(caught.value).split("\n") == [
        "train.jsonl: 3 of 7 rows cannot be used (2 not JSON, 1 no span)",
        "  train.jsonl:7: not JSON: detail 6",
        "    not JSON in 2 rows, also line 8",
        "  train.jsonl:2: no span: detail 1",
        "Mend these rows, or go on without them: --max_bad_rows 3",
    ]


def test_a_reason_that_many_rows_share_is_printed_once_with_its_first_places() -> None:
    with pytest.raises(UserError) as caught:
        check_bad_rows(file_with(1, [bad_row(row, "a") for row in range(1, 15)]), 0)
    places = ", ".join(f"line {line}" for line in range(3, 13))
    assert str(caught.value).split("\n")[1:] == [
        "  train.jsonl:2: a: detail 1",
        f"    a in 14 rows, also {places} and 3 more",
        "Mend these rows, or go on without them: --max_bad_rows 14",
    ]


def test_only_the_first_ten_reasons_are_listed() -> None:
    with pytest.raises(UserError) as caught:
        check_bad_rows(file_with(1, [bad_row(row, f"reason {row}") for row in range(1, 13)]), 0)
    lines = str(caught.value).split("\n")
    assert lines[10] == "  train.jsonl:11: reason 10: detail 10"
    assert lines[11:] == [
        "  ... and 2 more reasons",
        "Mend these rows, or go on without them: --max_bad_rows 12",
    ]


def test_no_limit_lets_a_file_without_a_good_row_pass() -> None:
    with pytest.raises(UserError, match="1 of 1 rows cannot be used") as caught:
        check_bad_rows(file_with(0, [bad_row(0, "a")]), 100)
    assert "No usable row is left" in str(caught.value)
    with pytest.raises(UserError, match="No usable row is left"):
        check_bad_rows(file_with(1, []), 100, more_bad=[bad_row(0, "a")])
