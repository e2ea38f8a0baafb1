"""A dry run says what the run then needs, refuses what the run would refuse, and leaves nothing behind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from step_samples import random_data, weigh
from tiny import make_tiny_model
from training_runs import Outcome, run, sample_rows, write_rows

from instruction_modelling.runs.needs import (
    Disk,
    LaidOut,
    Memory,
    Needs,
    TimedStep,
    kept_for_backward,
    lay_out,
)
from instruction_modelling.runs.pace import seconds_said
from instruction_modelling.training.plan import Layout, StepPlan


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and rows."""
    folder = tmp_path_factory.mktemp("dry")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(21))
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Outcome:
    """Two epochs of six steps of up to four examples, with two checkpoints an epoch."""
    names = ("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl")
    steps = ("--per_device_train_batch_size", 4, "--checkpointing_steps", 3, "--use_lm_loss")
    return run("finetune", *names, "--output_dir", folder, *steps, *arguments)


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("packing", [False, True])
def test_a_dry_run_says_what_the_run_then_needs(place: Path, tmp_path: Path, packing: bool) -> None:
    flags = ("--packing", "--max_tokens_per_device", 600) if packing else ()
    dry = tune(place, tmp_path / "deep" / "run", *flags, "--dry_run")
    assert dry.code == 0 and list(tmp_path.iterdir()) == []
    whole = tune(place, tmp_path / "run", *flags)
    assert whole.code == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    epoch, record = lines[:6], json.loads((tmp_path / "run" / "run.json").read_text())
    tokens = sum(line["tokens"] for line in epoch)
    assert f"rows: 21 examples, {tokens:,} tokens an epoch" in dry.out
    assert "steps: 12 (2 epochs of 6), up to 4 examples each, 1 process" in dry.out and len(lines) == 12
    if not packing:
        positions = sum(line["tokens"] / (1 - line["padding_fraction"]) for line in epoch)
        assert f"1.0 a step, up to 4 examples padded, {tokens / positions:.1%} filled (6 steps" in dry.out
    size = 4 * record["model"]["parameters"]
    parts = f"weights {size / 1e6:.3g} MB, gradients {size / 1e6:.3g} MB, optimiser {2 * size / 1e6:.3g} MB"
    assert parts in dry.out
    # On the disk: the model and four checkpoints, as they are there, headers and tokenizer aside.
    checkpoint = sum(p.stat().st_size for p in (tmp_path / "run" / "step_3").glob("*.safetensors"))
    model = (tmp_path / "run" / "model.safetensors").stat().st_size
    said = re.search(r"the model ([\d.]+) MB, 4 checkpoints of ([\d.]+) MB", dry.out)
    assert said and float(said[1]) == pytest.approx(model / 1e6, rel=0.01)
    assert float(said[2]) == pytest.approx(checkpoint / 1e6, rel=0.01)
    assert re.search(
        rf"time: about .+ for {2 * tokens:,} tokens at [\d,]+ tokens a second, "
        "measured here: one step",
        dry.out,
    )


def test_a_dry_run_refuses_what_the_run_would_refuse_and_touches_nothing(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert tune(place, folder).code == 0
    before = files(folder)
    refused = tune(place, folder, "--dry_run")
    assert refused.code == 2 and "holds a finished run (IM)" in refused.err
    assert tune(place, folder, "--dry_run", "--overwrite_output").code == 0
    rows = tmp_path / "bad.jsonl"
    rows.write_text((place / "rows.jsonl").read_text() + "{}\n")
    bad = tune(place, tmp_path / "other", "--train_file", rows, "--dry_run")
    assert bad.code == 2 and "1 of 22 rows cannot be used" in bad.err and not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    under_a_file = tune(place, tmp_path / "file" / "run", "--dry_run")
    assert under_a_file.code == 2 and "cannot be made: Not a directory" in under_a_file.err
    # What is left of a run that stopped, with a checkpoint that no save has finished.
    (folder / "step_12.unfinished").mkdir()
    left = tune(place, folder, "--resume_from_checkpoint", folder / "step_9", "--dry_run")
    assert left.code == 0 and "steps: 3 (0.5 epochs of 6)" in left.out
    other = tune(place, folder, "--resume_from_checkpoint", "latest", "--dry_run", "--seed", 1)
    assert other.code == 2 and "seed: 0 then, 1 now" in other.err
    (folder / "step_12.unfinished").rmdir()
    assert files(folder) == before


def test_steps_are_laid_out_as_they_are_trained() -> None:
    """Brute force: the lengths of each step's examples, one after another."""
    weighted = weigh(random_data((5, 17, 9, 2, 23, 12, 7, 14)))
    plan = StepPlan(8, 3, 0, 6)
    steps = [[int(weighted.data.lengths[i]) for i in plan.batch(step)] for step in range(3)]
    found = lay_out(weighted, plan, Layout(False, 2, 30), 1)
    padded = [[sorted(step)[::-1][at : at + 2] for at in range(0, len(step), 2)] for step in steps]
    positions = sum(len(group) * group[0] for step in padded for group in step)
    assert (found.steps, found.sequences, found.tokens, found.positions) == (3, 8, 89, positions)
    assert found.micro_batches == sum(map(len, padded)) and found.fill == 89 / positions
    # Two processes: as many micro-batches each, of which an empty one computes nothing that counts.
    two = lay_out(weighted, plan, Layout(True, 2, 100), 2)
    assert two.micro_batches == 2 * 3 and two.positions == 3 * 100


def test_hours_memory_and_disk_by_hand() -> None:
    laid_out = LaidOut(10, 80, 9_000, 20, 10_000)
    needs = Needs(
        examples=800,
        laid_out=laid_out,
        tokens_of_epoch=90_000,
        longest=300,
        steps=150,
        steps_per_epoch=100,
        batch_size=8,
        ranks=2,
        layout=Layout(True, 8, 500),
        memory=Memory(10**9, 10**9, 2 * 10**9, 5 * 10**8, 6 * 10**9),
        disk=Disk(10**9, 3 * 10**9, 5, 2),
        trial=TimedStep(4.0, 600, 2, 3, 3.5),
        start=6.25,
    )
    # 135,000 tokens at 150 a second.
    assert needs.tokens == 135_000 and needs.hours == pytest.approx(0.25)
    # Three checkpoints at once, the third before the first goes; the model with two of them.
    assert needs.disk.most() == 9 * 10**9 and Disk(10**10, 3 * 10**9, 2, 2).most() == 16 * 10**9
    assert Disk(10**9, 3 * 10**9, 0, 0).most() == 10**9
    text = "\n".join(needs.lines())
    assert text == (
        "rows: 800 examples, 90,000 tokens an epoch, the longest sequence 300\n"
        "steps: 150 (1.5 epochs of 100), up to 8 examples each, 2 processes\n"
        "micro-batches: 2.0 a step, up to 500 tokens packed, 90.0% filled (10 steps laid out, of 8.0 "
        "sequences)\n"
        "memory: 4.5 GB of a device: weights 1 GB, gradients 1 GB, optimiser 2 GB, activations 0.5 GB; at "
        "most 6 GB in the trial\n"
        "disk: 9 GB at most: the model 1 GB, 2 checkpoints of 3 GB\n"
        "time: about 13 to 17 min for 135,000 tokens at 150 tokens a second, measured here: an update after "
        "2 of a step's 3 micro-batches of this model took 4 s (3.5 s of a processor), and the start 6.25 s; "
        "evaluation and checkpoints come on top"
    )
    assert np.isclose(laid_out.fill, 0.9) and seconds_said(f"before\n  {text}\nafter") == (900.0, 6.25)
    assert seconds_said("memory: 3 GB") is None


def test_what_is_kept_is_counted_once_and_weights_are_not() -> None:
    layer = torch.nn.Linear(8, 4, bias=False)
    given = torch.randn(5, 8, requires_grad=True)
    with kept_for_backward(layer) as kept:
        product = layer(given) * layer(given[:3]).sum()
    # The input of 5 x 8, of which the second call has a part, and the product's factors, 5 x 4 and 1.
    assert kept.bytes() == 4 * (5 * 8 + 5 * 4 + 1)
    product.sum().backward()
    assert given.grad is not None and layer.weight.grad is not None
