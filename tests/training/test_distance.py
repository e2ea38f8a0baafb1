"""How far a tuned model is from the untuned one: the KL divergence of every row's response tokens over the
whole vocabulary, by loops over plain transformers' logits, in both scripts that measure it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from step_samples import (
    EXAMPLES,
    PER_EXAMPLE,
    RESPONSE,
    VOCABULARY,
    plain_log_probabilities,
    random_data,
    run_step,
    tiny_llama,
    weigh,
)
from tiny import make_tiny_model
from training_runs import finetune, metrics, run, sample_rows, write_rows

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.json_lines import read_appended
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.loss_model import KLTerm, LossModel
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.row_losses import mean_kl, row_losses

LAYOUT = Layout(True, 4, 64)


def kl_of(tuned: Any, base: Any, data: Any, example: int) -> float | None:
    """The mean of KL(tuned || base) over a row's response tokens, as sums over the vocabulary."""
    p, q = (plain_log_probabilities(model, data, example).detach() for model in (tuned, base))
    kinds = data.kinds[data.span(example)].tolist()
    at = [t for t, kind in enumerate(kinds) if t and SpanKind(kind) in RESPONSE]
    values = [
        sum(float(p[t - 1, v].exp() * (p[t - 1, v] - q[t - 1, v])) for v in range(VOCABULARY)) for t in at
    ]
    return sum(values) / len(values) if values else None


def test_every_rows_divergence_is_that_of_plain_logits() -> None:
    data = random_data()
    model = LossModel(tiny_llama(PER_EXAMPLE, seed=1), KLTerm(0.0, base=tiny_llama(PER_EXAMPLE, seed=2)))
    losses = row_losses(model, data, LAYOUT, Accelerator(cpu=True))
    tuned, base = tiny_llama(seed=1).eval(), tiny_llama(seed=2).eval()
    expected = [kl_of(tuned, base, data, example) for example in range(len(data))]
    measured = [row["kl"].get("response") for row in losses]
    assert [value is None for value in measured] == [value is None for value in expected]
    known = [value for value in expected if value is not None]
    assert [value for value in measured if value is not None] == pytest.approx(known, rel=1e-4)
    assert min(known) > 1e-3 and mean_kl(losses) == pytest.approx(sum(known) / len(known), rel=1e-4)
    # The losses are those of a model without a distance to measure.
    alone = row_losses(LossModel(tiny_llama(PER_EXAMPLE, seed=1)), data, LAYOUT, Accelerator(cpu=True))
    assert all("kl" not in row for row in alone) and mean_kl(alone) is None
    assert [row["nll"] for row in alone] == [pytest.approx(row["nll"], rel=1e-6) for row in losses]


def test_a_distance_that_is_measured_alone_changes_no_step() -> None:
    weighted = weigh(random_data())
    batches = step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), LAYOUT)
    plain = run_step(LossModel(tiny_llama(PER_EXAMPLE, seed=1)), batches)
    beside = LossModel(tiny_llama(PER_EXAMPLE, seed=1), KLTerm(0.0, base=tiny_llama(PER_EXAMPLE, seed=2)))
    loss, gradient = run_step(beside, batches)
    assert loss == plain[0] and torch.equal(gradient, plain[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distance")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(8))
    write_rows(folder / "held_out.jsonl", sample_rows(12)[8:])
    return folder


def test_a_run_measures_it_after_its_steps_as_compute_loss_does_of_what_it_saves(place: Path) -> None:
    given = (
        "--per_device_train_batch_size",
        4,
        "--num_train_epochs",
        2,
        "--learning_rate",
        1e-3,
        "--packing",
    )
    measured = ("--eval_file", place / "held_out.jsonl", "--eval_steps", 1, "--eval_kl")
    folder = finetune(place / "model", place / "rows.jsonl", place / "run", *given, *measured)
    plain = finetune(place / "model", place / "rows.jsonl", place / "plain", *given)
    after = [line["eval_kl"] for line in metrics(folder) if "eval_kl" in line]
    losses = [[line["loss"] for line in metrics(each) if "loss" in line] for each in (folder, plain)]
    assert losses[0] == losses[1] and len(after) == 4 and after == sorted(after) and after[0] > 0
    outcome = run(
        "compute_loss",
        *("--model_name_or_path", folder, "--base_model", place / "model"),
        *("--eval_file", place / "held_out.jsonl", "--output_dir", place / "scored"),
    )
    assert outcome.code == 0, outcome.err
    rows = [line for _, line in read_appended(place / "scored" / "losses.jsonl").records]
    mean = float(np.mean([row["kl"]["response"] for row in rows]))
    assert mean == pytest.approx(after[-1], rel=1e-3)
    # The untuned model is no distance from itself.
    outcome = run(
        "compute_loss",
        *("--model_name_or_path", place / "model", "--base_model", place / "model"),
        *("--eval_file", place / "held_out.jsonl", "--output_dir", place / "same"),
    )
    rows = [line for _, line in read_appended(place / "same" / "losses.jsonl").records]
    assert outcome.code == 0 and max(abs(row["kl"]["response"]) for row in rows) < 1e-6


def test_another_vocabulary_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_tiny_model(place / "other", vocab=600)
    outcome = run(
        "compute_loss",
        *("--model_name_or_path", place / "model", "--base_model", other),
        *("--eval_file", place / "held_out.jsonl", "--output_dir", place / "no"),
    )
    assert outcome.code == 2 and "has a vocabulary of 600 tokens and " in outcome.err


def test_eval_kl_without_rows_to_measure_is_refused(place: Path) -> None:
    outcome = run(
        "finetune",
        *("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl", "--eval_kl"),
        *("--output_dir", place / "no"),
    )
    assert outcome.code == 2 and "--eval_kl: give --eval_file too" in outcome.err
