"""Two arms compared: a paired bootstrap over items, benchmark by benchmark, put together as in the table."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.table.items import Items, TaskItems
from eval.table.suite import CATEGORIES, OF_CATEGORY
from eval.table.translation import corpus_counts, corpus_score
from instruction_modelling.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES

# Resampled items held at once, so that memory does not grow with the number of items.
_ITEMS_AT_ONCE = 4_000_000


@dataclass
class _Resampled:
    """A difference: its value, its values under the resamples, and the items it is of."""

    value: float
    distribution: np.ndarray
    items: int
    unpaired: int = 0


def compare(
    first: Sequence[Items], second: Sequence[Items], left_out: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the second arm's scores minus the first's, with 95 % intervals of a paired bootstrap.

    Each arm is one run or several (its seeds), whose scores are averaged. Items that every run has are
    resampled within each task, the same ones for all runs. A benchmark weighs its tasks by items; a category
    has a value where all its benchmarks have items in both arms, and the mean where all categories have.

    Args:
        first: the items of the first arm's runs.
        second: the items of the second arm's runs.
        left_out: benchmarks that enter no category and no mean: those of a part of their items.

    Returns:
        by column and benchmark: {"difference", "low", "high", "items", "unpaired"}; `unpaired` counts items
        that some run lacks.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    runs = [*first, *second]
    differences: dict[str, _Resampled] = {}
    for benchmark in [key for key in runs[0] if all(key in run for run in runs)]:
        difference = _benchmark([run[benchmark] for run in runs], len(first), generator)
        if difference:
            differences[benchmark] = difference
    for column, keys in [*OF_CATEGORY.items(), ("mean", list(CATEGORIES))]:
        if all(key in differences and key not in left_out for key in keys):
            differences[column] = _combined([differences[key] for key in keys], [1 / len(keys)] * len(keys))
    tail = (1 - CONFIDENCE) / 2
    compared = {}
    for name, difference in differences.items():
        low, high = np.quantile(difference.distribution, [tail, 1 - tail])
        compared[name] = {
            "difference": difference.value,
            "low": float(low),
            "high": float(high),
            "items": difference.items,
            "unpaired": difference.unpaired,
        }
    return compared


def _combined(parts: Sequence[_Resampled], weights: Sequence[float]) -> _Resampled:
    return _Resampled(
        sum(weight * part.value for weight, part in zip(weights, parts, strict=True)),
        np.sum([weight * part.distribution for weight, part in zip(weights, parts, strict=True)], axis=0),
        sum(part.items for part in parts),
        sum(part.unpaired for part in parts),
    )


def _benchmark(
    runs: Sequence[dict[str, TaskItems]], split: int, generator: np.random.Generator
) -> _Resampled | None:
    """Return the difference between runs[split:] and runs[:split]; None where no task has two items."""
    tasks, unpaired = [], 0
    for task in sorted(set.intersection(*(set(run) for run in runs))):
        task_runs = [run[task] for run in runs]
        items_of_runs = [set(run.pairs or run.scores) for run in task_runs]
        # In a fixed order: the resamples are the same each time.
        shared = sorted(set.intersection(*items_of_runs))
        unpaired += len(set.union(*items_of_runs)) - len(shared)
        if len(shared) >= 2:
            tasks.append(_task(task_runs, split, shared, generator))
    if not tasks:
        return None
    items = sum(task.items for task in tasks)
    benchmark = _combined(tasks, [task.items / items for task in tasks])
    benchmark.unpaired = unpaired
    return benchmark


def _task(
    runs: Sequence[TaskItems], split: int, items: list[str], generator: np.random.Generator
) -> _Resampled:
    from scipy.stats import bootstrap

    signs = np.array([-1 / split] * split + [1 / (len(runs) - split)] * (len(runs) - split))
    if runs[0].corpus is None:
        differences = signs @ np.array([[run.scores[item] for item in items] for run in runs])

        def _statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
            return differences[drawn].mean(axis=axis)
    else:
        metric = runs[0].corpus
        counts = [corpus_counts(metric, [run.pairs[item] for item in items]) for run in runs]

        def _statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
            rows = np.atleast_2d(drawn)
            # How often each item was drawn, so that sums over what was drawn are one product.
            offsets = rows + np.arange(len(rows))[:, None] * len(items)
            times = np.bincount(offsets.ravel(), minlength=rows.size).reshape(rows.shape).astype(float)
            scores = [corpus_score(metric, times @ run_counts) for run_counts in counts]
            return (signs @ np.array(scores)).reshape(drawn.shape[:-1])

    everything = np.arange(len(items))
    resampled = bootstrap(
        (everything,),
        _statistic,
        n_resamples=RESAMPLES,
        batch=max(1, _ITEMS_AT_ONCE // len(items)),
        method="percentile",
        rng=generator,
    )
    return _Resampled(float(_statistic(everything)), resampled.bootstrap_distribution, len(items))
