"""Rows that say the same: exact duplicates of instructions and of whole rows, and instructions with several
outputs.

Texts are compared after Unicode NFKC, case folding and the collapsing of white space.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any

from instruction_modelling.rows.conversations import Conversation

EXAMPLES = 20
# Rows of a group that are listed.
_ROWS_LISTED = 10


def normalised(text: str) -> str:
    """The text as it is compared."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def instruction_text(conversation: Conversation) -> str:
    """What is asked in a row: its messages but the assistant's, as they are compared."""
    return "\n".join(
        normalised(message.content) for message in conversation.messages if message.role != "assistant"
    )


def output_text(conversation: Conversation) -> str:
    """What is answered in a row, as it is compared: tool calls and reasoning too."""
    return "\n".join(
        normalised(
            "\n".join(
                filter(None, (message.reasoning_content, message.content, str(message.tool_calls or "")))
            )
        )
        for message in conversation.messages
        if message.role == "assistant"
    )


def row_text(conversation: Conversation) -> str:
    """All that a row says, as it is compared."""
    return "\n".join(normalised(message.content) for message in conversation.messages)


def _key(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def where(conversations: Sequence[Conversation], rows: Sequence[int]) -> list[dict[str, Any]]:
    """The first rows of a group by line (1-based) and id."""
    return [{"line": conversations[row].line, "id": conversations[row].id} for row in rows[:_ROWS_LISTED]]


def groups_of(keys: Sequence[bytes]) -> list[list[int]]:
    """Rows with equal keys, two or more, in order of their first row."""
    found: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return [rows for rows in found.values() if len(rows) > 1]


def summary(groups: Sequence[Sequence[int]], conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Groups, the rows in them, and the extra rows (all but the first of each), with the largest groups'
    rows."""
    largest = sorted(groups, key=lambda rows: (-len(rows), rows[0]))[:EXAMPLES]
    rows = sum(map(len, groups))
    return {
        "groups": len(groups),
        "rows": rows,
        "extra_rows": rows - len(groups),
        "largest": [{"size": len(group), "rows": where(conversations, group)} for group in largest],
    }


def exact_duplicates(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Duplicates by instruction and by whole row, and the instructions that have more than one output."""
    asked = [
        _key(*(f"{m.role} {normalised(m.content)}" for m in c.messages if m.role != "assistant"))
        for c in conversations
    ]
    answered = [_key(output_text(c)) for c in conversations]
    by_instruction = groups_of(asked)
    conflicting = [rows for rows in by_instruction if len({answered[row] for row in rows}) > 1]
    return {
        "instruction": summary(by_instruction, conversations),
        "row": summary(groups_of([a + b for a, b in zip(asked, answered, strict=True)]), conversations),
        "conflicting": summary(conflicting, conversations),
    }
