"""The reader of JSON Lines: records, and the lines of a file that a killed program was appending to."""

import gzip
from pathlib import Path

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import AppendedLines, read_appended, read_records


def written(folder: Path, content: bytes) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    return path


def test_records_are_named_by_their_line(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}')
    assert read_records(path) == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": 2})]


def test_records_of_an_array_are_named_by_their_position(tmp_path: Path) -> None:
    path = written(tmp_path, b' [{"a": 1},\n{"a": 2}]\n')
    assert read_records(path) == [(f"{path}: entry 0", {"a": 1}), (f"{path}: entry 1", {"a": 2})]


def test_a_gzip_file_is_read_as_its_contents(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert [record for _, record in read_records(path)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n[2]\n', ":2: is [2]; it must be an object. Make it again"),
        (b'{"a": 1\n', ":1: not JSON: Expecting ',' delimiter at column 8"),
        (b'{"a": 1, "a": 2}', ":1: repeated key: key 'a' is twice in one object"),
        (gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], ": cannot be read: Compressed file ended"),
    ],
)
def test_a_line_that_is_no_object_stops_the_reading_of_records(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError) as refused:
        read_records(path, "Make it again")
    assert str(refused.value).startswith(f"{path}{message}")
    assert str(refused.value).endswith(". Make it again")


def test_a_file_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl: cannot be read: No such file or directory$"):
        read_records(tmp_path / "absent.jsonl")
    assert read_appended(tmp_path / "absent.jsonl", mend=True) == AppendedLines([], [])


@pytest.mark.parametrize("tail", [b'{"b": ', b"12", b'{"b": "\xc3', b'"'])
def test_a_torn_last_line_is_told_apart_and_cut_off_when_mended(tmp_path: Path, tail: bytes) -> None:
    whole = b'{"a": 1}\nbroken\n\n[3]\n{"a": 2}\n'
    path = written(tmp_path, whole + tail)
    expected = AppendedLines([(1, {"a": 1}), (5, {"a": 2})], [2, 4], torn=True)
    assert read_appended(path) == expected
    assert path.read_bytes() == whole + tail
    assert read_appended(path, mend=True) == expected
    assert path.read_bytes() == whole


def test_a_whole_last_line_without_its_end_is_kept_and_ended_when_mended(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"a": 1}\n{"a": 2}')
    assert read_appended(path, mend=True) == AppendedLines([(1, {"a": 1}), (2, {"a": 2})], [])
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n'


def test_mending_a_whole_file_changes_nothing(tmp_path: Path) -> None:
    for content in (b"", b'{"a": 1}\n'):
        path = written(tmp_path, content)
        assert not read_appended(path, mend=True).torn
        assert path.read_bytes() == content
