"""What do models learn by heart of the instructions they are tuned on, with a loss on them and without?

    python src/measure_memorisation.py --model_name_or_path models/SmolLM2-135M-Instruct \\
        --train_file F.jsonl --output_dir OUT [--arms IT IM IM-w0.1] [--seeds 0 1] [--dry_run]

Puts canaries, sentences with a random secret, in front of training instructions: 10 in one row, 10 in four,
10 in sixteen. Tunes the model with each arm, and measures each model and the untuned one: the rank of each
secret among 1,000 unseen ones, as exposure (Carlini et al. 2019); whether the model completes it; how much it
goes on with of instructions it was trained on; and what it refuses. These runs answer nothing else: the
canaries are in their data.

Writes result.md, result.json, memorisation.svg and .png. What it takes is printed first; it can be stopped at
any time, and the same command goes on."""

import datetime
import logging
import shlex
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.processes.signals import StopSignals

if TYPE_CHECKING:
    from instruction_modelling.memorisation.study import MemorisationStudy

logger = logging.getLogger("measure_memorisation")


def main() -> int:
    """Draw the rows, run what is missing, and write the result."""
    options = parse_options(MemorisationOptions)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    from instruction_modelling.comparison.jobs import run_jobs, waiting_jobs
    from instruction_modelling.comparison.timing import calibrate
    from instruction_modelling.memorisation.rows import read_pool, write_rows
    from instruction_modelling.memorisation.study import MemorisationStudy, cost_lines

    pool = read_pool(options)
    print("\n".join([f"{len(pool.rows):,} rows to draw from", *pool.lines()]))
    if options.dry_run or options.so_far:
        with tempfile.TemporaryDirectory() as place:
            # What is made is made from these options' rows; those in the study's folder may be of others.
            study = MemorisationStudy(options, drawn=Path(place))
            for seed in options.seeds:
                write_rows(options, pool, seed, study.drawn_rows(seed))
            if options.so_far:
                write_result(study, pool.lines())
                return 0
            waiting = waiting_jobs(study.jobs())
            # A trial step reads its rows where its command says.
            names = {job.name for job in waiting}
            tried = MemorisationStudy(replace(options, output_dir=place)).jobs()
            rate = calibrate([job for job in tried if job.name in names])
            print("\n".join(cost_lines(study, waiting, rate)))
        return 0
    study = MemorisationStudy(options)
    for seed in options.seeds:
        write_rows(options, pool, seed, study.rows(seed))
    study.forget_strange()
    with StopSignals() as stop:
        failed = run_jobs(waiting_jobs(study.jobs()), stop)
        if stop.received:
            print(f"stopped; the same command goes on: {shlex.join([sys.executable, *sys.argv])}")
            return 128 + stop.received
    # What failed takes nothing away from what is measured.
    if study.results() or not failed:
        write_result(study, pool.lines())
    if failed:
        raise UserError(
            "these jobs failed; mend the cause and run the same command again, it does only what is "
            "missing:\n" + "\n".join(f"  - {name}" for name in failed)
        )
    return 0


def write_result(study: "MemorisationStudy", left_out: list[str]) -> None:
    """Write the study's result and print its sentences.

    Raises:
        UserError: nothing is measured.
    """
    from instruction_modelling.files.durable import file_sha256
    from instruction_modelling.files.whole import write_json, write_text
    from instruction_modelling.memorisation.report import answer, draw, page, summary
    from instruction_modelling.pages.drawing import drawing_style, save_files
    from instruction_modelling.runs.environment import machine, versions

    options = study.options
    results, missing = study.results(), study.missing()
    if not results:
        raise UserError(
            f"{study.root}: nothing is measured with these options: no {', no '.join(missing)}; give the "
            "options that it was measured with, or run it without --so_far"
        )
    numbers = summary(results)
    lines = answer(numbers, options.candidates)
    command, date = (
        shlex.join(["python", *(word for word in sys.argv if word != "--so_far")]),
        datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    made_with = {
        "command": command,
        "date": date,
        "machine": machine(),
        "versions": versions(),
        "data_sha256": file_sha256(Path(options.train_file)),
        "rows_left_out": left_out,
        "not_measured": missing,
    }
    write_json(
        study.root / "result.json",
        {
            "answer": lines,
            "options": asdict(options),
            "made_with": made_with,
            "arms": numbers,
            "models": results,
        },
    )
    facts = {
        "command": f"`{command}`",
        "date": date,
        "machine": ", ".join(f"{name} {value}" for name, value in machine().items()),
        "versions": ", ".join(f"{name} {value}" for name, value in versions().items()),
        "rows left out": "; ".join(left_out) or "none",
        "not measured yet": ", ".join(missing) or "nothing",
    }
    write_text(study.root / "result.md", page(options, numbers, facts))
    with drawing_style():
        save_files(draw(numbers, options.candidates), study.root)
    lines += [f"Not measured yet: {', '.join(missing)}."] if missing else []
    print("\n".join([*lines, f"written to {study.root / 'result.md'}"]))


if __name__ == "__main__":
    run_main(main)
