"""What is kept of a run: the losses of its rows, and the key that says what it was made by."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.decision.matching import MATCHING
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.tuning import TUNED, TUNED_REFERENCE, TUNED_TREATMENT
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, differing, plain, read_stamp
from instruction_modelling.files.whole import write_json, write_text
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.runs.environment import machine, versions
from instruction_modelling.study.grid import ELSEWHERE_ROWS, TRAINED_ROWS

if TYPE_CHECKING:
    from instruction_modelling.study.cells import PreparedCell

SIGNIFICANT_DIGITS = 5
_LIBRARY = Path(__file__).resolve().parents[1]
# The code that a run's losses follow from.
_CODE = ("chat", "models", "processes", "rows", "runs", "tokens", "training")
_VERSIONS = ("python", "torch", "transformers", "tokenizers", "accelerate")
# The names of a key, as `key_of` makes it.
_KEY = (
    *("code", "versions", "machine", "threads", "model", "data", "test", "pool", "elsewhere"),
    *("train_rows", "flags", "scoring_dtype", "measured_rows"),
)


def code_digest() -> str:
    """Return what tells the code that trains and measures from other code: a hash of its files."""
    files = [path for package in _CODE for path in (_LIBRARY / package).rglob("*.py")]
    files += [
        *_LIBRARY.glob("*.py"),
        *(_LIBRARY.parent / f"{name}.py" for name in ("finetune", "compute_loss")),
    ]
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.relative_to(_LIBRARY.parent)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def key_of(cell: "PreparedCell") -> dict[str, Any]:
    """Return what all runs of a cell are made by and from, beside arm and seed."""
    known = versions()
    protocol = cell.prepared.protocol
    return plain(
        {
            "code": code_digest(),
            "versions": {name: known[name] for name in _VERSIONS},
            "machine": {"cpu": machine()["cpu"], "gpu": machine()["gpu"]},
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "model": protocol.model["identity"],
            "data": protocol.data_sha256,
            "test": protocol.test_sha256,
            "pool": protocol.pool_sha256,
            "elsewhere": content_of(cell.elsewhere),
            "train_rows": protocol.train_rows,
            "flags": " ".join(protocol.shared_flags),
            "scoring_dtype": cell.scoring_dtype,
            "measured_rows": [ELSEWHERE_ROWS, TRAINED_ROWS],
        }
    )


@dataclass(frozen=True)
class Record:
    """One run as it is kept."""

    cell: str
    arm: str
    seed: int | None
    """None of the untuned model."""
    flags: str
    """What the arm adds to the flags that all share."""
    key: dict[str, Any]
    losses: dict[str, list[float | None]]
    """By part, the NLL per response token of each row in nats; None of a row without a response token."""
    facts: dict[str, Any]
    """Steps, and the seconds that training took."""


def record_path(results: Path, cell: str, arm: str, seed: int | None) -> Path:
    """Return where a run's record is kept."""
    return results / "runs" / cell / (f"{arm}.json" if arm == BASE else f"{arm}-seed{seed}.json")


def write_record(results: Path, record: Record) -> None:
    """Write a run's record, each part's losses on one line."""
    head = {name: getattr(record, name) for name in ("cell", "arm", "seed", "flags", "key", "facts")}
    parts = ",\n".join(f"  {json.dumps(part)}: {json.dumps(row)}" for part, row in record.losses.items())
    body = json.dumps(head, indent=1, ensure_ascii=False)[:-2]
    text = f'{body},\n "losses": {{\n{parts}\n }}\n}}\n'
    write_text(record_path(results, record.cell, record.arm, record.seed), text)


def read_record(results: Path, cell: str, arm: str, seed: int | None) -> Record | None:
    """Return a run's record; None where there is none.

    Raises:
        UserError: the file is there and is no record of this run.
    """
    path = record_path(results, cell, arm, seed)
    found = read_stamp(path)
    if found is None:
        if path.exists():
            raise UserError(f"{path}: is no JSON object; take it away, and the run is made anew")
        return None
    try:
        record = Record(**found)
    except TypeError as error:
        raise UserError(f"{path}: is no record of a run ({error}); take it away") from None
    if lacking := _lacking(record):
        raise UserError(f"{path}: is no record of a run ({lacking}); take it away")
    if (record.cell, record.arm, record.seed) != (cell, arm, seed):
        raise UserError(f"{path}: says that it is {record.cell} {record.arm} seed {record.seed}")
    return record


def _lacking(record: Record) -> str:
    """Return what a record lacks that every reader of it takes for given; nothing where it lacks nothing."""
    key, losses = record.key, record.losses
    if not all(isinstance(part, dict) for part in (key, losses, record.facts)):
        return "key, losses and facts must be objects"
    if missing := [name for name in _KEY if name not in key]:
        return f"its key lacks {', '.join(missing)}"
    machine = key["machine"] if isinstance(key["machine"], dict) else {}
    if not isinstance(key["versions"], dict) or {*machine} != {"cpu", "gpu"}:
        return "its key names no machine or no versions"
    if not all(isinstance(of_part, list) for of_part in losses.values()):
        return "losses must be lists"
    return ""


def groups_of(arms: Sequence[str]) -> list[list[str]]:
    """Return the arms that are compared with each other, and so must be made by the same: the tuned ones, and
    all others."""
    tuned = (TUNED_REFERENCE, TUNED_TREATMENT)
    groups = [[arm for arm in arms if (arm in tuned) == are_tuned] for are_tuned in (False, True)]
    return [group for group in groups if group]


def tuned_path(results: Path, cell: str) -> Path:
    """Return where it is kept which settings a cell's tuned arms have."""
    return results / "runs" / cell / TUNED


def restore_tuned(cell: "PreparedCell", results: Path, key: dict[str, Any], keep: bool) -> bool:
    """Put the settings in place that a cell's tuned arms have, and return whether they are known: those of
    the same key, or, to `keep`, of any."""
    kept = read_stamp(tuned_path(results, cell.cell.name))
    if kept is None or (differing(kept["key"], key) and not keep):
        return False
    write_json(cell.runs.folder / TUNED, kept["tuned"])
    return True


def keep_tuned(cell: "PreparedCell", results: Path, key: dict[str, Any]) -> None:
    """Keep the settings that a cell's tuned arms have, once they are chosen."""
    tuned = read_stamp(cell.runs.folder / TUNED)
    write_json(tuned_path(results, cell.cell.name), {"key": key, "tuned": tuned})


def restore_matches(cell: "PreparedCell", results: Path, key: dict[str, Any], keep: bool) -> bool:
    """Put in place how many steps a cell's arms take that stop where another one ends, and return whether it
    is known, as `restore_tuned`; true of a cell without such arms."""
    if not any(rules.stop_at for rules in cell.prepared.protocol.rules.values()):
        return True
    kept = read_stamp(results / "runs" / cell.cell.name / MATCHING)
    if kept is None or (differing(kept["key"], key) and not keep):
        # What another key has left here would say which arms cannot be had.
        (cell.runs.folder / MATCHING).unlink(missing_ok=True)
        return False
    write_json(cell.runs.folder / MATCHING, {"matches": kept["matches"]})
    return True


def keep_matches(cell: "PreparedCell", results: Path, key: dict[str, Any]) -> None:
    """Keep how many steps such arms take, once it is known."""
    found = read_stamp(cell.runs.folder / MATCHING) or {}
    write_json(results / "runs" / cell.cell.name / MATCHING, {"key": key, **found})


def make_record(cell: "PreparedCell", arm: str, seed: int | None, key: dict[str, Any]) -> Record:
    """Return the record of a run that is measured."""
    lines = [line for _, line in read_appended(cell.losses(arm, seed)).records]
    values = iter([_rounded(line["nll"].get("response")) for line in lines])
    losses = {part: [next(values) for _ in rows] for part, rows in cell.parts(seed).items()}
    done = read_stamp(cell.run(arm, seed) / "run.json") or {}
    facts = {"steps": done.get("steps"), "seconds": round(done["seconds"], 1)} if done else {}
    flags = "" if seed is None else " ".join(cell.runs.arms()[arm])
    return Record(cell.cell.name, arm, seed, flags, key, losses, facts)


def _rounded(nll: float | None) -> float | None:
    return None if nll is None else float(f"{nll:.{SIGNIFICANT_DIGITS}g}")


def other_facts(record: Record, key: dict[str, Any], flags: str) -> list[str]:
    """Return the names of the facts in which a record was made by something else."""
    return [*differing(record.key, key), *(["arm"] if record.flags != flags else [])]
