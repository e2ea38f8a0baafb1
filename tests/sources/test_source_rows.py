"""Raw files are read row by row, whatever their kind, and what cannot be read is said in its place."""

import gzip
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import write_lines, write_parquet, write_sheet

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion import arrays
from instruction_modelling.sources.conversion.readers import SourceFile

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": 'ä\n{}[]"\\'}]


def values(path: Path) -> list[Any]:
    return [row.value for row in SourceFile(path).rows()]


def places(path: Path) -> list[int]:
    return [row.line for row in SourceFile(path).rows()]


@pytest.mark.parametrize(
    "kind", ["lines", "array", "indented array", "byte order mark", "gzip", "gzip of an array", "parquet"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.data"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    contents = {
        "lines": lines,
        "array": json.dumps(ROWS).encode(),
        "indented array": json.dumps(ROWS, indent=3).encode(),
        "byte order mark": b"\xef\xbb\xbf" + lines,
        "gzip": gzip.compress(lines),
        "gzip of an array": gzip.compress(json.dumps(ROWS).encode()),
    }
    if kind == "parquet":
        write_parquet(path, ROWS)
    else:
        path.write_bytes(contents[kind])
    file = SourceFile(path)
    assert [row.value for row in file.rows()] == ROWS
    assert (file.sha256, file.bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    assert SourceFile(path).count() == 2


def test_a_sheet_gives_rows_named_by_its_first_row_without_the_empty_ones(tmp_path: Path) -> None:
    path = write_sheet(
        tmp_path / "s.xlsx", [["Prompt", "Output"], ["Hi", "Hello"], [None, None], ["Name?", None]]
    )
    assert values(path) == [{"Prompt": "Hi", "Output": "Hello"}, {"Prompt": "Name?", "Output": None}]
    assert places(path) == [1, 3]


def test_a_tab_separated_file_gives_lists_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "q_train.tsv"
    path.write_bytes(b'"quoted"\tb\tc\r\n\nd\te\n\xff\tx\ty\n')
    read = values(path)
    assert read[:2] == [['"quoted"', "b", "c"], ["d", "e"]]
    assert isinstance(read[2], RowRefused) and read[2].reason == "not UTF-8"
    assert places(path) == [1, 3, 4]


def test_a_bad_line_is_refused_in_its_place_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'{"a": 1}\n\n{"a": }\n{"a": "\xff"}\n{"a": NaN}\n' + b'{"a":' + b"[" * 100_000 + b'\n{"a": 2}'
    )
    read = values(path)
    assert [
        v.reason if isinstance(v, RowRefused) else v["a"]
        for v in read
        if isinstance(v, RowRefused) or v["a"] == v["a"]
    ] == [1, "not JSON", "not UTF-8", "nested too deeply", 2]
    assert "column 7" in read[1].args[0] and places(path) == [1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": ]', "broken in element 2"),
        ('[{"a": 1}, {"a": "never closed', "broken in element 2: Unterminated string"),
        ('[{"a": 1} {"a": 2}]', "broken in element 2"),
        ('[{"a": 1}', "broken in element 2"),
        ('[{"a": 1},]', "broken in element 2"),
        ('[{"a": 1}, ' + "[" * 300_000, "element 2 of the JSON array: nested too deeply"),
        ('[{"a": 1}]\n{"a": 2}', "more text follows the JSON array after 1"),
        ("", "is empty"),
        ("hello", "of no kind"),
    ],
)
def test_a_file_that_cannot_be_read_on_is_an_error_that_says_where(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        values(path)


def test_a_cut_off_gzip_is_an_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl.gz", ROWS * 1000)
    path.write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(UserError, match="cut off or damaged"):
        values(path)


@pytest.mark.parametrize("kind", ["sheet", "parquet"])
def test_a_damaged_table_is_an_error_in_words_wherever_it_is_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "whole"
    whole = (
        write_sheet(path.with_suffix(".xlsx"), [["Prompt", "Output"], ["Hi", "Hello"]])
        if kind == "sheet"
        else write_parquet(path, [{"question": f"q{i}", "response": "r" * 50} for i in range(50)])
    ).read_bytes()
    draw, damaged = random.Random(0), 0
    for number in range(60):
        at = draw.randrange(8, len(whole))
        path.write_bytes(
            whole[:at]
            + (b"" if number % 2 else bytes(draw.randrange(256) for _ in range(8)) + whole[at + 8 :])
        )
        try:
            SourceFile(path).count()
            values(path)
        except UserError as error:
            damaged += 1
            assert "download it again" in str(error)
    assert damaged > 40


def test_text_that_is_not_utf8_refuses_its_own_row_of_a_table_or_an_array(tmp_path: Path) -> None:
    import pyarrow.parquet
    from pyarrow.compute import CastOptions

    path = tmp_path / "t.parquet"
    texts = pyarrow.array([b"tex\xff" if i == 1203 else f"text {i}".encode() for i in range(1500)])
    texts = texts.cast(options=CastOptions(pyarrow.string(), allow_invalid_utf8=True))
    pyarrow.parquet.write_table(pyarrow.table({"a": texts}), path)
    read = values(path)
    assert [row for row, value in enumerate(read) if isinstance(value, RowRefused)] == [1203]
    assert read[1203].reason == "not UTF-8" and read[1204] == {"a": "text 1204"}
    path.write_bytes(b'[{"a": "x"}, {"a": "\xff"}, {"a": "y"}]')
    assert [value["a"].isascii() for value in values(path)] == [True, False, True]


def test_a_number_that_cannot_be_read_refuses_its_own_element(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text('[{"a": 1}, {"a": ' + "9" * 5000 + '}, {"a": -12}]')
    first, second, third = values(path)
    assert (first, third) == ({"a": 1}, {"a": -12}) and second.reason == "integer too long"


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(10**9), 10**9)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=40),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
            max_leaves=8,
        ),
        max_size=8,
    ),
    window=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_an_array_is_read_the_same_through_a_window_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    window: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    path = tmp_path_factory.mktemp("array") / "rows.json"
    path.write_text(" \n" + json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "WINDOW", window)
        assert values(path) == rows
        assert places(path) == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("kind", ["array", "lines"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    import tracemalloc

    peaks = []
    for count in (20_000, 60_000):
        path = tmp_path / f"{count}.json"
        rows = [
            json.dumps({"instruction": f"say {i} " + "word " * 40, "output": "yes"}) for i in range(count)
        ]
        path.write_text("[" + ",\n".join(rows) + "]" if kind == "array" else "\n".join(rows))
        tracemalloc.start()
        assert sum(1 for _ in SourceFile(path).rows()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The larger file alone is 14 MB.
    assert peaks[1] < peaks[0] + 1_000_000
