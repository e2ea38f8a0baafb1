"""Files of training rows, written for one test."""

import json
from pathlib import Path
from typing import Any

from instruction_modelling.rows.conversations import Conversation, Message, read_conversations

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
GOOD_MESSAGES = (Message("user", "Hi"), Message("assistant", "Hello"))
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def write(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    """A JSON Lines file: bytes as they are, other values as JSON, each on a line of its own."""
    path = folder / name
    path.write_bytes(
        b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    )
    return path


def read_one(folder: Path, row: Any) -> Conversation:
    """The one row's conversation; fails with the reason if it is refused."""
    file = read_conversations(write(folder, row))
    assert file.bad_rows == []
    assert len(file.conversations) == 1
    return file.conversations[0]


DEEP = b"[" * 100_000
