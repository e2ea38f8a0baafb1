"""Rows that an arm selects are those within its bounds, by the word count of the ratio sweeps; too few are
refused."""

import json
from pathlib import Path

import pytest
from row_files import write

from instruction_modelling.arms.rows import selected, write_arm_rows
from instruction_modelling.arms.rules import ArmRules, Selection
from instruction_modelling.errors import UserError
from instruction_modelling.sources.conversion.subsets import index_rows, nearest_row_ratio

# Words of question and answer; a role's header is one word more, of each.
LENGTHS = [(1, 9), (3, 3), (7, 1), (4, 3), (9, 1), (1, 1)]
RATIOS = [(asked + 1) / (said + 1) for asked, said in LENGTHS]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    chats = (
        {"prompt": "word " * asked, "response": "word " * said, "id": str(number)}
        for number, (asked, said) in enumerate(LENGTHS)
    )
    return write(tmp_path, *chats)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (Selection(rows=2), [0, 1]),
        (Selection(ratio_at_least=1.0), [i for i, ratio in enumerate(RATIOS) if ratio >= 1]),
        (Selection(ratio_below=1.0), [0]),
        (Selection(ratio_at_least=1.0, ratio_below=4.0, rows=2), [1, 3]),
    ],
)
def test_rows_within_bounds_in_order(rows: Path, select: Selection, expected: list[int]) -> None:
    assert selected(select, rows, 0) == expected


def test_rows_nearest_to_a_ratio_are_those_of_the_ratio_sweeps(rows: Path) -> None:
    nearest = nearest_row_ratio(index_rows(rows), 4.0, 5)[:3].tolist()
    assert selected(Selection(ratio=4.0, rows=3), rows, 5) == nearest and nearest[0] == 2


def test_what_is_written_is_those_rows(rows: Path, tmp_path: Path) -> None:
    made = tmp_path / "own.jsonl"
    write_arm_rows(ArmRules(Selection(ratio_below=1.0), "unrelated-text-beside"), rows, made, 0)
    (row,) = map(json.loads, made.read_text().splitlines())
    assert row["id"] == "0" and row["messages"][0]["content"].split() == ["word"] and row["text_beside"]


@pytest.mark.parametrize(
    ("select", "problem"),
    [
        (Selection(ratio_at_least=50.0), "select leaves 0 of 6 rows"),
        (Selection(rows=7), "select leaves 6 of 6 rows"),
        (Selection(ratio=1.0, ratio_below=0.1, rows=1), "length ratios are 0.20 to 5.00; 1 are needed"),
    ],
)
def test_too_few_rows_are_refused_with_the_ratios_there_are(
    rows: Path, select: Selection, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        selected(select, rows, 0)
