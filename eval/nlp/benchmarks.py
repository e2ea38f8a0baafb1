"""The benchmarks of the groups in eval/lm_eval_tasks: lm-eval's tasks of each, and with how many examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.table.suite import BENCHMARKS, CATEGORIES

GROUPS = Path(__file__).resolve().parents[1] / "lm_eval_tasks"
LOCAL_GROUPS = Path("data/eval/local_tasks")


@dataclass(frozen=True)
class NlpBenchmark:
    """What is run at a time: lm-eval's names of a benchmark's tasks or groups."""

    key: str
    tasks: tuple[str, ...]
    num_fewshot: int | None
    """Examples in the prompt; None: the task's own."""


def paper_benchmarks(folder: Path = GROUPS) -> list[NlpBenchmark]:
    """Return the benchmarks of the group sft_eval, in its order, as its files have them."""
    import yaml

    entries_of: dict[str, list[tuple[str, int | None]]] = {}
    for category in CATEGORIES:
        group = yaml.safe_load((folder / f"sft_eval_{category}.yaml").read_text(encoding="utf-8"))
        for entry in group["task"]:
            name, shots = _name_and_shots(entry)
            entries_of.setdefault(_key(name), []).append((name, shots))
    return [_benchmark(key, entries) for key, entries in entries_of.items()]


def local_benchmarks(folder: Path = LOCAL_GROUPS) -> list[NlpBenchmark]:
    """Return the benchmarks that python -m eval.local_tasks made of files on this machine."""
    made = {path.stem for path in folder.glob("*_local.yaml")}
    return [
        NlpBenchmark(benchmark.key, (f"{benchmark.key}_local",), None)
        for benchmark in BENCHMARKS
        if f"{benchmark.key}_local" in made
    ]


def _name_and_shots(entry: str | dict[str, Any]) -> tuple[str, int | None]:
    if isinstance(entry, str):
        return entry, None
    return entry.get("task") or entry["group"], entry.get("num_fewshot")


def _key(name: str) -> str:
    """Return the benchmark that a task or group is of."""
    return next(
        (benchmark.key for benchmark in BENCHMARKS if benchmark.key == name or benchmark.has(name)), name
    )


def _benchmark(key: str, entries: Sequence[tuple[str, int | None]]) -> NlpBenchmark:
    shots = {shots for _, shots in entries}
    # lm-eval takes one count for all the tasks of a run.
    assert len(shots) == 1, f"{key}: its tasks have different counts of examples"
    return NlpBenchmark(key, tuple(name for name, _ in entries), shots.pop())
