"""Rows that say the same: exact duplicates of instructions and of whole rows, and instructions with several
outputs.

Texts are compared after Unicode NFKC and case folding, without what no reader sees or needs and with white
space collapsed; words of scripts that write without spaces are set apart (`rows.scripts`).
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.scripts import set_apart, without_invisible

EXAMPLES = 20
# Rows of a group that are listed.
_ROWS_LISTED = 10
_TEXTS_KEPT = 10_000


def normalised(text: str) -> str:
    """Return the text as it is compared."""
    return " ".join(text.casefold().split()) if text.isascii() else _normalised(text)


# A text is asked for up to five times, and the words of Thai take long to find.
@lru_cache(maxsize=_TEXTS_KEPT)
def _normalised(text: str) -> str:
    folded = without_invisible(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(set_apart(folded).split())


def compared_instruction_text(conversation: Conversation) -> str:
    """Return what is asked in a row, as it is compared: its messages except the assistant's."""
    return "\n".join(
        normalised(message.content) for message in conversation.messages if message.role != "assistant"
    )


def compared_output_text(conversation: Conversation) -> str:
    """Return what is answered in a row, as it is compared: tool calls and reasoning too."""
    return "\n".join(
        normalised(
            "\n".join(
                filter(None, (message.reasoning_content, message.content, str(message.tool_calls or "")))
            )
        )
        for message in conversation.messages
        if message.role == "assistant"
    )


def compared_row_text(conversation: Conversation) -> str:
    """Return all that a row says, as it is compared."""
    return "\n".join(normalised(message.content) for message in conversation.messages)


def _digest(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def listed_rows(conversations: Sequence[Conversation], rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return the first rows of a group by line (1-based) and id."""
    return [{"line": conversations[row].line, "id": conversations[row].id} for row in rows[:_ROWS_LISTED]]


def groups_of(keys: Sequence[bytes]) -> list[list[int]]:
    """Return rows with equal keys, two or more, in order of their first row."""
    rows_of: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def group_summary(groups: Sequence[Sequence[int]], conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Return the numbers of groups, of rows in them and of extra rows (all but the first of each), and the
    rows of the largest groups."""
    largest = sorted(groups, key=lambda rows: (-len(rows), rows[0]))[:EXAMPLES]
    rows = sum(map(len, groups))
    return {
        "groups": len(groups),
        "rows": rows,
        "extra_rows": rows - len(groups),
        "largest": [{"size": len(group), "rows": listed_rows(conversations, group)} for group in largest],
    }


def exact_duplicates(conversations: Sequence[Conversation]) -> dict[str, Any]:
    """Return duplicates by instruction and by whole row, and the instructions with more than one output."""
    instructions = [
        _digest(
            *(
                f"{message.role} {normalised(message.content)}"
                for message in conversation.messages
                if message.role != "assistant"
            )
        )
        for conversation in conversations
    ]
    outputs = [_digest(compared_output_text(conversation)) for conversation in conversations]
    by_instruction = groups_of(instructions)
    by_row = groups_of([a + b for a, b in zip(instructions, outputs, strict=True)])
    conflicting = [rows for rows in by_instruction if len({outputs[row] for row in rows}) > 1]
    return {
        "instruction": group_summary(by_instruction, conversations),
        "row": group_summary(by_row, conversations),
        "conflicting": group_summary(conflicting, conversations),
    }
