"""Tune a model with several arms on the same data, measure them beside the untuned model, and write a report.

    python src/compare.py --model_name_or_path M --train_file F.jsonl --test_file G.jsonl --output_dir OUT

Trains every arm with every seed (src/finetune.py), takes their losses (src/compute_loss.py) and responses
(src/generate.py) on both files, scores them (src/compute_bleu.py, src/score_responses.py) and draws it all
together (src/report.py). What is there already, made by the same command from the same files, is not made
again."""

import logging
import sys
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.comparison.jobs import plan, report_job, run_job, run_jobs, split, waiting_jobs
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.processes.signals import StopSignals

logger = logging.getLogger("instruction_modelling.compare")


def main() -> int:
    """Split the data, plan the jobs, run those that are not done, and write the report."""
    options = parse_options(ComparisonOptions)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    jobs, runs, bases, trained_on = [], [], [], []
    for number, name in enumerate(options.train_file):
        train = Path(name)
        test = Path(options.test_file[number]) if options.test_file else None
        files = split(
            train, test, Path(options.output_dir) / train.stem.removesuffix("_train"), options.columns
        )
        planned, run_folders = plan(options, files)
        jobs += planned
        runs += run_folders
        bases.append(files.folder / "base")
        trained_on.append(files.train)
    waiting = waiting_jobs(jobs)
    logger.info("%d of %d jobs are done already", len(jobs) - len(waiting), len(jobs))
    with StopSignals() as stop:
        failed = run_jobs(options, waiting, stop)
        code = run_job(report_job(options, runs, bases, trained_on), stop)
        if stop.received:
            return 128 + stop.received
    if code:
        raise UserError("the report could not be written; see the messages above")
    if failed:
        raise UserError(
            "these jobs failed; mend the cause and run the same command again, it does only what is "
            "missing:\n" + "\n".join(f"  - {name}" for name in failed)
        )
    return 0


if __name__ == "__main__":
    run_main(main)
