"""What a decision will cost, before it starts, and what a budget leaves of it."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from instruction_modelling.comparison import timing
from instruction_modelling.comparison.begun import DELETE_WEIGHTS
from instruction_modelling.comparison.jobs import Job, waiting_jobs
from instruction_modelling.decision.answer import EXPECTED_VARIANCES, decidable_margin, file_rows
from instruction_modelling.decision.crossed import rows_needed
from instruction_modelling.decision.options import LEAST_SEEDS, budget_seconds, gpu_tflops
from instruction_modelling.decision.prepare import Prepared
from instruction_modelling.decision.protocol import LOOK_SEEDS, Protocol
from instruction_modelling.decision.runs import ProtocolRuns
from instruction_modelling.errors import UserError
from instruction_modelling.progress import counted
from instruction_modelling.runs.estimates import (
    Hardware,
    ModelSize,
    hours_in_words,
    model_size,
    training_hours,
)

# The least that answers the question at all.
LEAST_ARMS = 2
# The share of a GPU's peak that is assumed where nothing is measured.
UTILISATION = 0.4


def measured_rate(prepared: Prepared) -> float:
    """Return the token-passes a second of training here (`timing.calibrate`), before a protocol has
    begun; nothing is left behind on the disk.

    Raises:
        UserError: no training step can be taken.
    """
    with tempfile.TemporaryDirectory() as place:
        trial = ProtocolRuns(prepared.options, prepared.protocol, Path(place))
        prepared.write_split(trial, 1)
        rate = timing.calibrate(trial.jobs(1))
    assert rate is not None, "a protocol without a run to train"
    return rate


def jobs_to_come(prepared: Prepared, seeds: int) -> list[Job]:
    """Return the jobs of a protocol that are not done, all of them where it has not begun; nothing is left
    behind on the disk."""
    runs = prepared.runs()
    if runs.part("test").exists():
        return waiting_jobs([*runs.tuning_jobs(), *runs.jobs(seeds)])
    with tempfile.TemporaryDirectory() as place:
        # What a job takes follows from the sizes of its files.
        trial = ProtocolRuns(prepared.options, prepared.protocol, Path(place))
        prepared.write_split(trial, seeds)
        return [*trial.tuning_jobs(), *trial.jobs(seeds)]


def fit_budget(prepared: Prepared, rate: float) -> Prepared:
    """Return the protocol with as many arms as its budget has time for, the first ones first, never with
    fewer than five seeds, which is what an interval is made of; and then with as many seeds as fit."""
    chosen, left = _fitting_arms(prepared, rate)
    for seeds in sorted(LOOK_SEEDS, reverse=True):
        more = replace(chosen, protocol=replace(chosen.protocol, first_look=seeds))
        if seeds > LEAST_SEEDS and timing.expected_seconds(jobs_to_come(more, seeds), rate) <= left:
            return more
    return chosen


def _fitting_arms(prepared: Prepared, rate: float) -> tuple[Prepared, float]:
    """Return the protocol with the arms that fit, and the budget in seconds.

    Raises:
        UserError: not even IT and IM fit.
    """
    text = prepared.options.budget or ""
    budget, names, needed = budget_seconds(text) or 0.0, list(prepared.protocol.arms), 0.0
    for count in range(len(names), LEAST_ARMS - 1, -1):
        chosen = prepared.with_arms(names[:count])
        needed = timing.expected_seconds(jobs_to_come(chosen, LEAST_SEEDS), rate)
        if needed <= budget:
            return chosen, budget
    raise UserError(
        f"cannot answer in {text}: IT and IM with {LEAST_SEEDS} seeds take about "
        f"{timing.guessed_time(needed)} here; "
        "give more time, no --tune, fewer --train_rows or --num_train_epochs, or a smaller model"
    )


def cost_lines(prepared: Prepared, seeds: int, waiting: Sequence[Job], rate: float | None) -> list[str]:
    """Return what a look takes and what it can decide, in lines.

    Args:
        waiting: the jobs that are not done.
        rate: token-passes a second; None where it was not measured.
    """
    protocol, options = prepared.protocol, prepared.options
    trained = sum(job.passes for job in waiting if job.script == "finetune")
    to_do = [job for job in waiting if job.script != DELETE_WEIGHTS]
    size = model_size(options.model_name_or_path)
    width = 2 if "bfloat16" in protocol.shared_flags else 4
    disk = f" ({width * size.parameters / 1e9:.2g} GB)" if size and not options.adapters else ""
    return [
        f"this look: {counted(seeds, 'seed')} of {counted(len(prepared.runs().arms()), 'arm')}; "
        f"{counted(len(to_do), 'job')} to do: about {trained:,.0f} tokens to train on, "
        f"in all {timing.cost_words(waiting, rate)}; the disk holds one tuned model at a time"
        f"{disk}",
        *(_gpu_line(prepared, name, size, waiting) for name in options.gpus),
    ]


def _gpu_line(prepared: Prepared, name: str, size: ModelSize | None, waiting: Sequence[Job]) -> str:
    """Return what the jobs take on a GPU, by formula."""
    options = prepared.options
    training = next((job for job in waiting if job.script == "finetune"), None)
    if size is None or training is None:
        why = (
            "nothing is left to train" if training is None else f"not known for {options.model_name_or_path}"
        )
        return f"on a GPU ({name}): {why}"
    gpu = Hardware(1, gpu_tflops(name) or 0.0, UTILISATION, 0.0)
    per_row = training.passes / (options.num_train_epochs * prepared.protocol.train_rows)
    hours = training_hours(size, sum(job.passes for job in waiting), per_row, gpu)
    processes = sum(job.passes > 0 for job in waiting)
    return (
        f"on one GPU ({name}, {gpu.tflops:g} TFLOP/s, of which {UTILISATION:.0%} are assumed to be reached; "
        f"a small model reaches less): about {hours_in_words(hours * (2 / 3 if options.adapters else 1))}, "
        f"and the start of {counted(processes, 'job')}"
    )


def decidable_line(protocol: Protocol, seeds: int) -> str:
    """Return the smallest gain that is expected to be told from none, and where that is more than what
    matters, which size would do."""
    decidable = decidable_margin(protocol, seeds)
    line = (
        f"at this size ({counted(seeds, 'seed')}, {counted(protocol.units, 'test row')}) a gain of about "
        f"{decidable:.2g} nats can be told from none, and what matters is {protocol.margin:g}; by variances "
        "guessed for long instructions (with short ones models differ far less)"
    )
    if decidable <= protocol.margin:
        return line
    size = ""
    # A few seeds alone may vary too much for any number of rows.
    for looked in (n for n in protocol.look_seeds if n >= seeds):
        rows = rows_needed(EXPECTED_VARIANCES, looked, protocol.margin, protocol.confidence)
        if rows is not None:
            size = f"; {rows:,} test rows and {looked} seeds would do, so a file of about {file_rows(rows):,}"
            break
    return f"{line}: a smaller one is likely to end in `cannot tell`{size}"
