"""MT-Bench's questions, judge prompts and reference answers, in FastChat's files and by FastChat's rules.

Its own modules import the clients of every service when they are imported, so the rules (which categories have a reference,
which prompt judges which turn, at which temperature a category is answered) are stated here again, and a test compares them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

DATA = Path("data/eval/mt_bench")
FETCH = "sh prepare_eval_data.sh mt_bench"
# Categories whose judge sees a reference answer.
WITH_REFERENCE = ("math", "reasoning", "coding")
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
                "humanities": 0.1}
OTHER_TEMPERATURE = 0.7
CATEGORIES = tuple(TEMPERATURES)


@dataclass(frozen=True)
class Question:
    """A question: its turns, and reference answers to them where its category has some."""

    id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None = None

    @property
    def temperature(self) -> float:
        """At which it is answered."""
        return TEMPERATURES.get(self.category, OTHER_TEMPERATURE)


@dataclass(frozen=True)
class JudgePrompt:
    """What a judge is told: `system`, and `template` to be filled in; `output` is the form of its verdict."""

    name: str
    system: str
    template: str
    output: str


@dataclass(frozen=True)
class Benchmark:
    """Everything that judging needs."""

    questions: list[Question]
    prompts: dict[str, JudgePrompt]


def load_benchmark(folder: Path = DATA) -> Benchmark:
    """question.jsonl, judge_prompts.jsonl and reference_answer/gpt-4.jsonl of a folder.

    Raises:
        UserError: a file is missing, or is not what it should be.
    """
    references = {row["question_id"]: tuple(row["choices"][0]["turns"])
                  for row in read_lines(folder / "reference_answer" / "gpt-4.jsonl", ("question_id", "choices"))}
    questions = []
    for row in read_lines(folder / "question.jsonl", ("question_id", "category", "turns")):
        needs = row["category"] in WITH_REFERENCE
        if needs and row["question_id"] not in references:
            raise UserError(f"{folder / 'reference_answer' / 'gpt-4.jsonl'}: has no answer to question {row['question_id']}, whose "
                            f"category ({row['category']}) is judged with one; fetch the files with `{FETCH}`")
        questions.append(Question(row["question_id"], row["category"], tuple(row["turns"]),
                                  references[row["question_id"]] if needs else None))
    prompts = {row["name"]: JudgePrompt(row["name"], row["system_prompt"], row["prompt_template"], row["output_format"])
               for row in read_lines(folder / "judge_prompts.jsonl", ("name", "system_prompt", "prompt_template", "output_format"))}
    wanted = [prompt_name(kind, reference, turn) for kind in ("single", "pair") for reference in (False, True) for turn in (1, 2)]
    missing = [name for name in wanted if name not in prompts]
    if missing:
        raise UserError(f"{folder / 'judge_prompts.jsonl'}: lacks {', '.join(missing)}; fetch the file with `{FETCH}`")
    return Benchmark(questions, prompts)


def prompt_name(kind: str, reference: bool, turn: int) -> str:
    """FastChat's name of the prompt for a turn (1 or 2): `kind` is single or pair."""
    base = f"{kind}-math-v1" if reference else "single-v1" if kind == "single" else "pair-v2"
    return base if turn == 1 else f"{base}-multi-turn"


def read_lines(path: Path, fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, each of which has these fields.

    Raises:
        UserError: the file is missing, or a line is no such object.
    """
    try:
        with path.open(encoding="utf-8") as handle:
            for line, text in enumerate(handle, start=1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    raise UserError(f"{path}:{line}: not JSON: {error}") from None
                lacking = [name for name in fields if not isinstance(row, dict) or name not in row]
                if lacking:
                    raise UserError(f"{path}:{line}: has no {', '.join(lacking)}")
                yield row
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; fetch MT-Bench's with `{FETCH}`, or check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
