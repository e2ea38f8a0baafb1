"""A model's two-turn answers to the questions, in FastChat's format: the second is given with the first in
view."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.answer_facts import FAILED_ANSWER, failure_of, keep_facts, kept_facts, making
from eval.mt_bench.options import MtBenchOptions
from eval.mt_bench.questions import Question, QuestionId, read_lines, turns_of
from eval.names import folder_name
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import digest
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.generation.engine import (
    Completion,
    Engine,
    Request,
    Sampling,
    complete_all,
    open_engine,
)

logger = logging.getLogger("eval.mt_bench")

# FastChat's room for an answer, in tokens.
MAX_NEW_TOKENS = 1024


def answer_benchmark(
    options: MtBenchOptions, questions: list[Question], folder: Path
) -> tuple[Path, dict[str, Any]]:
    """Return the file of a model's answers to every turn of the questions, and how they were made.

    The file is model_answer/MODEL.jsonl below `folder`. The model is loaded only where they are not complete.

    Raises:
        UserError: as `answer_questions`, or the model cannot be loaded.
    """
    name = options.model_name
    output, facts_path = folder / "model_answer" / f"{folder_name(name)}.jsonl", folder / "generation.json"
    asked = digest([[question.id, question.turns, question.temperature] for question in questions])
    made = making(
        options, max_new_tokens=options.max_new_tokens, seed=options.seed, model_id=name, questions=asked
    )
    facts = kept_facts(facts_path, made, output)
    if facts is not None:
        logger.info("all %d questions are answered in %s already", len(questions), output)
        return output, facts
    with open_engine(options) as engine:
        turns = answer_questions(engine, questions, folder, options.max_new_tokens, options.seed)
        write_answers(output, name, turns)
        return output, keep_facts(
            facts_path, {**made, "engine": engine.name, "chat_format": engine.chat_format}, output
        )


def answer_questions(
    engine: Engine,
    questions: list[Question],
    folder: Path,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
) -> dict[QuestionId, list[Completion]]:
    """Answer every turn of every question, and return the turns by the question's id.

    Answers are kept in `folder` as they come; a run that is started again goes on where it was.

    Raises:
        UserError: as `Engine.complete`, or the files in `folder` are another model's.
    """
    answers: dict[QuestionId, list[Completion]] = {question.id: [] for question in questions}
    for turn in range(max(len(question.turns) for question in questions)):
        # One file for each temperature, since that belongs to what the completions depend on.
        for temperature in sorted({question.temperature for question in questions}):
            asked = [
                question
                for question in questions
                if question.temperature == temperature and len(question.turns) > turn
            ]
            if not asked:
                continue
            requests = [
                Request(
                    f"{question.id}_{turn + 1}",
                    engine.chat_ids(_chat(question, [answer.text for answer in answers[question.id]])),
                    seed,
                )
                for question in asked
            ]
            path = folder / "answers" / f"turn_{turn + 1}_temperature_{temperature:g}.jsonl"
            completions = complete_all(
                engine, requests, Sampling(max_new_tokens, temperature), path, f"answers to turn {turn + 1}"
            )
            for question, completion in zip(asked, completions, strict=True):
                answers[question.id].append(completion)
    return answers


def write_answers(path: Path, model_name: str, answers: Mapping[QuestionId, Sequence[Completion]]) -> None:
    """Write answers in FastChat's format, a line a question.

    Raises:
        UserError: they cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for question_id, completions in answers.items():
        turns = [completion.text.strip() for completion in completions]
        answer_id = hashlib.sha256(json.dumps([model_name, question_id, turns]).encode()).hexdigest()[:22]
        rows.append(
            {
                "question_id": question_id,
                "answer_id": answer_id,
                "model_id": model_name,
                "choices": [{"index": 0, "turns": turns}],
                "tstamp": time.time(),
                "stopped": [completion.stopped for completion in completions],
            }
        )
    write_json_lines(path, rows, ascii_only=True)
    cut = sum(not stopped for row in rows for stopped in row["stopped"])
    if cut:
        logger.warning("%d answers ran out of room before they ended; they are judged as they are", cut)


def _chat(question: Question, answers: list[str]) -> list[dict[str, str]]:
    """Return the messages up to and with the next turn."""
    messages = []
    for number, turn in enumerate(question.turns[: len(answers) + 1]):
        messages.append({"role": "user", "content": turn})
        if number < len(answers):
            messages.append({"role": "assistant", "content": answers[number].strip()})
    return messages


def failed_answers(path: Path) -> dict[tuple[QuestionId, int], str]:
    """Return the turns of a file of answers that are none, by the question's id and the turn (from 1): what
    each is, in words.

    That is FastChat's "$ERROR$" in place of an answer that a service did not give, and an empty text, unless
    the file says that the model itself ended there (`stopped`, as this code writes it)."""
    failed: dict[tuple[QuestionId, int], str] = {}
    for where, row in read_lines(path, ("question_id", "choices")):
        stopped = row.get("stopped")
        for number, turn in enumerate(turns_of(where, row, null_is_empty=True)):
            ended = isinstance(stopped, list) and stopped[number : number + 1] == [True]
            what = failure_of(turn)
            if what and not (ended and not turn.strip()):
                failed[row["question_id"], number + 1] = (
                    f"the answer to turn {number + 1} of {path} is {what}"
                )
    if failed:
        named = [f"{question}_{turn}" for question, turn in failed]
        logger.warning(
            "%s: %d answers are empty or %s, which is no answer: %s%s. They are not judged",
            path,
            len(failed),
            FAILED_ANSWER,
            ", ".join(named[:20]),
            ", ..." if len(named) > 20 else "",
        )
    return failed


def read_answers(path: Path, questions: list[Question]) -> dict[QuestionId, tuple[str, ...]]:
    """Return the turns of each answer of a file in FastChat's format, by the question's id.

    Raises:
        UserError: the file cannot be read, answers a question twice, or leaves a question's turn without an
        answer.
    """
    answers: dict[QuestionId, tuple[str, ...]] = {}
    for where, row in read_lines(path, ("question_id", "choices")):
        if row["question_id"] in answers:
            raise UserError(f"{path}: answers question {row['question_id']} twice; remove one of the two")
        answers[row["question_id"]] = turns_of(where, row, null_is_empty=True)
    missing = [
        question.id for question in questions if len(answers.get(question.id, ())) < len(question.turns)
    ]
    if missing:
        raise UserError(
            f"{path}: lacks answers to every turn of {len(missing)} questions "
            f"({', '.join(map(str, missing[:8]))}{', ...' if len(missing) > 8 else ''}): every question "
            "needs one, or the means are of other questions"
        )
    return answers
