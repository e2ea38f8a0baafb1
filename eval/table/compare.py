"""Two arms compared: a paired bootstrap over items, benchmark by benchmark, put together as in the table."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.table.items import Items, TaskItems
from eval.table.suite import CATEGORIES, OF_CATEGORY
from eval.table.translation import corpus_counts, corpus_score
from instruction_modelling.comparison.report.answer import LEAST_ROWS
from instruction_modelling.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES

# Resampled items held at once, so that memory does not grow with the number of items.
_ITEMS_AT_ONCE = 4_000_000


@dataclass
class _Resampled:
    """A difference: its value, its values under the resamples, and the items it is of.

    Without an interval `distribution` is None and `no_interval` says why; `copies` of the items say again
    what another one says; `unpaired` more are not in every run."""

    value: float
    distribution: np.ndarray | None
    items: int
    copies: int
    unpaired: int = 0
    no_interval: str = ""


def compare(
    first: Mapping[str, Items],
    second: Mapping[str, Items],
    in_part: Collection[str] = (),
    partial: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return the second arm's scores minus the first's, with 95 % intervals of a paired bootstrap.

    Each arm is one run or several (its seeds), whose scores are averaged. Items that every run has are
    resampled within each task, the same ones for all runs, and copies of an item together. A benchmark weighs
    its tasks by items; a category has a value where all its benchmarks have items in both arms, and the mean
    where all categories have. A benchmark of fewer than `LEAST_ROWS` different items, or with a task of one,
    has no interval.

    Args:
        first: the items of the first arm's runs, by their names.
        second: the items of the second arm's runs.
        in_part: benchmarks whose scores are of a part of their tasks or items.
        partial: whether these, and those of which a run lacks tasks, enter categories and the mean.

    Returns:
        by column and benchmark: {"difference", "low", "high", "no_interval", "items", "copies", "unpaired",
        "lacking"}; `unpaired` counts items that some run lacks, `lacking` holds the tasks that a run lacks.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    runs = [*first.values(), *second.values()]
    differences: dict[str, _Resampled] = {}
    lacking: dict[str, dict[str, list[str]]] = {}
    for benchmark in dict.fromkeys(key for run in runs for key in run):
        of_runs = [run.get(benchmark, {}) for run in runs]
        difference = _benchmark(of_runs, len(first), generator)
        if difference:
            differences[benchmark] = difference
        lacking[benchmark] = _lacking([*first, *second], of_runs)
    left_out = set() if partial else {*in_part, *(key for key, lacks in lacking.items() if lacks)}
    for column, keys in [*OF_CATEGORY.items(), ("mean", list(CATEGORIES))]:
        if all(key in differences and key not in left_out for key in keys):
            differences[column] = _combined(
                {key: differences[key] for key in keys}, [1 / len(keys)] * len(keys)
            )
    return {name: _as_dict(one, lacking.get(name, {})) for name, one in differences.items()}


def _as_dict(difference: _Resampled, lacking: dict[str, list[str]]) -> dict[str, Any]:
    tail = (1 - CONFIDENCE) / 2
    low = high = None
    if difference.distribution is not None:
        low, high = map(float, np.quantile(difference.distribution, [tail, 1 - tail]))
    return {
        "difference": difference.value,
        "low": low,
        "high": high,
        "no_interval": difference.no_interval,
        "items": difference.items,
        "copies": difference.copies,
        "unpaired": difference.unpaired,
        "lacking": lacking,
    }


def _lacking(names: Sequence[str], runs: Sequence[dict[str, TaskItems]]) -> dict[str, list[str]]:
    """Return of each run that lacks tasks of a benchmark, which other runs have, their names."""
    tasks = sorted(set().union(*runs))
    lacks = {name: [task for task in tasks if task not in run] for name, run in zip(names, runs, strict=True)}
    return {name: missing for name, missing in lacks.items() if missing}


def _combined(parts: Mapping[str, _Resampled], weights: Sequence[float]) -> _Resampled:
    """Return the weighted sum of differences; it has an interval where all of them have."""
    whys = [f"{name}: {part.no_interval}" for name, part in parts.items() if part.no_interval]
    weighted = list(zip(weights, parts.values(), strict=True))
    drawn = [weight * part.distribution for weight, part in weighted if part.distribution is not None]
    return _Resampled(
        sum(weight * part.value for weight, part in weighted),
        None if whys else np.sum(drawn, axis=0),
        sum(part.items for part in parts.values()),
        sum(part.copies for part in parts.values()),
        sum(part.unpaired for part in parts.values()),
        whys[0] + (f", and {len(whys) - 1} more" if len(whys) > 1 else "") if whys else "",
    )


def _benchmark(
    runs: Sequence[dict[str, TaskItems]], split: int, generator: np.random.Generator
) -> _Resampled | None:
    """Return the difference between runs[split:] and runs[:split]; None where no item is in every run."""
    tasks, unpaired = {}, 0
    for task in sorted(set().union(*runs)):
        task_runs = [run.get(task, TaskItems()) for run in runs]
        items_of_runs = [set(run.pairs or run.scores) for run in task_runs]
        # In a fixed order: the resamples are the same each time.
        shared = sorted(set.intersection(*items_of_runs))
        unpaired += len(set.union(*items_of_runs)) - len(shared)
        if shared:
            tasks[task] = _task(task_runs, split, shared, generator)
    if not tasks:
        return None
    items = sum(task.items for task in tasks.values())
    benchmark = _combined(tasks, [task.items / items for task in tasks.values()])
    benchmark.unpaired = unpaired
    different = items - benchmark.copies
    if different < LEAST_ROWS:
        benchmark.distribution = None
        benchmark.no_interval = _too_few(different, benchmark.copies, LEAST_ROWS)
    return benchmark


def _too_few(different: int, copies: int, least: int) -> str:
    what = "different item" if copies else "item"
    return f"{different} {what}{'' if different == 1 else 's'}, at least {least} needed"


def _task(
    runs: Sequence[TaskItems], split: int, items: list[str], generator: np.random.Generator
) -> _Resampled:
    signs = np.array([-1 / split] * split + [1 / (len(runs) - split)] * (len(runs) - split))
    # Copies of an item are drawn together: they tell no more than one of them does.
    contents = [runs[0].contents.get(item, item) for item in items]
    _, copy_of = np.unique(contents, return_inverse=True)
    sizes = np.bincount(copy_of)
    if runs[0].corpus is None:
        by_item = signs @ np.array([[run.scores[item] for item in items] for run in runs])
        sums = np.bincount(copy_of, by_item)

        def _statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
            drawn_items = sizes[drawn].sum(axis=axis) if len(sizes) < len(items) else drawn.shape[axis]
            return sums[drawn].sum(axis=axis) / drawn_items
    else:
        metric = runs[0].corpus
        counts = [corpus_counts(metric, [run.pairs[item] for item in items]) for run in runs]

        def _statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
            rows = np.atleast_2d(drawn)
            # How often each item was drawn, so that sums over what was drawn are one product.
            offsets = rows + np.arange(len(rows))[:, None] * len(sizes)
            times = np.bincount(offsets.ravel(), minlength=len(rows) * len(sizes)).reshape(len(rows), -1)
            scores = [corpus_score(metric, times.astype(float)[:, copy_of] @ of_run) for of_run in counts]
            return (signs @ np.array(scores)).reshape(drawn.shape[:-1])

    return _resampled(_statistic, len(sizes), len(items), generator)


def _resampled(
    statistic: Callable[..., np.ndarray], different: int, items: int, generator: np.random.Generator
) -> _Resampled:
    """Return a task's difference, `statistic` of indices of its different items, under the resamples."""
    from scipy.stats import bootstrap

    everything = np.arange(different)
    value = float(statistic(everything))
    if different < 2:
        return _Resampled(
            value, None, items, items - different, no_interval=_too_few(different, items - different, 2)
        )
    drawn = bootstrap(
        (everything,),
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, _ITEMS_AT_ONCE // items),
        method="percentile",
        rng=generator,
    ).bootstrap_distribution
    # Resamples of n items spread like n - 1 of them, which shrinks intervals over many tasks of few items.
    spread = math.sqrt(different / (different - 1))
    return _Resampled(value, value + spread * (drawn - value), items, items - different)
