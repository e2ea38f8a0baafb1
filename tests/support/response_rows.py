"""Rows of every shape that a model answers, and their prompts."""

import json
from pathlib import Path
from typing import Any

from instruction_modelling.generation.prompts import PromptLimits, PromptMaker, RowPrompt, make_prompts
from instruction_modelling.models.loading import load_tokenizer
from instruction_modelling.rows.conversations import BadRow, read_conversations

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "messages": [
            {"role": "user", "content": "Which river flows through Paris?"},
            {"role": "assistant", "content": "The Seine."},
        ],
    },
    {
        "id": "b",
        "messages": [
            {"role": "system", "content": "Answer in a few words."},
            {"role": "user", "content": "Name the capital of Norway."},
            {"role": "assistant", "content": "Oslo."},
            {"role": "user", "content": "And </s> of Peru?"},
            {"role": "assistant", "content": "Lima."},
        ],
    },
    {"id": "c", "messages": [{"role": "user", "content": "Add 17 and 25."}]},
    {"id": "d", "prompt": "The sum is", "completion": "42."},
    {"id": "e", "instruction": "Explain how a bicycle stays upright, and say why it falls.", "output": ""},
]


def write_response_rows(path: Path) -> Path:
    """Write the rows as JSON Lines, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def prompts_of(model: Path, path: Path, **limits: Any) -> tuple[list[RowPrompt], list[BadRow]]:
    """Return the prompts of a file's rows for a model, and the rows that have none."""
    limits = {"max_seq_length": 2048, "max_new_tokens": 8, "positions": None, **limits}
    maker = PromptMaker(load_tokenizer(str(model)), "auto", None)
    return make_prompts(read_conversations(path).conversations, maker, PromptLimits(**limits))
