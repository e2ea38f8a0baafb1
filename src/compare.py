"""Tune a model with several arms on the same data, measure them beside the untuned model, and write a report.

    python src/compare.py --model_name_or_path M --train_file F.jsonl --test_file G.jsonl --output_dir OUT

Trains every arm with every seed (src/finetune.py), takes their losses (src/compute_loss.py) and responses
(src/generate.py) on both files, scores them (src/compute_bleu.py, src/score_responses.py) and draws it all
together (src/report.py). What is there already, made by the same command from the same files, is not made
again."""

import hashlib
import json
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

logger = logging.getLogger("instruction_modelling.compare")

ARMS: dict[str, list[str]] = {
    "IT": [],
    "IM": ["--use_lm_loss"],
    "IM+NEFTune": ["--use_lm_loss", "--neftune_alpha", "5"],
    "IM-w0.1": ["--instruction_loss_weight", "0.1"],
    "IM-w0.3": ["--instruction_loss_weight", "0.3"],
    "NEFTune": ["--neftune_alpha", "5"],
    "prompt-only": ["--use_lm_loss", "--response_loss_weight", "0"],
}


@dataclass
class CompareOptions:
    """Options."""

    model_name_or_path: str
    """Folder or hub name of the model to tune and compare with."""
    train_file: list[str]
    """Training rows; several files are several comparisons."""
    output_dir: str
    """Where runs, measurements and the report go."""
    test_file: list[str] = field(default_factory=list)
    """Test rows, one file for each training file (default: a random fifth of the training rows, at most
    64)."""
    arms: list[str] = field(default_factory=lambda: ["IT", "IM"])
    """Arms: IT, IM, IM+NEFTune, IM-w0.1, IM-w0.3, NEFTune, prompt-only."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds; each arm is trained once with each."""
    chat_format: str = "auto"
    """As in src/finetune.py."""
    num_train_epochs: int = 3
    """Passes over the training rows."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    batch_size: int = 8
    """Examples a step."""
    max_seq_length: int = 1024
    """Tokens of a row beyond which it is cut."""
    max_tokens_per_device: int = 1024
    """Most tokens in a packed micro-batch."""
    max_new_tokens: int = 32
    """Longest response generated."""
    train_losses: int | None = None
    """Training rows, from the first on, whose losses are taken (default: all)."""
    train_responses: int = 32
    """Training rows, from the first on, whose responses are generated (for BLEU against the training
    outputs)."""
    test_responses: int | None = None
    """Test rows whose responses are generated (default: all)."""
    mixed_precision: str = "bf16"
    """bf16 or no, for training."""
    keep_models: bool = True
    """Delete each arm's weights once it is measured."""
    weights_json: list[str] = field(default_factory=list)
    """Summaries by src/inspect_weights.py, for the report's figure of where the loss falls."""
    title: str = "Where should the loss fall?"
    """The report's title."""
    note: str = ""
    """A caveat shown on the report."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        problems = [f"--arms {arm}: not one of {', '.join(ARMS)}" for arm in self.arms if arm not in ARMS]
        if self.test_file and len(self.test_file) != len(self.train_file):
            problems.append(
                f"--test_file: {len(self.test_file)} files for {len(self.train_file)} training files"
            )
        stems = [Path(name).stem for name in self.train_file]
        if len(set(stems)) < len(stems):
            problems.append("--train_file: two files have the same name; rename one")
        return problems


@dataclass(frozen=True)
class Job:
    """One script to run: done when its stamp holds the same command and inputs, and its outputs are there."""

    name: str
    script: str
    arguments: list[str]
    outputs: list[Path]
    inputs: list[Path]
    passes: float = 0.0
    """Token-passes it takes: a training step's forward and backward is one, a float32 forward about half of
    one."""

    def key(self) -> str:
        """A hash of the command and of what its inputs hold."""
        held = [_content_key(path) for path in self.inputs]
        return hashlib.sha256(json.dumps([self.script, self.arguments, held]).encode()).hexdigest()

    @property
    def stamp(self) -> Path:
        """Where the key of the finished job is kept."""
        return self.outputs[0].with_name(f".{self.outputs[0].name}.made")

    def done(self) -> bool:
        """Whether it need not run."""
        if not all(path.exists() for path in self.outputs) or not self.stamp.exists():
            return False
        return self.stamp.read_text(encoding="utf-8") == self.key()


def _content_key(path: Path) -> str:
    """What a file or a model folder holds, cheaply: a run by its stamp, a model by its files' sizes and
    times."""
    if not path.exists():
        return "missing"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    made = path / ".run.json.made"
    if made.exists():
        return made.read_text(encoding="utf-8")
    return str(
        sorted(
            (p.name, p.stat().st_size, p.stat().st_mtime_ns)
            for p in path.iterdir()
            if p.suffix in (".safetensors", ".json", ".bin")
        )
    )


def main() -> int:
    """Data, jobs, an estimate, the work, the report."""
    options = parse_options(CompareOptions)
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stdout
    )
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    jobs, runs, bases, trained_on = [], [], [], []
    for number, name in enumerate(options.train_file):
        train = Path(name)
        place = folder / train.stem.removesuffix("_train")
        train, test = split(train, Path(options.test_file[number]) if options.test_file else None, place)
        made, run_folders = plan(options, train, test, place)
        jobs += made
        runs += run_folders
        bases.append(place / "base")
        trained_on.append(train)
    waiting = [job for job in jobs if not job.done()]
    logger.info("%d of %d jobs are done already", len(jobs) - len(waiting), len(jobs))
    failed = work(options, waiting)
    report(options, runs, bases, trained_on)
    if failed:
        raise UserError(
            "these jobs failed; mend the cause and run the same command again, it does only what is "
            "missing:\n" + "\n".join(f"  - {name}" for name in failed)
        )
    return 0


def split(train: Path, test: Path | None, place: Path) -> tuple[Path, Path]:
    """The training and test files; without a test file, a random fifth (at most 64) of the rows is held out.

    Raises:
        UserError: unreadable or too few rows.
    """
    from instruction_modelling.rows.conversations import read_conversations

    if test is not None:
        return train, test
    rows = read_conversations(train).rows
    if rows < 10:
        raise UserError(f"{train}: {rows} rows are too few to hold some out; give --test_file")
    text = train.read_text(encoding="utf-8-sig")
    lines = (
        [json.dumps(row, ensure_ascii=False) for row in json.loads(text)]
        if text.lstrip().startswith("[")
        else [line for line in text.split("\n") if line.strip()]
    )
    held_out = set(random.Random(0).sample(range(len(lines)), min(64, len(lines) // 5)))
    place.mkdir(parents=True, exist_ok=True)
    files = place / f"{train.stem}_train.jsonl", place / f"{train.stem}_test.jsonl"
    for path, wanted in zip(files, (False, True), strict=True):
        path.write_text(
            "".join(line + "\n" for i, line in enumerate(lines) if (i in held_out) == wanted),
            encoding="utf-8",
        )
    logger.info("%s: %d rows held out for testing", train, len(held_out))
    return files


def plan(options: CompareOptions, train: Path, test: Path, place: Path) -> tuple[list[Job], list[Path]]:
    """Every job on one data set, in order, and its run folders."""
    tokens = {path: path.stat().st_size / 4 for path in (train, test)}
    base = place / "base"
    jobs = measure(options, options.model_name_or_path, base, train, test, tokens)
    runs = []
    for seed in options.seeds:
        for arm in options.arms:
            run = place / f"{arm}-seed{seed}"
            runs.append(run)
            arguments = [
                "--model_name_or_path",
                options.model_name_or_path,
                "--train_file",
                str(train),
                "--output_dir",
                str(run),
                "--chat_format",
                options.chat_format,
                "--max_seq_length",
                str(options.max_seq_length),
                "--num_train_epochs",
                str(options.num_train_epochs),
                "--learning_rate",
                str(options.learning_rate),
                "--per_device_train_batch_size",
                str(options.batch_size),
                "--packing",
                "--max_tokens_per_device",
                str(options.max_tokens_per_device),
                "--mixed_precision",
                options.mixed_precision,
                "--save_dtype",
                "float32",
                "--seed",
                str(seed),
                *ARMS[arm],
            ]
            jobs.append(
                Job(
                    f"train {place.name} {arm} seed {seed}",
                    "finetune",
                    arguments,
                    [run / "run.json"],
                    [train, Path(options.model_name_or_path)],
                    options.num_train_epochs * tokens[train],
                )
            )
            jobs += measure(options, str(run), run, train, test, tokens)
            if not options.keep_models:
                jobs.append(
                    Job(
                        f"delete the weights of {run}",
                        "delete",
                        [str(run)],
                        [run / "weights-deleted"],
                        [run / "run.json"],
                    )
                )
    return jobs, runs


def measure(
    options: CompareOptions, model: str, run: Path, train: Path, test: Path, tokens: dict[Path, float]
) -> list[Job]:
    """The jobs that take one model's losses and responses on both files."""
    jobs = []
    for part, file, rows, scored in (
        ("train", train, options.train_responses, options.train_losses),
        ("test", test, options.test_responses, None),
    ):
        out = run / "eval" / part
        common = [
            "--model_name_or_path",
            model,
            "--eval_file",
            str(file),
            "--output_dir",
            str(out),
            "--chat_format",
            options.chat_format if model == options.model_name_or_path else "auto",
            "--max_seq_length",
            str(options.max_seq_length),
        ]
        name = f"{run.parent.name} {run.name}, {part} rows"
        there = max(1, file.read_bytes().count(b"\n"))

        def first(count: int | None, there: int = there) -> tuple[list[str], float]:
            return ([], 1.0) if count is None else (["--num_rows", str(count)], min(1.0, count / there))

        limit, share = first(scored)
        jobs.append(
            Job(
                f"losses of {name}",
                "compute_loss",
                [*common, *limit],
                [out / "summary.json", out / "losses.jsonl"],
                [file, Path(model)],
                share * tokens[file] / 2,
            )
        )
        if rows == 0:
            continue
        limit, share = first(rows)
        jobs.append(
            Job(
                f"responses of {name}",
                "generate",
                [*common, "--max_new_tokens", str(options.max_new_tokens), "--overwrite_output", *limit],
                [out / "responses.jsonl"],
                [file, Path(model)],
                share * tokens[file] / 2,
            )
        )
        responses = ["--responses", str(out / "responses.jsonl")]
        jobs.append(
            Job(
                f"BLEU of {name}",
                "compute_bleu",
                [*responses, "--output_file", str(out / "bleu.json")],
                [out / "bleu.json"],
                [out / "responses.jsonl"],
            )
        )
        jobs.append(
            Job(
                f"scores of {name}",
                "score_responses",
                [*responses, "--output_dir", str(out)],
                [out / "scores.json"],
                [out / "responses.jsonl"],
            )
        )
    return jobs


# -- work ---------------------------------------------------------------------------------------------------


def work(options: CompareOptions, jobs: Sequence[Job]) -> list[str]:
    """Runs the jobs in order, each in a process of its own; the names of those that failed."""
    from instruction_modelling.progress import duration

    if not jobs:
        return []
    from instruction_modelling.quiet import silence_libraries

    # Imported once here, the libraries are there in every job.
    silence_libraries()
    import accelerate  # noqa: F401

    passes = sum(job.passes for job in jobs)
    rate = calibrate(options) if passes else math.inf
    logger.info(
        "%d jobs, about %.0f thousand token-passes at %.0f a second here: about %s",
        len(jobs),
        passes / 1000,
        rate,
        duration(passes / rate + 3 * len(jobs)),
    )
    failed: list[str] = []
    begin, through = time.monotonic(), 0.0
    for number, job in enumerate(jobs, start=1):
        left = passes - through
        spent = time.monotonic() - begin
        guess = left / rate if not through else left * spent / through
        logger.info("[%d/%d] %s (about %s left)", number, len(jobs), job.name, duration(guess))
        code = in_child(lambda job=job: run_script(job))  # type: ignore[misc]
        if code:
            failed.append(f"{job.name} (exit code {code})")
        elif all(path.exists() for path in job.outputs):
            job.stamp.write_text(job.key(), encoding="utf-8")
        through += job.passes
    logger.info("took %s", duration(time.monotonic() - begin))
    return failed


def in_child(function: Callable[[], None]) -> int:
    """Runs a function in a forked process, so that no job's state reaches another; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0) if not isinstance(stop.code, str) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def run_script(job: Job) -> None:
    """A script's `main` with the job's arguments, as if it had been called by hand."""
    if job.script == "delete":
        run = Path(job.arguments[0])
        for path in run.glob("*.safetensors"):
            path.unlink()
        job.outputs[0].touch()
        return
    import runpy

    script = Path(__file__).parent / f"{job.script}.py"
    sys.argv = [str(script), *job.arguments]
    runpy.run_path(str(script), run_name="__main__")


def calibrate(options: CompareOptions) -> float:
    """Token-passes a second of a training step on this machine, from one step on made-up tokens, in a
    child."""
    reader, writer = os.pipe()

    def measure_rate() -> None:
        import torch

        from instruction_modelling.models import loading
        from instruction_modelling.training.hidden_states import output_head

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = loading.load_model(options.model_name_or_path, torch.float32)
        model.to(device)
        ids = torch.randint(0, min(1000, output_head(model).vocabulary), (2, 256), device=device)
        seconds = 0.0
        # The first pass warms up; the second counts.
        for _ in range(2):
            begin = time.monotonic()
            with torch.autocast(device, torch.bfloat16, enabled=options.mixed_precision == "bf16"):
                model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = time.monotonic() - begin
        os.write(writer, str(ids.numel() / seconds).encode())

    code = in_child(measure_rate)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    if code or not text:
        raise UserError(f"{options.model_name_or_path}: a trial step failed; see the messages above")
    return float(text)


def report(
    options: CompareOptions, runs: Sequence[Path], bases: Sequence[Path], trained_on: Sequence[Path]
) -> None:
    """The report on everything there is; the inspector's summaries are of the whole files, so where rows were
    held out the runs' own records take their place."""
    whole = [str(path) for path in trained_on] == [str(Path(name)) for name in options.train_file]
    summaries = options.weights_json if whole else []
    arguments = [
        "--runs",
        *map(str, runs),
        "--base",
        *map(str, bases),
        "--output_dir",
        options.output_dir,
        "--train_file",
        *map(str, trained_on),
        "--title",
        options.title,
        *(["--weights_json", *summaries] if summaries else []),
        *(["--note", options.note] if options.note else []),
    ]
    job = Job("report", "report", arguments, [Path(options.output_dir) / "report.html"], [])
    if in_child(lambda: run_script(job)):
        raise UserError("the report could not be written; see the messages above")


if __name__ == "__main__":
    run_main(main)
