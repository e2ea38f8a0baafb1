"""Drafts: what a format's converter makes of one row of the source."""

from typing import NamedTuple

from instruction_modelling.errors import RowRefused

Messages = list[dict[str, str]]


class Chat(NamedTuple):
    """One row to write; `dataset` and `id` where the source says them itself."""

    messages: Messages
    dataset: str | None = None
    id: str | None = None


class LeftOut(NamedTuple):
    """Rows that a setting (a limit, the best replies only) leaves out on purpose."""

    reason: str
    rows: int


Draft = Chat | LeftOut | RowRefused


def exchange(user: str, assistant: str) -> Chat:
    """Return a row of one question and one answer."""
    return Chat([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}])
