"""The jobs of a study of memorisation: each arm trained with each seed, each model measured, and what that
costs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.arms.table import Arm, read_arms
from instruction_modelling.comparison.jobs import Job, delete_weights, training_flags
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.timing import cost_words
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import stamp_path
from instruction_modelling.memorisation.options import MemorisationOptions
from instruction_modelling.memorisation.rows import CANARIES, TRAIN, UNSEEN
from instruction_modelling.progress import counted

UNTUNED, PROBED = "untuned", "memorisation.json"
# Tokens computed for a canary, all prefixes of its candidates together, and for what is generated, about.
_TOKENS_PER_CANDIDATE, _TOKENS_GENERATED = 0.8, 4_000


@dataclass(frozen=True)
class MemorisationStudy:
    """A study's folder and the files in it."""

    options: MemorisationOptions

    @property
    def root(self) -> Path:
        """Return the folder that everything is in."""
        return Path(self.options.output_dir)

    def rows(self, seed: int) -> Path:
        """Return the folder of a seed's rows."""
        return self.root / f"seed{seed}"

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
        options, arms = self.options, read_arms(self.options.arms_file)
        jobs = [self._probe(self.untuned, options.seeds[0], options.model_name_or_path)]
        for seed in options.seeds:
            for arm in (arms[name] for name in options.arms):
                run = self.run(arm.name, seed)
                measurement = self._probe(run, seed, None)
                jobs += [self._training(arm, seed, run), measurement]
                if not options.keep_models:
                    jobs.append(delete_weights(run, [measurement]))
        return jobs

    def _training(self, arm: Arm, seed: int, run: Path) -> Job:
        rows, model = self.rows(seed) / TRAIN, self.options.model_name_or_path
        flags = {
            "--model_name_or_path": model,
            "--train_file": rows,
            "--output_dir": run,
            **training_flags(self.shared_options()),
            "--seed": seed,
        }
        words = [str(word) for pair in flags.items() for word in pair]
        arguments = ["--packing", "--overwrite_output", *words, *arm.flags]
        passes = self.options.num_train_epochs * self._tokens(rows)
        return Job(
            f"train {arm.name}, seed {seed}", "finetune", arguments, [run / "run.json"], [rows], model, passes
        )

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
        inputs = [rows / CANARIES, rows / TRAIN, rows / UNSEEN, *trained]
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
        """Return what was measured: for the untuned model and each arm, an entry for each seed that is there.

        Raises:
            UserError: the untuned model or an arm is not measured at all.
        """
        found = {
            name: [_read(path) for path in paths if path.exists()] for name, paths in self._probed().items()
        }
        if unmeasured := [name for name, entries in found.items() if not entries]:
            raise UserError(
                f"{self.root}: nothing is measured of {', '.join(unmeasured)}; run it without --so_far"
            )
        return found

    def missing(self) -> list[str]:
        """Return the runs that are not measured yet."""
        return [path.parent.name for paths in self._probed().values() for path in paths if not path.exists()]

    def _probed(self) -> dict[str, list[Path]]:
        probed = {UNTUNED: [self.untuned / PROBED]}
        for arm in self.options.arms:
            probed[arm] = [self.run(arm, seed) / PROBED for seed in self.options.seeds]
        return probed


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


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
