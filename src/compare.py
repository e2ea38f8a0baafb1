"""Tune a model with several arms on the same data, measure them beside the untuned model, and write a report.

    python src/compare.py --model_name_or_path M --train_file F.jsonl --test_file G.jsonl --output_dir OUT

Trains every arm with every seed (src/finetune.py), takes their losses (src/compute_loss.py) and responses
(src/generate.py) on both files, scores them (src/compute_bleu.py, src/score_responses.py) and draws it all
together (src/report.py). What is there already, made by the same command from the same files, is not made
again.

Every arm is trained on the same rows: those with a response to train (--row_set own: each arm on all that it
has a loss for). Unusable rows, too few rows and rows longer than the model's positions are found before any
model is made; a prompt that is too long gets no response of any model."""

import logging
import sys
from pathlib import Path

from instruction_modelling.called import this_command
from instruction_modelling.command_line import parse_options
from instruction_modelling.comparison.begun import run_job
from instruction_modelling.comparison.jobs import (
    earlier_records,
    plan,
    report_job,
    run_jobs,
    show_jobs,
    waiting_jobs,
)
from instruction_modelling.comparison.options import ComparisonOptions, data_set_name
from instruction_modelling.comparison.preflight import check_lengths, row_choice, with_evaluation
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.inputs import missing_inputs
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import counted

logger = logging.getLogger("instruction_modelling.compare")


def main() -> int:
    """Split the data, plan the jobs, run those that are not done, and write the report."""
    options = parse_options(ComparisonOptions, also_check=missing_inputs)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    choice = row_choice(options)
    jobs, runs, sets = [], [], []
    for number, name in enumerate(options.train_file):
        test = Path(options.test_file[number]) if options.test_file else None
        sets.append(choice.of(Path(name), test, Path(options.output_dir) / data_set_name(name)))
    sets = with_evaluation(options, sets)
    for files in sets:
        planned, run_folders = plan(options, files)
        jobs += planned
        runs += run_folders
    check_lengths(options, sets)
    waiting = waiting_jobs(jobs)
    logger.info("%d of %d jobs are done already", len(jobs) - len(waiting), len(jobs))
    with StopSignals() as stop:
        if options.dry_run:
            show_jobs(waiting, stop)
            return 128 + stop.received if stop.received else 0
        failed = run_jobs(waiting, stop)
        # A run that another command left where this one failed is not this comparison's.
        trained = {job.outputs[0].parent for job in jobs if job.script == "finetune" and job.done()}
        made = [run for run in runs if run in trained]
        of_made = [files for files in sets if any(run.parent == files.folder for run in made)]
        earlier = earlier_records(jobs, [*made, *(files.folder / "base" for files in of_made)])
        code = run_job(report_job(options, made, of_made, earlier, failed), stop) if made else 0
        if stop.received:
            return 128 + stop.received
    if code and not failed:
        raise UserError("the report could not be written; see the messages above")
    if failed:
        raise UserError(
            "these jobs failed; mend the cause and run the same command again, it does only what is "
            "missing:\n" + "\n".join(f"  - {name}" for name in failed)
        )
    print(next_step(options, sys.argv))
    return 0


def next_step(options: ComparisonOptions, argv: list[str]) -> str:
    """Return what to do next, in a line: more seeds where they are few, else a look at the responses."""
    if len(options.seeds) >= 3:
        return "next: read the responses side by side in the report, by the same rows for every arm"
    words = list(argv[1:])
    if "--seeds" in words:
        at = words.index("--seeds")
        del words[at : at + 1 + len(options.seeds)]
    more = [*map(str, options.seeds), *(str(n) for n in range(100) if n not in options.seeds)][:3]
    command = this_command([*words, "--seeds", *more])
    return f"next, since {counted(len(options.seeds), 'seed')} cannot show what chance does: {command}"


if __name__ == "__main__":
    run_main(main, goes_on=True)
