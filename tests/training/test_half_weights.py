"""--weights_in bf16: what rounding by chance keeps, what it takes, and that a continued run is the run."""

from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import RESUME, attempt, interrupt, tune
from safetensors import safe_open
from training_runs import losses, run, same_bits, weights

from instruction_modelling.options import FinetuneOptions
from instruction_modelling.training import half_adamw
from instruction_modelling.training.half_adamw import BLOCK, HalfAdamW, rounded_by_chance

place, quiet = checkpoint_runs.place, checkpoint_runs.quiet
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
SETTINGS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-6}


@pytest.mark.parametrize(
    ("dtype", "number", "below", "above"),
    [(BF16, 1.001, 1.0, 1.0078125), (BF16, -3.1e-8, -3.119e-8, -3.096e-8), (FP8, 300.3, 288, 320)],
)
def test_a_number_becomes_one_of_its_neighbours_and_stays_on_average(
    dtype: torch.dtype, number: float, below: float, above: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    rounded = rounded_by_chance(torch.full((100_000,), number), dtype, generator).float()
    found = rounded.unique().tolist()
    assert found == pytest.approx([below, above], rel=1e-3)
    # The standard deviation of the mean is at most (above - below) / 2 / sqrt(100,000).
    assert float(rounded.double().mean()) == pytest.approx(number, abs=(found[1] - found[0]) / 2 / 316 * 4)
    exact = torch.tensor([below, above, 0.0]).to(dtype)
    assert torch.equal(rounded_by_chance(exact.float(), dtype, generator).float(), exact.float())


@pytest.mark.parametrize("at_once", [half_adamw.AT_ONCE, 2 * BLOCK])
def test_it_goes_where_float32_goes_and_rounding_to_the_nearest_does_not(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """200 steps towards other numbers, of weights whose size no block divides."""
    monkeypatch.setattr(half_adamw, "AT_ONCE", at_once)
    torch.manual_seed(0)
    start, target = torch.randn(60, 77).to(BF16), torch.randn(60, 77)
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, dtype in (("half", BF16), ("float32", torch.float32), ("nearest", BF16)):
        groups[name] = [{"params": [torch.nn.Parameter(start.to(dtype, copy=True))], "weight_decay": 0.1}]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "half": HalfAdamW(groups["half"], 0, **SETTINGS),
        "float32": torch.optim.AdamW(groups["float32"], **SETTINGS),
        "nearest": torch.optim.AdamW(groups["nearest"], **SETTINGS),
    }
    for _ in range(200):
        for optimizer in optimizers.values():
            (weight,) = optimizer.param_groups[0]["params"]
            weight.grad = (weight.detach().float() - target).to(weight.dtype)
            optimizer.step()
    moved = {name: of[0]["params"][0].detach().float() - start.float() for name, of in groups.items()}
    error = {
        name: float((of - moved["float32"]).norm() / moved["float32"].norm()) for name, of in moved.items()
    }
    assert error["half"] < 0.15 < 0.3 < error["nearest"], error
    mean = float((moved["half"] / moved["float32"]).median())
    assert mean == pytest.approx(1.0, abs=0.02)


def test_it_takes_six_bytes_a_weight() -> None:
    weight = torch.nn.Parameter(torch.ones(256, 128, dtype=BF16))
    weight.grad = torch.ones_like(weight)
    optimizer = HalfAdamW([{"params": [weight]}], 0, **SETTINGS)
    optimizer.step()
    states = sum(value.nbytes for value in optimizer.state[weight].values() if torch.is_tensor(value))
    assert (weight.nbytes + weight.grad.nbytes + states) / weight.numel() == 6 + 2 * 4 / BLOCK


def test_a_continued_run_ends_with_the_same_bits(place: Path, tmp_path: Path) -> None:
    arm = ("--use_lm_loss", "--packing", "--neftune_alpha", 5, "--weights_in", "bf16")
    whole, cut, exported = tmp_path / "whole", tmp_path / "cut", tmp_path / "exported"
    tune(place, whole, *arm)
    interrupt(place, cut, 3, *arm)
    other = attempt(place, cut, *arm[:-2], "--mixed_precision", "bf16", *RESUME)
    assert other.code == 2 and "weights_in: 'bf16' then, 'float32' now" in other.err
    tune(place, cut, *arm, *RESUME)
    assert same_bits(whole, cut)
    assert {weight.dtype for weight in weights(whole).values()} == {BF16}
    (state,) = (whole / "step_2").glob("*.safetensors")
    with safe_open(state, framework="pt") as stored:
        names = list(stored.keys())
        formats = {name.split("/")[0]: stored.get_slice(name).get_dtype() for name in names}
    assert formats["weight"] == "BF16" and formats["exp_avg"] == formats["exp_avg_sq"] == "U8"
    last = max(whole.glob("step_*"), key=lambda path: int(path.name.split("_")[1]))
    outcome = run("export_checkpoint", last, "--output_dir", exported)
    assert outcome.code == 0, outcome.err
    assert same_bits(whole, exported)


def test_it_learns_what_float32_learns(place: Path, tmp_path: Path) -> None:
    half = tune(place, tmp_path / "half", "--use_lm_loss", "--weights_in", "bf16")
    full = tune(place, tmp_path / "full", "--use_lm_loss", "--mixed_precision", "bf16")
    assert losses(full)[-1] < losses(full)[0] - 0.1
    assert losses(half) == pytest.approx(losses(full), abs=0.03)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use_lora": True}, "adapters train in float32"),
        ({"optimizer": "sgd"}, "leave out --optimizer sgd"),
        ({"use_8bit_optimizer": True}, "leave out --use_8bit_optimizer"),
        ({"mixed_precision": "no"}, "leave out --mixed_precision no"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes: dict[str, Any], why: str) -> None:
    options = FinetuneOptions("m", train_file=["f"], weights_in="bf16", **changes)
    (problem,) = options.check()
    assert problem.startswith("--weights_in bf16: ") and why in problem
