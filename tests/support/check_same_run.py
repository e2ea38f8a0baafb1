"""Every layout and arm on every backend against one process: a table on the terminal, in Markdown and in
JSON.

bash scripts/check_same_run.sh --output_dir same_run
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from same_run import (
    ARMS,
    GRADIENT,
    LAYOUTS,
    LOSSES,
    WEIGHTS,
    Case,
    Difference,
    difference,
    make_place,
    record_case,
)
from same_run_backends import BACKENDS, run_cases

from instruction_modelling.files.whole import write_json, write_text
from instruction_modelling.runs.environment import versions

COLUMNS = ("backend", "processes", "layout", "arm", "gradient", "weights", "losses", "ok")


def compare(
    backends: Sequence[str], processes: Sequence[int], cases: Sequence[Case], folder: Path, timeout: float
) -> list[dict[str, object]]:
    """A row for each backend, number of processes and case."""
    place = make_place(folder / "place")
    alone = {case: record_case(case, place, folder / f"alone {case.layout} {case.arm}") for case in cases}
    rows: list[dict[str, object]] = []
    for backend in backends:
        for count in processes:
            error = ""
            try:
                found = run_cases(backend, cases, place, folder / f"{backend} {count}", count, timeout)
            except (AssertionError, subprocess.TimeoutExpired) as failure:
                error, found = str(failure), []
                print(error, file=sys.stderr)
            for number, case in enumerate(cases):
                apart = difference(found[number], alone[case]) if found else Difference(*[float("nan")] * 3)
                rows.append(
                    {
                        "backend": backend,
                        "processes": count,
                        "layout": case.layout,
                        "arm": case.arm,
                        **asdict(apart),
                        "ok": apart.small,
                    }
                )
                print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, object]) -> str:
    """A row of the table."""
    shown = {name: f"{value:.1e}" if isinstance(value, float) else value for name, value in row.items()}
    return (
        "| "
        + " | ".join(
            "yes" if value is True else "NO" if value is False else str(value)
            for value in (shown[name] for name in COLUMNS)
        )
        + " |"
    )


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows in Markdown, with what the columns mean."""
    head = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    note = (
        "Relative differences from one process without sharding, in float32: of the first step's gradient "
        "(at most "
        f"{GRADIENT:g} of its norm), of the weights after six steps of SGD (at most {WEIGHTS:g} of how far "
        "they moved), and "
        f"of every loss, gradient norm, KL term and evaluation of six steps with AdamW (at most {LOSSES:g})."
    )
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "\n".join([note, "", *head, *map(line, rows), "", used, ""])


def main() -> int:
    """0 where all rows are alike, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("same_run"), help="where same_run.md and same_run.json go"
    )
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--processes", nargs="+", type=int, choices=(1, 2, 4, 8), default=[2])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--timeout", type=float, default=900, help="seconds a launch may take")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    cases = [Case(layout, arm) for layout in options.layouts for arm in options.arms]
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options.backends, options.processes, cases, Path(folder), options.timeout)
    write_text(options.output_dir / "same_run.md", table(rows))
    write_json(options.output_dir / "same_run.json", {"versions": versions(), "rows": rows})
    failed = sum(not row["ok"] for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} are the same run; {options.output_dir / 'same_run.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
