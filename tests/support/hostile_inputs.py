"""What the tools say to a hostile input, and the words expected in tests/hostile/messages.json."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.conversations import BadRow, read_conversations

_MESSAGES = Path(__file__).resolve().parents[1] / "hostile" / "messages.json"


def messages(group: str) -> dict[str, list[str]]:
    """The lines expected of each case of a group."""
    return json.loads(_MESSAGES.read_text(encoding="utf-8"))[group]


def lines_said(run: Callable[[], list[str]], folder: Path) -> list[str]:
    """What a case says, its error among the lines, with the test's folder as DIR. Any other error than the
    project's own goes through."""
    try:
        lines = run()
    except UserError as error:
        lines = [f"error: {error}"]
    except RowRefused as refused:
        lines = [f"refused: {refused.reason}: {refused.detail}"]
    return [line.replace(str(folder), "DIR") for line in lines]


def rows_said(path: Path) -> list[str]:
    """How many rows of a file are good, then each that is refused, and what was read by nothing."""
    file = read_conversations(path)
    lines = [f"{len(file.conversations)} good of {file.rows}, {file.blank_lines} blank"]
    lines += [f"{file.place(bad)}: {bad.reason}: {bad.detail}" for bad in file.bad_rows]
    return lines + ([f"not read: {file.unread_keys()}"] if file.unread_keys() else [])


def bad_row_said(bad: BadRow) -> str:
    """A refused row in a line."""
    return f"refused: {bad.reason}: {bad.detail}"


def not_as_root(folder: Path) -> None:
    """Skip a test about permissions where the user is root, whom none bind."""
    probe = folder / "probe"
    probe.write_text("")
    probe.chmod(0)
    try:
        probe.read_text()
    except PermissionError:
        return
    pytest.skip("this user may read and write everything (root)")
