"""The jobs of a study of memorisation: each arm trained with each seed, each model measured, and what that
costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.arms.table import Arm, read_arms
from instruction_modelling.comparison.jobs import Job, delete_weights, training_flags
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.timing import cost_words
from instruction_modelling.files.stamps import read_stamp, stamp_path
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.memorisation.rows import CANARIES, TRAIN, UNSEEN
from instruction_modelling.models.identity import model_identity
from instruction_modelling.progress import counted

UNTUNED, PROBED = "untuned", "memorisation.json"
# Tokens computed for a canary, all prefixes of its candidates together, and for what is generated, about.
_TOKENS_PER_CANDIDATE, _TOKENS_GENERATED = 0.8, 4_000


@dataclass(frozen=True)
class MemorisationStudy:
    """A study's folder and the files in it."""

    options: MemorisationOptions
    drawn: Path | None = None
    """Where the rows are that the options draw (default: in the study's folder, whose rows may still be those
    of other options)."""

    @property
    def root(self) -> Path:
        """Return the folder that everything is in."""
        return Path(self.options.output_dir)

    def rows(self, seed: int) -> Path:
        """Return the folder of a seed's rows."""
        return self.root / f"seed{seed}"

    def drawn_rows(self, seed: int) -> Path:
        """Return the folder of the rows that the options draw with a seed."""
        return self.rows(seed) if self.drawn is None else self.drawn / f"seed{seed}"

    def run(self, arm: str, seed: int) -> Path:
        """Return the run folder of an arm and a seed."""
        return self.root / "runs" / f"{arm}-seed{seed}"

    @property
    def untuned(self) -> Path:
        """Return the folder of the untuned model's measurement, on the rows of the first seed."""
        return self.root / "runs" / UNTUNED

    def shared_options(self) -> ComparisonOptions:
        """Return what running jobs needs to know."""
        given = self.options
        return ComparisonOptions(
            given.model_name_or_path,
            [given.train_file],
            given.output_dir,
            chat_format=given.chat_format,
            num_train_epochs=given.num_train_epochs,
            learning_rate=given.learning_rate,
            batch_size=given.batch_size,
            max_seq_length=given.max_seq_length,
            max_tokens_per_device=max(1024, given.max_seq_length),
            mixed_precision=given.mixed_precision,
        )

    def jobs(self) -> list[Job]:
        """Return every job, seed by seed: a study that is stopped has whole seeds."""
        jobs = []
        for model in self._models():
            jobs += [*([model.training] if model.training else []), model.measurement]
            if model.training and not self.options.keep_models:
                jobs.append(delete_weights(model.run, [model.measurement]))
        return jobs

    def _models(self) -> list["_Model"]:
        options, arms = self.options, read_arms(self.options.arms_file)
        first = options.seeds[0]
        models = [_Model(UNTUNED, first, None, self._probe(self.untuned, first, options.model_name_or_path))]
        for seed in options.seeds:
            for name in options.arms:
                run = self.run(name, seed)
                training = self._training(arms[name], seed, run)
                models.append(_Model(name, seed, training, self._probe(run, seed, None)))
        return models

    def _training(self, arm: Arm, seed: int, run: Path) -> Job:
        rows, model = self.rows(seed) / TRAIN, self.options.model_name_or_path
        drawn = self.drawn_rows(seed) / TRAIN
        flags = {
            "--model_name_or_path": model,
            "--train_file": rows,
            "--output_dir": run,
            **training_flags(self.shared_options()),
            "--seed": seed,
        }
        words = [str(word) for pair in flags.items() for word in pair]
        arguments = ["--packing", "--overwrite_output", *words, *arm.flags]
        passes = self.options.num_train_epochs * self._tokens(drawn)
        name = f"train {arm.name}, seed {seed}"
        return Job(name, "finetune", arguments, [run / "run.json"], [drawn], model, passes)

    def _probe(self, run: Path, seed: int, base: str | None) -> Job:
        options, rows = self.options, self.rows(seed)
        arguments = [
            *("--model_name_or_path", base or str(run)),
            *("--rows_dir", str(rows), "--output_dir", str(run)),
            # A tuned model has its format from training.
            *("--chat_format", options.chat_format if base else "auto"),
            *(("--dtype", options.dtype) if options.dtype else ()),
            *(() if options.requests else ("--no_requests",)),
        ]
        trained = [] if base else [stamp_path(run / "run.json")]
        inputs = [*(self.drawn_rows(seed) / name for name in (CANARIES, TRAIN, UNSEEN)), *trained]
        scored = options.canaries * len(options.repeats) * options.candidates * _TOKENS_PER_CANDIDATE
        # A forward pass alone is about half of a step's, in float32.
        passes = (scored + _TOKENS_GENERATED) / 2
        name = f"measure {run.name}"
        return Job(
            name, "probe_memorisation", arguments, [run / PROBED], inputs, base, passes, None if base else run
        )

    def _tokens(self, path: Path) -> float:
        """Return about how many tokens a file of rows has: a quarter of its bytes."""
        return path.stat().st_size / 4

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """Return what was measured: for the untuned model and each arm, an entry for each seed that is there;
        those of which nothing is there are left out."""
        found: dict[str, list[dict[str, Any]]] = {}
        for model in self._models():
            if record := self._record(model):
                found.setdefault(model.name, []).append(record)
        return found

    def missing(self) -> list[str]:
        """Return the runs that are not measured yet, and say where another measurement lies in their
        place."""
        other = f" (the {PROBED} there is of other options, rows or models)"
        return [
            model.run.name + (other if model.measurement.outputs[0].exists() else "")
            for model in self._models()
            if self._record(model) is None
        ]

    def forget_strange(self) -> None:
        """Take back that a measurement is made where what it says does not fit, so that it is made anew."""
        for model in self._models():
            if model.made() and self._record(model) is None:
                model.measurement.forget()

    def _record(self, model: "_Model") -> dict[str, Any] | None:
        """Return what was measured of a model; None where it is not there, was made by other commands or from
        other files, or says what does not fit the options or is no measurement."""
        record = read_stamp(model.measurement.outputs[0]) if model.made() else None
        if record is None:
            return None
        said: dict[str, Any] = {"candidates": self.options.candidates, "seed": model.seed}
        said |= {"dtype": self.options.dtype} if self.options.dtype else {}
        said |= {} if model.training else {"model_identity": model_identity(self.options.model_name_or_path)}
        try:
            has_losses = all(math.isfinite(canary["secret_nll"]) for canary in record["canaries"])
        except (KeyError, TypeError):
            return None
        fits = has_losses and all(record.get(name) == value for name, value in said.items())
        return record if fits else None


@dataclass(frozen=True)
class _Model:
    """A model of a study, and the jobs that make and measure it."""

    name: str
    """Of its arm, or `UNTUNED`."""
    seed: int
    """Whose rows it is measured on."""
    training: Job | None
    measurement: Job

    @property
    def run(self) -> Path:
        """Return its run folder."""
        return self.measurement.outputs[0].parent

    def made(self) -> bool:
        """Return whether it is trained and measured by these very commands, from these very files."""
        return (self.training is None or self.training.done()) and self.measurement.done()


def cost_lines(study: MemorisationStudy, waiting: Sequence[Job], rate: float | None) -> list[str]:
    """Return what is to be done and what it takes, in lines.

    Args:
        waiting: the jobs that are not done.
        rate: token-passes a second; None where nothing is trained.
    """
    options = study.options
    return [
        f"{counted(len(options.arms), 'arm')}, {counted(len(options.seeds), 'seed')}: {options.rows} rows, "
        f"{options.canaries} canaries in {', '.join(map(str, options.repeats))} rows each, "
        f"{options.num_train_epochs} passes; each secret ranked among {options.candidates:,} others",
        f"{counted(len(waiting), 'job')} to do: {cost_words(waiting, rate)}; the disk holds one tuned model "
        "at a time" + (" and keeps them all" if options.keep_models else ""),
    ]
