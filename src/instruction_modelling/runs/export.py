"""A checkpoint as a model folder, so that the middle of a run can be measured like its end."""

import datetime
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.checkpoint_folders import MANIFEST, check_contents, read_manifest
from instruction_modelling.runs.fingerprint import MODEL_SHA256, PRECISION, weights_sha256
from instruction_modelling.runs.run_date import TEMPLATE_DATE

# What has no part in a model that is only saved.
_NOT_NEEDED: dict[str, Any] = {
    "apply_kl_div_loss": False,
    "neftune_alpha": None,
    "gradient_checkpointing": False,
    "packing": False,
    "use_flash_attn": False,
    "with_tracking": False,
}


def run_of_checkpoint(checkpoint: Path) -> tuple[dict[str, Any], FinetuneOptions]:
    """Return the record and the options of the run that wrote a checkpoint.

    Raises:
        UserError: the folder above it has no readable run.json.
    """
    path = checkpoint.resolve().parent / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        recorded = record["options"]
        names = {field.name for field in fields(FinetuneOptions)}
        options = FinetuneOptions(**{name: value for name, value in recorded.items() if name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); a checkpoint is exported from within its run's folder, whose "
            "run.json says what it was made from"
        ) from error
    return record, options


def export_checkpoint(
    checkpoint: Path, folder: Path, model_name_or_path: str | None = None
) -> dict[str, Any]:
    """Write a checkpoint as a model folder, as the end of its run would be saved; return its run.json.

    Args:
        checkpoint: a folder epoch_N or step_N.
        folder: where the model goes.
        model_name_or_path: where the model before tuning lies now (None: where the run found it).

    Raises:
        UserError: the checkpoint is not whole, the run cannot be read, the model before tuning is another, or
            the folder holds what the checkpoint comes from.
    """
    check_contents(checkpoint)
    record, options = run_of_checkpoint(checkpoint)
    manifest = read_manifest(checkpoint)
    if model_name_or_path:
        options = replace(options, model_name_or_path=model_name_or_path)
    _check_folder(folder, checkpoint, options.model_name_or_path)
    _save(checkpoint, folder, replace(options, **_NOT_NEEDED), manifest["fingerprint"])
    step, epoch_steps = int(manifest["step"]), record["steps"] / record["epochs"]
    exported = {
        **{name: value for name, value in record.items() if name != "stopped"},
        "finished": True,
        "steps": step,
        "epochs": step / epoch_steps,
        "exported_from": str(checkpoint),
    }
    write_json(folder / "run.json", exported, ascii_only=True)
    return exported


def _check_folder(folder: Path, checkpoint: Path, base: str) -> None:
    """Refuse a folder whose own model would be lost: the run's, a checkpoint or the model before tuning."""
    target = folder.resolve()
    is_source = target in (checkpoint.resolve().parent, Path(base).resolve())
    if is_source or any((path / MANIFEST).exists() for path in (target, *target.parents)):
        raise UserError(
            f"--output_dir {folder} holds the run, a checkpoint or the model before tuning, which would be "
            "lost: choose another folder"
        )


def _save(checkpoint: Path, folder: Path, options: FinetuneOptions, fingerprint: Mapping[str, Any]) -> None:

    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.models.quantisation import four_bit_loading
    from instruction_modelling.runs.checkpoints import load_checkpoint
    from instruction_modelling.runs.model import SavedForm, save_model, saved_dtype
    from instruction_modelling.runs.state import training_state
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.training import sharding
    from instruction_modelling.training.launch import make_accelerator
    from instruction_modelling.training.optimizer import make_optimizer
    from instruction_modelling.training.trainable_model import model_loader, trainable_model

    accelerator = make_accelerator(mixed_precision=fingerprint.get(PRECISION))
    tokenizer = load_tokenizer(options.tokenizer_name or options.model_name_or_path)
    date = fingerprint.get(TEMPLATE_DATE)
    defaults = options.template_defaults(datetime.date.fromisoformat(date) if date else None)
    encoder = row_encoder(tokenizer, options.chat_format, options.max_seq_length, defaults=defaults)
    load = model_loader(options, accelerator)
    model = load(**four_bit_loading(accelerator.device) if options.use_qlora else {})
    if weights_sha256(model) != fingerprint.get(MODEL_SHA256):
        raise UserError(
            f"{options.model_name_or_path}: is not the model that {checkpoint} was tuned from: name that one "
            "with --model_name_or_path"
        )
    loss_model = trainable_model(options, accelerator, tokenizer, model, load)
    optimizer = make_optimizer(loss_model, options, accelerator.device)
    loss_model, optimizer = sharding.prepare(accelerator, loss_model, optimizer, False)
    load_checkpoint(training_state(accelerator, loss_model, optimizer), checkpoint)
    half = accelerator.mixed_precision == "bf16"
    dtype = saved_dtype(options, half)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(accelerator, loss_model, optimizer, SavedForm(tokenizer, encoder.chat_format, dtype), folder)
