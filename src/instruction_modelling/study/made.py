"""What docs/results.md says of how its records were made, and of the runs that are not there."""

from collections.abc import Sequence

from instruction_modelling.decision.runs import BASE
from instruction_modelling.progress import counted, duration
from instruction_modelling.study.grid import CUT, EXTRAS
from instruction_modelling.study.reading import DAGGER, CellReading
from instruction_modelling.study.records import Record

COMMAND = "bash scripts/study.sh --dolly alpagasus_3k_dolly.jsonl --lima lima_data.jsonl --tune --more_arms"


def not_run_lines(readings: Sequence[CellReading]) -> list[str]:
    """Return which runs are not recorded, by cell, and the command that runs them."""
    lines = []
    for reading in readings:
        missing = [
            f"{arm} ({counted(sum(record is None for record in reading.records[arm]), 'seed')}"
            f"{', cut for time' if arm in CUT.get(reading.cell.name, ()) else ''})"
            for arm in dict.fromkeys(
                [*reading.cell.arms, *(n for h in reading.cell.hypotheses for n in (h.reference, h.arm))]
            )
            if not reading.can_compare(arm)
        ]
        if missing:
            lines.append(f"- {reading.label}: {', '.join(missing)}")
    if not lines:
        return ["Every cell has its runs."]
    of_marked = ""
    if any(reading.is_measured_otherwise for reading in readings):
        of_marked = (
            f" An arm that a cell with {DAGGER} lacks would take its seeds anew, since models are saved as "
            "they were trained now; the cells -again have it."
        )
    return [
        "Cells are run in this order, what was asked beforehand in all of them first. Missing are:",
        "",
        *lines,
        "",
        f"    {COMMAND}",
        "",
        f"Without `--tune` it runs no tuned arms, without `--more_arms` none of {', '.join(EXTRAS)}; `--only "
        "CELL` runs one cell, `--dry_run` prints what it takes, `--status` which runs are to come. All arms "
        "of a seed are made by the same code, versions and machine (those that are tuned may be by others). "
        "Where it finds others it refuses to go on: `--other_keys keep` leaves the seeds that have every "
        f"arm, and makes the others anew, arms that are recorded too, `--other_keys redo` all.{of_marked}",
    ]


def made_lines(readings: Sequence[CellReading]) -> list[str]:
    """Return what made the records: code, machines, versions, flags."""
    records = [record for of in readings for of_arm in of.records.values() for record in of_arm if record]
    if not records:
        return [f"Nothing is recorded yet. The command: `{COMMAND}`."]
    versions = sorted({f"{name} {v}" for record in records for name, v in record.key["versions"].items()})
    codes = sorted({record.key["code"] for record in records})
    seconds = sum(record.facts.get("seconds", 0.0) for record in records)
    flags = sorted({record.key["flags"] for record in records})
    threads = sorted({record.key["threads"] for record in records})
    dtypes = sorted({record.key["scoring_dtype"] for record in records})
    return [
        f"{counted(len(records), 'run')} are recorded in `docs/results/runs/`, each with the losses of its "
        f"rows and the key of what made it (code {', '.join(codes)}, a digest of what makes its numbers). "
        f"{', '.join(versions)}; threads: {', '.join(threads)}; training took {duration(seconds)} of wall "
        f"time beside other jobs; losses in {', '.join(dtypes)}. Cells were made as machines were to be had:",
        "",
        *_machines(readings),
        "",
        *(f"    {COMMAND}", ""),
        "Flags that all arms of a cell share, each line of one cell or more:",
        "",
        *(f"    {line}" for line in flags),
        "",
        "This page and its picture follow from the records: `python src/study.py --write_page`.",
    ]


def _machines(readings: Sequence[CellReading]) -> list[str]:
    """Return which machine made which arms of each cell, in lines."""
    lines = []
    for reading in readings:
        arms: dict[str, list[str]] = {}
        for arm, records in reading.records.items():
            for machine in sorted({_machine(record) for record in records if record}):
                arms.setdefault(machine, []).append("the untuned model" if arm == BASE else arm)
        named = [f"{machine} ({', '.join(names)})" for machine, names in arms.items()]
        if arms:
            lines.append(f"- {reading.label}: {'; '.join(named if len(arms) > 1 else arms)}")
    return lines


def _machine(record: Record) -> str:
    machine = record.key["machine"]
    return str(machine["gpu"] or machine["cpu"])
