"""The scores of single items, for what is computed from pairs of them: lm-eval's samples_*.jsonl, and
items.jsonl of the other parts."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table.layout import ResultPlaces
from eval.table.lm_eval_files import samples_of
from eval.table.suite import BENCHMARKS, HUMANEVAL, IN_PERCENT, JUDGED
from instruction_modelling.rows.json_lines import BLANK, line_values

Pair = tuple[str, str]


@dataclass
class TaskItems:
    """A task's items in one run.

    `scores`: by item, in percent (MT-Bench: 1 to 10). `pairs`: by item, the reference and the translation,
    where `corpus` (ter, chrf) is computed of all together. `contents`: by item, the hash of what is asked,
    where it is known; items of one are copies."""

    scores: dict[str, float] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    corpus: str | None = None


Items = dict[str, dict[str, TaskItems]]
"""By benchmark and task."""


def read_lines(path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file; name lines that are none (of a torn file) in `problems`."""
    try:
        with path.open("rb") as handle:
            for line, value in line_values(handle):
                if isinstance(value, dict):
                    yield value
                elif value is not BLANK:
                    problems.append(f"{path}:{line}: is not a JSON object; the item is left out")
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror or error})")


def finite_number(value: object) -> float | None:
    """Return a finite number as a float, None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def read_items(folder: Path, problems: list[str]) -> dict[str, float]:
    """Return the score of each item of a folder's items.jsonl; empty where there is none, or no results.json
    that the items are of. Items without a score are left out."""
    path = folder / "items.jsonl"
    if path.exists() and not (folder / "results.json").exists():
        problems.append(
            f"{path}: is left out, for there is no results.json beside it that its scores are of; run this "
            "benchmark again"
        )
        return {}
    scores: dict[str, float] = {}
    for row in read_lines(path, problems):
        score = finite_number(row.get("score"))
        if score is not None and row.get("item") is not None:
            if str(row["item"]) in scores:
                problems.append(f"{path}: holds the item {row['item']} more than once; the last one counts")
            scores[str(row["item"])] = score
        elif row.get("score", 0) is not None:
            problems.append(f"{path}: the line {json.dumps(row)[:80]} has no item and score")
    return scores


def mt_bench_questions(turns: dict[str, float], whole: bool = False) -> dict[str, float]:
    """Return the mean score of each question from those of its turns (QUESTION_TURN), which hang together;
    with `whole` only of questions that lack no turn, as a mean of other turns is no partner."""
    questions: dict[str, list[float]] = {}
    for item, score in turns.items():
        questions.setdefault(item.rpartition("_")[0] or item, []).append(score)
    least = max(map(len, questions.values()), default=0) if whole else 1
    return {
        question: sum(scores) / len(scores) for question, scores in questions.items() if len(scores) >= least
    }


def item_scores(
    layout: ResultPlaces,
    files: dict[str, Path],
    corrected: bool,
    temperature: float | None,
    problems: list[str],
) -> Items:
    """Return the items of every benchmark of a model.

    Args:
        layout: where the model's results are.
        files: of each task of lm-eval, the results file its score is from; its samples lie beside it.
        corrected: which metric of translation is asked for.
        temperature: of the HumanEval run whose score is in the table.
        problems: what could not be used is added here.
    """
    items_of: Items = {}
    for benchmark in BENCHMARKS:
        metric = benchmark.metric_of(corrected)
        name, _, filtered = metric.partition(",")
        for task, path in files.items():
            if benchmark.has(task):
                samples = samples_of(path, task)
                items = _samples(samples, name, filtered, metric in IN_PERCENT, problems)
                if items.scores or items.pairs:
                    items_of.setdefault(benchmark.key, {})[task] = items
    if temperature is not None:
        shares = read_items(layout.humaneval[temperature], problems)
        if shares:
            items_of[HUMANEVAL] = {
                HUMANEVAL: TaskItems({item: 100 * score for item, score in shares.items()})
            }
    for name in JUDGED:
        scores = read_items(layout.judged[name], problems)
        if scores:
            # MT-Bench's items are ratings of turns, AlpacaEval's are shares.
            items_of[name] = {
                name: TaskItems(
                    mt_bench_questions(scores, whole=True)
                    if name == "mt_bench"
                    else {item: 100 * score for item, score in scores.items()}
                )
            }
    return items_of


def _samples(path: Path, metric: str, filtered: str, corpus: bool, problems: list[str]) -> TaskItems:
    """Return lm-eval's samples of a task.

    An item is its number and its hash, so that items of other files are no partners."""
    items = TaskItems(corpus=metric if corpus else None)
    for row in read_lines(path, problems):
        if row.get("filter", "none") != filtered:
            continue
        item, value = f"{row.get('doc_id')} {row.get('doc_hash')}", row.get(metric)
        score = finite_number(value)
        if row.get("doc_hash") is not None:
            items.contents[item] = str(row["doc_hash"])
        if (
            corpus
            and isinstance(value, list)
            and len(value) == 2
            and all(isinstance(text, str) for text in value)
        ):
            items.pairs[item] = (value[0], value[1])
        elif not corpus and score is not None:
            items.scores[item] = 100 * score
        else:
            problems.append(f"{path}: item {row.get('doc_id')} has no {metric}")
    return items
