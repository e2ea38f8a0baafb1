"""A second outcome of the user's own: a command that reads responses and prints a number for each row."""

import logging
import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from instruction_modelling.decision.options import TryOptions
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, is_made, mark_made, read_stamp
from instruction_modelling.files.whole import write_json, write_json_lines
from instruction_modelling.generation.scores import task_scores
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.rows.json_lines import read_appended

logger = logging.getLogger(__name__)
SCORES = "task_scores.json"
# Rows that a command is tried on.
_TRIED = 3


@dataclass(frozen=True)
class TaskScore:
    """The command, and the smallest gain in its score that matters; more is better."""

    command: str
    margin: float
    max_new_tokens: int
    """Of the responses that it scores."""
    files: dict[str, str]
    """By its name in the command, the sha256 of each file: one that was changed is another score."""


def task_of(options: TryOptions) -> TaskScore | None:
    """Return the score that is asked for; None where none is.

    Raises:
        UserError: the command is not one that a shell could read.
    """
    if not options.task_score:
        return None
    try:
        words = shlex.split(options.task_score)
    except ValueError as error:
        raise UserError(f"--task_score {options.task_score}: {error}") from None
    # A word may be a program of its own, too long for a name.
    files = {word: content_of(Path(word)) for word in words if os.path.isfile(word)}
    return TaskScore(options.task_score, options.task_margin, options.max_new_tokens, files)


def try_score(task: TaskScore, rows: Sequence[Conversation]) -> None:
    """Run the command on a few rows with their own references for responses, before hours go into a model.

    Raises:
        UserError: as `generation.scores.task_scores`.
    """
    lines = []
    for row in rows[:_TRIED]:
        asked, answer = (
            next((message.content for message in reversed(row.messages) if message.role == role), "")
            for role in ("user", "assistant")
        )
        texts = {"prompt": asked, "instruction": asked, "response": answer, "reference": answer}
        lines.append({"row": row.row, "id": row.id, **texts, "tokens": len(answer), "finished": True})
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "responses.jsonl"
        write_json_lines(path, lines)
        numbers = task_scores(task.command, path, len(lines))
    said = ", ".join(f"{number:g}" for number in numbers)
    logger.info("your score of the references of %s: %s", counted(len(lines), "test row"), said)


def scores_of(task: TaskScore, responses: Path) -> dict[int, float]:
    """Return the score of each row of a responses.jsonl, by row; the command runs once for a file.

    Raises:
        UserError: as `generation.scores.task_scores`.
    """
    made = responses.with_name(SCORES)
    stamp = {**asdict(task), "responses": content_of(responses)}
    # What is done with a score is no part of it.
    del stamp["margin"]
    if not is_made([made], stamp):
        rows = [line["row"] for _, line in read_appended(responses).records]
        numbers = task_scores(task.command, responses, len(rows))
        write_json(made, {"scores": dict(zip(map(str, rows), numbers, strict=True))})
        mark_made(made, stamp)
    return {int(row): score for row, score in (read_stamp(made) or {})["scores"].items()}
