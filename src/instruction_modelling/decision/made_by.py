"""Whether the arms of a seed were made by the same: runs that stay from another day may be of other code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instruction_modelling.files.stamps import read_stamp

# Of run.json: what a loss may follow from beside the run's own settings.
_VERSIONS = ("python", "torch", "transformers", "tokenizers", "accelerate")


def differences(runs_of_seeds: Sequence[Mapping[str, Path]]) -> list[str]:
    """Return, in words, which seeds have arms that different code, versions or machines made; nothing where
    none has.

    Args:
        runs_of_seeds: of each seed the run folders, by arm.
    """
    found = dict[str, list[str]]()
    for seed, runs in enumerate(runs_of_seeds):
        facts = [_made_by(read_stamp(run / "run.json") or {}) for run in runs.values()]
        names = [name for name in facts[0] if len({str(of_run[name]) for of_run in facts}) > 1]
        if names:
            found.setdefault(" and ".join(names), []).append(str(seed))
    return [f"those of seed {', '.join(seeds)} in {names}" for names, seeds in found.items()]


def _made_by(record: Mapping[str, Any]) -> dict[str, Any]:
    machine, versions = record.get("machine") or {}, record.get("versions") or {}
    return {
        "code": record.get("git_commit"),
        "machine": [machine.get("cpu"), machine.get("gpu")],
        "versions": [versions.get(name) for name in _VERSIONS],
    }
