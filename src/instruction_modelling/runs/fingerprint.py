"""What makes a run this run: the options, the data and the model that its continuation must not change."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from torch import nn

# Changing one of these makes another run; everything else may change between a run and its continuation.
RUN_OPTIONS = (
    "use_lm_loss",
    "instruction_loss_weight",
    "response_loss_weight",
    "template_loss_weight",
    "mask_style",
    "loss_normalization",
    "loss_denominator",
    "max_seq_length",
    "chat_format",
    "use_lm_modelling",
    "block_size",
    "use_lora",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "use_qlora",
    "num_train_epochs",
    "max_train_steps",
    "seed",
    "neftune_alpha",
    "apply_kl_div_loss",
    "kl_penalty_ctl",
    "kl_direction",
    "recipe",
    "optimizer",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "clip_grad_norm",
    "use_8bit_optimizer",
)
# With dropout on, masks are drawn in the order of computation, so the layout decides too.
LAYOUT_OPTIONS = ("packing", "max_tokens_per_device", "per_device_train_batch_size", "padding_side")
# Numbers of each weight that its model is recognised by.
SAMPLED = 64


def weights_sha256(model: "nn.Module") -> str:
    """A hash that tells a model from another: of its weights' names and shapes, and of numbers spread evenly
    over each.

    A model may move to another folder; what was written over in place shows. 4-bit weights, which are packed
    by device, are left out. Where DeepSpeed has sharded the model in loading it, every process has to call
    this; where FSDP lets one process load it, that one's word counts."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if not weight.is_floating_point() or weight.is_meta:
            continue
        with _gathered(weight):
            numbers = weight.detach().flatten()
            numbers = numbers[:: max(1, len(numbers) // SAMPLED)][:SAMPLED].float().cpu()
            digest.update(f"{name} {tuple(weight.shape)}".encode() + numbers.numpy().tobytes())
    return digest.hexdigest()


def _gathered(weight: "nn.Parameter") -> AbstractContextManager[Any]:
    if not hasattr(weight, "ds_tensor"):
        return nullcontext()
    from deepspeed import zero

    return zero.GatheredParameters([weight])


def run_fingerprint(
    options: dict[str, Any],
    data_sha256: str,
    tokens_sha256: str,
    model_sha256: str,
    precision: str,
    batch_size: int,
    processes: int,
    dropout: bool,
) -> dict[str, Any]:
    """What must stay the same for a continuation to be the same run.

    Args:
        dropout: whether the model draws any, in its adapters or by its own configuration.
        data_sha256: of the file of rows.
        tokens_sha256: of their tokens and loss weights, which a changed tokenizer or template shows in.
        model_sha256: `weights_sha256` of the model before tuning.
        precision: what is computed in, by the script's option or the launcher's.
    """
    chosen = {name: options[name] for name in (*RUN_OPTIONS, *(LAYOUT_OPTIONS if dropout else ()))}
    return {
        **chosen,
        "mixed precision": precision,
        "data sha256": data_sha256,
        "tokens and weights sha256": tokens_sha256,
        "model before tuning sha256": model_sha256,
        "examples a step": batch_size,
        **({"processes (with dropout)": processes} if dropout else {}),
    }


def check_same_run(folder: Path, state: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Raises:
    UserError: the checkpoint belongs to another run; names what differs.
    """
    before = state.get("fingerprint", {})
    differing = [
        f"  - {name}: {before.get(name)!r} then, {fingerprint.get(name)!r} now"
        for name in dict.fromkeys([*before, *fingerprint])
        if before.get(name) != fingerprint.get(name)
    ]
    if differing:
        layout = any(
            name in line for line in differing for name in (*LAYOUT_OPTIONS, "processes (with dropout)")
        )
        why = (
            "\nThe model draws dropout in the order of computation, so another layout is another run."
            if layout
            else ""
        )
        raise UserError(
            f"{folder} belongs to another run:\n"
            + "\n".join(differing)
            + why
            + "\nUse the same values, or start anew in another --output_dir"
        )
