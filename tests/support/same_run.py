"""One run of src/finetune.py in many computations of it: on one process, on several, sharded or not, packed
or padded.

`record_case` runs the script's own `main` and keeps what the computations are compared by: the gradient of
the first step by weight, the weights after a few steps of plain SGD, and the losses of as many steps with
AdamW."""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from script_loader import load_script

from instruction_modelling.training import loss as losses

# An epoch of 19 rows has three steps.
STEPS, BATCH = 4, 8
# Not a multiple of the step's 8: some steps have 3 rows, and one process of several then an empty
# micro-batch.
ROWS = 19
VOCABULARY = 512
# So few logits at once that a micro-batch needs several chunks, and processes need different numbers of them.
TOKENS_AT_ONCE = 100

LAYOUTS: dict[str, tuple[str, ...]] = {
    "packed": ("--packing", "--max_tokens_per_device", "400"),
    "padded": (),
    "padded left": ("--padding_side", "left"),
}
LORA = ("--use_lora", "--lora_rank", "4", "--lora_dropout", "0")
KL = ("--apply_kl_div_loss", "--kl_penalty_ctl", "0.3")
ARMS: dict[str, tuple[str, ...]] = {
    "IT": (),
    "IM": ("--use_lm_loss",),
    "IM w=0.3": ("--instruction_loss_weight", "0.3", "--loss_normalization", "token"),
    "NEFTune": ("--neftune_alpha", "5"),
    "LoRA": LORA,
    "IM+KL": ("--use_lm_loss", *KL),
    "KL base to tuned": (*KL, "--kl_direction", "base_to_tuned"),
    "LoRA+KL": (*LORA, *KL, "--neftune_alpha", "5"),
    "checkpointing": ("--use_lm_loss", "--gradient_checkpointing"),
    "blocks": ("--use_lm_modelling", "--block_size", "96"),
}

SGD = (
    "--optimizer",
    "sgd",
    "--learning_rate",
    "0.1",
    "--clip_grad_norm",
    "-1",
    "--lr_scheduler_type",
    "constant",
)
ADAMW = ("--optimizer", "adamw", "--learning_rate", "1e-3", "--weight_decay", "0.1", "--eval_steps", "3")


@dataclass(frozen=True)
class Case:
    """A layout and an arm."""

    layout: str
    arm: str

    def arguments(self, place: Path, processes: int) -> list[str]:
        """The flags of src/finetune.py, without the optimiser's: the same global batch on any number of
        processes."""
        rows = BATCH // processes
        size = rows if self.layout == "packed" else max(1, rows // 2)
        return [
            "--model_name_or_path",
            str(place / "model"),
            "--train_file",
            str(place / "rows.jsonl"),
            "--per_device_train_batch_size",
            str(size),
            "--gradient_accumulation_steps",
            str(rows // size),
            "--max_seq_length",
            "256",
            "--max_train_steps",
            str(STEPS),
            *LAYOUTS[self.layout],
            *ARMS[self.arm],
        ]


def make_place(folder: Path) -> Path:
    """A model and rows to run the cases on. Its weights are so small that a step's rounding does not grow in
    the next."""
    from safetensors.torch import load_file, save_file
    from tiny import make_tiny_model
    from training_runs import sample_rows, write_rows

    make_tiny_model(folder / "model", vocab=VOCABULARY)
    path = folder / "model" / "model.safetensors"
    weights = {name: weight * 0.3 if weight.ndim > 1 else weight for name, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    return folder


@dataclass
class Measured:
    """What a computation of a run gave. Weights and gradients are those of the trained weights, float32, by
    name."""

    gradient: dict[str, torch.Tensor]
    """Of the first step."""
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    """The weights before the first step of SGD and after the last."""
    losses: list[float]
    norms: list[float]
    kl: list[float]
    """Of every step with AdamW."""
    evaluations: list[float]
    share: float
    """Of all weights, the frozen ones too, that one process holds between steps."""

    def save(self, path: Path) -> None:
        """To `path`.safetensors and `path`.json."""
        from safetensors.torch import save_file

        tensors = {
            f"{part}/{name}": value.contiguous()
            for part in ("gradient", "before", "after")
            for name, value in getattr(self, part).items()
        }
        save_file(tensors, path.with_suffix(".safetensors"))
        numbers = {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
        path.with_suffix(".json").write_text(json.dumps(numbers))

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """What `save` wrote."""
        from safetensors.torch import load_file

        parts: dict[str, dict[str, torch.Tensor]] = {"gradient": {}, "before": {}, "after": {}}
        for name, value in load_file(path.with_suffix(".safetensors")).items():
            part, _, weight = name.partition("/")
            parts[part][weight] = value
        numbers = json.loads(path.with_suffix(".json").read_text())
        return cls(parts["gradient"], parts["before"], parts["after"], **numbers)


# -- running ----------------------------------------------------------------------------------------------


def record_case(case: Case, place: Path, folder: Path, processes: int = 1) -> Measured:
    """Both runs of a case, by this process and those launched with it."""
    shared = case.arguments(place, processes)
    sgd = run_main([*shared, *SGD, "--output_dir", str(folder / "sgd")])
    adamw = run_main(
        [*shared, *ADAMW, "--eval_file", str(place / "rows.jsonl"), "--output_dir", str(folder / "adamw")]
    )
    steps = [line for line in adamw.metrics if "loss" in line]
    return Measured(
        sgd.gradient,
        sgd.before,
        sgd.after,
        [line["loss"] for line in steps],
        [line["grad_norm"] for line in steps],
        [line["kl"] for line in steps if "kl" in line],
        [line["eval_response_nll"] for line in adamw.metrics if "eval_response_nll" in line],
        sgd.share,
    )


@dataclass
class Run:
    """What was seen of one run of the script."""

    gradient: dict[str, torch.Tensor]
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]
    share: float
    metrics: list[dict[str, Any]]


def run_main(arguments: Sequence[str]) -> Run:
    """src/finetune.py's main with these arguments, up to saving the model."""
    import pytest

    from instruction_modelling.training import launch

    finetune = load_script("finetune")
    seen: dict[str, Any] = {}
    load_model = finetune.load_model

    def load(run: Any) -> Any:
        model, optimizer, sha256 = load_model(run)
        seen.update(
            accelerator=run.accelerator, model=model, before=whole_weights(model), share=share_held(model)
        )
        keep_first_gradient(model, optimizer, seen)
        return model, optimizer, sha256

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.setattr(sys, "argv", ["finetune.py", *arguments])
        patch.setattr(finetune, "load_model", load)
        patch.setattr(finetune, "save", lambda run: None)
        patch.setattr(launch, "end_processes", lambda accelerator, *more: accelerator.wait_for_everyone())
        patch.setattr(losses, "LOGITS_AT_ONCE", TOKENS_AT_ONCE * VOCABULARY)
        assert finetune.main() == 0
    after = whole_weights(seen["model"])
    forget(seen)
    lines = (Path(arguments[arguments.index("--output_dir") + 1]) / "metrics.jsonl").read_text().splitlines()
    return Run(seen["gradient"], seen["before"], after, seen["share"], [json.loads(line) for line in lines])


def keep_first_gradient(model: Any, optimizer: Any, seen: dict[str, Any]) -> None:
    """Puts the whole gradient just before the first step into `seen`."""
    # DeepSpeed's engine steps within the backward pass, and its optimiser not at all.
    owner = model if hasattr(model, "get_global_grad_norm") else optimizer
    step: Callable[..., Any] = owner.step

    def keep_and_step(*values: Any, **named: Any) -> Any:
        if "gradient" not in seen:
            seen["gradient"] = whole_gradients(model)
        return step(*values, **named)

    owner.step = keep_and_step


def forget(seen: dict[str, Any]) -> None:
    """Lets go of a run's model and of what accelerate keeps for the whole process; its process group
    stays."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    model = seen.pop("model")
    if hasattr(model, "destroy"):
        model.destroy()
    seen.pop("accelerator").free_memory()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


# -- whole tensors of sharded ones ------------------------------------------------------------------------


def trained(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The trained weights by the name they have in the model that is not wrapped."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            yield name.removeprefix("module."), weight


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """Every trained weight, whole, in float32."""
    return {
        name: whole(weight, "safe_get_full_fp32_param", weight).float() for name, weight in trained(model)
    }


def whole_gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradient of every trained weight, whole, in float32; 0 where there is none."""
    found = {name: whole(weight, "safe_get_full_grad", weight.grad) for name, weight in trained(model)}
    return {name: torch.zeros(()) if value is None else value.float() for name, value in found.items()}


def whole(weight: torch.nn.Parameter, of_deepspeed: str, value: torch.Tensor | None) -> Any:
    """A copy of a weight's value or gradient, gathered from the processes where it is sharded."""
    if hasattr(weight, "ds_id"):
        import deepspeed.utils

        value = getattr(deepspeed.utils, of_deepspeed)(weight)
    elif value is not None and hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return None if value is None else value.detach().clone().cpu()


def share_held(model: Any) -> float:
    """The share of the model's weights, trained and frozen, that this process holds."""
    held = every = 0
    for weight in model.parameters():
        if hasattr(weight, "ds_id"):
            held, every = held + weight.ds_tensor.numel() + weight.data.numel(), every + weight.ds_numel
        else:
            held += weight.to_local().numel() if hasattr(weight, "to_local") else weight.numel()
            every += weight.numel()
    return held / every


# -- comparing --------------------------------------------------------------------------------------------

# What rounding in float32 may make of one run: of the gradient's norm; of how far SGD moved the weights; of
# each loss.
GRADIENT, WEIGHTS, LOSSES = 1e-6, 1e-5, 1e-4


@dataclass(frozen=True)
class Difference:
    """How far two computations of a run are apart, relatively."""

    gradient: float
    weights: float
    losses: float
    """The farthest of the losses, KL terms, norms and evaluations."""

    @property
    def small(self) -> bool:
        """Whether the two are the same run."""
        return self.gradient <= GRADIENT and self.weights <= WEIGHTS and self.losses <= LOSSES


def difference(one: Measured, other: Measured) -> Difference:
    """How far `one` is from `other`, which counts as right."""
    assert one.gradient.keys() == other.gradient.keys() and one.after.keys() == other.after.keys()
    assert len(one.losses) == len(other.losses) == STEPS and len(other.evaluations) == STEPS // 3
    right, moved = flat(other.gradient), flat(other.after) - flat(other.before)
    numbers = [
        (own, true)
        for part in ("losses", "norms", "kl", "evaluations")
        for own, true in zip(getattr(one, part), getattr(other, part), strict=True)
    ]
    return Difference(
        float((flat(one.gradient) - right).norm() / right.norm()),
        float((flat(one.after) - flat(other.after)).norm() / moved.norm()),
        # Before the first step the KL is 0 but for rounding.
        max(abs(own - true) / max(abs(true), 1e-3) for own, true in numbers),
    )


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tensors end to end, in the order of their names, float64."""
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])
