"""Runs killed at random instants until they are done."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faulty import Fault
from harness import Ended, Kill, Restarted, Warm, arguments, launch_and_kill, until_done

STEPS = 8
COMMON: tuple[object, ...] = ("--max_train_steps", STEPS, "--checkpointing_steps", 1, "--save_total_limit", 2, "--use_lm_loss",
                              "--neftune_alpha", 5, "--packing", "--max_tokens_per_device", 2048)
LORA = ("--use_lora", "--lora_rank", 4, "--lora_dropout", 0.1)


@dataclass(frozen=True)
class Configuration:
    """A run, and what it is launched by."""

    name: str
    processes: str
    """A key of `harness.LAUNCHERS`, or `warm`: one process, forked from one that has the libraries loaded."""
    options: tuple[object, ...]


CONFIGURATIONS = (
    Configuration("LoRA with dropout, NEFTune, packed", "warm", ("--per_device_train_batch_size", 4, *LORA)),
    Configuration("full, AdamW, NEFTune, packed", "warm", ("--per_device_train_batch_size", 4)),
    Configuration("full, AdamW, NEFTune, packed; fresh processes", "1", ("--per_device_train_batch_size", 4)),
    Configuration("LoRA with dropout, NEFTune, packed; torchrun, 2 processes", "2", ("--per_device_train_batch_size", 2, *LORA)),
    Configuration("full, AdamW, NEFTune, packed; torchrun, 2 processes", "2", ("--per_device_train_batch_size", 2)),
    Configuration("full, AdamW, NEFTune, packed; ZeRO-3, 2 processes", "zero3", ("--per_device_train_batch_size", 2)),
)


@dataclass
class Tally:
    """What became of a configuration's kills."""

    configuration: str
    kills: int = 0
    while_writing: int = 0
    restarts: int = 0
    runs: int = 0
    skipped: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    def add(self, run: Restarted) -> None:
        """One more run."""
        self.kills += run.kills
        self.while_writing += run.writing
        self.restarts += run.restarts
        self.runs += 1
        self.skipped += run.skipped
        self.differing += run.differing


class RandomKills:
    """Kills at random instants of a configuration's run: one half anywhere in its time, the other half within an operation
    on its files (a checkpoint's, after every step, above all).

    Args:
        warm: makes the runs of `warm` configurations.
        place: the model and the rows.
        folder: for the runs.
    """

    def __init__(self, configuration: Configuration, warm: Warm | None, place: Path, folder: Path, seed: int):
        self._configuration, self._warm, self._place, self._folder = configuration, warm, place, folder
        self._random = random.Random(f"{seed} {configuration.name}")
        folder.mkdir(parents=True, exist_ok=True)
        self._undisturbed = folder / "undisturbed"
        listed = folder / "operations"
        ended = self._attempt(listed)(self._arguments(self._undisturbed), None)
        assert ended.code == 0, ended.said
        # A launched run's seconds are counted from the making of its folder on, about its second half.
        self._seconds = ended.seconds / (1 if warm else 2)
        self._operations = len(listed.read_text().splitlines()) if listed.exists() else 14 * STEPS

    def _arguments(self, run: Path) -> list[str]:
        return arguments(self._place, run, *COMMON, *self._configuration.options)

    def _attempt(self, listed: Path | None = None) -> Callable[[Sequence[str], Kill | None], Ended]:
        def attempt(given: Sequence[str], kill: Kill | None) -> Ended:
            cache = Path(f"{given[given.index('--output_dir') + 1]}-cache")
            if self._configuration.processes != "warm":
                return launch_and_kill(self._configuration.processes, given, cache, kill)
            assert self._warm
            return self._warm.run(given, cache, kill.fault if kill else None, kill.after if kill else None, listed)

        return attempt

    def next_kill(self) -> Kill:
        """A random kill: anywhere, or within an operation; of all processes, or of one that the others then lose."""
        launched = self._configuration.processes in ("2", "zero3")
        rank = self._random.choice((None, 0, 1)) if launched else None
        if self._random.random() < 0.5:
            return Kill(after=self._random.uniform(0, self._seconds), rank=rank)
        # Process 1 of several writes less than process 0, so it is met among its first operations.
        last = self._operations // (4 if rank == 1 else 1)
        how = self._random.choice(("kill", "kill_within"))
        delay = self._random.uniform(1e-6, 0.004) if how == "kill" and self._random.random() < 0.7 else 0.0
        return Kill(fault=Fault(self._random.randint(1, last), how, delay), rank=rank)

    def kill(self, kills: int) -> Tally:
        """As many kills, in as many runs as it takes; each run is restarted until it is done."""
        tally = Tally(self._configuration.name)
        while tally.kills < kills and not tally.differing:
            run = self._folder / f"run-{tally.runs}"
            left = kills - tally.kills

            def next_kill(number: int, left: int = left) -> Any:
                return self.next_kill() if number < left else None

            tally.add(until_done(self._attempt(), next_kill, self._arguments(run), self._undisturbed))
        return tally
