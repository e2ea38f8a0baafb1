"""Arms that stop where another arm ends: as far from the untuned model, or as far down in the training loss.

The other arm is measured at its end. A trial run of the arm, of full length, is measured every few steps; the
first step at which it is as far gives the arm its number of steps, and it is trained anew with a schedule of
that length. A schedule that ends sooner gets a little less far than the trial did at that step, so what the
arm reached is measured too. Where the trial never gets as far, the arm cannot be had, and the answer says
so."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.arms.rules import Quantity, StopAt
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.files.whole import write_json
from instruction_modelling.rows.json_lines import read_appended

MATCHING = "matching.json"
# Of src/finetune.py: the key of metrics.jsonl that holds a quantity.
_MEASURED = {"kl": "eval_kl", "loss": "eval_response_nll"}
# Measurements of a trial run, about.
_MEASUREMENTS = 20


@dataclass(frozen=True)
class StepMatch:
    """How one arm's steps were found for one seed."""

    arm: str
    seed: int
    quantity: Quantity
    of: str
    target: float
    """The other arm's at its end."""
    steps: int | None
    """None where the trial never got as far."""
    trial: list[tuple[int, float]]
    """Steps of the trial run, and what was measured after them."""


def measured_every(stop: StopAt, total_steps: int) -> int:
    """Return the steps between two measurements of a trial run of so many."""
    return stop.every or max(1, -(-total_steps // _MEASUREMENTS))


def trial_of(run: Path, quantity: Quantity) -> list[tuple[int, float]]:
    """Return what a trial run's metrics.jsonl says of a quantity: (step, value) in order."""
    key = _MEASURED[quantity]
    lines = (line for _, line in read_appended(run / "metrics.jsonl").records)
    return [(int(line["step"]), float(line[key])) for line in lines if line.get(key) is not None]


def steps_to(target: float, trial: Sequence[tuple[int, float]], quantity: Quantity) -> int | None:
    """Return the first step of a trial at which it is as far as the target: at or above a KL, at or below a
    loss. None where it never is."""
    for step, value in trial:
        if value >= target if quantity == "kl" else value <= target:
            return step
    return None


def write_matches(folder: Path, matches: Sequence[StepMatch]) -> None:
    """Write matching.json."""
    write_json(folder / MATCHING, {"matches": [asdict(match) for match in matches]})


def read_matches(folder: Path) -> dict[str, dict[int, StepMatch]]:
    """Return what was found, by arm and seed; nothing before it was."""
    found: dict[str, dict[int, StepMatch]] = {}
    for given in (read_stamp(folder / MATCHING) or {}).get("matches", []):
        match = StepMatch(**{**given, "trial": [(step, value) for step, value in given["trial"]]})
        found.setdefault(match.arm, {})[match.seed] = match
    return found


def unreachable(matches: Mapping[int, StepMatch], seeds: int) -> str | None:
    """Return, in words, why an arm cannot be had with so many seeds; None where it can."""
    missed = [match for seed, match in matches.items() if seed < seeds and match.steps is None]
    if not missed:
        return None
    farthest = min if missed[0].quantity == "loss" else max
    what = "KL from the untuned model" if missed[0].quantity == "kl" else "loss on training responses"
    reached = farthest((value for _, value in missed[0].trial), default=float("nan"))
    return (
        f"not reachable with {len(missed)} of {seeds} seeds: {missed[0].of} ends at a {what} of "
        f"{missed[0].target:.3f} (seed {missed[0].seed}), and the trial comes to {reached:.3f}"
    )


def as_facts(matches: Mapping[int, StepMatch], reached: Sequence[float]) -> dict[str, Any]:
    """Return how an arm was matched, as answer.json holds it: of each seed the target, the steps and what the
    arm trained anew has reached."""
    ordered = [matches[seed] for seed in sorted(matches)]
    return {
        "quantity": ordered[0].quantity,
        "of": ordered[0].of,
        "targets": [match.target for match in ordered],
        "steps": [match.steps for match in ordered],
        "reached": list(reached),
    }
