"""What a cell's records must hold before they are read: what its protocol says, a loss of every row, and runs
that are not each other's copies."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from instruction_modelling.decision.protocol import PROTOCOL
from instruction_modelling.decision.runs import BASE
from instruction_modelling.decision.tuning import TUNED_REFERENCE, TUNED_TREATMENT
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.study.grid import ELSEWHERE, MARGIN, MATCHED, TEST, TRAIN, StudyCell
from instruction_modelling.study.records import Record, record_path, tuned_path

_TUNED = (TUNED_REFERENCE, TUNED_TREATMENT)
# Of a key, what is the protocol's too, and what it is called there.
_OF_PROTOCOL = {name: f"{name}_sha256" for name in ("data", "test", "pool")} | {"train_rows": "train_rows"}
# What machines may have of their own: how much a pack holds, and the number format of products and of what is
# saved. The page says which formats there are.
_OF_MACHINE = ("--max_tokens_per_device", "--mixed_precision", "--save_dtype")
_MOST_PROBLEMS = 5
Records = Mapping[str, Sequence[Record | None]]


def check_cell(results: Path, cell: StudyCell, records: Records) -> dict[str, Any] | None:
    """Return a cell's protocol, which all its records keep; None where nothing is recorded.

    Raises:
        UserError: the protocol is missing or another study's; a record was made by other rows, settings or
            steps than it says, lacks a loss, has one that is none, or is another run's copy.
    """
    kept = [record for of_arm in records.values() for record in of_arm if record]
    try:
        return _checked(results, cell, kept) if kept else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{results / 'runs' / cell.name}: a record, {PROTOCOL} or tuned.json is not what a study writes "
            f"({error!r}): take back what git has"
        ) from None


def _checked(results: Path, cell: StudyCell, kept: Sequence[Record]) -> dict[str, Any]:
    path = results / "runs" / cell.name / PROTOCOL
    protocol = read_stamp(path)
    if protocol is None:
        raise UserError(f"{path}: is missing or no JSON object; it says what the cell's records are of")
    asked = [hypothesis.name for hypothesis in cell.hypotheses]
    if (protocol["margin"], [h["name"] for h in protocol["hypotheses"]]) != (MARGIN, asked):
        raise UserError(f"{path}: has another margin or other hypotheses than the study's")
    flags = {arm["name"]: " ".join(arm["flags"]) for arm in protocol["arms"]} | _tuned_flags(results, cell)
    problems = [
        f"{record_path(results, cell.name, record.arm, record.seed)}: {problem}"
        for record in kept
        for problem in _problems(cell, record, protocol, flags)
    ]
    problems = problems or list(_of_rows(results, kept))
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        raise UserError(
            "\n".join([*problems[:_MOST_PROBLEMS], *more])
            + "\nA record is written by a run and not by hand: take back what git has, or take it away, and "
            "the run is made anew"
        )
    return protocol


def check_alike(results: Path, cells: Sequence[tuple[StudyCell, Records]]) -> None:
    """Hold cells that draw on the same rows against each other: they are compared row by row.

    Raises:
        UserError: they are measured on other rows.
    """
    seen: dict[str, tuple[str, tuple[str, str]]] = {}
    for cell, records in cells:
        record = next((record for of_arm in records.values() for record in of_arm if record), None)
        if record:
            rows = record.key["test"], record.key["elsewhere"]
            first, of_first = seen.setdefault(cell.rows_name, (cell.name, rows))
            if rows != of_first:
                raise UserError(f"{results}: {cell.name} was measured on other rows than {first}")


def _tuned_flags(results: Path, cell: StudyCell) -> dict[str, str]:
    """Return the flags of a cell's tuned arms, where their settings are chosen."""
    kept = read_stamp(tuned_path(results, cell.name)) or {"tuned": {"arms": {}}}
    return {arm: " ".join(chosen["flags"]) for arm, chosen in kept["tuned"]["arms"].items()}


def _problems(
    cell: StudyCell, record: Record, protocol: Mapping[str, Any], flags: Mapping[str, str]
) -> Iterator[str]:
    """Yield in what a record is not of its cell's protocol."""
    key = record.key
    for name, of_protocol in _OF_PROTOCOL.items():
        if key[name] != protocol[of_protocol]:
            yield f"{name} is {key[name]}, the protocol's {protocol[of_protocol]}"
    if key["model"] != protocol["model"]["identity"]:
        yield f"model is {key['model']}, the protocol's {protocol['model']['identity']}"
    shared, asked = _settings(str(key["flags"]).split()), _settings(protocol["shared_flags"])
    if shared != asked:
        yield f"flags are {' '.join(shared)}, the protocol's {' '.join(asked)}"
    if record.arm != BASE:
        if record.flags != flags.get(record.arm):
            yield f"the arm's flags are {record.flags!r}, the protocol's {flags.get(record.arm)!r}"
        steps = record.facts.get("steps")
        if steps != cell.all_steps and record.arm not in (*_TUNED, *MATCHED):
            yield f"{steps} steps, where the cell has {cell.all_steps}"
    yield from _wrong_losses(record, protocol)


def _wrong_losses(record: Record, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yield which losses a record lacks, and which are none."""
    most_elsewhere, most_trained = record.key["measured_rows"]
    counts: dict[str, Callable[[int], bool]] = {
        TEST: lambda count: count == protocol["test_rows"],
        ELSEWHERE: lambda count: 0 < count <= most_elsewhere,
    }
    if record.arm != BASE:
        counts[TRAIN] = lambda count: count == min(most_trained, protocol["train_rows"])
    if set(record.losses) != set(counts):
        yield f"has losses of {', '.join(record.losses)}, not of {', '.join(counts)}"
        return
    for part, is_right in counts.items():
        values = record.losses[part]
        if not is_right(len(values)):
            yield f"{len(values)} losses of {part}, which is not the number of its rows"
        wrong = [at for at, value in enumerate(values, start=1) if not _is_loss(value)]
        if wrong:
            yield f"{part}, row {wrong[0]}: {values[wrong[0] - 1]!r} is no loss"


def _settings(flags: Sequence[str]) -> list[str]:
    """Return flags without those that machines have of their own, and their values."""
    own = {at for at, word in enumerate(flags) if word in _OF_MACHINE}
    return [word for at, word in enumerate(flags) if at not in own and at - 1 not in own]


def _is_loss(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(value) and value >= 0)


def _of_rows(results: Path, records: Sequence[Record]) -> Iterator[str]:
    """Yield which records of a cell lack rows that others have, and which are another seed's copy."""

    def path_of(record: Record) -> Path:
        return record_path(results, record.cell, record.arm, record.seed)

    first = records[0]
    for record in records[1:]:
        for name in ("scoring_dtype", "elsewhere"):
            if record.key[name] != first.key[name]:
                yield f"{path_of(record)}: has another {name} than {path_of(first).name}"
        for part in (TEST, ELSEWHERE):
            have, others = ([value is None for value in of.losses[part]] for of in (record, first))
            if have != others:
                yield f"{path_of(record)}: lacks losses of other {part} rows than {path_of(first).name}"
    for one, other in combinations(records, 2):
        # A tuned arm may have the settings of another one, and so its losses.
        is_same = one.seed == other.seed and {one.arm, other.arm} & set(_TUNED)
        if not is_same and one.losses[TEST] == other.losses[TEST]:
            yield f"{path_of(other)}: has the losses of {path_of(one).name}"
