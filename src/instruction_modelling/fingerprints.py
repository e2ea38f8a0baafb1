"""What makes a run this run: the options and the data that its continuation must not change."""

from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

# Changing one of these makes another run; everything else may change between a run and its continuation.
RUN_OPTIONS = (
    "use_lm_loss", "instruction_loss_weight", "response_loss_weight", "template_loss_weight", "mask_style",
    "loss_normalization", "loss_denominator", "max_seq_length", "chat_format", "use_lm_modelling", "block_size",
    "use_lora", "lora_rank", "lora_alpha", "lora_dropout", "use_qlora", "num_train_epochs", "max_train_steps", "seed",
    "neftune_alpha", "apply_kl_div_loss", "kl_penalty_ctl", "kl_direction", "recipe", "optimizer", "learning_rate",
    "lr_scheduler_type", "warmup_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "clip_grad_norm",
    "use_8bit_optimizer", "mixed_precision")
# With dropout on, masks are drawn in the order of computation, so the layout decides too.
LAYOUT_OPTIONS = ("packing", "max_tokens_per_device", "per_device_train_batch_size", "padding_side")


def run_fingerprint(options: dict[str, Any], data_sha256: str, tokens_sha256: str, batch_size: int,
                    processes: int, dropout: bool) -> dict[str, Any]:
    """What must stay the same for a continuation to be the same run.

    Args:
        dropout: whether the model draws any, in its adapters or by its own configuration.
        data_sha256: of the file of rows.
        tokens_sha256: of their tokens and loss weights, which a changed tokenizer or template shows in.
    """
    names = list(RUN_OPTIONS)
    adapters = options["use_lora"] or options["use_qlora"]
    if dropout:
        names += LAYOUT_OPTIONS
    if adapters or options["apply_kl_div_loss"]:
        # The checkpoint does not hold the model before tuning.
        names.append("model_name_or_path")
    chosen = {name: options[name] for name in names}
    return {**chosen, "data sha256": data_sha256, "tokens and weights sha256": tokens_sha256,
            "examples a step": batch_size, **({"processes (with dropout)": processes} if dropout else {})}


def check_same_run(folder: Path, state: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Raises:
    UserError: the checkpoint belongs to another run; names what differs.
    """
    before = state.get("fingerprint", {})
    differing = [f"  - {name}: {before.get(name)!r} then, {fingerprint.get(name)!r} now"
                 for name in dict.fromkeys([*before, *fingerprint]) if before.get(name) != fingerprint.get(name)]
    if differing:
        layout = any(name in line for line in differing for name in (*LAYOUT_OPTIONS, "processes (with dropout)"))
        why = "\nThe model draws dropout in the order of computation, so another layout is another run." if layout else ""
        raise UserError(f"{folder} belongs to another run:\n" + "\n".join(differing) + why +
                        "\nUse the same values, or start anew in another --output_dir")
