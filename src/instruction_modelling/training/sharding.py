"""What DeepSpeed ZeRO-3 and FSDP2 need so that a run on them is the run on one process."""

import contextlib
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.training.loss_model import LossModel


def is_deepspeed(accelerator: "Accelerator") -> bool:
    """Return whether DeepSpeed owns the model and its steps."""
    return accelerator.state.deepspeed_plugin is not None


def is_fsdp(accelerator: "Accelerator") -> bool:
    """Return whether FSDP2 has sharded the model, or will."""
    return bool(accelerator.is_fsdp2)


def is_sharded(accelerator: "Accelerator") -> bool:
    """Return whether the weights are shared out between processes, or will be."""
    return is_deepspeed(accelerator) or is_fsdp(accelerator)


def launched_with_fsdp() -> bool:
    """Return whether the launcher's configuration asks to shard by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def set_up_fsdp(accelerator: "Accelerator") -> None:
    """Let accelerate shard on CPUs too, and set what is computed in bfloat16.

    Raises:
        UserError: the launcher's configuration asks for the first version of FSDP.
    """
    import torch
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate takes up FSDP on GPUs alone; its preparation, and torch's sharding, know any device.
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise UserError(
            "this launcher configuration asks for the first version of FSDP: set fsdp_version: 2, as in "
            "fsdp_configs/fsdp2.yaml"
        )
    if accelerator.mixed_precision == "bf16":
        # accelerate's own policy would round the loss, its coefficients and the sum of gradients to bfloat16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )


def refuse_what_cannot_be_sharded(options: "FinetuneOptions", accelerator: "Accelerator") -> None:
    """Check the options against the launcher.

    Raises:
        UserError: quantised weights, optimiser states or compiled layers on a launcher that shards.
    """
    backend = _sharding_backend(accelerator)
    if backend is None:
        return
    if options.weights_in == "bf16":
        raise UserError(
            f"--weights_in bf16 on {backend}, which shares weights between processes: leave one out"
        )
    if options.sample_file:
        raise UserError(
            f"--sample_file on {backend}: one process writes the responses, by whole weights; launch without "
            f"{backend}, or answer by checkpoints (src/export_checkpoint.py, src/generate.py)"
        )
    if options.optimizer == "muon":
        raise UserError(
            f"--optimizer muon on {backend}, which shares each weight between processes, where Muon needs "
            f"whole matrices: launch without {backend} (plain data-parallel processes work), or take AdamW"
        )
    for name, what in (
        ("use_qlora", "4-bit weights"),
        ("use_8bit_optimizer", "8-bit optimiser states"),
        ("compile", "compiled layers"),
    ):
        if getattr(options, name):
            raise UserError(
                f"--{name}: {what} cannot be sharded by {backend}; launch without {backend} (plain "
                f"data-parallel processes work), or leave --{name} out"
            )


def refuse_sharded_token_rows(accelerator: "Accelerator", new_tokens: Sequence[int]) -> None:
    """Check the tokens whose rows are to be trained beside adapters against the launcher.

    Raises:
        UserError: there are some, and the launcher shards the weights whose rows they are.
    """
    backend = _sharding_backend(accelerator)
    if backend and new_tokens:
        raise UserError(
            f"{len(new_tokens)} tokens are new to the model, and {backend} cannot train their rows alone "
            "beside adapters: launch without it (plain data-parallel processes work), train all weights, or "
            "give a tokenizer without them"
        )


def _sharding_backend(accelerator: "Accelerator") -> str | None:
    return "DeepSpeed" if is_deepspeed(accelerator) else "FSDP" if is_fsdp(accelerator) else None


def configure_deepspeed(options: "FinetuneOptions", accelerator: "Accelerator") -> None:
    """Fill in what DeepSpeed would take from a data loader, leave clipping to it, and have it step the
    optimiser it is given."""
    if not is_deepspeed(accelerator):
        return
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["train_micro_batch_size_per_gpu"] = options.per_device_train_batch_size
    config["gradient_accumulation_steps"] = 1
    config["gradient_clipping"] = max(0.0, options.clip_grad_norm or 0.0)
    # Else an offloaded optimiser, SGD too, is exchanged for DeepSpeed's Adam, which a compiler has to build.
    config.setdefault("zero_force_ds_cpu_optimizer", False)


def prepare(
    accelerator: "Accelerator", model: "LossModel", optimizer: Any, packing: bool, compiled: bool = False
) -> tuple[Any, Any]:
    """Return model and optimiser on the processes at hand; the model is checked there (see `model_check`).
    After that its layers are compiled where asked for, and where no gradient travels between processes its
    weights are rounded to bfloat16 once a step."""
    prepared, optimizer = accelerator.prepare(model, optimizer)
    _check(accelerator, model, packing)
    if (
        accelerator.mixed_precision == "bf16"
        and accelerator.num_processes == 1
        and not is_sharded(accelerator)
    ):
        model.round_once_a_step()
    if compiled:
        model.compile_layers()
    return prepared, optimizer


def _check(accelerator: "Accelerator", model: "LossModel", packing: bool) -> None:
    from torch.distributed.fsdp import register_fsdp_forward_method

    # FSDP gathers weights around the methods that are registered, and around no others.
    register_fsdp_forward_method(model, "check")
    with accelerator.autocast():
        model.check(packing, accelerator.device)
    reshard(model)


def reshard(model: "torch.nn.Module") -> None:
    """Free the weights that FSDP keeps gathered after a forward pass without a backward pass.

    Until then a weight's name stands for the gathered copy, and what is written to that is lost."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def scoring_dtype(accelerator: "Accelerator", asked_for: str | None) -> "torch.dtype":
    """Return the number format to score a model in: the one asked for, or float32 on a CPU and bfloat16 on a
    GPU; under DeepSpeed that of the launcher.

    Raises:
        UserError: DeepSpeed's launcher says another than the one asked for.
    """
    import torch

    default = "bfloat16" if accelerator.device.type == "cuda" else "float32"
    if is_deepspeed(accelerator):
        accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
        default = "bfloat16" if accelerator.mixed_precision == "bf16" else "float32"
        if asked_for and asked_for != default:
            raise UserError(
                f"--dtype {asked_for}: DeepSpeed computes in what accelerate launch's --mixed_precision "
                f"says, {default} here: change that, or leave --dtype out"
            )
    return getattr(torch, asked_for or default)


def prepare_to_score(accelerator: "Accelerator", model: "LossModel", packing: bool) -> Any:
    """Return the model on the processes at hand, never to be trained, and checked as in `prepare`."""
    import torch

    if is_fsdp(accelerator):
        # accelerate shards a model by FSDP together with an optimiser; this one keeps nothing and never
        # steps.
        prepared, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
    else:
        prepared = accelerator.prepare(model) if is_deepspeed(accelerator) else model.to(accelerator.device)
    _check(accelerator, model, packing)
    return prepared


def accumulating(
    accelerator: "Accelerator", model: "torch.nn.Module", last: bool
) -> contextlib.AbstractContextManager:
    """Return the context of one micro-batch of a step: processes exchange gradients after the `last` one;
    where the model is sharded, after each, for no process has room for a whole gradient."""
    accelerator.gradient_state._set_sync_gradients(last)
    if last or is_sharded(accelerator):
        return contextlib.nullcontext()
    return accelerator.no_sync(model)


def clip(accelerator: "Accelerator", model: Any, limit: float | None) -> "torch.Tensor":
    """Scale the gradients to a norm of at most `limit` (None and numbers below 0: no limit); return their
    norm before that, over all processes, a scalar that stays on its device."""
    import torch

    if is_deepspeed(accelerator):
        # DeepSpeed has clipped and stepped within the last backward pass.
        norm = model.get_global_grad_norm()
        return torch.as_tensor(math.nan if norm is None else norm, device=accelerator.device)
    limit = limit if limit and limit > 0 else math.inf
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
