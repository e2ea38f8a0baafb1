"""The jobs of a comparison: which scripts run on which files, what is done already, and running the rest."""

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from instruction_modelling.arms.table import Arm, read_arms
from instruction_modelling.called import SCRIPTS
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.begun import DELETE_WEIGHTS, run_job
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.precision import Precision, quickest_precision
from instruction_modelling.comparison.report.runs import RECORDS, SPLITS
from instruction_modelling.comparison.row_sets import ROWS, TrainAndTest
from instruction_modelling.comparison.warm_start import SharedProcess, can_start_warm
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, is_made, mark_made, stamp_path
from instruction_modelling.models.identity import model_identity
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.progress import counted, duration

logger = logging.getLogger(__name__)
_EXIT_CODE = " (exit code "

# The file in a run folder that says that its weights were deleted.
WEIGHTS_DELETED = "weights-deleted"
# Flags of scripts whose value may be the name of a file that decides what is made.
FILE_FLAGS = ("--chat_format", "--loss_patterns", "--sample_file", "--special_tokens_file")


def files_named(arguments: Sequence[str]) -> dict[str, str]:
    """Return the hash of each file that a flag of `FILE_FLAGS` names, by the flag."""
    given = {flag: Path(word) for flag, word in pairwise(arguments) if flag in FILE_FLAGS}
    return {flag: content_of(path) for flag, path in given.items() if path.is_file()}


@dataclass(frozen=True)
class Job:
    """One script to run: done when its outputs are there, made by the same command from the same inputs."""

    name: str
    script: str
    """Of src/, without .py; or `DELETE_WEIGHTS`, whose one argument is a run folder."""
    arguments: list[str]
    outputs: list[Path]
    inputs: list[Path]
    """The files it reads."""
    model: str | None = None
    """The model among the arguments that is known by its contents: a copy elsewhere is the same model."""
    passes: float = 0.0
    """Token-passes it takes: a training step's forward and backward is one, a float32 forward about half of
    one."""
    run: Path | None = None
    """The run folder whose weights it reads."""
    together: str | None = None
    """Of jobs of the same name that follow one another, one process is made: it loads their model once."""

    def made_from(self) -> dict[str, Any]:
        """Return the stamp of what it makes: the command, and what its inputs hold."""
        return {
            "script": self.script,
            "arguments": ["MODEL" if word == self.model else word for word in self.arguments],
            "inputs": [content_of(path) for path in self.inputs],
            # A flag may name a file: a chat template, a table of patterns.
            **({"files": files} if (files := files_named(self.arguments)) else {}),
            "model": None if self.model is None else model_identity(self.model),
        }

    def done(self) -> bool:
        """Return whether it need not run."""
        return is_made(self.outputs, self.made_from())

    def mark_done(self) -> None:
        """Write down what its outputs were made from, where all of them are there."""
        if all(path.exists() for path in self.outputs):
            mark_made(self.outputs[0], self.made_from())

    def forget(self) -> None:
        """Take back that its outputs are made, since it is about to write them: a job that is stopped midway
        is not done by the command before, either."""
        stamp_path(self.outputs[0]).unlink(missing_ok=True)
        if self.script == "finetune":
            (self.outputs[0].parent / WEIGHTS_DELETED).unlink(missing_ok=True)

    @property
    def command(self) -> list[str]:
        """Return the command line, by this Python."""
        return [sys.executable, str(SCRIPTS / f"{self.script}.py"), *self.arguments]


# -- the plan -----------------------------------------------------------------------------------------------


def plan(options: ComparisonOptions, files: TrainAndTest) -> tuple[list[Job], list[Path]]:
    """Return every job on one data set, in order, and its run folders."""
    jobs = measure(options, files, files.folder / "base", options.model_name_or_path)
    runs, arms = [], read_arms(options.arms_file)
    for seed in options.seeds:
        for arm in (arms[name] for name in options.arms):
            run = files.folder / f"{arm.name}-seed{seed}"
            runs.append(run)
            jobs.append(_training(options, files, run, arm, seed))
            measurements = measure(options, files, run)
            jobs += measurements
            if not options.keep_models:
                jobs.append(delete_weights(run, measurements))
    return jobs, runs


def delete_weights(run: Path, measurements: Sequence[Job]) -> Job:
    """Return the job that deletes a run's weights, once everything is measured: what failed needs them
    again."""
    made = [path for job in measurements for path in job.outputs]
    inputs = [stamp_path(run / "run.json"), *made]
    name = f"delete the weights of {run.parent.name} {run.name}"
    return Job(name, DELETE_WEIGHTS, [str(run)], [run / WEIGHTS_DELETED], inputs)


class TrainingChoices(Protocol):
    """The options that say how all arms are trained."""

    chat_format: str
    max_seq_length: int
    num_train_epochs: int
    learning_rate: float
    batch_size: int
    max_tokens_per_device: int
    mixed_precision: Precision | None


def training_flags(options: TrainingChoices) -> dict[str, object]:
    """Return these options as flags of src/finetune.py with their values.

    A model is saved as the products of its training saw it. Under bf16 these see each weight rounded, and a
    short training moves a weight by hardly more than that: with the weights before rounding a model that was
    never trained is measured, and how much it loses differs from arm to arm (docs/LOG.md)."""
    precision = options.mixed_precision or quickest_precision()
    return {
        "--chat_format": options.chat_format,
        "--max_seq_length": options.max_seq_length,
        "--num_train_epochs": options.num_train_epochs,
        "--learning_rate": options.learning_rate,
        "--per_device_train_batch_size": options.batch_size,
        "--max_tokens_per_device": options.max_tokens_per_device,
        "--mixed_precision": precision,
        "--save_dtype": "bfloat16" if precision == "bf16" else "float32",
    }


def _training(options: ComparisonOptions, files: TrainAndTest, run: Path, arm: Arm, seed: int) -> Job:
    flags: dict[str, object] = {
        "--model_name_or_path": options.model_name_or_path,
        "--train_file": files.trained_on,
        "--output_dir": run,
        **training_flags(options),
        "--seed": seed,
        **({"--eval_file": files.evaluation} if files.evaluation else {}),
    }
    return Job(
        f"train {files.folder.name} {arm.name} seed {seed}",
        "finetune",
        [
            "--packing",
            "--overwrite_output",
            *(str(word) for pair in flags.items() for word in pair),
            *arm.flags,
        ],
        [run / "run.json"],
        [files.train, *filter(None, (files.mixture, files.evaluation))],
        options.model_name_or_path,
        options.num_train_epochs * files.tokens(files.train),
    )


def measure(options: ComparisonOptions, files: TrainAndTest, run: Path, base: str | None = None) -> list[Job]:
    """Return the jobs that take one model's losses and responses on both files.

    Args:
        run: the model's folder, under which the measurements go.
        base: the untuned model, where that is measured and not what `run` holds.
    """
    return [
        job
        for part, file, responses, losses in (
            ("train", files.train, options.train_responses, options.train_losses),
            ("test", files.test, options.test_responses, None),
        )
        for job in _measure_part(options, Measured(files, run, base, part, file), responses, losses)
    ]


@dataclass(frozen=True)
class Measured:
    """One model on one file."""

    files: TrainAndTest
    run: Path
    base: str | None
    part: str
    file: Path

    def job(self, options: ComparisonOptions, noun: str, script: str, count: int | None) -> tuple[Job, Path]:
        """Return a job that takes the model through the first `count` rows of the file (None: all), without
        outputs, and the folder its outputs go to."""
        out = self.run / "eval" / self.part
        rows = max(1, self.file.read_bytes().count(b"\n"))
        arguments = {
            "--model_name_or_path": self.base or str(self.run),
            "--eval_file": str(self.file),
            "--output_dir": str(out),
            "--chat_format": options.chat_format if self.base else "auto",
            "--max_seq_length": str(options.max_seq_length),
            **({} if count is None else {"--num_rows": str(count)}),
        }
        # A tuned model is known by how it was trained, for its weights may be deleted once it is measured.
        trained = [] if self.base else [stamp_path(self.run / "run.json")]
        share = 1.0 if count is None else min(1.0, count / rows)
        job = Job(
            f"{noun} of {self.run.parent.name} {self.run.name}, {self.part} rows",
            script,
            [word for pair in arguments.items() for word in pair],
            [],
            [self.file, *trained],
            self.base,
            share * self.files.tokens(self.file) / 2,
            None if self.base else self.run,
            str(self.run),
        )
        return job, out


def _measure_part(
    options: ComparisonOptions, measured: Measured, responses: int | None, losses: int | None
) -> list[Job]:
    """Return the jobs of one model on one file: losses of so many rows, and responses with their scores."""
    loss_job, out = measured.job(options, "losses", "compute_loss", losses)
    jobs = [replace(loss_job, outputs=[out / "summary.json", out / "losses.jsonl"])]
    if responses == 0:
        return jobs
    made = out / "responses.jsonl"
    response_job, _ = measured.job(options, "responses", "generate", responses)
    more = ["--max_new_tokens", str(options.max_new_tokens), "--overwrite_output"]
    jobs.append(replace(response_job, arguments=[*response_job.arguments, *more], outputs=[made]))
    name = response_job.name.removeprefix("responses of ")
    for noun, script, target, output in (
        ("BLEU", "compute_bleu", ["--output_file", str(out / "bleu.json")], out / "bleu.json"),
        ("scores", "score_responses", ["--output_dir", str(out)], out / "scores.json"),
    ):
        arguments = ["--responses", str(made), *target]
        jobs.append(Job(f"{noun} of {name}", script, arguments, [output], [made], together=loss_job.together))
    return jobs


def earlier_records(jobs: Sequence[Job], folders: Sequence[Path]) -> list[Path]:
    """Return the records of evaluations that lie in the folders of models and that none of these jobs has
    made: an earlier command's, which trained or asked otherwise."""
    made = {
        job.outputs[0].with_name(RECORDS[job.script]) for job in jobs if job.script in RECORDS and job.done()
    }
    places = [
        folder / "eval" / split / name for folder in folders for split in SPLITS for name in RECORDS.values()
    ]
    return [place for place in places if place.exists() and place not in made]


def report_job(
    options: ComparisonOptions,
    runs: Sequence[Path],
    sets: Sequence[TrainAndTest],
    left_out: Sequence[Path] = (),
    failed: Sequence[str] = (),
) -> Job:
    """Return the job that writes the report on everything there is, but for records that are to be left out;
    it names the jobs that failed.

    The inspector's summaries are of the whole files, so where rows were held out or left out the runs' own
    records take their place.
    """
    trained_on = [files.trained_on for files in sets]
    bases = [files.folder / "base" for files in sets]
    is_whole = set(trained_on) <= {Path(name) for name in options.train_file}
    arguments = ["--runs", *map(str, runs), "--base", *map(str, bases), "--output_dir", options.output_dir]
    arguments += ["--train_file", *map(str, trained_on), "--title", options.title]
    arguments += ["--rows_json", *(str(files.folder / ROWS) for files in sets)]
    if options.page:
        arguments += ["--page", *options.page]
    if is_whole and options.weights_json:
        arguments += ["--weights_json", *options.weights_json]
    elif options.weights_json:
        logger.warning(
            "--weights_json: is of whole files, and rows were held out or left out: the report has "
            "the shares that the runs recorded"
        )
    arguments += ["--left_out", *map(str, left_out)] if left_out else []
    arguments += ["--failed", *failed] if failed else []
    if options.note:
        arguments += ["--note", options.note]
    return Job("report", "report", arguments, [Path(options.output_dir) / "report.html"], [])


def waiting_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return, in order, the jobs that are not done, and those that read what one of these makes anew; a model
    whose weights were deleted is trained again where it has still to be measured."""
    waiting: list[Job] = []
    remade: set[Path] = set()
    to_measure = {job.run for job in jobs if job.run and not job.done()}
    for job in jobs:
        run = job.outputs[0].parent
        is_deleted = job.script == "finetune" and run in to_measure and (run / WEIGHTS_DELETED).exists()
        if is_deleted:
            logger.info("%s: its weights were deleted, and it has still to be measured: trained again", run)
        if is_deleted or remade.intersection(job.inputs) or not job.done():
            waiting.append(job)
            remade.update(_makes(job))
    return waiting


def _makes(job: Job) -> list[Path]:
    """Return what other jobs may read of a job: its outputs, and their stamp."""
    return [*job.outputs, stamp_path(job.outputs[0])]


# -- the work -----------------------------------------------------------------------------------------------


def show_jobs(jobs: Sequence[Job], stop: StopSignals) -> None:
    """Print the jobs and what they will take, by a trial step of the first that trains, and run none.

    Raises:
        UserError: that one would be refused, or cannot take a step.
    """
    for job in jobs:
        print(f"  {job.name}")
    try:
        rate = timing.calibrate(jobs, stop)
    except UserError:
        if stop.received:
            return
        raise
    print(f"{counted(len(jobs), 'job')}, {timing.cost_words(jobs, rate)}; none was started")


def run_jobs(jobs: Sequence[Job], stop: StopSignals, failed_before: Sequence[str] = ()) -> list[str]:
    """Run the jobs in order, each in a process of its own or in one with others (`Job.together`), until
    `stop` has received a signal; return the names of those that failed. What needs something that a failed
    job should have made is not run.

    Args:
        failed_before: what a call before has returned; these are not tried again.

    Raises:
        UserError: the first of them that trains would be refused, or cannot take a step.
    """
    if not jobs:
        return []
    try:
        rate = timing.calibrate(jobs, stop)
    except UserError:
        if stop.received:
            return []
        raise
    logger.info("%d jobs, %s", len(jobs), timing.cost_words(jobs, rate))
    with contextlib.closing(SharedProcess()) as shared:
        return _run_all(jobs, stop, timing.JobTimes(rate), shared, failed_before)


def _run_all(
    jobs: Sequence[Job],
    stop: StopSignals,
    times: timing.JobTimes,
    shared: SharedProcess,
    failed_before: Sequence[str],
) -> list[str]:
    failed: list[str] = []
    names_before = {text.rpartition(_EXIT_CODE)[0] for text in failed_before}
    not_made = {path: job.name for job in jobs if job.name in names_before for path in _makes(job)}
    begin = time.monotonic()
    for number, job in enumerate(jobs, start=1):
        needed = next((not_made[path] for path in job.inputs if path in not_made), None)
        if job.name in names_before:
            continue
        if needed:
            logger.info(
                "[%d/%d] %s: not run, for it needs what failed: %s", number, len(jobs), job.name, needed
            )
            not_made.update(dict.fromkeys(_makes(job), needed))
            continue
        logger.info("[%d/%d] %s (about %s left)", number, len(jobs), job.name, times.left(jobs[number - 1 :]))
        started = time.monotonic()
        shared.keep_for(job.together)
        code = run_job(job, stop, shared.start if job.together and can_start_warm() else None)
        if stop.received:
            logger.info("stopped in this job; the same command goes on")
            return failed
        times.note(job, time.monotonic() - started)
        if code:
            failed.append(f"{job.name}{_EXIT_CODE}{code})")
            not_made.update(dict.fromkeys(_makes(job), job.name))
        else:
            job.mark_done()
    logger.info("took %s", duration(time.monotonic() - begin))
    return failed
