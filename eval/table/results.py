"""What a model's result folder holds: the score of every benchmark, and how it was made.

    RESULTS/MODEL/nlp/**/results_*.json (lm-eval's), humaneval_t0.1, humaneval_t0.7, mt_bench, alpaca_eval_1,
    alpaca_eval_2 /results.json

What is missing is missing; what cannot be read is named.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.table.items import Items, finite_number, item_scores, mt_bench_questions, read_items
from eval.table.suite import (
    BENCHMARKS,
    FIXED_TEMPERATURE,
    HUMANEVAL,
    IN_PERCENT,
    JUDGED,
    TEMPERATURES,
    Benchmark,
)
from instruction_modelling.errors import UserError
from instruction_modelling.statistics import mean_and_sample_sd


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
        """Return the scores of the items behind the table."""
        return item_scores(self.folder, self.files, self.corrected, self.temperature, self.problems)


def read_results(folder: Path, corrected: bool = False) -> Results:
    """Read everything that a result folder holds.

    Args:
        folder: the model's.
        corrected: whether scores are put together as `suite.AGGREGATIONS` says under that name.
    """
    results = Results(folder.resolve().name, folder, corrected=corrected)
    _read_nlp(results)
    _read_humaneval(results)
    _read_judged(results)
    return results


def read_models(folders: Sequence[Path], corrected: bool = False) -> list[Results]:
    """Return what several result folders hold, one a model; see `read_results`.

    Raises:
        UserError: a folder is not there, or two have one name.
    """
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise UserError(f"there is no folder {', '.join(missing)}")
    models = [read_results(folder, corrected) for folder in folders]
    names = [results.name for results in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two folders have one name: {', '.join(twice)}")
    return models


def _record(value: object) -> dict[str, Any]:
    """Return an object of a file, empty where something else stands."""
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
class _TaskResult:
    """A task's values, the lm-eval run they are of, and its file."""

    task: str
    values: dict[str, Any]
    run: dict[str, Any]
    path: Path

    def part(self, name: str) -> Any:
        """Return what the run records of the task under `name`."""
        return _record(self.run.get(name)).get(self.task)

    @property
    def items(self) -> tuple[int, int] | None:
        """Return how many items were evaluated and how many the task has, None where the run does not say."""
        counts = _record(self.part("n-samples"))
        pair = counts.get("effective"), counts.get("original")
        return (
            (pair[0], pair[1])
            if isinstance(pair[0], int) and isinstance(pair[1], int) and pair[0] > 0
            else None
        )

    @property
    def sliced(self) -> bool:
        """Return whether some items were left out."""
        return self.items[0] < self.items[1] if self.items else self.run["config"].get("limit") is not None


def _newest(results: Results) -> dict[str, _TaskResult]:
    """Return of each task the newest result that is of all its items, else the newest.

    lm-eval writes a file for each of its runs."""
    newest: dict[str, _TaskResult] = {}
    for path in sorted((results.folder / "nlp").glob("**/results_*.json"), key=lambda path: path.name):
        run = _object(path, results)
        if run is None:
            continue
        if not isinstance(run.get("results"), dict) or not isinstance(run.get("config"), dict):
            results.problems.append(f"{path}: is not a result of lm-eval")
            continue
        older = 0
        for task, values in run["results"].items():
            result = _TaskResult(task, _record(values), run, path)
            if task in _record(run.get("groups")):
                continue
            if task in newest and result.sliced and not newest[task].sliced:
                older += 1
                continue
            newest[task] = result
        if older:
            results.problems.append(
                f"{path}: is of a part of the items; for {older} of its tasks an older result of all items "
                "counts"
            )
    return newest


def _read_nlp(results: Results) -> None:
    newest = _newest(results)
    for benchmark in BENCHMARKS:
        results_of_tasks = [result for task, result in newest.items() if benchmark.has(task)]
        if results_of_tasks:
            _add_nlp(results, benchmark, results_of_tasks)


def _add_nlp(results: Results, benchmark: Benchmark, of_tasks: Sequence[_TaskResult]) -> None:
    metric = benchmark.metric_of(results.corrected)
    scale = 1.0 if metric in IN_PERCENT else 100.0
    name, _, filtered = metric.partition(",")
    scored = [result for result in of_tasks if finite_number(result.values.get(metric)) is not None]
    results.problems += [
        f"{result.path}: {result.task} has no {metric}" for result in of_tasks if result not in scored
    ]
    if not scored:
        return
    results.files.update({result.task: result.path for result in scored})
    values = {result.task: scale * float(result.values[metric]) for result in scored}
    weights = {result.task: float(result.items[0] if result.items else 1) for result in scored}
    errors = {result.task: finite_number(result.values.get(f"{name}_stderr,{filtered}")) for result in scored}
    items = sum(weights.values())
    error = None
    if all(error_of_task is not None for error_of_task in errors.values()):
        # The tasks' items are drawn apart, so the variances of the weighted parts add up.
        error = math.sqrt(
            sum((scale * (errors[task] or 0.0) * weights[task] / items) ** 2 for task in values)
        )
    differs = _differs_nlp(benchmark, scored, results.corrected)
    if len(values) < benchmark.count:
        differs.insert(0, f"{len(values)} of {benchmark.count} tasks")
    results.scores[benchmark.key] = Score(
        sum(values[task] * weights[task] for task in values) / items,
        error,
        {**_about_nlp(scored), "metric": metric},
        differs,
        values if len(values) > 1 else {},
        whole=len(values) >= benchmark.count,
    )


def _different(values: Sequence[Any]) -> list[str]:
    return sorted({str(value) for value in values})


def _about_nlp(of_tasks: Sequence[_TaskResult]) -> dict[str, Any]:
    """Return how the tasks of a benchmark were run."""
    counts = [result.items for result in of_tasks]
    return {
        "harness": {
            "name": "lm-eval",
            "version": ", ".join(_different([result.run.get("lm_eval_version") for result in of_tasks])),
        },
        "engine": ", ".join(_different([result.run["config"].get("model") for result in of_tasks])),
        "num_fewshot": _different([result.part("n-shot") for result in of_tasks]),
        "task_versions": _different([result.part("versions") for result in of_tasks]),
        "chat_template": any(result.run.get("chat_template") for result in of_tasks),
        "items": sum(count[0] for count in counts if count) if all(counts) else None,
        "local_files": any(
            _record(result.part("configs")).get("dataset_path") == "json" for result in of_tasks
        ),
    }


def _differs_nlp(benchmark: Benchmark, of_tasks: Sequence[_TaskResult], corrected: bool) -> list[str]:
    """Return what of a benchmark's tasks was not done as in the paper."""
    differs = []
    if corrected and benchmark.corrected_metric:
        differs.append(
            f"{benchmark.corrected_metric.partition(',')[0]}, not {benchmark.metric.partition(',')[0]}"
        )
    shots = _different([result.part("n-shot") for result in of_tasks])
    if benchmark.shots is not None and shots != [str(benchmark.shots)]:
        differs.append(f"{'/'.join(shots)} examples, not {benchmark.shots}")
    if any(result.sliced for result in of_tasks):
        counts = [result.items or (0, 0) for result in of_tasks]
        evaluated = f"{sum(count for count, _ in counts):,} of {sum(count for _, count in counts):,} items"
        differs.append(evaluated if any(result.items for result in of_tasks) else "not all items")
    if any(result.run.get("chat_template") for result in of_tasks):
        differs.append("asked in the chat format")
    if any(result.run.get("system_instruction") for result in of_tasks):
        differs.append("with a system message")
    changed = _different(
        [result.run["config"]["gen_kwargs"] for result in of_tasks if result.run["config"].get("gen_kwargs")]
    )
    if changed and any(
        _record(result.part("configs")).get("output_type") == "generate_until" for result in of_tasks
    ):
        differs.append(f"generated with {', '.join(changed)}")
    if any(_record(result.part("configs")).get("dataset_path") == "json" for result in of_tasks):
        differs.append("local files")
    return differs


# -- this project's own ------------------------------------------------------------------------------------


def _read_humaneval(results: Results) -> None:
    """Read pass@1: the better of the two temperatures (as the paper), or that of the fixed one."""
    runs = {}
    for temperature in TEMPERATURES:
        path = results.folder / f"humaneval_t{temperature}" / "results.json"
        run = _object(path, results)
        if run is None:
            continue
        if finite_number(run.get("pass@1")) is None:
            results.problems.append(f"{path}: has no pass@1")
            continue
        runs[temperature] = run
    if results.corrected:
        runs = {temperature: run for temperature, run in runs.items() if temperature == FIXED_TEMPERATURE}
    if not runs:
        return
    chosen = max(runs, key=lambda temperature: runs[temperature]["pass@1"])
    run = runs[chosen]
    differs = []
    if results.corrected:
        differs.append(f"temperature {chosen} fixed, not the better of two")
    elif len(runs) < len(TEMPERATURES):
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


def _unlike(run: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Return the settings that are recorded and not as in the paper."""
    return [
        f"{name} {run[name]}, not {value}"
        for name, value in settings.items()
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


def _standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean, None of fewer than two values."""
    spread = mean_and_sample_sd(values)
    return spread["sd"] / math.sqrt(len(values)) if spread and spread["sd"] is not None else None


@dataclass(frozen=True)
class _PaperJudging:
    """How the paper's numbers were judged: the key of the score, the judges, and the settings."""

    key: str
    judges: tuple[str, ...]
    settings: dict[str, Any]


_GPT4 = ("gpt-4", "gpt-4-0613", "gpt-4-0314")
_JUDGED_AS = {
    "mt_bench": _PaperJudging("average", _GPT4, {"questions": 80}),
    "alpaca_eval_1": _PaperJudging(
        "win_rate",
        _GPT4,
        {"instructions": 805, "annotator": "alpaca_eval_gpt4", "reference": "text_davinci_003"},
    ),
    "alpaca_eval_2": _PaperJudging(
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
        paper = _JUDGED_AS[name]
        value = finite_number(run.get(paper.key))
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
        error = finite_number(run.get("standard_error"))
        if name == "mt_bench":
            error = _standard_error(
                list(mt_bench_questions(read_items(path.with_name("items.jsonl"), results.problems)).values())
            )
        results.scores[name] = Score(value, error, _about(run), differs)
