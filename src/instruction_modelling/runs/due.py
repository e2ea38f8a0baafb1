"""What is due after a step: a checkpoint, a measurement of the rows of --eval_file, or samples."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.training.plan import StepPlan


def evaluation_due(options: "FinetuneOptions", plan: "StepPlan", done: int) -> bool:
    """Return whether --eval_file is to be measured after so many steps."""
    if not options.eval_file:
        return False
    if options.keep_best and done == plan.total_steps:
        # The last weights may be the best.
        return True
    return _due_every(options.eval_steps, plan, done)


def samples_due(options: "FinetuneOptions", plan: "StepPlan", done: int) -> bool:
    """Return whether the prompts of --sample_file are to be answered after so many steps."""
    if not options.sample_file:
        return False
    if options.keep_best and options.task_score is not None and done == plan.total_steps:
        return True
    return _due_every(options.sample_steps, plan, done)


def _due_every(steps: int | None, plan: "StepPlan", done: int) -> bool:
    """Return whether so many steps are a multiple; without a number, whether an epoch or the run ends."""
    if steps:
        return done % steps == 0
    return done % plan.steps_per_epoch == 0 or done == plan.total_steps


def checkpoint_due(options: "FinetuneOptions", plan: "StepPlan", done: int) -> str | None:
    """Return the name of the checkpoint that --checkpointing_steps asks for after so many steps, if any."""
    every = options.checkpointing_steps
    epoch, step_of_epoch = divmod(done, plan.steps_per_epoch)
    if every == "epoch":
        return None if step_of_epoch else f"epoch_{epoch}"
    return f"step_{done}" if every and done % int(every) == 0 else None
