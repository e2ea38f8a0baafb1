"""The best measurement of a run, the lowest loss on --eval_file or the highest mean of --task_score: its
weights are kept until the end, and a run that finds no better one may end early.

Weights are kept as a checkpoint without an optimiser's state, best_STEP, from which no run goes on. A
checkpoint says which of them was the best when it was saved, and they stay as long as it does: a run that
goes on from it, and takes its steps anew, ends with the weights that the undisturbed run ends with."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.progress import counted

# What imports torch is imported where it is used: `--help` needs none.
from instruction_modelling.runs.checkpoint_folders import BEST, check_contents, mentioned_best

if TYPE_CHECKING:
    from instruction_modelling.runs.run import Run

logger = logging.getLogger(__name__)

# What run.json and the card call a measurement, by its key in metrics.jsonl.
NAMES = {"eval_response_nll": "evaluation_loss", "task_score": "task_score"}


class Best:
    """The lowest loss so far, its step, and how many measurements since were no lower; of a task score, more
    of which is better, the loss is minus the score."""

    def __init__(self) -> None:
        """Begin without a measurement."""
        self.loss, self.step, self.since = math.inf, 0, 0
        self.folder: Path | None = None
        """Where its weights are."""

    def take(self, step: int, loss: float) -> bool:
        """Take in the measurement after a step; return whether it is the best. One that is equal, or no
        number, is not."""
        if loss < self.loss:
            self.loss, self.step, self.since = loss, step, 0
            return True
        self.since += 1
        return False

    def exhausted(self, patience: int | None) -> bool:
        """Return whether so many measurements in a row were no better."""
        return patience is not None and self.since >= patience

    def state(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"loss": self.loss if self.step else None, "step": self.step, "since": self.since}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.loss = math.inf if state["loss"] is None else float(state["loss"])
        self.step, self.since = int(state["step"]), int(state["since"])


def take_measurement(run: "Run", line: dict[str, Any], fingerprint: Callable[[], dict[str, Any]]) -> None:
    """Take in a measurement, where it is of what decides, and keep the weights where it is the best and
    --keep_best is given; every process calls it.

    Args:
        line: of metrics.jsonl.
        fingerprint: returns the run's, which is kept with the weights.

    Raises:
        UserError: the disk is full or fails.
    """
    best, options = run.best, run.options
    measure = options.best_by()
    if measure is None or measure not in line:
        return
    if not best.take(run.done, _as_loss(measure, line[measure])):
        logger.info(
            "no better than the %.4f of step %d for %s",
            _as_loss(measure, best.loss),
            best.step,
            counted(best.since, "measurement"),
        )
        return
    if not options.keep_best:
        return
    from instruction_modelling.runs import checkpoints
    from instruction_modelling.runs.state import TrainedWeights, training_state

    folder = run.folder.path / f"{BEST}{run.done}"
    run.at_hand.now(f"keeping the best weights in {folder.name}")
    weights = TrainedWeights(training_state(run.accelerator, run.model, run.optimizer))
    state = {"step": run.done, "fingerprint": fingerprint(), NAMES[measure]: line[measure]}
    checkpoints.save_checkpoint(run.accelerator, weights, folder, state)
    best.folder = folder
    forget_others(run)


def _as_loss(measure: str, value: float) -> float:
    """Return a measurement as what is to be low, or back."""
    return -value if measure == "task_score" else value


def find_kept(run: "Run", checkpoint: Path) -> None:
    """Find the best weights that a checkpoint speaks of, beside it.

    Raises:
        UserError: they are not there, or damaged.
    """
    if not (run.options.keep_best and run.best.step):
        return
    folder = checkpoint.parent / f"{BEST}{run.best.step}"
    try:
        check_contents(folder)
    except UserError as error:
        raise UserError(
            f"{checkpoint} goes with the best weights so far, {folder.name} beside it (--keep_best), and "
            f"{error}; go on from a checkpoint before that step, or start anew"
        ) from error
    run.best.folder = folder


def put_back(run: "Run") -> None:
    """Put the best weights in the place of the last ones, bit for bit; every process calls it."""
    best = run.best
    measure = run.options.best_by()
    if best.folder is None or measure is None:
        return
    from instruction_modelling.runs import checkpoints
    from instruction_modelling.runs.state import TrainedWeights, training_state

    trained = TrainedWeights(training_state(run.accelerator, run.model, run.optimizer))
    checkpoints.load_checkpoint(trained, best.folder)
    logger.info(
        "the weights of step %d, of %s (%.4f), take the place of those of step %d",
        best.step,
        {"eval_response_nll": "the lowest evaluation loss", "task_score": "the best task score"}[measure],
        _as_loss(measure, best.loss),
        run.done,
    )


def forget_others(run: "Run", ended: bool = False) -> None:
    """Remove the weights that are neither the best nor those that a checkpoint speaks of.

    Args:
        ended: the model is saved, so the best are no longer needed either.
    """
    if not (run.options.keep_best and run.accelerator.is_main_process):
        return
    wanted = {f"{BEST}{step}" for step in mentioned_best(run.folder.path)}
    if run.best.folder is not None and not ended:
        wanted.add(run.best.folder.name)
    for folder in run.folder.path.glob(f"{BEST}*"):
        if folder.name not in wanted:
            durable.remove_tree(folder)


def describe_best(run: "Run") -> dict[str, Any]:
    """Return what run.json says of the measurements: which was the best, and whether the run ended early.

    A run that ended early has the steps that it took, and its plan beside them."""
    facts: dict[str, Any] = {}
    options, best, plan = run.options, run.best, run.plan
    if measure := options.best_by():
        value = _as_loss(measure, best.loss) if best.step else None
        facts["best"] = {"step": best.step, NAMES[measure]: value}
    if options.keep_best:
        facts["best"]["kept"] = best.folder is not None
    if run.done < plan.total_steps:
        facts |= {
            "steps": run.done,
            "epochs": run.done / plan.steps_per_epoch,
            "planned_steps": plan.total_steps,
        }
    return facts
