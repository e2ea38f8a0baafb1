"""Kills training runs at random instants, fails every write, flush and rename, and compares what comes of it.

    python tests/crash/crash_test.py --kills 50 --faults all --output_dir results/crash

Prints a table and writes it as crash.md and crash.json. Exit code 1 where a run that was started again is
not, bit for bit, the one that was left alone."""

import json
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

from restarts import FULL, LORA, Case, inject, kill_at_random, make_place, operations, results, undisturbed  # noqa: E402

from instruction_modelling.command_line import parse_options  # noqa: E402
from instruction_modelling.errors import UserError, run_main  # noqa: E402

LAUNCHERS = {"one": "1 process", "two": "2 processes", "zero3": "2 processes, ZeRO-3"}


@dataclass
class CrashOptions:
    """Crashes."""

    output_dir: str = "results/crash"
    """Where the table goes, as crash.md and crash.json."""
    kills: int = 50
    """Kills at random instants, over all cases."""
    faults: str = "all"
    """Operations to inject faults at, of one process's runs: all, or a number, spread evenly."""
    launchers: str = "one,two,zero3"
    """Which of one, two and zero3 to run, separated by commas."""
    seed: int = 0
    """Decides the instants."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = [
            f"--launchers {name}: one, two or zero3"
            for name in self.launchers.split(",")
            if name not in LAUNCHERS
        ]
        if self.faults != "all" and not self.faults.isdigit():
            problems.append(f"--faults {self.faults}: all, or a number")
        return problems


def main() -> int:
    """Every case undisturbed, then with faults, then with kills."""
    options = parse_options(CrashOptions)
    for module in (
        "instruction_modelling.runs.model",
        "instruction_modelling.runs.checkpoints",
        "peft",
        "accelerate",
        "transformers",
    ):
        # Imported once, here, for all the forked runs.
        __import__(module)
    import torch

    # Forked runs inherit no pool of threads to wait for.
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        place = make_place(Path(folder))
        cases = [
            Case(
                f"{'AdamW' if arm is FULL else 'LoRA with dropout'}, {LAUNCHERS[launcher]}",
                launcher,
                arm,
                place,
            )
            for launcher in options.launchers.split(",")
            for arm in (FULL, LORA)
        ]
        for case in cases:
            undisturbed(case)
        alone = [case for case in cases if case.launcher == "one"]
        for case in alone:
            inject_faults(case, options.faults, alone.index(case))
        share = [
            options.kills // len(cases) + (number < options.kills % len(cases))
            for number in range(len(cases))
        ]
        for case, kills in zip(cases, share, strict=True):
            while case.kills < kills:
                kill_at_random(case, min(5, kills - case.kills), chance)
                print(
                    f"{case.name}: {case.kills} of {kills} kills, {len(case.problems)} problems", flush=True
                )
    lines = results(cases)
    write(Path(options.output_dir), lines)
    return 0 if all(line["identical"] for line in lines) else 1


def inject_faults(case: Case, faults: str, offset: int) -> None:
    """Kills and failures at every operation, or at a number of them that are spread evenly."""
    found = list(enumerate(operations(case), start=1))
    chosen = [
        (at, how)
        for at, name in found
        for how in (
            ("kill", "half", "ENOSPC", "EIO")
            if name == "write"
            else ("kill", "ENOSPC")
            if name in ("open", "mkdir")
            else ("kill", "EIO")
        )
    ]
    if faults != "all":
        count = int(faults)
        chosen = [
            chosen[(2 * number + 1 + offset % 2) * len(chosen) // (2 * count + 1)] for number in range(count)
        ]
    for at, how in chosen:
        inject(case, at, how)
    print(
        f"{case.name}: {len(found)} operations, {case.faults} faults, {len(case.problems)} problems",
        flush=True,
    )


def table(lines: list[dict[str, object]]) -> str:
    """The results as a Markdown table."""
    rows = [
        "| case | faults injected | random kills | within a save | starts | checkpoints skipped | "
        "bit-identical |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    rows += [
        f"| {line['case']} | {line['faults']} | {line['kills']} | {line['within_saves']} | {line['starts']} "
        "| "
        f"{line['checkpoints_skipped']} | {'yes' if line['identical'] else 'NO'} |"
        for line in lines
    ]
    return "\n".join(rows) + "\n"


def write(folder: Path, lines: list[dict[str, object]]) -> None:
    """The table on the console and in the folder, and what went wrong."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "crash.md").write_text(table(lines), encoding="utf-8")
        (folder / "crash.json").write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output_dir {folder}: {error.strerror}") from error
    print(table(lines))
    for line in lines:
        for problem in line["problems"]:  # type: ignore[attr-defined]
            print(f"{line['case']}: {problem}")


if __name__ == "__main__":
    run_main(main)
