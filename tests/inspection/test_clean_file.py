"""`--write_clean`: the rows that can be used, as messages."""

import json
from pathlib import Path

import pytest
from inspections import Inspect
from script_loader import run_script

from instruction_modelling.rows.conversations import read_conversations

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_usable_rows_are_written_as_messages(inspect: Inspect, tmp_path: Path) -> None:
    # The second row cannot be read, the third cannot be rendered: the paper's format has no tools.
    call = {"name": "f", "arguments": "{}"}
    rows = [
        {"question": "Hi", "response": "Hello", "system_prompt": "Be kind.", "weight": 0.5},
        {"messages": []},
        {"messages": [CHAT[0], {"role": "assistant", "tool_calls": [call]}]},
        {"messages": CHAT, "id": 3},
    ]
    clean = tmp_path / "clean.jsonl"
    result = inspect(rows, "--write_clean", clean, "--max_bad_rows", 2)
    assert result.code == 0
    weighed = [message | {"weight": 0.5} for message in [{"role": "system", "content": "Be kind."}, *CHAT]]
    assert [json.loads(line) for line in clean.read_text(encoding="utf-8").splitlines()] == [
        {"id": "rows_0", "dataset": "rows", "messages": weighed},
        {"id": "3", "dataset": "rows", "messages": CHAT},
    ]
    assert len(read_conversations(clean).conversations) == 2


def test_it_is_never_the_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    flags = ("--train_file", path, "--tokenizer_name", "T", "--write_clean", path)
    assert run_script(monkeypatch, "inspect_weights", *flags) == 2
    assert f"--write_clean {path}: is the file of --train_file too" in capsys.readouterr().err
