"""A second outcome of the user's own: a command that reads responses and prints a number for each row."""

from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.files.stamps import content_of, is_made, mark_made, read_stamp
from instruction_modelling.files.whole import write_json
from instruction_modelling.generation.scores import task_scores
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
        UserError: as `generation.scores.task_scores`.
    """
    made = responses.with_name(SCORES)
    stamp = {"command": task.command, "responses": content_of(responses)}
    if not is_made([made], stamp):
        rows = [line["row"] for _, line in read_appended(responses).records]
        numbers = task_scores(task.command, responses, len(rows))
        write_json(made, {"scores": dict(zip(map(str, rows), numbers, strict=True))})
        mark_made(made, stamp)
    return {int(row): score for row, score in (read_stamp(made) or {})["scores"].items()}
