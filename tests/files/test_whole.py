"""A file under a name is whole, or what was there before."""

import errno
import json
import os
from pathlib import Path

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import whole_file, write_json, write_json_lines, write_text


def test_texts_json_and_lines_come_back_as_they_were_given(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "ä\n")
    write_json(tmp_path / "b.json", {"x": ["ß", None]})
    assert write_json_lines(tmp_path / "c.jsonl", ({"n": n} for n in range(3))) == 3
    assert write_json_lines(tmp_path / "d.jsonl", []) == 0
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa4\n"
    assert json.loads((tmp_path / "b.json").read_text()) == {"x": ["ß", None]}
    assert (tmp_path / "c.jsonl").read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    assert (tmp_path / "d.jsonl").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"new", "b.json", "c.jsonl", "d.jsonl"}


def test_half_a_surrogate_pair_is_written_where_only_ascii_is(tmp_path: Path) -> None:
    half = "half a pair: \ud83d"
    write_json(tmp_path / "a.json", [half], ascii_only=True)
    write_json_lines(tmp_path / "b.jsonl", [half], ascii_only=True)
    assert (
        json.loads((tmp_path / "a.json").read_text())
        == [half]
        == [json.loads((tmp_path / "b.jsonl").read_text())]
    )


def test_a_stream_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "before")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "file") as handle:
        handle.write(b"x" * 3_000_000)
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
def test_a_full_disk_is_said_with_the_file_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    write_text(tmp_path / "file", "before")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, full)
        with pytest.raises(UserError, match=r"file could not be written: No space left"):
            write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text() == "before" and len(list(tmp_path.iterdir())) == 1
