"""lm-eval's files in a result folder: of each task the newest result, its samples, and what was cut.

lm-eval names its results results_DATE.json, NAME_DATE.json where it was given a file's name, and results.json
up to its version 0.4.2; a file is recognised by what it holds."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATE = re.compile(r"_?(\d{4}-\d\d(?:-\d\d)?[-T\d:.]*)\.json$")
# JSON files that lm-eval or this project leave beside results, and that are none.
_BESIDE = re.compile(r"(?:benchmark|cut_.*|overall|generation|table)\.json")
CUT = "cut_"


def record(value: object) -> dict[str, Any]:
    """Return an object of a file, empty where something else stands."""
    return value if isinstance(value, dict) else {}


def read_object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """Return the object that a JSON file holds; None, and a line in `problems`, where it holds none; None
    alone where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({error})")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path}: is not a JSON object")
        return None
    return value


@dataclass(frozen=True)
class TaskResult:
    """A task's values, the lm-eval run they are of, and its file."""

    task: str
    values: dict[str, Any]
    run: dict[str, Any]
    path: Path

    def part(self, name: str) -> Any:
        """Return what the run records of the task under `name`."""
        return record(self.run.get(name)).get(self.task)

    @property
    def items(self) -> tuple[int, int] | None:
        """Return how many items were evaluated and how many the task has, None where the run does not say."""
        counts = record(self.part("n-samples"))
        pair = counts.get("effective"), counts.get("original")
        return (
            (pair[0], pair[1])
            if isinstance(pair[0], int) and isinstance(pair[1], int) and pair[0] > 0
            else None
        )

    @property
    def sliced(self) -> bool:
        """Return whether some items were left out."""
        return (
            self.items[0] < self.items[1]
            if self.items
            else record(self.run.get("config")).get("limit") is not None
        )


def newest_results(paths: Sequence[Path], problems: list[str]) -> dict[str, TaskResult]:
    """Return of each task the newest result that is of all its items, else the newest.

    Args:
        paths: JSON files; those that are no results of lm-eval are named in `problems`.
        problems: what could not be used is added here.
    """
    newest: dict[str, TaskResult] = {}
    for path in sorted(paths, key=lambda path: (_date(path), path.name)):
        if _BESIDE.fullmatch(path.name):
            continue
        run = read_object(path, problems)
        if run is None:
            continue
        if not is_result(run):
            problems.append(f"{path}: is not a result of lm-eval")
            continue
        older = 0
        for task, values in run["results"].items():
            result = TaskResult(task, record(values), run, path)
            if task in record(run.get("groups")):
                continue
            if task in newest and result.sliced and not newest[task].sliced:
                older += 1
                continue
            newest[task] = result
        if older:
            problems.append(
                f"{path}: is of a part of the items; for {older} of its tasks an older result of all items "
                "counts"
            )
    return newest


def _date(path: Path) -> str:
    """Return the date in a file's name; nothing, which comes before all dates, where it has none."""
    found = _DATE.search(path.name)
    return found[1] if found else ""


def is_result(run: dict[str, Any]) -> bool:
    """Return whether an object is what lm-eval writes of a run."""
    values = run.get("results")
    return (
        isinstance(values, dict)
        and all(isinstance(value, dict) for value in values.values())
        and any(isinstance(run.get(name), dict) for name in ("config", "configs", "versions"))
    )


def samples_of(path: Path, task: str) -> Path:
    """Return the file of a task's samples beside a results file; it may not be there."""
    date = _date(path)
    if date:
        return path.with_name(f"samples_{task}_{date}.jsonl")
    # Up to version 0.4.2 the model's arguments stand before the task's name.
    older = sorted(path.parent.glob(f"*_{task}.jsonl"))
    return older[-1] if older else path.with_name(f"samples_{task}.jsonl")


def cut_file(path: Path) -> Path:
    """Return the file that says how many examples of a results file were cut; it may not be there."""
    return path.with_name(f"{CUT}{_date(path) or path.stem}.json")
