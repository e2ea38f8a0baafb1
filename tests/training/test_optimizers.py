"""Learning rates, betas, epsilon and clipping of the two recipes, by value."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.training.optimizer import learning_rates, make_optimizer


def options(**changes: Any) -> FinetuneOptions:
    return FinetuneOptions(model_name_or_path="m", train_file=["f"], **changes).with_recipe()


# -- the paper's schedule ----------------------------------------------------------------------------------


def test_warm_up_and_decay_by_value() -> None:
    rates = learning_rates(options(learning_rate=1.0, warmup_ratio=0.2), 10, 999, 4)
    # Two steps of warm-up from 0, then a line that would reach 0 one step after the last.
    assert rates == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


@pytest.mark.parametrize(
    "kind", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
)
def test_every_schedule_is_that_of_transformers(kind: Any) -> None:
    from transformers import get_scheduler

    total = 212
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2e-5)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=int(0.03 * total), num_training_steps=total)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert learning_rates(options(lr_scheduler_type=kind), total, 13_533, 4) == pytest.approx(
        expected, rel=1e-9
    )


def test_a_polynomial_schedule_from_below_its_end() -> None:
    with pytest.raises(UserError, match="--lr_scheduler_type polynomial with --learning_rate 1e-08"):
        learning_rates(options(lr_scheduler_type="polynomial", learning_rate=1e-8), 10, 10, 1)
    assert learning_rates(options(learning_rate=0.0), 2, 10, 1) == [0, 0]


def test_the_last_update_learns_something() -> None:
    for total in (1, 2, 18, 48, 84, 146, 212):
        rates = learning_rates(options(), total, 1000, 2)
        assert len(rates) == total and rates[-1] > 0 and max(rates) <= 2e-5


def test_the_number_of_processes_does_not_matter() -> None:
    assert len({tuple(learning_rates(options(), 18, 1030, n)) for n in (1, 2, 3, 8)}) == 1


def test_lines_and_cosines_that_end_above_nothing_by_value() -> None:
    shape: dict[str, Any] = {"learning_rate": 2.0, "warmup_ratio": 0.2, "min_lr_ratio": 0.1}
    line = learning_rates(options(**shape), 10, 999, 4)
    assert line == pytest.approx([0, 1] + [2 * (0.1 + 0.9 * (1 - n / 8)) for n in range(8)])
    cosine = learning_rates(options(lr_scheduler_type="cosine", **shape), 10, 999, 4)
    halves = [0.5 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]
    assert cosine == pytest.approx([0, 1] + [2 * (0.1 + 0.9 * half) for half in halves])


def test_warm_up_then_stable_then_decay_by_value() -> None:
    shape: dict[str, Any] = {
        "lr_scheduler_type": "warmup_stable_decay",
        "learning_rate": 2.0,
        "warmup_ratio": 0.2,
    }
    rates = learning_rates(options(decay_ratio=0.4, **shape), 10, 999, 4)
    assert rates == pytest.approx([0, 1, 2, 2, 2, 2, 2, 1.5, 1, 0.5])
    rooted = learning_rates(
        options(decay_ratio=0.4, decay_type="1-sqrt", min_lr_ratio=0.5, **shape), 10, 999, 4
    )
    # transformers' schedule warms up from its end.
    falling = [2 * (0.5 + 0.5 * (1 - math.sqrt(n / 4))) for n in range(4)]
    assert rooted == pytest.approx([1, 1.5, 2, 2, 2, 2, *falling])
    assert learning_rates(options(**{**shape, "warmup_ratio": 0.9}), 3, 9, 1) == pytest.approx([0, 1, 2])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"min_lr_ratio": 0.1, "lr_scheduler_type": "constant"},
            "--min_lr_ratio: constant has an end of its own",
        ),
        ({"min_lr_ratio": 1.0}, "--min_lr_ratio 1.0: must be 0 or more and less than 1"),
        ({"decay_ratio": 0.2}, "give --lr_scheduler_type warmup_stable_decay too"),
        (
            {"decay_ratio": 0.8, "warmup_ratio": 0.3, "lr_scheduler_type": "warmup_stable_decay"},
            "together more than all steps",
        ),
        ({"optimizer": "muon", "use_lora": True}, "--optimizer muon: trains whole matrices"),
        ({"optimizer": "muon", "use_8bit_optimizer": True}, "--optimizer muon: has no 8-bit states"),
        ({"optimizer": "muon", "weights_in": "bf16"}, "has an AdamW of its own: leave out --optimizer muon"),
        ({"optimizer": "sgd", "use_8bit_optimizer": True}, "--use_8bit_optimizer: is AdamW's"),
        ({"muon_momentum": 0.9}, "--muon_momentum: give --optimizer muon too"),
    ],
)
def test_schedules_and_optimisers_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    (problem,) = options(**changes).check()
    assert said in problem


# -- the released code's schedule --------------------------------------------------------------------------


def released_loop(  # noqa: PLR0913 (the numbers of one schedule)
    monkeypatch: pytest.MonkeyPatch,
    examples: int,
    batch: int,
    accumulation: int,
    processes: int,
    epochs: int,
    max_train_steps: int | None = None,
) -> list[float]:
    """The learning rate of each update of the released training loop, with accelerate's own scheduler
    wrapper, on `processes` processes of which this is one."""
    from accelerate import Accelerator, scheduler
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers import get_scheduler

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    monkeypatch.setattr(scheduler, "AcceleratorState", lambda: SimpleNamespace(num_processes=processes))
    micro_batches = math.ceil(examples / batch)
    epochs_decide = max_train_steps is None
    updates = max_train_steps or epochs * math.ceil(micro_batches / accumulation)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    planned = updates if epochs_decide else updates * processes
    plain = get_scheduler(
        "linear", optimizer, num_training_steps=planned, num_warmup_steps=int(planned * 0.03)
    )
    optimizer, wrapped = accelerator.prepare(optimizer, plain)
    # Prepared, a process's data loader has its share of the micro-batches.
    own = math.ceil(micro_batches / processes)
    per_epoch = math.ceil(own / accumulation)
    updates = epochs * per_epoch if epochs_decide else updates
    rates: list[float] = []
    for _ in range(math.ceil(updates / per_epoch)):
        for number in range(1, own + 1):
            synchronised = number % accumulation == 0 or number == own
            accelerator.gradient_state._set_sync_gradients(synchronised)
            if synchronised:
                rates.append(wrapped.get_last_lr()[0])
            weight.grad = torch.zeros(1)
            optimizer.step()
            wrapped.step()
            if synchronised and len(rates) == updates:
                break
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return rates


def test_lima_on_two_processes_ends_with_an_update_that_learns_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1030 rows, micro-batches of 1, 64 of them, 2 processes, 2 epochs."""
    expected = released_loop(monkeypatch, 1030, 1, 64, 2, 2)
    rates = learning_rates(
        options(
            recipe="released",
            learning_rate=1.0,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=64,
        ),
        18,
        1030,
        2,
    )
    assert len(rates) == 18 and rates[-1] == 0 and rates[-2] > 0
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("examples", "batch", "accumulation", "processes", "epochs", "steps"),
    [
        (1030, 1, 128, 1, 2, None),
        (2996, 1, 64, 2, 2, None),
        (5305, 1, 32, 4, 2, None),
        pytest.param(13_533, 1, 64, 2, 2, None, marks=pytest.mark.slow),
        (1030, 1, 16, 8, 3, None),
        (1030, 1, 64, 2, 2, 30),
        (1030, 1, 64, 2, 2, 5),
    ],
)
def test_the_released_schedule_for_other_data(  # noqa: PLR0913 (the numbers of one schedule)
    monkeypatch: pytest.MonkeyPatch,
    examples: int,
    batch: int,
    accumulation: int,
    processes: int,
    epochs: int,
    steps: int | None,
) -> None:
    expected = released_loop(monkeypatch, examples, batch, accumulation, processes, epochs, steps)
    chosen = options(
        recipe="released",
        learning_rate=1.0,
        per_device_train_batch_size=batch,
        num_train_epochs=epochs,
        gradient_accumulation_steps=accumulation,
        max_train_steps=steps,
    )
    total = steps or epochs * math.ceil(examples / (batch * accumulation * processes))
    assert learning_rates(chosen, total, examples, processes) == pytest.approx(expected)


# -- the recipes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0.9, 0.98, 1e-6, 1.0, "exact")),
        ({"recipe": "released"}, (0.9, 0.999, 1e-8, -1.0, "released")),
        (
            {"recipe": "released", "adam_beta2": 0.95, "clip_grad_norm": 2.0},
            (0.9, 0.95, 1e-8, 2.0, "released"),
        ),
        ({"recipe": "released", "mask_style": "exact"}, (0.9, 0.999, 1e-8, -1.0, "exact")),
        ({"adam_beta1": 0.8, "adam_epsilon": 1e-7, "clip_grad_norm": -1.0}, (0.8, 0.98, 1e-7, -1.0, "exact")),
    ],
)
def test_what_a_recipe_decides_and_that_flags_win(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    chosen = options(**changes)
    assert (
        chosen.adam_beta1,
        chosen.adam_beta2,
        chosen.adam_epsilon,
        chosen.clip_grad_norm,
        chosen.mask_style,
    ) == expected
    group = make_optimizer(nn.Linear(3, 2), chosen).param_groups[0]
    assert group["betas"] == expected[:2] and group["eps"] == expected[2]


def test_weight_decay_spares_vectors_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    groups = make_optimizer(model, options(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]
    assert groups[0]["params"][0] is model[0].weight
    only = nn.Linear(3, 2, bias=False)
    assert [len(group["params"]) for group in make_optimizer(only, options()).param_groups] == [1]


def test_adamw_and_sgd_by_value() -> None:
    for name, expected in (("sgd", 1 - 0.1 * 4), ("adamw", 1 - 0.1 * 4 / (4 + 1e-6))):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        optimizer = make_optimizer(model, options(optimizer=name, learning_rate=0.1))
        model.weight.grad = torch.full((1, 1), 4.0)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_weight_decay_goes_by_the_whole_weight_where_it_is_sharded() -> None:
    """What ZeRO-3 leaves of a weight between its uses is an empty vector."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    for weight in model.parameters():
        weight.ds_shape = weight.shape  # type: ignore[attr-defined]
        weight.data = torch.empty(0)
    groups = make_optimizer(model, options(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]


# -- Muon --------------------------------------------------------------------------------------------------


def tiny_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, tie_word_embeddings=False, **sizes))


def test_muon_steps_the_hidden_matrices_and_adamw_all_else() -> None:
    """Held against torch's two optimisers on a copy, told apart by the names of Llama's weights."""
    model, twin = tiny_llama(), tiny_llama()
    chosen = options(optimizer="muon", learning_rate=0.01, weight_decay=0.1, muon_momentum=0.9)
    optimizer = make_optimizer(model, chosen)
    named = dict(twin.named_parameters())
    hidden = [weight for name, weight in named.items() if name.endswith("_proj.weight")]
    tables = [named["model.embed_tokens.weight"], named["lm_head.weight"]]
    norms = [weight for name, weight in named.items() if "norm" in name]
    assert (
        len(hidden) + len(tables) + len(norms) == len(named) == len(optimizer.param_groups[0]["params"]) + 7
    )
    adam: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.98), "eps": 1e-6}
    others = [
        torch.optim.Muon(hidden, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(tables, weight_decay=0.1, **adam),
        torch.optim.AdamW(norms, weight_decay=0.0, **adam),
    ]
    for step in range(3):
        for group in [*optimizer.param_groups, *(g for other in others for g in other.param_groups)]:
            group["lr"] = 0.01 * (1 - step / 3)
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(step + one.numel()))
            other.grad = one.grad.clone()
        optimizer.step()
        for each in others:
            each.step()
        if step == 0:
            # As accelerate does it, to move states to a device.
            optimizer.load_state_dict(optimizer.state_dict())
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert len(optimizer.state) == len(named)


def test_tied_embeddings_and_models_without_hidden_matrices() -> None:
    model = tiny_llama()
    model.lm_head.weight = model.model.embed_tokens.weight
    assert not any(
        weight is model.lm_head.weight
        for weight in make_optimizer(model, options(optimizer="muon")).param_groups[0]["params"]
    )
    with pytest.raises(UserError, match="no matrix to train in its hidden layers"):
        make_optimizer(nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2)), options(optimizer="muon"))
