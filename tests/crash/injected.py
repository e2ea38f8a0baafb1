"""Faults at every operation of a run's saves, one at a time."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faulty import Fault
from harness import RESUME, Ended, Warm, arguments, broken_checkpoints, differences

SCENARIOS = ("from the beginning", "over other checkpoints", "once more when finished")
# A checkpoint after each of three steps, of which only the newest stays: every kind of operation there is.
LAST = 3
OPTIONS = ("--max_train_steps", LAST, "--per_device_train_batch_size", 4, "--checkpointing_steps", 1, "--save_total_limit", 1,
           "--use_lm_loss", "--neftune_alpha", 5, "--packing")
# With this one a file written outside Python is also cut off at other places: at once, and near its end.
CUTS = (1, 4096, 1_000_000)


@dataclass(frozen=True)
class Outcome:
    """What a fault led to: how the run ended, and what is wrong with that or with its continuation; nothing if all is well."""

    scenario: str
    operation: str
    fault: Fault
    code: int
    problems: list[str]


class Injector:
    """Faults in runs that begin from one of several states of the run folder.

    Args:
        warm: makes the runs.
        place: the model and the rows.
        folder: for the runs.
    """

    def __init__(self, warm: Warm, place: Path, folder: Path):
        self._warm, self._place, self._folder = warm, place, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.undisturbed = folder / "undisturbed"
        ended = warm.run(self._arguments(self.undisturbed), folder / "undisturbed-cache")
        assert ended.code == 0, ended.said
        self._operations: dict[str, list[str]] = {}

    def _arguments(self, run: Path) -> list[str]:
        return arguments(self._place, run, *OPTIONS)

    def _begin(self, scenario: str, run: Path) -> list[str]:
        """Makes the run folder that a scenario begins with; the command line."""
        for folder in (run, Path(f"{run}-cache")):
            shutil.rmtree(folder, ignore_errors=True)
        if scenario == "from the beginning":
            return self._arguments(run)
        if scenario == "once more when finished":
            shutil.copytree(self.undisturbed, run)
            return [*self._arguments(run), *RESUME]
        # A run that goes back to its first checkpoint saves over the later ones.
        every = self._folder / "every"
        if not every.exists():
            ended = self._warm.run([*self._arguments(every), "--save_total_limit", "3"], Path(f"{every}-cache"))
            assert ended.code == 0, ended.said
        shutil.copytree(every, run)
        return [*self._arguments(run), "--resume_from_checkpoint", str(run / "step_1")]

    def operations(self, scenario: str) -> list[str]:
        """`kind path` of every operation of the scenario, in order."""
        if scenario not in self._operations:
            run, listed = self._folder / "counted", self._folder / "operations"
            ended = self._warm.run(self._begin(scenario, run), Path(f"{run}-cache"), listed=listed)
            assert ended.code == 0, ended.said
            assert differences(run, self.undisturbed) == []
            self._operations[scenario] = listed.read_text().splitlines()
        return self._operations[scenario]

    def faults(self, scenario: str, hows: Sequence[str]) -> Iterator[tuple[str, Fault]]:
        """Every fault that the scenario's operations can meet, with the operation."""
        for at, operation in enumerate(self.operations(scenario), start=1):
            kind = operation.split()[0]
            for how in hows:
                if not Fault(at, how).applies_to(kind):
                    continue
                for cut in CUTS if kind == "serialize" else CUTS[1:2]:
                    yield operation, Fault(at, how, cut_after=cut)

    def inject(self, scenario: str, operation: str, fault: Fault, name: str = "run") -> Outcome:
        """One run with the fault, then its continuation without."""
        run = self._folder / name
        given, cache = self._begin(scenario, run), Path(f"{run}-cache")
        ended = self._warm.run(given, cache, fault)
        problems = [*check_end(fault, ended), *self._check_left(scenario, fault, run)]
        if ended.code == 0:
            # What could not be removed is removed by the continuation.
            problems += [each for each in differences(run, self.undisturbed) if not each.startswith("left behind")]
        again = self._warm.run([*self._arguments(run), *RESUME], cache)
        if again.code:
            problems.append(f"its continuation ended with {again.code}: {again.said[-1500:]}")
        else:
            problems += differences(run, self.undisturbed)
        return Outcome(scenario, operation, fault, ended.code, problems)

    def _check_left(self, scenario: str, fault: Fault, run: Path) -> list[str]:
        """That the checkpoints are whole, and the newest that was finished is among them."""
        found = broken_checkpoints(run)
        before = self.operations(scenario)[:fault.at - 1]
        done = [int(operation.split(".step_")[1].split(".")[0]) for operation in before
                if operation.startswith("rename .step_") and operation.endswith(".saving")]
        if done and not any((run / f"step_{step}").exists() for step in range(max(done), LAST + 1)):
            found.append(f"step_{max(done)} was finished and is gone")
        return found


def check_end(fault: Fault, ended: Ended) -> list[str]:
    """What is wrong with how a run with a fault ended, and with what it said."""
    how_it_ended = [f"ended with {ended.code}: {ended.said[-1500:]}"]
    if fault.how.startswith("kill"):
        return [] if ended.killed or ended.code == 0 and fault.cut_after > CUTS[1] else how_it_ended
    if "Traceback" in ended.said:
        return [f"a traceback (exit code {ended.code}): {ended.said[-1500:]}"]
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    # What is only tidied away, the log and the cache may fail without the run's failing.
    whole = ended.code == 0 and not errors
    failed = ended.code == 2 and len(errors) == 1 and fault.how != "short_write"
    return [] if whole or failed else how_it_ended


def stratified(faults: Sequence[tuple[str, Fault]], each: int = 1) -> list[tuple[str, Fault]]:
    """The first `each` faults of every kind: by what goes wrong, by operation, and by what sort of file it is on."""
    counts: dict[tuple[str, str, str], int] = {}
    chosen = []
    for operation, fault in faults:
        kind, path = operation.split(maxsplit=1)
        sort = "".join(sign for sign in path if not sign.isdigit())
        key = (fault.how, kind, sort)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= each:
            chosen.append((operation, fault))
    return chosen

