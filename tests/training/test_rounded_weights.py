"""Weights that are rounded to bfloat16 once a step train as those that autocast rounds at every use."""

from typing import Any

import numpy as np
import pytest
import torch
from model_families import FAMILIES
from step_samples import PER_EXAMPLE, random_data, random_model, tiny_llama, weigh, wrap
from torch.utils._python_dispatch import TorchDispatchMode

from instruction_modelling.models.adapters import add_lora
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.loss_model import LossModel
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.rounded_weights import RoundedLinear

FAMILY = ["qwen2", "gpt-neox", "mistral, window 5"]


def train(model: LossModel, steps: int = 3) -> list[float]:
    """Three steps of several micro-batches each; their losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows, losses = weigh(random_data()), []
    for step in range(steps):
        model.train()
        for batch in step_micro_batches(rows, GlobalBatch(step, np.arange(8)), Layout(True, 1, 60)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch.to("cpu").tensors())["loss"]
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILY)
def test_training_is_autocasts_to_the_bit(family: str, checkpointing: bool) -> None:
    runs = []
    for once in (False, True):
        model = wrap(random_model(FAMILIES[family](), PER_EXAMPLE))
        if checkpointing:
            causal: Any = model.model
            causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            causal.enable_input_require_grads()
        if once:
            model.round_once_a_step()
            assert any(isinstance(module, RoundedLinear) for module in model.modules())
        runs.append((train(model), model.state_dict()))
    (losses, weights), (rounded_losses, rounded_weights) = runs
    assert losses == rounded_losses and weights.keys() == rounded_weights.keys()
    assert all(torch.equal(weights[name], rounded_weights[name]) for name in weights)


def test_weights_are_rounded_once_however_many_micro_batches_a_step_has() -> None:
    class Casts(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            is_weight = args and isinstance(args[0], torch.nn.Parameter) and args[0].ndim == 2
            if is_weight and getattr(out, "dtype", None) == torch.bfloat16:
                self.seen += 1
            return out

    model = wrap(tiny_llama(PER_EXAMPLE))
    model.round_once_a_step()
    layers = sum(isinstance(module, RoundedLinear) for module in model.modules())
    with Casts() as casts:
        micro_batches = len(train(model, steps=1))
    # The head's are rounded where its gradient is made, in each micro-batch.
    assert micro_batches > 1 and casts.seen == layers + micro_batches


def test_between_steps_the_model_is_measured_as_it_is_then() -> None:
    """Not as it was when its weights were last rounded."""
    model = wrap(tiny_llama(PER_EXAMPLE))
    model.round_once_a_step()
    train(model, steps=2)
    plain = wrap(tiny_llama(PER_EXAMPLE))
    plain.load_state_dict(model.state_dict())
    batch = step_micro_batches(weigh(random_data()), GlobalBatch(0, np.arange(8)), Layout(True, 1, 200))[0]
    found = []
    for each in (model, plain):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found.append(each.eval()(**batch.to("cpu").tensors())["nll"])
    assert torch.equal(*found)


def test_frozen_weights_and_adapters_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    model = wrap(add_lora(tiny_llama(PER_EXAMPLE), 4, 8, 0.0))
    before = {name: type(module) for name, module in model.named_modules() if ".lora_" not in name}
    model.round_once_a_step()
    assert before == {name: type(module) for name, module in model.named_modules() if ".lora_" not in name}
    assert train(model)
