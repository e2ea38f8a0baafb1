"""The optimiser, and the learning rate of every step as a function of the step."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.quantisation import require_bitsandbytes
from instruction_modelling.training.half_adamw import HalfAdamW
from instruction_modelling.training.muon import MuonAndAdamW, hidden_matrices

if TYPE_CHECKING:
    from instruction_modelling.options import FinetuneOptions


def make_optimizer(
    model: nn.Module, options: "FinetuneOptions", device: torch.device | None = None
) -> torch.optim.Optimizer:
    """Return AdamW, SGD or Muon over the trainable weights; weight decay spares vectors (biases and norms).

    Args:
        device: where the weights will be when it steps; None for the CPU.

    Raises:
        UserError: 8-bit states were asked for and bitsandbytes is missing or does not know the device.
    """
    matrices = hidden_matrices(model) if options.optimizer == "muon" else []
    by_muon = {id(weight) for weight in matrices}
    trainable = [w for w in model.parameters() if w.requires_grad and id(w) not in by_muon]
    groups = [
        {"params": [w for w in trainable if len(_shape(w)) >= 2], "weight_decay": options.weight_decay},
        {"params": [w for w in trainable if len(_shape(w)) < 2], "weight_decay": 0.0},
    ]
    # DeepSpeed's scheduler wrapper cannot take a group without weights.
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.learning_rate)
    keywords: dict[str, Any] = {
        "lr": options.learning_rate,
        "betas": (options.adam_beta1, options.adam_beta2),
        "eps": options.adam_epsilon,
    }
    if options.optimizer == "muon":
        if not matrices:
            raise UserError("--optimizer muon: the model has no matrix to train in its hidden layers")
        muon = {"weight_decay": options.weight_decay, "momentum": options.muon_momentum}
        return MuonAndAdamW(matrices, groups, **keywords, **muon)
    if options.weights_in == "bf16":
        return HalfAdamW(groups, options.seed, **keywords)
    if options.use_8bit_optimizer:
        require_bitsandbytes("--use_8bit_optimizer", device or torch.device("cpu"))
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(groups, **keywords)
    # The fused kernel takes a seventh of the time of the plain loop on a CPU, where ZeRO-3 may have offloaded
    # it too.
    return torch.optim.AdamW(groups, fused=True, **keywords)


def _shape(weight: nn.Parameter) -> tuple[int, ...]:
    """Return the shape of the whole weight; one that ZeRO-3 has sharded looks like an empty vector."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def learning_rates(
    options: "FinetuneOptions", total_steps: int, examples: int, processes: int
) -> list[float]:
    """Return the learning rate of each step.

    The released code plans its schedule over ceil(micro-batches / accumulation) steps an epoch, as if one
    process took them all, and advances it by `processes` at each; where that rounds down, its last step has
    learning rate 0.

    Raises:
        UserError: the schedule cannot start from this learning rate.
    """
    from transformers import get_scheduler

    planned, stride = total_steps, 1
    if options.recipe == "released":
        stride = processes
        planned = total_steps * processes
        if options.max_train_steps is None:
            micro_batches = -(-examples // options.per_device_train_batch_size)
            planned = options.num_train_epochs * -(-micro_batches // options.gradient_accumulation_steps)
    # The polynomial schedule ends at a fixed learning rate, so it has to know the peak.
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=options.learning_rate)
    name, more = _schedule(options, planned)
    try:
        scheduler = get_scheduler(
            name,
            dummy,
            num_warmup_steps=int(planned * options.warmup_ratio),
            num_training_steps=planned,
            scheduler_specific_kwargs=more,
        )
    except ValueError as error:
        raise UserError(
            f"--lr_scheduler_type {options.lr_scheduler_type} with --learning_rate {options.learning_rate}: "
            f"{error}"
        ) from error
    factor = scheduler.lr_lambdas[0]
    return [options.learning_rate * float(factor(step * stride)) for step in range(total_steps)]


def _schedule(options: "FinetuneOptions", steps: int) -> tuple[str, dict[str, Any]]:
    """Return the name of transformers' schedule over so many steps, and what it takes besides them."""
    name, least = options.lr_scheduler_type, options.min_lr_ratio
    if name == "warmup_stable_decay":
        falling = max(1, round(steps * options.decay_ratio))
        return name, {
            "num_decay_steps": min(falling, steps - int(steps * options.warmup_ratio)),
            "decay_type": options.decay_type,
            "min_lr_ratio": least,
        }
    if least and name == "cosine":
        return "cosine_with_min_lr", {"min_lr_rate": least}
    if least and name == "linear":
        # A line that ends above 0 is the polynomial of degree 1.
        return "polynomial", {"lr_end": least * options.learning_rate, "power": 1.0}
    return name, {}
