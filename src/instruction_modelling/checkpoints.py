"""Checkpoints: weights, optimiser, step, and the options that decide the run.

A checkpoint is written aside, read back and compared with the model, and only then given its name; a folder without
its manifest, or whose files do not match it, is never resumed from. Nothing in it is unpickled: tensors are
safetensors, or torch files read with `weights_only`.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
WEIGHTS = "trained.safetensors"
OPTIMIZER = "optimizer.pt"

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


def save_checkpoint(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any, folder: Path,
                    state: dict[str, Any]) -> None:
    """Writes `folder` whole or not at all; every process calls it.

    Raises:
        UserError: the disk is full or what was written does not match the model.
    """
    aside = folder.with_name(f".{folder.name}.saving")
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        if _sharded(accelerator):
            model.save_checkpoint(str(aside), tag="sharded")  # type: ignore[operator]
        elif accelerator.is_main_process:
            _write(accelerator, model, optimizer, aside)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _seal(aside, state)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            _sync(folder.parent)
    except OSError as error:
        raise UserError(f"the checkpoint {folder} could not be written: {error.strerror}; the one before is untouched. "
                        "Make room and continue with --resume_from_checkpoint latest") from error
    accelerator.wait_for_everyone()


def _sharded(accelerator: "Accelerator") -> bool:
    return str(accelerator.distributed_type).endswith("DEEPSPEED")


def _trained(accelerator: "Accelerator", model: torch.nn.Module) -> dict[str, torch.Tensor]:
    plain = accelerator.unwrap_model(model)
    return {name: weight for name, weight in plain.named_parameters() if weight.requires_grad}


def _write(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any, aside: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    weights = {name: weight.detach().cpu().contiguous() for name, weight in _trained(accelerator, model).items()}
    save_file(weights, aside / WEIGHTS)
    torch.save(optimizer.state_dict(), aside / OPTIMIZER)
    with safe_open(aside / WEIGHTS, framework="pt") as stored:
        for name, weight in weights.items():
            part = stored.get_slice(name)
            if list(part.get_shape()) != list(weight.shape):
                raise UserError(f"the checkpoint does not match the model: {name} was stored as {part.get_shape()}")


def _seal(aside: Path, state: dict[str, Any]) -> None:
    """Flushes every file to the disk and writes the manifest, last."""
    files = {}
    for path in sorted(p for p in aside.rglob("*") if p.is_file()):
        _sync(path)
        files[str(path.relative_to(aside))] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (aside / MANIFEST).write_text(json.dumps({**state, "files": files}, indent=1), encoding="utf-8")
    _sync(aside / MANIFEST)
    _sync(aside)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The state a checkpoint was saved with.

    Raises:
        UserError: it is not a checkpoint, or a file of it is missing or of another size.
    """
    try:
        state = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        int(state["step"])
        sizes = {name: entry["bytes"] for name, entry in state["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not a whole checkpoint: no readable {MANIFEST} in it") from error
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{folder} is damaged: {name} is missing or not {size} bytes long")
    return state


def check_contents(folder: Path) -> None:
    """Raises:
    UserError: it is not a whole checkpoint, or a file of it is not what was written.
    """
    for name, entry in read_manifest(folder)["files"].items():
        if file_sha256(folder / name) != entry["sha256"]:
            raise UserError(f"{folder} is damaged: {name} is not what was written there (another SHA-256)")


def find_checkpoint(choice: str, output_dir: Path) -> Path | None:
    """The checkpoint to resume from: the folder named, or for `latest` the newest whole one (None where none is).

    Raises:
        UserError: the folder named is not a whole checkpoint, or is damaged.
    """
    if choice != "latest":
        check_contents(Path(choice))
        return Path(choice)
    found = []
    for folder in output_dir.glob("*/"):
        if not (folder.name.startswith(("step_", "epoch_"))):
            continue
        try:
            found.append((int(read_manifest(folder)["step"]), folder))
        except UserError as error:
            logger.warning("skipping a checkpoint: %s", error)
    for _, folder in sorted(found, reverse=True):
        try:
            check_contents(folder)
        except UserError as error:
            logger.warning("skipping a checkpoint: %s", error)
        else:
            return folder
    return None


def load_checkpoint(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any, folder: Path) -> None:
    """Puts the checkpoint's weights and optimiser state in place."""
    if _sharded(accelerator):
        model.load_checkpoint(str(folder), tag="sharded")  # type: ignore[operator]
        return
    from safetensors.torch import load_file

    stored = load_file(folder / WEIGHTS)
    own = _trained(accelerator, model)
    if set(stored) != set(own):
        raise UserError(f"{folder}: its weights are not this model's (for example {min(set(stored) ^ set(own))})")
    with torch.no_grad():
        for name, weight in own.items():
            if stored[name].shape != weight.shape:
                raise UserError(f"{folder}: {name} has shape {tuple(stored[name].shape)}, the model {tuple(weight.shape)}")
            weight.copy_(stored[name])
    optimizer.load_state_dict(torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True))


def run_fingerprint(options: dict[str, Any], data_sha256: str, tokens_sha256: str, batch_size: int,
                    processes: int) -> dict[str, Any]:
    """What must stay the same for a continuation to be the same run.

    Args:
        data_sha256: of the file of rows.
        tokens_sha256: of their tokens and loss weights, which a changed tokenizer or template shows in.
    """
    names = list(RUN_OPTIONS)
    adapters = options["use_lora"] or options["use_qlora"]
    dropout = adapters and options["lora_dropout"]
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
        raise UserError(f"{folder} belongs to another run:\n" + "\n".join(differing) +
                        "\nUse the same values, or start anew in another --output_dir")


def prune(output_dir: Path, keep: int | None) -> None:
    """Removes the oldest checkpoints beyond `keep`."""
    if keep is None:
        return
    found = sorted((json.loads((folder / MANIFEST).read_text())["step"], folder) for folder in output_dir.glob("*/")
                   if folder.name.startswith(("step_", "epoch_")) and (folder / MANIFEST).is_file())
    for _, folder in found[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The hex digest of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
