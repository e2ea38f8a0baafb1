"""How the scores of several runs were made, held against each other."""

import json
from collections.abc import Sequence
from typing import Any

from eval.table.scores import Results
from eval.table.suite import HUMANEVAL

# What a score's facts say of its own answers and judgments, and not of the way they were made.
_OWN = {"made", "outputs", "model", "n_total", "unparsed", "items"}
_UNKNOWN = object()


def made_differently(runs: Sequence[Results], benchmark: str) -> list[str]:
    """Return in what a benchmark's scores were made differently, as "judge: gpt-4 (it), llama (im)"; runs
    without a score of it are not looked at."""
    facts = {run.name: _facts(run, benchmark) for run in runs if benchmark in run.scores}
    different = []
    for name in dict.fromkeys(name for known in facts.values() for name in known):
        values: dict[str, list[str]] = {}
        for run, known in facts.items():
            values.setdefault(_words(known.get(name, _UNKNOWN)), []).append(run)
        if len(values) > 1:
            said = (f"{value} ({', '.join(names)})" for value, names in values.items())
            different.append(f"{name}: {', '.join(said)}")
    return different


def _facts(run: Results, benchmark: str) -> dict[str, Any]:
    score = run.scores[benchmark]
    own = {name: value for name, value in score.about.items() if name not in _OWN}
    if benchmark == HUMANEVAL and not run.corrected:
        folders = run.layout.humaneval.values()
        # The paper's rule, the better of both temperatures, is one way, whichever that is.
        if all((folder / "results.json").exists() for folder in folders):
            own.pop("temperature", None)
    return {**own, "evaluated": score.part or "all items"}


def _words(value: Any) -> str:
    if value is _UNKNOWN:
        return "not recorded"
    if isinstance(value, list):
        return "/".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(map(str, value.values())) if set(value) == {"name", "version"} else json.dumps(value)
    return "none" if value is None else str(value)
