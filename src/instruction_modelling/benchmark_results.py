"""What a model's result folder holds: the score of every benchmark, how it was made, and the score of every item.

    RESULTS/MODEL/nlp/**/results_*.json (lm-eval's), humaneval_t0.1, humaneval_t0.7, mt_bench, alpaca_eval_1, alpaca_eval_2 /results.json

What is missing is missing; what cannot be read is named.
"""

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.benchmark_suite import BENCHMARKS, HUMANEVAL, IN_PERCENT, JUDGED, Benchmark


@dataclass
class Score:
    """A score: percent (MT-Bench: 1 to 10), its standard error, how it was made, and how it differs from the paper's way."""

    value: float
    error: float | None
    about: dict[str, Any]
    differs: list[str] = field(default_factory=list)
    tasks: dict[str, float] = field(default_factory=dict)
    """Of each task, where there are several."""
    whole: bool = True
    """Whether every task of the benchmark is in it."""


@dataclass
class Results:
    """A model's scores by benchmark; `problems` names what was there and could not be used."""

    name: str
    folder: Path
    scores: dict[str, Score] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_results(folder: Path, corrected: bool = False) -> Results:
    """Everything that a result folder holds; `corrected`: see `benchmark_suite.AGGREGATIONS`."""
    results = Results(folder.name, folder)
    _read_nlp(results, corrected)
    _read_humaneval(results, corrected)
    _read_judged(results)
    return results


def _object(path: Path, results: Results) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        results.problems.append(f"{path}: cannot be read ({error})")
        return None
    if not isinstance(value, dict):
        results.problems.append(f"{path}: is not a JSON object")
        return None
    return value


# -- lm-eval ----------------------------------------------------------------------------------------------


def _read_nlp(results: Results, corrected: bool) -> None:
    """Of each task the newest result; lm-eval writes a file for each of its runs."""
    newest: dict[str, tuple[dict[str, Any], dict[str, Any], Path]] = {}
    for path in sorted((results.folder / "nlp").glob("**/results_*.json"), key=lambda path: path.name):
        run = _object(path, results)
        if run is None:
            continue
        if not isinstance(run.get("results"), dict) or not isinstance(run.get("config"), dict):
            results.problems.append(f"{path}: is not a result of lm-eval")
            continue
        for task, values in run["results"].items():
            newest[task] = (values, run, path)
    for benchmark in BENCHMARKS:
        own = {task: found for task, found in newest.items() if benchmark.has(task)}
        if own:
            _add_nlp(results, benchmark, own, corrected)


def _add_nlp(results: Results, benchmark: Benchmark, own: dict[str, Any], corrected: bool) -> None:
    metric = benchmark.corrected_metric if corrected and benchmark.corrected_metric else benchmark.metric
    scale = 1.0 if metric in IN_PERCENT else 100.0
    name, _, filtered = metric.partition(",")
    values, errors, weights = {}, {}, {}
    for task, (found, run, path) in own.items():
        value = found.get(metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            results.problems.append(f"{path}: {task} has no {metric}")
            continue
        error = found.get(f"{name}_stderr,{filtered}")
        values[task], errors[task] = value * scale, error * scale if isinstance(error, int | float) else None
        weights[task] = float(run.get("n-samples", {}).get(task, {}).get("effective") or 1) if benchmark.by_items else 1.0
    if not values:
        return
    whole = sum(weights.values())
    total = sum(values[task] * weights[task] for task in values) / whole
    known = [errors[task] for task in values]
    error = math.sqrt(sum((one * weights[task] / whole) ** 2 for task, one in zip(values, known, strict=True) if one is not None)) if all(
        one is not None for one in known) else None
    about, differs = _about_nlp(benchmark, {task: own[task] for task in values})
    if len(values) < benchmark.count:
        differs.insert(0, f"{len(values)} of {benchmark.count} tasks")
    results.scores[benchmark.key] = Score(total, error, {**about, "metric": metric}, differs, values if len(values) > 1 else {},
                                          whole=len(values) >= benchmark.count)


def _about_nlp(benchmark: Benchmark, own: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """How the tasks of a benchmark were run, and what of it is not as in the paper."""
    shots, versions, limits, chat, local, made = set(), set(), set(), False, False, set()
    for task, (_, run, _) in own.items():
        shots.add(run.get("n-shot", {}).get(task))
        versions.add(run.get("lm_eval_version"))
        limits.add(run["config"].get("limit"))
        made.add(run["config"].get("model"))
        chat = chat or bool(run.get("chat_template"))
        with suppress(AttributeError):
            local = local or run.get("configs", {}).get(task, {}).get("dataset_path") == "json"
    about = {"harness": f"lm-eval {', '.join(map(str, versions))}", "engine": ", ".join(map(str, made)),
             "num_fewshot": sorted(map(str, shots)), "chat_template": chat, "limit": sorted(map(str, limits)), "local_files": local}
    differs = []
    if benchmark.shots is not None and shots != {benchmark.shots}:
        differs.append(f"{'/'.join(map(str, sorted(shots, key=str)))} examples, not {benchmark.shots}")
    if limits != {None}:
        differs.append(f"only {'/'.join(f'{limit:g}' for limit in limits if limit)} items a task")
    if chat:
        differs.append("asked in the chat format")
    if local:
        differs.append("local files")
    return about, differs


# -- this project's own ------------------------------------------------------------------------------------


def _read_humaneval(results: Results, corrected: bool) -> None:
    """pass@1: the better of the two temperatures (as the paper), or that of temperature 0.1."""
    found = {}
    for temperature in (0.1, 0.7):
        path = results.folder / f"humaneval_t{temperature}" / "results.json"
        run = _object(path, results)
        if run is None:
            continue
        if not isinstance(run.get("pass@1"), int | float):
            results.problems.append(f"{path}: has no pass@1")
            continue
        found[temperature] = run
    if not found or (corrected and 0.1 not in found):
        return
    chosen = 0.1 if corrected else max(found, key=lambda temperature: found[temperature]["pass@1"])
    run = found[chosen]
    differs = [] if corrected or len(found) == 2 else [f"temperature {chosen} alone"]
    if run.get("tasks") not in (None, 164):
        differs.append(f"{run['tasks']} of 164 tasks")
    items = read_items(results.folder / f"humaneval_t{chosen}" / "items.jsonl")
    error = _standard_error([100 * score for score in items.values()]) if items else None
    about: dict[str, Any] = {name: run.get(name) for name in ("harness", "temperature", "top_p", "n", "chat_format", "engine", "model") if name in run}
    results.scores[HUMANEVAL] = Score(100 * run["pass@1"], error, about, differs)


def _standard_error(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


# The key of the score, and the judges of the paper's numbers.
_JUDGES = {"mt_bench": ("average", ("gpt-4", "gpt-4-0613", "gpt-4-0314")), "alpaca_eval_1": ("win_rate", ("gpt-4", "gpt-4-0613", "gpt-4-0314")),
           "alpaca_eval_2": ("win_rate", ("gpt-4-1106-preview",))}


def _read_judged(results: Results) -> None:
    for name in JUDGED:
        path = results.folder / name / "results.json"
        run = _object(path, results)
        if run is None:
            continue
        key, judges = _JUDGES[name]
        if not isinstance(run.get(key), int | float):
            results.problems.append(f"{path}: has no {key}")
            continue
        differs = [] if run.get("judge") in judges else [f"judged by {run.get('judge')}, not {judges[0]}"]
        if run.get("unparsed"):
            differs.append(f"{run['unparsed']} judgments without a verdict")
        whole = 80 if name == "mt_bench" else 805
        asked = run.get("questions") if name == "mt_bench" else run.get("instructions", run.get("n_total"))
        if isinstance(asked, int) and asked + 5 < whole:
            differs.append(f"{asked} of {whole} questions")
        about: dict[str, Any] = {part: run[part] for part in ("judge", "reference", "n", "n_total", "unparsed", "harness", "chat_format", "made") if part in run}
        error = run.get("standard_error")
        if name == "mt_bench":
            error = _standard_error(list(read_items(results.folder / name / "items.jsonl").values()))
        results.scores[name] = Score(float(run[key]), error, about, differs)


def read_items(path: Path) -> dict[str, float]:
    """The score of each item of items.jsonl; empty where there is none. Items without a score are left out."""
    scores: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["score"] is not None:
                scores[str(row["item"])] = float(row["score"])
    return scores


def item_scores(results: Results, corrected: bool = False) -> dict[str, dict[str, dict[str, float]]]:
    """Of each benchmark and task: the score of each item, in percent (MT-Bench: 1 to 10). Benchmarks whose score is not a mean over
    items (translation) are left out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for benchmark in BENCHMARKS:
        if benchmark.metric in IN_PERCENT:
            continue
        name, _, filtered = benchmark.metric.partition(",")
        for path in sorted((results.folder / "nlp").glob("**/samples_*.jsonl"), key=lambda path: path.name):
            task = path.name.removeprefix("samples_").rpartition("_")[0]
            if benchmark.has(task):
                scores = _samples(path, name, filtered)
                if scores:
                    found.setdefault(benchmark.key, {})[task] = scores
    temperatures = (0.1,) if corrected else (0.1, 0.7)
    rates = {temperature: read_items(results.folder / f"humaneval_t{temperature}" / "items.jsonl") for temperature in temperatures}
    best = max(rates, key=lambda temperature: sum(rates[temperature].values()))
    if rates[best]:
        found[HUMANEVAL] = {HUMANEVAL: {item: 100 * score for item, score in rates[best].items()}}
    for name in JUDGED:
        items = read_items(results.folder / name / "items.jsonl")
        if items:
            scale = 1.0 if name == "mt_bench" else 100.0
            found[name] = {name: {item: scale * score for item, score in items.items()}}
    return found


def _samples(path: Path, metric: str, filtered: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("filter", "none") == filtered:
                scores[str(row["doc_id"])] = 100 * float(row[metric])
    return scores
