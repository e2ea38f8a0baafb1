"""A second outcome of the user's own: a command that reads responses and prints a number for each row."""

import math
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, is_made, mark_made, read_stamp
from instruction_modelling.files.whole import write_json
from instruction_modelling.rows.json_lines import read_appended

SCORES = "task_scores.json"


@dataclass(frozen=True)
class TaskScore:
    """The command, and the smallest gain in its score that matters; more is better."""

    command: str
    margin: float


def scores_of(task: TaskScore, responses: Path) -> dict[int, float]:
    """Return the score of each row of a responses.jsonl, by row; the command runs once for a file.

    Raises:
        UserError: it cannot be started, fails, or does not print one finite number for each response.
    """
    made = responses.with_name(SCORES)
    stamp = {"command": task.command, "responses": content_of(responses)}
    if not is_made([made], stamp):
        rows = [line["row"] for _, line in read_appended(responses).records]
        numbers = _numbers(task.command, responses, len(rows))
        write_json(made, {"scores": dict(zip(map(str, rows), numbers, strict=True))})
        mark_made(made, stamp)
    return {int(row): score for row, score in (read_stamp(made) or {})["scores"].items()}


def _numbers(command: str, responses: Path, count: int) -> list[float]:
    try:
        done = subprocess.run(
            [*shlex.split(command), str(responses)], stdout=subprocess.PIPE, text=True, check=False
        )
    except (OSError, ValueError) as error:
        raise UserError(f"--task_score {command}: {error}") from None
    if done.returncode:
        raise UserError(f"--task_score {command}: ended with code {done.returncode} on {responses}")
    lines = done.stdout.split()
    try:
        numbers = [float(line) for line in lines]
    except ValueError as error:
        raise UserError(
            f"--task_score {command}: prints something else than numbers for {responses}: {error}"
        ) from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"--task_score {command}: prints {len(numbers)} numbers for {count} responses ({responses}): "
            "it is to print one finite number for each line, in order"
        )
    return numbers
