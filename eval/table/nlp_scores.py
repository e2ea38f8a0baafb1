"""The scores of lm-eval's benchmarks: tasks weighted by their items, how they were run, and what differs from
the paper's way."""

import math
from collections.abc import Sequence
from typing import Any

from eval.table.items import finite_number
from eval.table.lm_eval_files import TaskResult, cut_file, newest_results, read_object, record
from eval.table.scores import NOT_COUNTED, Results, Score
from eval.table.suite import BENCHMARKS, IN_PERCENT, Benchmark


def read_nlp(results: Results) -> None:
    """Read the benchmarks of lm-eval into the results of a model."""
    newest = newest_results(results.layout.nlp_files, results.problems)
    for benchmark in BENCHMARKS:
        results_of_tasks = [result for task, result in newest.items() if benchmark.has(task)]
        if results_of_tasks:
            _add_nlp(results, benchmark, results_of_tasks)


def _add_nlp(results: Results, benchmark: Benchmark, of_tasks: Sequence[TaskResult]) -> None:
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
    counted = all(result.items for result in scored)
    weights = {result.task: float(result.items[0] if result.items and counted else 1) for result in scored}
    errors = {result.task: finite_number(result.values.get(f"{name}_stderr,{filtered}")) for result in scored}
    items = sum(weights.values())
    error = None
    if all(error_of_task is not None for error_of_task in errors.values()):
        # The tasks' items are drawn apart, so the variances of the weighted parts add up.
        error = math.sqrt(
            sum((scale * (errors[task] or 0.0) * weights[task] / items) ** 2 for task in values)
        )
    value = sum(values[task] * weights[task] for task in values) / items
    whole_group = _group_of(benchmark, metric, scored)
    if whole_group is not None:
        value = scale * float(whole_group[metric])
        error_of_group = finite_number(whole_group.get(f"{name}_stderr,{filtered}"))
        error = None if error_of_group is None else scale * error_of_group
    part = _part(scored)
    differs = ([part] if part else []) + _differs_nlp(benchmark, scored, results.corrected)
    if not counted and whole_group is None and len(scored) > 1:
        differs.append("its tasks weigh alike, for how many items each has is not recorded")
    if len(values) < benchmark.count:
        differs.insert(0, f"{len(values)} of {benchmark.count} tasks")
    results.scores[benchmark.key] = Score(
        value,
        error,
        {**_about_nlp(scored), "metric": metric},
        differs,
        values if len(values) > 1 else {},
        whole=len(values) >= benchmark.count,
        part=part,
    )
    _add_cut(results, benchmark.key, scored)


def _group_of(benchmark: Benchmark, metric: str, of_tasks: Sequence[TaskResult]) -> dict[str, Any] | None:
    """Return lm-eval's own values of a benchmark's tasks together, where the run does not say how many items
    each task has (up to version 0.4.2) and so the tasks cannot be weighted here."""
    run = of_tasks[0].run
    if all(result.items for result in of_tasks) or any(result.run is not run for result in of_tasks):
        return None
    # The translation tasks' group is the only one that is not called as the benchmark.
    name = "gpt3_translation_benchmarks" if benchmark.key == "translation" else benchmark.key
    values = record(record(run.get("results")).get(name))
    known = len(of_tasks) == benchmark.count > 1 and finite_number(values.get(metric)) is not None
    return values if known else None


def _part(of_tasks: Sequence[TaskResult]) -> str:
    """Return of how many of their items tasks are, nothing where they are of all."""
    if not any(result.sliced for result in of_tasks):
        return ""
    counts = [result.items for result in of_tasks]
    if not all(counts):
        limits = _different([record(result.run.get("config")).get("limit") for result in of_tasks])
        return f"not all items (limit {', '.join(limits)})"
    evaluated, whole = (sum(count[which] for count in counts if count) for which in (0, 1))
    return f"{evaluated:,} of {whole:,} items"


def _add_cut(results: Results, key: str, of_tasks: Sequence[TaskResult]) -> None:
    """Note how many examples of a benchmark were cut at the model's length, if that was counted."""
    cut, counted, lengths = 0, 0, []
    files = {
        path: record(read_object(path, results.problems))
        for path in dict.fromkeys(cut_file(result.path) for result in of_tasks)
    }
    for result in of_tasks:
        found = files[cut_file(result.path)]
        of_task = record(record(found.get("tasks")).get(result.task))
        if isinstance(of_task.get("cut"), int) and isinstance(of_task.get("items"), int):
            cut, counted = cut + of_task["cut"], counted + of_task["items"]
            lengths.append(found.get("max_length"))
    if cut:
        results.cut[key] = f"{cut:,} of {counted:,} at {' and '.join(_different(lengths))} tokens"
    elif not counted:
        results.cut[key] = NOT_COUNTED


def _different(values: Sequence[Any]) -> list[str]:
    return sorted({str(value) for value in values})


def _about_nlp(of_tasks: Sequence[TaskResult]) -> dict[str, Any]:
    """Return how the tasks of a benchmark were run."""
    counts = [result.items for result in of_tasks]
    return {
        "harness": {
            "name": "lm-eval",
            "version": ", ".join(_different([result.run.get("lm_eval_version") for result in of_tasks])),
        },
        "engine": ", ".join(
            _different([record(result.run.get("config")).get("model") for result in of_tasks])
        ),
        "num_fewshot": _different([result.part("n-shot") for result in of_tasks]),
        "task_versions": _different([result.part("versions") for result in of_tasks]),
        "chat_template": any(result.run.get("chat_template") for result in of_tasks),
        "system_message": any(result.run.get("system_instruction") for result in of_tasks),
        "generated_with": _generated_with(of_tasks),
        "items": sum(count[0] for count in counts if count) if all(counts) else None,
        "local_files": any(
            record(result.part("configs")).get("dataset_path") == "json" for result in of_tasks
        ),
    }


def _generated_with(of_tasks: Sequence[TaskResult]) -> list[str]:
    """Return the settings that were given for generation, where a benchmark generates."""
    given = [record(result.run.get("config")).get("gen_kwargs") for result in of_tasks]
    generates = any(
        record(result.part("configs")).get("output_type") == "generate_until" for result in of_tasks
    )
    return _different([settings for settings in given if settings]) if generates else []


def _differs_nlp(benchmark: Benchmark, of_tasks: Sequence[TaskResult], corrected: bool) -> list[str]:
    """Return what of a benchmark's tasks was not done as in the paper."""
    differs = []
    if corrected and benchmark.corrected_metric:
        differs.append(
            f"{benchmark.corrected_metric.partition(',')[0]}, not {benchmark.metric.partition(',')[0]}"
        )
    counts = [result.part("n-shot") for result in of_tasks]
    shots = _different([count for count in counts if count is not None])
    if benchmark.shots is not None and shots not in ([], [str(benchmark.shots)]):
        differs.append(f"{'/'.join(shots)} examples, not {benchmark.shots}")
    if benchmark.shots is not None and None in counts:
        differs.append(f"how many examples is not recorded ({benchmark.shots} in the paper)")
    if any(result.run.get("chat_template") for result in of_tasks):
        differs.append("asked in the chat format")
    if any(result.run.get("system_instruction") for result in of_tasks):
        differs.append("with a system message")
    if changed := _generated_with(of_tasks):
        differs.append(f"generated with {', '.join(changed)}")
    if any(record(result.part("configs")).get("dataset_path") == "json" for result in of_tasks):
        differs.append("local files")
    return differs
