"""Two arms compared: paired bootstrap over items, benchmark by benchmark, put together as in the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.table.items import Items, TaskItems
from eval.table.suite import CATEGORIES, OF_CATEGORY
from instruction_modelling.statistics import BOOTSTRAP_SEED, CONFIDENCE, RESAMPLES

# Drawn items held at once, so that memory does not grow with the number of items.
_DRAWS = 4_000_000
# chrF's weight of recall, squared (Popović 2015, sacrebleu's default).
_BETA_SQUARED = 4.0


def compare(first: Sequence[Items], second: Sequence[Items]) -> dict[str, dict[str, Any]]:
    """The second arm's scores minus the first's, with 95 % intervals of a paired bootstrap.

    Each arm is one run or several (its seeds), whose scores are averaged. Items that every run has are drawn
    anew within each task, the same ones for all runs. A benchmark weighs its tasks by items; a category has a
    value where all its benchmarks have items in both arms, and the mean where all categories have.

    Args:
        first: the items of the first arm's runs.
        second: the items of the second arm's runs.

    Returns:
        by column and benchmark: {"difference", "low", "high", "items", "unpaired"}; `unpaired` counts items
        that some run lacks.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    drawn: dict[str, np.ndarray] = {}
    points: dict[str, float] = {}
    counts: dict[str, tuple[int, int]] = {}
    runs = [*first, *second]
    for benchmark in [key for key in runs[0] if all(key in run for run in runs)]:
        parts, sizes, unpaired = [], [], 0
        for task in sorted(set.intersection(*(set(run[benchmark]) for run in runs))):
            own = [run[benchmark][task] for run in runs]
            of_runs = [set(one.pairs or one.scores) for one in own]
            # In a fixed order: the draws are the same each time.
            both = sorted(set.intersection(*of_runs))
            unpaired += len(set.union(*of_runs)) - len(both)
            if len(both) >= 2:
                parts.append(_task(own, len(first), both, generator))
                sizes.append(len(both))
        if parts:
            weights = np.array(sizes) / sum(sizes)
            points[benchmark] = float(
                sum(weight * point for weight, (point, _) in zip(weights, parts, strict=True))
            )
            drawn[benchmark] = sum(
                weight * sample for weight, (_, sample) in zip(weights, parts, strict=True)
            )  # type: ignore[assignment]
            counts[benchmark] = (sum(sizes), unpaired)
    for name, keys in [*OF_CATEGORY.items(), ("mean", list(CATEGORIES))]:
        if all(key in drawn for key in keys):
            drawn[name] = np.mean([drawn[key] for key in keys], axis=0)
            points[name] = float(np.mean([points[key] for key in keys]))
            counts[name] = (sum(counts[key][0] for key in keys), sum(counts[key][1] for key in keys))
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name, sample in drawn.items():
        low, high = np.quantile(sample, [tail, 1 - tail])
        found[name] = {
            "difference": points[name],
            "low": float(low),
            "high": float(high),
            "items": counts[name][0],
            "unpaired": counts[name][1],
        }
    return found


def _task(
    runs: Sequence[TaskItems], split: int, items: list[str], generator: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The difference of a task between runs[split:] and runs[:split], and `RESAMPLES` bootstrap values of
    it."""
    draws = (generator.integers(0, len(items), (step, len(items))) for step in _steps(len(items)))
    signs = np.array([-1 / split] * split + [1 / (len(runs) - split)] * (len(runs) - split))
    if runs[0].corpus is None:
        differences = signs @ np.array([[run.scores[item] for item in items] for run in runs])
        return float(differences.mean()), np.concatenate(
            [differences[places].mean(axis=1) for places in draws]
        )
    statistics = [_corpus_statistics(runs[0].corpus, [run.pairs[item] for item in items]) for run in runs]
    rate = _ter if runs[0].corpus == "ter" else _chrf
    point = float(sum(sign * rate(own.sum(axis=0)) for sign, own in zip(signs, statistics, strict=True)))
    samples = []
    for places in draws:
        # How often each item was drawn, so that sums over what was drawn are one product.
        offsets = places + np.arange(len(places))[:, None] * len(items)
        times = np.bincount(offsets.ravel(), minlength=places.size).reshape(places.shape).astype(float)
        samples.append(sum(sign * rate(times @ own) for sign, own in zip(signs, statistics, strict=True)))
    return point, np.concatenate(samples)  # type: ignore[arg-type]


def _steps(items: int) -> list[int]:
    at_once = max(1, _DRAWS // items)
    return [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]


def _corpus_statistics(metric: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Of each (reference, translation), sacrebleu's counts that the corpus score is made of, shape (items,
    counts).

    lm-eval scores translations with the same defaults.
    """
    from sacrebleu.metrics import CHRF, TER

    measure = TER() if metric == "ter" else CHRF()
    return np.array(
        measure._extract_corpus_statistics([ours for _, ours in pairs], [[theirs for theirs, _ in pairs]]),
        float,
    )


def _ter(sums: np.ndarray) -> np.ndarray:
    """TER in percent from edits and reference words, shape (..., 2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            sums[..., 1] > 0, 100 * sums[..., 0] / sums[..., 1], np.where(sums[..., 0] > 0, 100.0, 0.0)
        )


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF in percent from the counts of each order (of the translation, of the reference, of both), shape
    (..., 3 * orders).

    Precision and recall are averaged over the orders that both texts have (Popović 2015).
    """
    ours, theirs, both = (sums[..., place::3] for place in range(3))
    there = (ours > 0) & (theirs > 0)
    orders = np.maximum(there.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(there, both / ours, 0).sum(axis=-1) / orders
        recall = np.where(there, both / theirs, 0).sum(axis=-1) / orders
        score = 100 * (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)
