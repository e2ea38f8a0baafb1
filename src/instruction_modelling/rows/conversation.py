"""One row that was read, usable or not, and where rows stand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.rows.files import Unit
from instruction_modelling.rows.messages import Message


@dataclass(frozen=True)
class Conversation:
    """One usable row: where it stands in the file, and its messages."""

    row: int
    """0-based, blank lines not counted."""
    line: int
    """1-based; in a JSON array, the position of the element."""
    id: str
    dataset: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    plain: bool = False
    """Whether it is a prompt and a completion, held verbatim as a user's and an assistant's message, to be
    rendered without a chat format."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """What the row gives its chat template besides messages and tools (`chat_template_kwargs`)."""
    text_beside: str = ""
    """A text trained beside the conversation, which neither sees nor is seen by it; "" for none."""


@dataclass(frozen=True)
class BadRow:
    """A refused row; `row` and `line` as in `Conversation`."""

    row: int
    line: int
    id: str | None
    reason: str
    """A few words, to be counted."""
    detail: str
    """What is wrong, where in the row, and what to do."""


@dataclass(frozen=True)
class RowRange:
    """The rows of a `ConversationFile` that come from one file, from `first_row` on."""

    first_row: int
    path: Path
    unit: Unit


@dataclass(frozen=True)
class Member:
    """One of several files that were read as one."""

    name: str
    """The data set of its rows where they name no other."""
    path: Path
    first_row: int
    """The number of its first row among the rows of all."""
    sha256: str
