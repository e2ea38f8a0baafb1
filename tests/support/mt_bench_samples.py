"""A small MT-Bench, answers to it and judgments of them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from instruction_modelling.errors import run_main


def run_module(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: object) -> int:
    """Run a module's main with these arguments, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(module.main)
    return int(stopped.value.code or 0)


def write_benchmark(folder: Path) -> Path:
    """Write a benchmark of four questions, two of them with references, and return its folder."""
    (folder / "reference_answer").mkdir(parents=True)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    categories = ["writing", "math", "coding", "stem"]
    write(
        "question.jsonl",
        [
            {"question_id": 81 + n, "category": name, "turns": [f"First {name}?", f"Second {name}?"]}
            for n, name in enumerate(categories)
        ],
    )
    write(
        "reference_answer/gpt-4.jsonl",
        [
            {"question_id": n, "choices": [{"index": 0, "turns": [f"ref {n} one", f"ref {n} two"]}]}
            for n in (82, 83)
        ],
    )
    prompts = []
    for name, template in (
        ("single-v1", "Q {question} A {answer}"),
        ("single-math-v1", "Q {question} R {ref_answer_1} A {answer}"),
        ("single-v1-multi-turn", "{question_1} {answer_1} {question_2} {answer_2}"),
        (
            "single-math-v1-multi-turn",
            "{question_1} {ref_answer_1} {question_2} {ref_answer_2} {answer_1} {answer_2}",
        ),
    ):
        prompts.append(
            {
                "name": name,
                "type": "single",
                "system_prompt": "Be fair.",
                "prompt_template": template,
                "output_format": "[[rating]]",
            }
        )
    for name, template in (
        ("pair-v2", "{question} a={answer_a} b={answer_b}"),
        ("pair-math-v1", "{question} {ref_answer_1} a={answer_a} b={answer_b}"),
        (
            "pair-v2-multi-turn",
            "{question_1} {question_2} a={answer_a_1} {answer_a_2} b={answer_b_1} {answer_b_2}",
        ),
        (
            "pair-math-v1-multi-turn",
            "{question_1} {question_2} {ref_answer_1} {ref_answer_2} a={answer_a_1} {answer_a_2} "
            "b={answer_b_1} {answer_b_2}",
        ),
    ):
        prompts.append(
            {
                "name": name,
                "type": "pairwise",
                "system_prompt": "Be fair.",
                "prompt_template": template,
                "output_format": "[[A]]",
            }
        )
    write("judge_prompts.jsonl", prompts)
    return folder


def write_answers(path: Path, text: str, ids: tuple[int, ...] = (81, 82, 83, 84)) -> Path:
    """Write answers to these questions in FastChat's format, and return the path."""
    path.write_text(
        "".join(
            json.dumps(
                {
                    "question_id": n,
                    "answer_id": "x",
                    "model_id": "m",
                    "choices": [{"index": 0, "turns": [f"{text} {n} one", f"{text} {n} two"]}],
                }
            )
            + "\n"
            for n in ids
        )
    )
    return path


def row(
    question: int,
    turn: int,
    score: Any,
    model: str = "m",
    judge: Any = ("gpt-4", "single-v1"),
    **further: Any,
) -> dict[str, Any]:
    """Return a judgment in FastChat's format."""
    return {
        "question_id": question,
        "model": model,
        "judge": list(judge),
        "judgment": "x",
        "score": score,
        "turn": turn,
        **further,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a file of judgments, a line each, and return the path."""
    path.write_text("".join(json.dumps(judgment) + "\n" for judgment in rows))
    return path
