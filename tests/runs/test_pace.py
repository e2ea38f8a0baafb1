"""What a run says it will take, before its second step, holds at its end."""

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_tiny_model
from training_runs import run, sample_rows, write_rows

from instruction_modelling.progress import Progress, TimeRange
from instruction_modelling.runs import pace
from instruction_modelling.runs.pace import TimedMicroBatches, later_steps, tokens_of_epoch


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def micro_batch(tokens: int) -> Any:
    return SimpleNamespace(input_ids=torch.zeros(1, tokens))


def test_what_only_the_first_micro_batch_takes_is_no_part_of_a_later_step() -> None:
    """By hand: 100 tokens a second, and 6 s that are taken once."""
    taken = [(10.0 + 6.0, 1000), (8.0, 800), (2.0, 200)]
    # With a second for the update.
    assert later_steps(taken, 27.0) == TimeRange.around(21.0)
    # A first one that was quicker than the others takes nothing away.
    assert later_steps([(5.0, 1000), (8.0, 800)], 13.0) == TimeRange.around(13.0)
    assert later_steps([(5.0, 1000)], 6.0) == TimeRange(3.0, 6.0)


@pytest.mark.parametrize("once", [0.0, 4.0, 40.0])
def test_what_is_said_before_the_second_step_holds_at_the_end_and_the_first_left_agrees(
    once: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 50 steps on a clock of its own, its start included: 200 tokens a second, half a second an
    update, and so many seconds that the first micro-batch takes alone."""
    clock, begin = Clock(), 50.0
    monkeypatch.setattr(pace, "seconds_of_script", lambda: clock.now - begin)
    lengths = np.random.default_rng(0).integers(50, 950, 200)
    plan = SimpleNamespace(quotas=None, steps_per_epoch=25, total_steps=50)
    of_run: Any = SimpleNamespace(
        data=SimpleNamespace(weighted=SimpleNamespace(data=SimpleNamespace(lengths=lengths))),
        plan=plan,
        done=0,
    )
    clock.now += 9.0
    progress = Progress(50, "steps", io.StringIO(), clock=clock)
    caplog.set_level(logging.INFO)
    for step in range(50):
        started = clock.now
        batches: Any = [micro_batch(int(tokens)) for tokens in lengths[8 * (step % 25) :][:8]]
        tokens = sum(batch.input_ids.numel() for batch in batches)
        first = TimedMicroBatches(batches, lambda: None, clock) if not step else None
        for number, batch in enumerate(first or batches):
            clock.now += batch.input_ids.numel() / 200 + (once if step == number == 0 else 0)
        clock.now += 0.5
        if first:
            pace.say_time(of_run, progress, first, clock.now - started, tokens)
        progress.add(1)
        if not step:
            left, after_first = progress.left(), clock.now
    (said,) = caplog.messages
    total = clock.now - begin
    least, most = (60 * float(end) for end in re.findall(r"about ([\d.]+) to ([\d.]+) min:", said)[0])
    assert least < total < most and most / least < 1.5
    left_least, left_most = (60 * float(end) for end in left.removesuffix(" min").split(" to "))
    assert left_least < clock.now - after_first < left_most
    # Both are of one measurement: what differs is what was over, and two digits.
    over = after_first - begin
    assert abs(least - left_least - over) <= 60 and abs(most - left_most - over) <= 60
    assert "49 steps like it" in said


def test_an_epoch_takes_the_rows_that_its_quotas_say() -> None:
    lengths = np.array([3, 5, 7])
    quotas = SimpleNamespace(times=lambda: np.array([2, 0, 1]))
    of_plan: Any = SimpleNamespace(quotas=quotas)
    assert tokens_of_epoch(lengths, of_plan) == 13
    of_plan.quotas = None
    assert tokens_of_epoch(lengths, of_plan) == 15


def test_a_run_says_its_time_before_its_first_step_is_logged_and_one_of_one_step_does_not(
    tmp_path: Path,
) -> None:
    make_tiny_model(tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    given = ("--model_name_or_path", tmp_path / "model", "--train_file", tmp_path / "rows.jsonl")
    for steps in (3, 1):
        options = ("--max_train_steps", steps, "--output_dir", tmp_path / str(steps))
        lines = run("finetune", *given, *options, "--per_device_train_batch_size", 2).out.splitlines()
        (at,) = [number for number, line in enumerate(lines) if f"step 1/{steps}" in line]
        said = [number for number, line in enumerate(lines) if "this run will take about" in line]
        assert said == ([at - 1] if steps > 1 else []), lines
