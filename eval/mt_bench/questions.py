"""MT-Bench's questions, judge prompts and reference answers, in FastChat's files and by FastChat's rules.

Its own modules import the clients of every service when they are imported, so the rules (which categories
have a reference, which prompt judges which turn, at which temperature a category is answered) are stated here
again, and a test compares them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import read_records, snippet

DATA = Path("data/eval/mt_bench")
FETCH = "sh prepare_eval_data.sh mt_bench"
# Categories whose judge sees a reference answer.
WITH_REFERENCE = ("math", "reasoning", "coding")
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
OTHER_TEMPERATURE = 0.7
CATEGORIES = tuple(TEMPERATURES)
# A question's id: a number, also where a file spells it as a text, or a name.
QuestionId = int | str


@dataclass(frozen=True)
class Question:
    """A question: its turns, and reference answers to them where its category has some."""

    id: QuestionId
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None = None

    @property
    def temperature(self) -> float:
        """Return the temperature at which it is answered."""
        return TEMPERATURES.get(self.category, OTHER_TEMPERATURE)

    @property
    def judged_turns(self) -> tuple[int, ...]:
        """Return the turns that are judged: as in FastChat the second only where there are exactly two."""
        return (1, 2) if len(self.turns) == 2 else (1,)


@dataclass(frozen=True)
class JudgePrompt:
    """What a judge is given: `system`, and `template` to be filled in; `output` is the form of its
    verdict."""

    name: str
    system: str
    template: str
    output: str

    def filled(self, texts: dict[str, str]) -> str:
        """Return the template filled in with these texts.

        Raises:
            UserError: it asks for another one.
        """
        try:
            return self.template.format(**texts)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"the judge prompt {self.name} cannot be filled in ({type(error).__name__}: {error}); it may "
                f"hold {', '.join(sorted(texts))}; fetch the file with `{FETCH}`"
            ) from None


@dataclass(frozen=True)
class MtBench:
    """Everything that judging needs."""

    questions: list[Question]
    prompts: dict[str, JudgePrompt]


def load_benchmark(folder: Path = DATA) -> MtBench:
    """Read question.jsonl, judge_prompts.jsonl and reference_answer/gpt-4.jsonl of a folder.

    Raises:
        UserError: a file is missing, or is not what it should be.
    """
    answers = folder / "reference_answer" / "gpt-4.jsonl"
    references = {
        row["question_id"]: turns_of(where, row)
        for where, row in read_lines(answers, ("question_id", "choices"))
    }
    questions: list[Question] = []
    for where, row in read_lines(folder / "question.jsonl", ("question_id", "category", "turns")):
        if not isinstance(row["category"], str):
            raise UserError(f"{where}: category is {snippet(row['category'])}; it must be a name")
        if row["question_id"] in {question.id for question in questions}:
            raise UserError(f"{where}: holds question {row['question_id']} for the second time; remove one")
        turns = checked_texts(f"{where}: turns", row["turns"])
        reference = references.get(row["question_id"]) if row["category"] in WITH_REFERENCE else None
        if row["category"] in WITH_REFERENCE and (reference is None or len(reference) < len(turns)):
            raise UserError(
                f"{answers}: has no answer to every turn of question {row['question_id']}, whose category "
                f"({row['category']}) is judged with one; fetch the files with `{FETCH}`"
            )
        questions.append(Question(row["question_id"], row["category"], turns, reference))
    if not questions:
        raise UserError(f"{folder / 'question.jsonl'}: holds no question; fetch the files with `{FETCH}`")
    prompts = {
        row["name"]: JudgePrompt(
            row["name"], row["system_prompt"], row["prompt_template"], row["output_format"]
        )
        for _, row in read_lines(
            folder / "judge_prompts.jsonl", ("name", "system_prompt", "prompt_template", "output_format")
        )
    }
    needed = [
        prompt_name(kind, reference, turn)
        for kind in ("single", "pair")
        for reference in (False, True)
        for turn in (1, 2)
    ]
    missing = [name for name in needed if name not in prompts]
    if missing:
        raise UserError(
            f"{folder / 'judge_prompts.jsonl'}: lacks {', '.join(missing)}; fetch the file with `{FETCH}`"
        )
    return MtBench(questions, prompts)


def prompt_name(kind: str, reference: bool, turn: int) -> str:
    """Return FastChat's name of the prompt for a turn (1 or 2): `kind` is single or pair."""
    base = f"{kind}-math-v1" if reference else "single-v1" if kind == "single" else "pair-v2"
    return base if turn == 1 else f"{base}-multi-turn"


def read_lines(path: Path, fields: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    """Read the objects of a file, each of which has these fields, and where each stands.

    Raises:
        UserError: the file is missing, or an entry is no such object.
    """
    rows = read_records(path, f"MT-Bench's own files come with `{FETCH}`")
    for where, row in rows:
        lacking = [name for name in fields if name not in row]
        if lacking:
            raise UserError(f"{where}: has no {', '.join(lacking)}")
        if "question_id" in fields and (
            isinstance(row["question_id"], bool) or not isinstance(row["question_id"], int | str)
        ):
            raise UserError(
                f"{where}: question_id is {snippet(row['question_id'])}; it must be a number or a name"
            )
        if "question_id" in fields:
            row["question_id"] = _plain_id(row["question_id"])
    return rows


def _plain_id(value: QuestionId) -> QuestionId:
    """Return an id that is a number spelt as a text as that number."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,17}", text) else value


def turns_of(where: str, row: dict[str, Any], null_is_empty: bool = False) -> tuple[str, ...]:
    """Return the texts of an answer in FastChat's format: the turns of its first choice.

    With `null_is_empty`, a turn of null, an answer that was not given, is read as "".

    Raises:
        UserError: it has none.
    """
    try:
        turns = row["choices"][0]["turns"]
    except (KeyError, IndexError, TypeError):
        turns = None
    if null_is_empty and isinstance(turns, list):
        turns = ["" if turn is None else turn for turn in turns]
    return checked_texts(f"{where}: choices[0].turns", turns)


def checked_texts(where: str, turns: Any) -> tuple[str, ...]:
    """Return a list of texts as it was read.

    Raises:
        UserError: it is none.
    """
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise UserError(f"{where} is {snippet(turns)}; it must be a list of texts")
    return tuple(turns)
