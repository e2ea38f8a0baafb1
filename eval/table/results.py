"""What a model's result folder holds: the score of every benchmark, and how it was made.

    RESULTS/MODEL/nlp/**/results_*.json (lm-eval's), humaneval_t0.1, humaneval_t0.7, mt_bench, alpaca_eval_1,
    alpaca_eval_2 /results.json

What is missing is missing; what cannot be read is named.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table.items import Items, item_scores, mt_bench_questions, number, read_items
from eval.table.suite import (
    BENCHMARKS,
    FIXED_TEMPERATURE,
    HUMANEVAL,
    IN_PERCENT,
    JUDGED,
    TEMPERATURES,
    Benchmark,
)


@dataclass
class Score:
    """A score: percent (MT-Bench: 1 to 10), its standard error, how it was made, and how it differs from the
    paper's way."""

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
    corrected: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    """The file that the result of each of lm-eval's tasks is from."""
    temperature: float | None = None
    """Of the HumanEval run that counts."""

    def items(self) -> Items:
        """The scores of the items behind the table."""
        return item_scores(self.folder, self.files, self.corrected, self.temperature, self.problems)


def read_results(folder: Path, corrected: bool = False) -> Results:
    """Everything that a result folder holds; `corrected`: see `benchmark_suite.AGGREGATIONS`."""
    results = Results(folder.resolve().name, folder, corrected=corrected)
    _read_nlp(results)
    _read_humaneval(results)
    _read_judged(results)
    return results


def _record(value: object) -> dict[str, Any]:
    """An object of a file, empty where something else stands."""
    return value if isinstance(value, dict) else {}


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


@dataclass(frozen=True)
class _Found:
    """A task's values, the lm-eval run they are of, and its file."""

    task: str
    values: dict[str, Any]
    run: dict[str, Any]
    path: Path

    def part(self, name: str) -> Any:
        """What the run records of the task under `name`."""
        return _record(self.run.get(name)).get(self.task)

    @property
    def items(self) -> tuple[int, int] | None:
        """How many items were evaluated, and how many the task has."""
        counts = _record(self.part("n-samples"))
        pair = counts.get("effective"), counts.get("original")
        return (
            (pair[0], pair[1])
            if isinstance(pair[0], int) and isinstance(pair[1], int) and pair[0] > 0
            else None
        )

    @property
    def sliced(self) -> bool:
        """Whether some items were left out."""
        return self.items[0] < self.items[1] if self.items else self.run["config"].get("limit") is not None


def _newest(results: Results) -> dict[str, _Found]:
    """Of each task the newest result that is of all its items, else the newest; lm-eval writes a file for
    each of its runs."""
    newest: dict[str, _Found] = {}
    for path in sorted((results.folder / "nlp").glob("**/results_*.json"), key=lambda path: path.name):
        run = _object(path, results)
        if run is None:
            continue
        if not isinstance(run.get("results"), dict) or not isinstance(run.get("config"), dict):
            results.problems.append(f"{path}: is not a result of lm-eval")
            continue
        left = 0
        for task, values in run["results"].items():
            found = _Found(task, _record(values), run, path)
            if task in _record(run.get("groups")):
                continue
            if task in newest and found.sliced and not newest[task].sliced:
                left += 1
                continue
            newest[task] = found
        if left:
            results.problems.append(
                f"{path}: is of a part of the items; for {left} of its tasks an older result of all items "
                "counts"
            )
    return newest


def _read_nlp(results: Results) -> None:
    newest = _newest(results)
    for benchmark in BENCHMARKS:
        own = [found for task, found in newest.items() if benchmark.has(task)]
        if own:
            _add_nlp(results, benchmark, own)


def _add_nlp(results: Results, benchmark: Benchmark, own: Sequence[_Found]) -> None:
    metric = benchmark.metric_of(results.corrected)
    scale = 1.0 if metric in IN_PERCENT else 100.0
    name, _, filtered = metric.partition(",")
    there = [found for found in own if number(found.values.get(metric)) is not None]
    results.problems += [f"{found.path}: {found.task} has no {metric}" for found in own if found not in there]
    if not there:
        return
    results.files.update({found.task: found.path for found in there})
    values = {found.task: scale * float(found.values[metric]) for found in there}
    weights = {found.task: float(found.items[0] if found.items else 1) for found in there}
    known = {found.task: number(found.values.get(f"{name}_stderr,{filtered}")) for found in there}
    whole = sum(weights.values())
    error = None
    if all(one is not None for one in known.values()):
        # The tasks' items are drawn apart, so the variances of the weighted parts add up.
        error = math.sqrt(sum((scale * (known[task] or 0.0) * weights[task] / whole) ** 2 for task in values))
    differs = _differs_nlp(benchmark, there, results.corrected)
    if len(values) < benchmark.count:
        differs.insert(0, f"{len(values)} of {benchmark.count} tasks")
    results.scores[benchmark.key] = Score(
        sum(values[task] * weights[task] for task in values) / whole,
        error,
        {**_about_nlp(there), "metric": metric},
        differs,
        values if len(values) > 1 else {},
        whole=len(values) >= benchmark.count,
    )


def _different(values: Sequence[Any]) -> list[str]:
    return sorted({str(value) for value in values})


def _about_nlp(own: Sequence[_Found]) -> dict[str, Any]:
    """How the tasks of a benchmark were run."""
    counts = [found.items for found in own]
    return {
        "harness": {
            "name": "lm-eval",
            "version": ", ".join(_different([found.run.get("lm_eval_version") for found in own])),
        },
        "engine": ", ".join(_different([found.run["config"].get("model") for found in own])),
        "num_fewshot": _different([found.part("n-shot") for found in own]),
        "task_versions": _different([found.part("versions") for found in own]),
        "chat_template": any(found.run.get("chat_template") for found in own),
        "items": sum(count[0] for count in counts if count) if all(counts) else None,
        "local_files": any(_record(found.part("configs")).get("dataset_path") == "json" for found in own),
    }


def _differs_nlp(benchmark: Benchmark, own: Sequence[_Found], corrected: bool) -> list[str]:
    """What of a benchmark's tasks was not done as in the paper."""
    differs = []
    if corrected and benchmark.corrected_metric:
        differs.append(
            f"{benchmark.corrected_metric.partition(',')[0]}, not {benchmark.metric.partition(',')[0]}"
        )
    shots = _different([found.part("n-shot") for found in own])
    if benchmark.shots is not None and shots != [str(benchmark.shots)]:
        differs.append(f"{'/'.join(shots)} examples, not {benchmark.shots}")
    if any(found.sliced for found in own):
        counts = [found.items or (0, 0) for found in own]
        known = f"{sum(one for one, _ in counts):,} of {sum(one for _, one in counts):,} items"
        differs.append(known if any(found.items for found in own) else "not all items")
    if any(found.run.get("chat_template") for found in own):
        differs.append("asked in the chat format")
    if any(found.run.get("system_instruction") for found in own):
        differs.append("with a system message")
    changed = _different(
        [found.run["config"]["gen_kwargs"] for found in own if found.run["config"].get("gen_kwargs")]
    )
    if changed and any(
        _record(found.part("configs")).get("output_type") == "generate_until" for found in own
    ):
        differs.append(f"generated with {', '.join(changed)}")
    if any(_record(found.part("configs")).get("dataset_path") == "json" for found in own):
        differs.append("local files")
    return differs


# -- this project's own ------------------------------------------------------------------------------------


def _read_humaneval(results: Results) -> None:
    """pass@1: the better of the two temperatures (as the paper), or that of the fixed one."""
    found = {}
    for temperature in TEMPERATURES:
        path = results.folder / f"humaneval_t{temperature}" / "results.json"
        run = _object(path, results)
        if run is None:
            continue
        if number(run.get("pass@1")) is None:
            results.problems.append(f"{path}: has no pass@1")
            continue
        found[temperature] = run
    if results.corrected:
        found = {temperature: run for temperature, run in found.items() if temperature == FIXED_TEMPERATURE}
    if not found:
        return
    chosen = max(found, key=lambda temperature: found[temperature]["pass@1"])
    run = found[chosen]
    differs = []
    if results.corrected:
        differs.append(f"temperature {chosen} fixed, not the better of two")
    elif len(found) < len(TEMPERATURES):
        differs.append(f"temperature {chosen} alone, not the better of two")
        results.problems.append(f"{results.folder}: HumanEval is there at temperature {chosen} alone")
    differs += _unlike(run, {"tasks": 164, "n": 20, "top_p": 0.95, "max_new_tokens": 512})
    if run.get("chat_format"):
        differs.append("asked in the chat format")
    items = read_items(results.folder / f"humaneval_t{chosen}" / "items.jsonl", results.problems)
    results.temperature = chosen
    results.scores[HUMANEVAL] = Score(
        100 * run["pass@1"],
        _standard_error([100 * score for score in items.values()]),
        {"num_fewshot": ["0"], **_about(run)},
        differs,
    )


def _unlike(run: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The settings that are recorded and not as in the paper."""
    return [
        f"{name} {run[name]}, not {value}"
        for name, value in wanted.items()
        if run.get(name) not in (None, value)
    ]


_ABOUT = (
    "harness",
    "temperature",
    "top_p",
    "n",
    "n_total",
    "unparsed",
    "judge",
    "judge_service",
    "annotator",
    "reference",
    "engine",
    "chat_format",
    "made",
    "outputs",
    "model",
)


def _about(run: dict[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in _ABOUT if name in run}


def sample_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1), None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def _standard_error(values: Sequence[float]) -> float | None:
    deviation = sample_deviation(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


@dataclass(frozen=True)
class _Judged:
    """The key of the score, the judges of the paper's numbers, and the settings there."""

    key: str
    judges: tuple[str, ...]
    settings: dict[str, Any]


_GPT4 = ("gpt-4", "gpt-4-0613", "gpt-4-0314")
_JUDGED = {
    "mt_bench": _Judged("average", _GPT4, {"questions": 80}),
    "alpaca_eval_1": _Judged(
        "win_rate",
        _GPT4,
        {"instructions": 805, "annotator": "alpaca_eval_gpt4", "reference": "text_davinci_003"},
    ),
    "alpaca_eval_2": _Judged(
        "win_rate",
        ("gpt-4-1106-preview", "gpt-4-turbo-1106"),
        {
            "instructions": 805,
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "reference": "gpt4_1106_preview",
        },
    ),
}


def _read_judged(results: Results) -> None:
    for name in JUDGED:
        path = results.folder / name / "results.json"
        run = _object(path, results)
        if run is None:
            continue
        paper = _JUDGED[name]
        value = number(run.get(paper.key))
        if value is None:
            results.problems.append(f"{path}: has no {paper.key}")
            continue
        differs = (
            []
            if run.get("judge") in paper.judges
            else [f"judged by {run.get('judge') or 'no one that is named'}, not {paper.judges[0]}"]
        )
        if not differs and run.get("judge_service") not in (None, "api.openai.com"):
            differs.append(f"judged at {run['judge_service']}")
        differs += _unlike(run, paper.settings)
        if run.get("unparsed"):
            differs.append(f"{run['unparsed']} judgments without a verdict")
        error = number(run.get("standard_error"))
        if name == "mt_bench":
            error = _standard_error(
                list(mt_bench_questions(read_items(path.with_name("items.jsonl"), results.problems)).values())
            )
        results.scores[name] = Score(value, error, _about(run), differs)
