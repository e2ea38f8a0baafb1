"""The error where a loss or a gradient is NaN or infinite."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import ConversationFile
from instruction_modelling.runs.checkpoint_folders import find_checkpoint

# Rows named, at most.
SHOWN = 20


def diverged(line: dict[str, Any], file: ConversationFile, rows: np.ndarray, folder: Path) -> UserError:
    """Return the error that ends a run: it names the step, its rows and the last checkpoint.

    Args:
        line: the step's line of metrics.jsonl.
        rows: int64[E], the step's rows of `file`, or of the files that it is.
        folder: the run folder.
    """
    numbers = sorted(int(row) for row in rows)
    places = groupby(numbers[:SHOWN], key=file.member_of)
    shown = ", of ".join(
        f"{member.path} in this step: " + ", ".join(str(number - member.first_row) for number in of_member)
        for member, of_member in places
    )
    if len(numbers) > SHOWN:
        shown += f", ... ({len(numbers)} rows)"
    return UserError(
        f"step {line['step']}: the loss is {line['loss']} and the gradient's norm {line['grad_norm']}; rows "
        f"of {shown}. Last checkpoint: {find_checkpoint('latest', folder) or 'none'}. "
        "Lower --learning_rate, set --clip_grad_norm, or look at these rows with src/inspect_weights.py"
    )
