"""4-bit weights and 8-bit optimiser states on the devices bitsandbytes knows, the CPU among them."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import PER_EXAMPLE, random_data, relative, run_step, weigh, wrap
from tiny import make_tiny_model
from training_runs import finetune, losses, metrics, run, sample_rows, weights, write_rows

from instruction_modelling.errors import UserError
from instruction_modelling.models import loading, quantisation
from instruction_modelling.models.adapters import add_lora
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout

LORA = ("--lora_dropout", 0, "--lora_rank", 8, "--learning_rate", 1e-2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is not installed: pip install -r requirements-gpu.txt"
    )
    folder = tmp_path_factory.mktemp("quantisation")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(12))
    return folder


def adapters(place: Path, four_bit: bool) -> Any:
    """The model with the same adapters on 4-bit weights, or on the float32 values these stand for."""
    model: Any = loading.load_model(
        str(place / "model"), torch.float32, PER_EXAMPLE, **quantisation.four_bit_loading(torch.device("cpu"))
    )
    model = quantisation.prepare_to_train(model, False) if four_bit else model.dequantize().float()
    torch.manual_seed(0)
    tuned = add_lora(model, 8, 16, 0.0)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    return tuned


def test_the_gradient_is_that_of_the_values_the_weights_stand_for(place: Path) -> None:
    """Also after a look in evaluation mode, when bitsandbytes would repack the weights for inference."""
    batches = step_micro_batches(weigh(random_data()), GlobalBatch(0, np.arange(8)), Layout(True, 1, 100))
    found = []
    for four_bit in (True, False):
        model = wrap(adapters(place, four_bit))
        model.check(True, "cpu")
        found.append(run_step(model.train(), batches))
    # Matrix products are in bfloat16 with 4-bit weights.
    assert found[0][0] == pytest.approx(found[1][0], rel=0.01)
    assert relative(found[0][1], found[1][1]) < 0.05


def test_a_run_on_4_bit_weights_is_saved_as_the_model_it_was(place: Path, tmp_path: Path) -> None:
    rows = place / "rows.jsonl"
    own = finetune(place / "model", rows, tmp_path / "own", "--use_qlora", *LORA, "--eval_file", rows)
    lora = finetune(place / "model", rows, tmp_path / "lora", "--use_lora", *LORA)
    assert losses(own)[-1] < 0.95 * losses(own)[0]
    assert losses(own)[0] == pytest.approx(losses(lora)[0], rel=0.1) and losses(own)[0] != losses(lora)[0]
    assert weights(own).keys() == weights(place / "model").keys()
    assert all(weight.dtype == torch.float32 for weight in weights(own).values())
    outcome = run(
        "compute_loss", "--model_name_or_path", own, "--eval_file", rows, "--output_dir", tmp_path / "scored"
    )
    assert outcome.code == 0, outcome.err
    measured = [line["eval_response_nll"] for line in metrics(own) if "eval_response_nll" in line][-1]
    again = json.loads((tmp_path / "scored" / "summary.json").read_text())["mean_over_examples"]["response"]
    # Trained with matrix products in bfloat16, saved in float32.
    assert again == pytest.approx(measured, rel=0.01)


def test_a_run_with_8_bit_states_is_near_the_one_with_32(place: Path, tmp_path: Path) -> None:
    arguments = ("--learning_rate", 1e-3, "--per_device_train_batch_size", 4)
    own = finetune(
        place / "model", place / "rows.jsonl", tmp_path / "own", "--use_8bit_optimizer", *arguments
    )
    full = finetune(place / "model", place / "rows.jsonl", tmp_path / "full", *arguments)
    assert losses(own) == pytest.approx(losses(full), rel=0.02) and losses(own) != losses(full)


def test_the_package_is_asked_what_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = types.ModuleType("bitsandbytes")
    fake.__version__, fake.__spec__ = "0.1", object()
    monkeypatch.setitem(sys.modules, "bitsandbytes", fake)
    quantisation.require_bitsandbytes("--use_qlora", torch.device("cuda"))
    with pytest.raises(
        UserError, match=r"--use_qlora: bitsandbytes 0\.1 does not run on this device \(cpu; it knows cuda\)"
    ):
        quantisation.require_bitsandbytes("--use_qlora", torch.device("cpu"))
    fake.supported_torch_devices = {"cpu", "cuda"}
    quantisation.require_bitsandbytes("--use_qlora", torch.device("cpu"))
    monkeypatch.setattr(quantisation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--use_8bit_optimizer needs bitsandbytes: pip install"):
        quantisation.require_bitsandbytes("--use_8bit_optimizer", torch.device("cpu"))
