"""The runs of a protocol: which jobs there are, what they cost, and the losses they leave."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instruction_modelling.arms.rows import write_arm_rows
from instruction_modelling.arms.rules import ArmRules, Quantity, StopAt
from instruction_modelling.comparison.jobs import WEIGHTS_DELETED, Job, Measured, delete_weights
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.comparison.row_sets import BYTES_OF_TOKEN, TrainAndTest
from instruction_modelling.decision.losses import losses_in, mean_of, units_of
from instruction_modelling.decision.matching import (
    StepMatch,
    as_facts,
    measured_every,
    read_matches,
    steps_to,
    trial_of,
    unreachable,
    write_matches,
)
from instruction_modelling.decision.options import REFERENCE, TryOptions
from instruction_modelling.decision.protocol import Protocol
from instruction_modelling.decision.split import training_subset
from instruction_modelling.decision.tuning import TUNING_SEED, Trial, choose, chosen_flags, write_chosen
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import content_of, is_made, mark_made
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.json_lines import read_appended

BASE = "base"
PARTS = ("test", "validation", "out_of_domain")
# Beside the parts, the rows that a run was trained on, where an arm stops by their loss.
_TRAINED = "train"
# What an arm is measured on that stops by a quantity.
PART_OF: dict[Quantity, str] = {"kl": "validation", "loss": _TRAINED}
LOSSES = {part: Path("eval") / part / "losses.jsonl" for part in (*PARTS, _TRAINED)}
RESPONSES = Path("eval") / "test" / "responses.jsonl"
_EPOCHS = "--num_train_epochs"


@dataclass(frozen=True)
class ProtocolRuns:
    """A protocol's folder and the files in it."""

    options: TryOptions
    protocol: Protocol
    folder: Path
    shared: Path | None = None
    """The folder of the split and the runs, where protocols share them (default: the protocol's own)."""

    @property
    def work(self) -> Path:
        """Return the folder of the split and the runs."""
        return self.shared or self.folder

    def part(self, name: str) -> Path:
        """Return the file of a part of the split: test, validation or pool."""
        return self.work / "split" / f"{name}.jsonl"

    def alike_file(self, part: str) -> Path:
        """Return where it is kept which rows of a part say nearly the same; not there where none do."""
        return self.work / "split" / f"{part}_alike.jsonl"

    def training_file(self, seed: int, arm: str | None = None) -> Path:
        """Return the file that every arm is trained on with a seed, or an arm that has rows of its own."""
        has_own = arm is not None and self.rules_of(arm).change_rows
        return self.work / "split" / f"train-{f'{arm}-' if has_own else ''}seed{seed}.jsonl"

    def rules_of(self, arm: str) -> ArmRules:
        """Return what an arm has beside flags."""
        return self.protocol.rules.get(arm, ArmRules())

    def run(self, arm: str, seed: int) -> Path:
        """Return the run folder of an arm and a seed."""
        return self.work / "runs" / f"{arm}-seed{seed}"

    @property
    def base(self) -> Path:
        """Return the folder of the untuned model's measurements."""
        return self.work / "runs" / BASE

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
        """Write the rows that each seed draws from the pool's records, as `write_sealed` does."""
        for seed in [*range(seeds), *([TUNING_SEED] if self.protocol.trials else [])]:
            drawn = training_subset(len(pool), self.protocol.train_rows, seed)
            self.write_sealed(self.training_file(seed), [pool[row] for row in drawn])

    def write_sealed(self, path: Path, rows: Sequence[object]) -> None:
        """Write a file of rows that is not there yet.

        Raises:
            UserError: it is there and holds something else.
        """
        if not path.exists():
            write_json_lines(path, rows)
        elif [record for _, record in read_appended(path).records] != list(rows):
            raise UserError(f"{path} was changed since it was made: move {self.work} away")

    def write_arm_files(self, seeds: int) -> None:
        """Write the rows of the arms that have rows of their own; the same are not written again.

        Raises:
            UserError: nothing is left of them, or they lack what they are made of.
        """
        for arm, rules in self.protocol.rules.items():
            for seed in range(seeds) if rules.change_rows else ():
                output = self.training_file(seed, arm)
                stamp = {"rules": rules.as_dict(), "rows": content_of(self.training_file(seed))}
                if is_made([output], stamp):
                    continue
                drawn = set(training_subset(self.protocol.pool_rows, self.protocol.train_rows, seed))
                pool = read_conversations(self.part("pool")).conversations
                kept_out = [row for number, row in enumerate(pool) if number not in drawn]
                try:
                    write_arm_rows(rules, self.training_file(seed), output, seed, kept_out)
                except UserError as error:
                    raise UserError(f"--arms {arm}, seed {seed}: {error}") from None
                mark_made(output, stamp)

    def arms(self) -> dict[str, tuple[str, ...]]:
        """Return the flags of every arm that is tested; of a tuned arm whose setting is not chosen yet, those
        that take longest."""
        longest = {trial.arm: trial.flags for trial in self.protocol.trials}
        return {**self.protocol.arms, **longest, **chosen_flags(self.folder)}

    def jobs_of_known(self, seeds: int) -> list[Job]:
        """Return the jobs of all arms but those whose settings or steps were not found."""
        unknown = [trial.arm for trial in self.protocol.trials if trial.arm not in chosen_flags(self.folder)]
        folders = {self.run(arm, seed) for arm in unknown for seed in range(seeds)}
        jobs = self.jobs(seeds, with_unmatched=False)
        return [job for job in jobs if not folders & {job.run, *(path.parent for path in job.outputs)}]

    def tuning_jobs(self) -> list[Job]:
        """Return the jobs that the tuned arms' settings are chosen by; none of them reads the test rows."""
        return [job for trial in self.protocol.trials for job in self.jobs_of_trial(trial)]

    def jobs_of_trial(self, trial: Trial) -> list[Job]:
        """Return the jobs of one of the settings that tuned arms are chosen from."""
        run = self.work / "runs" / "tuning" / trial.name
        training = self._training(run, trial.name, trial.flags, TUNING_SEED)
        measurements = self._measurements(run, None, shown=False, parts=("validation",))
        return [training, *measurements, delete_weights(run, measurements)]

    def choose_tuned(self) -> None:
        """Write down which settings the tuned arms have, of the trials that are measured; nothing where an
        arm has none: then neither is tuned."""
        made = [
            trial
            for trial in self.protocol.trials
            if all(job.done() for job in self.jobs_of_trial(trial)[:2])
        ]
        places = {trial.name: self.work / "runs" / "tuning" / trial.name for trial in made}
        losses = {name: losses_in(place / LOSSES["validation"]) for name, place in places.items()}
        if made and {trial.arm for trial in made} == {trial.arm for trial in self.protocol.trials}:
            units = units_of(list(losses.values()))
            means = {name: mean_of([of_run], units) for name, of_run in losses.items()}
            write_chosen(self.folder, choose(made, means), means)

    def jobs(self, seeds: int, with_unmatched: bool = True) -> list[Job]:
        """Return every job up to so many seeds, seed by seed: a look that is stopped has whole seeds.

        Args:
            with_unmatched: also those of arms that stop where another one ends and whose steps are not known
                yet, at full length.
        """
        jobs = self._measurements(self.base, self.options.model_name_or_path, shown=True)
        not_had, matches = self.not_reached(seeds), self.matches()
        for seed in range(seeds):
            for arm in self.arms():
                if (stop := self.rules_of(arm).stop_at) is not None:
                    if seed not in matches.get(arm, {}) and not with_unmatched:
                        continue
                    jobs += self._trial_jobs(arm, seed, stop)
                if arm not in not_had:
                    jobs += self._jobs_of(arm, seed)
        return jobs

    def _jobs_of(self, arm: str, seed: int) -> list[Job]:
        run, flags, match = self.run(arm, seed), self.arms()[arm], self.matches().get(arm, {}).get(seed)
        if match is not None and match.steps is not None:
            flags = (*flags, "--max_train_steps", str(match.steps))
        training = self._training(run, arm, flags, seed)
        quantities = self._quantities_of(arm)
        measurements = self._measurements(run, None, seed == 0, PARTS, quantities, seed, training.done())
        return [training, *measurements, delete_weights(run, measurements)]

    # -- arms that stop where another ends ------------------------------------------------------------------

    def matching_jobs(self, seeds: int) -> list[Job]:
        """Return the jobs that the steps of such arms are found by: those of the arms that are gone by, and a
        trial run of full length for each."""
        return [job for seed in range(seeds) for job in self.matching_jobs_of(seed)]

    def matching_jobs_of(self, seed: int) -> list[Job]:
        """Return those of one seed; none where no arm stops so."""
        stops = {arm: stop for arm in self.arms() if (stop := self.rules_of(arm).stop_at)}
        gone_by = {stop.of for stop in stops.values()}
        jobs = []
        for arm in (arm for arm in self.arms() if arm in gone_by):
            jobs += self._jobs_of(arm, seed)
        for arm, stop in stops.items():
            jobs += self._trial_jobs(arm, seed, stop)
        return jobs

    def choose_steps(self, seeds: int) -> None:
        """Write down how many steps such arms take, of those whose trial run and target are measured."""
        matches = []
        for arm in self.arms():
            stop = self.rules_of(arm).stop_at
            for seed in range(seeds):
                if stop is None or not self._can_match(arm, seed, stop):
                    continue
                target = self._reached(stop.of, seed, stop.quantity)
                trial = trial_of(self._trial(arm, seed), stop.quantity)
                steps = steps_to(target, trial, stop.quantity)
                matches.append(StepMatch(arm, seed, stop.quantity, stop.of, target, steps, trial))
        if matches:
            write_matches(self.folder, matches)

    def _can_match(self, arm: str, seed: int, stop: StopAt) -> bool:
        trial = self._trial_jobs(arm, seed, stop)[0]
        return trial.done() and self.is_made(stop.of, seed, LOSSES[PART_OF[stop.quantity]])

    def matches(self) -> dict[str, dict[int, StepMatch]]:
        """Return what is known of the steps of such arms, by arm and seed."""
        return read_matches(self.folder)

    def not_reached(self, seeds: int) -> dict[str, str]:
        """Return the arms that cannot be had with so many seeds, and why."""
        found = {arm: unreachable(of_arm, seeds) for arm, of_arm in self.matches().items()}
        return {arm: why for arm, why in found.items() if why}

    def matched(self, arm: str, seeds: int) -> dict[str, Any]:
        """Return how an arm was matched, as answer.json holds it."""
        of_arm = {seed: match for seed, match in self.matches()[arm].items() if seed < seeds}
        reached = [self._reached(arm, seed, match.quantity) for seed, match in sorted(of_arm.items())]
        return as_facts(of_arm, reached)

    def _quantities_of(self, arm: str) -> set[Quantity]:
        """Return what is to be measured of an arm's runs for the arms that stop by it, and of itself."""
        stops = {name: rules.stop_at for name, rules in self.protocol.rules.items() if rules.stop_at}
        return {stop.quantity for name, stop in stops.items() if arm in (name, stop.of)}

    def _reached(self, arm: str, seed: int, quantity: Quantity) -> float:
        """Return how far a run is at its end: the mean over rows of the KL, or of the loss, of a response
        token."""
        file = self.run(arm, seed) / LOSSES[PART_OF[quantity]]
        of_rows = losses_in(file, "kl" if quantity == "kl" else "nll")
        return sum(of_rows.values()) / len(of_rows)

    def _trial(self, arm: str, seed: int) -> Path:
        return self.work / "runs" / "trials" / f"{arm}-seed{seed}"

    def _trial_jobs(self, arm: str, seed: int, stop: StopAt) -> list[Job]:
        run, rows = self._trial(arm, seed), self.training_file(seed, arm)
        count = self.protocol.train_rows
        if self.rules_of(arm).change_rows and rows.exists():
            count = rows.read_bytes().count(b"\n")
        steps = self.options.num_train_epochs * -(-count // self.options.batch_size)
        measured = self.part("validation") if stop.quantity == "kl" else self.training_file(seed)
        more = ["--eval_file", str(measured), "--eval_steps", str(measured_every(stop, steps))]
        more += ["--eval_kl"] if stop.quantity == "kl" else []
        job = self._training(run, arm, (*self.arms()[arm], *more), seed)
        of_rows = (2 if stop.quantity == "kl" else 1) * self._tokens(measured) / 2
        passes = job.passes + of_rows * (steps // measured_every(stop, steps))
        job = replace(job, name=f"trial of {arm}, seed {seed}", inputs=[*job.inputs, measured], passes=passes)
        return [job, delete_weights(run, [])]

    def _training(self, run: Path, arm: str, flags: Sequence[str], seed: int) -> Job:
        rows, model = self.training_file(seed, arm), self.options.model_name_or_path
        arguments = [
            *("--overwrite_output", "--model_name_or_path", model, "--train_file", str(rows)),
            *("--output_dir", str(run), "--seed", str(seed)),
            *self.protocol.shared_flags,
            *flags,
        ]
        epochs = int(flags[flags.index(_EPOCHS) + 1]) if _EPOCHS in flags else self.options.num_train_epochs
        passes = epochs * self._tokens(rows)
        name = f"train {arm}, seed {seed}"
        return Job(name, "finetune", arguments, [run / "run.json"], [rows], model, passes)

    def _measurements(  # noqa: PLR0913 (what is measured of which model)
        self,
        run: Path,
        base: str | None,
        shown: bool,
        parts: Sequence[str] = PARTS,
        quantities: Collection[Quantity] = (),
        seed: int = 0,
        is_trained: bool = True,
    ) -> list[Job]:
        options, jobs = self.shared_options(), []
        files = {part: self.part(part) for part in parts}
        if "loss" in quantities:
            files[_TRAINED] = self.training_file(seed)
        for part, file in files.items():
            if not file.exists():
                continue
            measured = Measured(self._files(), run, base, part, file)
            job, out = measured.job(options, "losses", "compute_loss", None)
            job = replace(job, outputs=[out / "summary.json", out / "losses.jsonl"])
            if part == "validation" and base is None:
                model = self.options.model_name_or_path
                arguments = [*job.arguments, "--base_model", model]
                more = replace(job, arguments=arguments, model=model, passes=2 * job.passes)
                job = _asked_or_made(job, more, "kl" in quantities)
            jobs.append(job)
        given = self.options
        count = given.shown_responses if shown and not given.no_texts else 0
        if (count or self.protocol.task) and "test" in parts:
            measured = Measured(self._files(), run, base, "test", self.part("test"))
            flags = ["--max_new_tokens", str(self.options.max_new_tokens), "--overwrite_output"]

            def answering(rows: int | None) -> Job:
                job, out = measured.job(options, "responses", "generate", rows)
                return replace(job, arguments=[*job.arguments, *flags], outputs=[out / "responses.jsonl"])

            job = _asked_or_made(answering(count), answering(None), self.protocol.task is not None)
            # Texts to look at are made while the models are there: for them alone none is trained anew, and
            # the untuned model's go with the others'.
            gone = (self.run(REFERENCE, 0) if base else run) / WEIGHTS_DELETED
            is_gone = gone.exists() and is_trained and (base is not None or all(job.done() for job in jobs))
            if self.protocol.task or not is_gone or job.done():
                jobs.append(job)
        return jobs

    def _tokens(self, rows: Path) -> float:
        """Return about how many tokens a file of training or validation rows has; of one that is to be
        written what a seed draws from the pool."""
        if rows.exists():
            return _tokens_of(rows)
        return self.protocol.train_rows / max(1, self.protocol.pool_rows) * _tokens_of(self.part("pool"))

    def _files(self) -> TrainAndTest:
        return TrainAndTest(self.part("pool"), self.part("test"), self.folder)

    def run_of(self, arm: str, seed: int) -> Path:
        """Return the folder of an arm's run, or of the untuned model's measurements."""
        return self.base if arm == BASE else self.run(arm, seed)

    def is_made(self, arm: str, seed: int, file: Path) -> bool:
        """Return whether a file of a run was made by this protocol's command, from what is there now."""
        path, base = self.run_of(arm, seed) / file, self.options.model_name_or_path
        jobs = self._measurements(self.base, base, True) if arm == BASE else self._jobs_of(arm, seed)
        # A training that fails at once leaves the run before it, and its measurements, as they were.
        is_trained = all(job.done() for job in jobs if job.script == "finetune")
        return is_trained and any(path in job.outputs and job.done() for job in jobs)

    def has_texts(self, arm: str, seed: int) -> bool:
        """Return whether the responses that lie in a run's folder are of this protocol's model: the run is
        trained, whatever number or length of responses was asked for since."""
        return arm == BASE or self._jobs_of(arm, seed)[0].done()


def _asked_or_made(job: Job, more: Job, is_asked: bool) -> Job:
    """Return the job that measures more where it is asked for, or done: another protocol has asked for it,
    and what that left holds what this one needs."""
    return more if is_asked or more.done() else job


def _tokens_of(path: Path) -> float:
    """Return about how many tokens a file has."""
    return path.stat().st_size / BYTES_OF_TOKEN
