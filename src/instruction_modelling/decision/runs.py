"""The runs of a protocol: which jobs there are, what they cost, and the losses they leave."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from instruction_modelling.comparison.jobs import Job, Measured, delete_weights
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.row_sets import TrainAndTest
from instruction_modelling.decision.options import TryOptions
from instruction_modelling.decision.protocol import Protocol
from instruction_modelling.decision.split import training_subset
from instruction_modelling.decision.task_score import scores_of
from instruction_modelling.decision.tuning import TUNING_SEED, choose, chosen_flags, write_chosen
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.rows.json_lines import read_appended

BASE = "base"
PARTS = ("test", "validation")
_LOSSES = {part: Path("eval") / part / "losses.jsonl" for part in PARTS}
_RESPONSES = Path("eval") / "test" / "responses.jsonl"
_EPOCHS = "--num_train_epochs"


@dataclass(frozen=True)
class ProtocolRuns:
    """A protocol's folder and the files in it."""

    options: TryOptions
    protocol: Protocol
    folder: Path

    def part(self, name: str) -> Path:
        """Return the file of a part of the split: test, validation or pool."""
        return self.folder / "split" / f"{name}.jsonl"

    def training_file(self, seed: int) -> Path:
        """Return the file that every arm is trained on with a seed."""
        return self.folder / "split" / f"train-seed{seed}.jsonl"

    def run(self, arm: str, seed: int) -> Path:
        """Return the run folder of an arm and a seed."""
        return self.folder / "runs" / f"{arm}-seed{seed}"

    @property
    def base(self) -> Path:
        """Return the folder of the untuned model's measurements."""
        return self.folder / "runs" / BASE

    def shared_options(self) -> ComparisonOptions:
        """Return what the jobs of a comparison need to know."""
        given = self.options
        return ComparisonOptions(
            given.model_name_or_path,
            [str(self.part("pool"))],
            str(self.folder),
            chat_format=given.chat_format,
            max_seq_length=given.max_seq_length,
            max_new_tokens=given.max_new_tokens,
            mixed_precision=given.mixed_precision,
        )

    def write_training_files(self, pool: Sequence[object], seeds: int) -> None:
        """Write the rows that each seed draws from the pool's records; the same are not written again."""
        for seed in [*range(seeds), *([TUNING_SEED] if self.protocol.trials else [])]:
            if not self.training_file(seed).exists():
                rows = training_subset(len(pool), self.protocol.train_rows, seed)
                write_json_lines(self.training_file(seed), (pool[row] for row in rows))

    def arms(self) -> dict[str, tuple[str, ...]]:
        """Return the flags of every arm that is tested; of a tuned arm whose setting is not chosen yet, those
        that take longest."""
        longest = {trial.arm: trial.flags for trial in self.protocol.trials}
        return {**self.protocol.arms, **longest, **chosen_flags(self.folder)}

    def tuning_jobs(self) -> list[Job]:
        """Return the jobs that the tuned arms' settings are chosen by; none of them reads the test rows."""
        jobs = []
        for trial in self.protocol.trials:
            run = self.folder / "runs" / "tuning" / trial.name
            jobs.append(self._training(run, trial.name, trial.flags, TUNING_SEED))
            measurements = self._measurements(run, None, shown=False, parts=("validation",))
            jobs += [*measurements, delete_weights(run, measurements)]
        return jobs

    def choose_tuned(self) -> None:
        """Write down which settings the tuned arms have, once their trials are measured."""
        losses = {
            trial.name: _response_losses(self.folder / "runs" / "tuning" / trial.name / _LOSSES["validation"])
            for trial in self.protocol.trials
        }
        rows = shared_rows(list(losses.values()))
        means = {name: float(matrix_of([of_run], rows).mean()) for name, of_run in losses.items()}
        write_chosen(self.folder, choose(self.protocol.trials, means), means)

    def jobs(self, seeds: int) -> list[Job]:
        """Return every job up to so many seeds, seed by seed: a look that is stopped has whole seeds."""
        jobs = self._measurements(self.base, self.options.model_name_or_path, shown=True)
        for seed in range(seeds):
            for arm, flags in self.arms().items():
                run = self.run(arm, seed)
                jobs.append(self._training(run, arm, flags, seed))
                measurements = self._measurements(run, None, shown=seed == 0)
                jobs += [*measurements, delete_weights(run, measurements)]
        return jobs

    def _training(self, run: Path, arm: str, flags: Sequence[str], seed: int) -> Job:
        rows, model = self.training_file(seed), self.options.model_name_or_path
        arguments = [
            *("--overwrite_output", "--model_name_or_path", model, "--train_file", str(rows)),
            *("--output_dir", str(run), "--seed", str(seed), "--save_dtype", "float32"),
            *self.protocol.shared_flags,
            *flags,
        ]
        share = self.protocol.train_rows / max(1, self.protocol.pool_rows)
        epochs = int(flags[flags.index(_EPOCHS) + 1]) if _EPOCHS in flags else self.options.num_train_epochs
        passes = epochs * share * self._tokens(self.part("pool"))
        name = f"train {arm}, seed {seed}"
        return Job(name, "finetune", arguments, [run / "run.json"], [rows], model, passes)

    def _measurements(
        self, run: Path, base: str | None, shown: bool, parts: Sequence[str] = PARTS
    ) -> list[Job]:
        options, jobs = self.shared_options(), []
        for part in parts:
            if not self.part(part).exists():
                continue
            measured = Measured(self._files(), run, base, part, self.part(part))
            job, out = measured.job(options, "losses", "compute_loss", None)
            jobs.append(replace(job, outputs=[out / "summary.json", out / "losses.jsonl"]))
        given = self.options
        count = given.shown_responses if shown and not given.no_texts else 0
        if (count or self.protocol.task) and "test" in parts:
            measured = Measured(self._files(), run, base, "test", self.part("test"))
            job, out = measured.job(options, "responses", "generate", None if self.protocol.task else count)
            more = ["--max_new_tokens", str(self.options.max_new_tokens), "--overwrite_output"]
            jobs.append(replace(job, arguments=[*job.arguments, *more], outputs=[out / "responses.jsonl"]))
        return jobs

    def _files(self) -> TrainAndTest:
        return TrainAndTest(self.part("pool"), self.part("test"), self.folder)

    def _tokens(self, path: Path) -> float:
        return self._files().tokens(path)

    def scores(self, arm: str, seeds: int) -> list[dict[int, float]]:
        """Return the score of each test row by the protocol's task, as `losses` returns losses."""
        assert self.protocol.task is not None
        folders = [self.base] if arm == BASE else [self.run(arm, seed) for seed in range(seeds)]
        return [scores_of(self.protocol.task, folder / _RESPONSES) for folder in folders]

    def losses(self, arm: str, seeds: int, part: str) -> list[dict[int, float]]:
        """Return the NLL per response token of each row of a part, for each seed; one entry for the untuned
        model."""
        folders = [self.base] if arm == BASE else [self.run(arm, seed) for seed in range(seeds)]
        return [_response_losses(folder / _LOSSES[part]) for folder in folders]


def matrix_of(losses: Sequence[dict[int, float]], rows: Sequence[int]) -> np.ndarray:
    """Return float64[seeds, rows] of losses by row."""
    return np.array([[of_seed[row] for row in rows] for of_seed in losses], dtype=np.float64)


def shared_rows(losses: Sequence[dict[int, float]]) -> list[int]:
    """Return the rows that all of these have, in order."""
    return sorted(set.intersection(*(set(of_run) for of_run in losses)))


def _response_losses(path: Path) -> dict[int, float]:
    lines = (line for _, line in read_appended(path).records)
    return {line["row"]: line["nll"]["response"] for line in lines if "response" in line["nll"]}
