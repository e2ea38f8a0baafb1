"""Tuned IT against tuned IM: each at the best of six settings, chosen on the validation rows.

Settings that suit one arm may not suit the other. Both get the same learning rates and passes, trial by
trial, so equal tokens; IM's trials differ in the weight of instructions as well. All trials share a seed that
no tested run has, and are measured on the validation rows alone. What is chosen is trained anew with the
seeds of the protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.decision.options import REFERENCE, TREATMENT
from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.files.whole import write_json

TUNED = "tuned.json"
TUNED_REFERENCE, TUNED_TREATMENT = f"tuned-{REFERENCE}", f"tuned-{TREATMENT}"
# Of no seed that is tested.
TUNING_SEED = 1000
# Learning rate and passes, as multiples of those given, and IM's weight of instructions.
_TRIALS = ((0.5, 1, 1.0), (1.0, 1, 0.3), (2.0, 1, 0.1), (0.5, 2, 0.1), (1.0, 2, 1.0), (2.0, 2, 0.3))


@dataclass(frozen=True)
class Trial:
    """One setting of one tuned arm."""

    arm: str
    number: int
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name of its run folder."""
        return f"{self.arm}-trial{self.number}"


def trials_of(learning_rate: float, epochs: int) -> list[Trial]:
    """Return the six trials of each tuned arm, IT's first."""
    trials = []
    for arm in (TUNED_REFERENCE, TUNED_TREATMENT):
        for number, (rate, passes, weight) in enumerate(_TRIALS, start=1):
            flags = [
                "--learning_rate",
                f"{learning_rate * rate:g}",
                "--num_train_epochs",
                str(epochs * passes),
            ]
            weights = ["--instruction_loss_weight", f"{weight:g}"] if arm == TUNED_TREATMENT else []
            trials.append(Trial(arm, number, (*flags, *weights)))
    return trials


def choose(trials: Sequence[Trial], validation_losses: Mapping[str, float]) -> dict[str, Trial]:
    """Return the trial of each arm with the lowest validation loss, by trial name; of equals the first.

    Raises:
        UserError: an arm has no trial whose loss is a number.
    """
    chosen: dict[str, Trial] = {}
    for trial in (trial for trial in trials if math.isfinite(validation_losses[trial.name])):
        before = chosen.get(trial.arm)
        if before is None or validation_losses[trial.name] < validation_losses[before.name]:
            chosen[trial.arm] = trial
    for arm in dict.fromkeys(trial.arm for trial in trials):
        if arm not in chosen:
            raise UserError(
                f"--tune: no setting of {arm} has a validation loss that is a number: training has diverged "
                "with each; give a smaller --learning_rate"
            )
    return chosen


def write_chosen(folder: Path, chosen: Mapping[str, Trial], validation_losses: Mapping[str, float]) -> None:
    """Write tuned.json: what was chosen, and the validation loss of every trial."""
    arms = {arm: {"trial": trial.number, "flags": list(trial.flags)} for arm, trial in chosen.items()}
    write_json(folder / TUNED, {"arms": arms, "validation_losses": dict(validation_losses)})


def chosen_flags(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the flags of the tuned arms; none before they were chosen."""
    arms: dict[str, Any] = (read_stamp(folder / TUNED) or {}).get("arms", {})
    return {arm: tuple(chosen["flags"]) for arm, chosen in arms.items()}
