"""A model's two-turn answers to the questions, in FastChat's format: the second is given with the first in
view."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

from eval.answer_facts import keep_facts, kept_facts, making
from eval.mt_bench.questions import Question, read_lines, turns_of
from instruction_modelling.errors import UserError
from instruction_modelling.generation.engine import (
    Completion,
    Engine,
    EngineOptions,
    Request,
    Sampling,
    complete_all,
    open_engine,
)
from instruction_modelling.runs.folder import write_aside

logger = logging.getLogger("eval.mt_bench")

# FastChat's room for an answer, in tokens.
MAX_NEW_TOKENS = 1024


def answered(
    options: EngineOptions,
    model_name: str,
    questions: list[Question],
    folder: Path,
    max_new_tokens: int,
    seed: int,
) -> tuple[Path, dict[str, Any]]:
    """The file of a model's answers to every turn of the questions, model_answer/MODEL.jsonl below `folder`,
    and how they were made. The model is loaded only where they are not complete.

    Raises:
        UserError: as `answer_questions`, or the model cannot be loaded.
    """
    output, facts_path = folder / "model_answer" / f"{model_name}.jsonl", folder / "generation.json"
    asked = hashlib.sha256(
        json.dumps([[one.id, one.turns, one.temperature] for one in questions]).encode()
    ).hexdigest()
    made = making(options, max_new_tokens=max_new_tokens, seed=seed, model_id=model_name, questions=asked)
    facts = kept_facts(facts_path, made, output)
    if facts is not None:
        logger.info("all %d questions are answered in %s already", len(questions), output)
        return output, facts
    with open_engine(options) as engine:
        answer_questions(engine, model_name, questions, folder, max_new_tokens, seed)
        return output, keep_facts(
            facts_path, {**made, "engine": engine.name, "chat_format": engine.chat_format}, output
        )


def answer_questions(
    engine: Engine,
    model_name: str,
    questions: list[Question],
    folder: Path,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
) -> Path:
    """Answers every turn of every question; the file of answers, model_answer/MODEL.jsonl below `folder`.

    Answers are kept as they come; a run that is started again goes on where it was.

    Raises:
        UserError: as `Engine.complete`, or the files in `folder` are another model's.
    """
    said: dict[int, list[Completion]] = {question.id: [] for question in questions}
    for turn in range(max(len(question.turns) for question in questions)):
        # One file for each temperature, since that belongs to what the completions depend on.
        for temperature in sorted({question.temperature for question in questions}):
            own = [
                question
                for question in questions
                if question.temperature == temperature and len(question.turns) > turn
            ]
            if not own:
                continue
            requests = [
                Request(
                    f"{question.id}_{turn + 1}",
                    engine.chat_ids(_chat(question, [one.text for one in said[question.id]])),
                    seed,
                )
                for question in own
            ]
            path = folder / "answers" / f"turn_{turn + 1}_temperature_{temperature:g}.jsonl"
            done = complete_all(
                engine, requests, Sampling(max_new_tokens, temperature), path, f"answers to turn {turn + 1}"
            )
            for question, completion in zip(own, done, strict=True):
                said[question.id].append(completion)
    output = folder / "model_answer" / f"{model_name}.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for question in questions:
        turns = [completion.text.strip() for completion in said[question.id]]
        name = hashlib.sha256(json.dumps([model_name, question.id, turns]).encode()).hexdigest()[:22]
        rows.append(
            {
                "question_id": question.id,
                "answer_id": name,
                "model_id": model_name,
                "choices": [{"index": 0, "turns": turns}],
                "tstamp": time.time(),
                "stopped": [completion.stopped for completion in said[question.id]],
            }
        )
    write_aside(output, "".join(json.dumps(row) + "\n" for row in rows))
    cut = sum(not stopped for row in rows for stopped in row["stopped"])
    if cut:
        logger.warning("%d answers ran out of room before they ended; they are judged as they are", cut)
    return output


def _chat(question: Question, answers: list[str]) -> list[dict[str, str]]:
    """The messages up to and with the next turn."""
    messages = []
    for place, turn in enumerate(question.turns[: len(answers) + 1]):
        messages.append({"role": "user", "content": turn})
        if place < len(answers):
            messages.append({"role": "assistant", "content": answers[place].strip()})
    return messages


def read_answers(path: Path, questions: list[Question]) -> dict[int, tuple[str, ...]]:
    """The turns of each answer of a file in FastChat's format.

    Raises:
        UserError: the file cannot be read, answers a question twice, or leaves a question's turn without an
        answer.
    """
    answers: dict[int, tuple[str, ...]] = {}
    for where, row in read_lines(path, ("question_id", "choices")):
        if row["question_id"] in answers:
            raise UserError(f"{path}: answers question {row['question_id']} twice; remove one of the two")
        answers[row["question_id"]] = turns_of(where, row)
    missing = [
        question.id for question in questions if len(answers.get(question.id, ())) < len(question.turns)
    ]
    if missing:
        raise UserError(
            f"{path}: lacks answers to every turn of {len(missing)} questions "
            f"({', '.join(map(str, missing[:8]))}"
            f"{', ...' if len(missing) > 8 else ''}): every question needs one, or the means are of other "
            "questions"
        )
    return answers
