"""Saving the tuned model so that transformers, vLLM and lm-eval load it as it is."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_NAME
from transformers.utils.hub import CHAT_TEMPLATE_DIR

from instruction_modelling.chat.formats import ChatFormat
from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.models.adapters import adapter_layers, merge_adapters
from instruction_modelling.models.loading import causal_model, stored_dtype
from instruction_modelling.models.quantisation import merged
from instruction_modelling.models.stop_tokens import fit_generation_config
from instruction_modelling.processes.collectives import together
from instruction_modelling.runs.state import training_state
from instruction_modelling.training.sharding import is_deepspeed

# Where a model's files are written before they get their places in the run folder.
UNFINISHED = ".saving-model"

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.options import FinetuneOptions


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat, folder: Path) -> None:
    """Save the tokenizer, with the chat format that the model was trained with as its template.

    Where that is the tokenizer's own and has further templates by name (`tool_use`), all of them are saved;
    those of a tokenizer that was trained with another format would not be what the model knows, and go.
    """
    own = tokenizer.chat_template
    named = isinstance(own, dict) and chat_format.name == "tokenizer"
    tokenizer.chat_template = {**own, "default": chat_format.template} if named else chat_format.template
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = own


@dataclass(frozen=True)
class SavedForm:
    """What a saved model consists of beside its weights, and the number format of those."""

    tokenizer: "PreTrainedTokenizerBase"
    chat_format: ChatFormat
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """Return the number format's name: float32, bfloat16."""
        return str(self.dtype).removeprefix("torch.")


def saved_dtype(options: "FinetuneOptions", half: bool) -> torch.dtype:
    """Return the number format that a run's model is saved in: --save_dtype; without it bfloat16 where the
    run computes in that (`half`) or the base model is stored in it, else float32.

    Raises:
        UserError: the base model's configuration cannot be read.
    """
    if options.save_dtype:
        return torch.float32 if options.save_dtype == "float32" else torch.bfloat16
    base = options.config_name or options.model_name_or_path
    return torch.bfloat16 if half or stored_dtype(base) == torch.bfloat16 else torch.float32


def save_model(
    accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any, form: SavedForm, folder: Path
) -> None:
    """Save weights (adapters merged into them, and by themselves under adapter/), tokenizer, template and
    generation config to `folder`; every process calls it.

    Files are written under .saving-model and flushed first; the configuration, without which nothing loads,
    gets its place last.

    Raises:
        UserError: the disk is full or fails, or a weight is not finite; on every process.
    """
    state = full_state(accelerator, model, optimizer)
    with together(accelerator):
        _require_finite(state)
    unfinished = folder / UNFINISHED
    try:
        with together(accelerator):
            if accelerator.is_main_process:
                durable.remove_tree(unfinished)
                try:
                    _write(accelerator.unwrap_model(model).model, state, form, unfinished)
                except Exception as error:
                    # What a full disk is to safetensors and to tokenizers, which raise errors of their own.
                    if isinstance(error, OSError) or "os error" not in str(error):
                        raise
                    raise OSError(str(error)) from error
                durable.give_usual_permissions(unfinished)
                durable.sync_tree(unfinished)
                _replace_model_files(unfinished, folder)
    except UserError as error:
        if accelerator.is_main_process:
            durable.remove_tree(unfinished)
        raise UserError(
            f"the model could not be saved to {folder}: {error}. Make room and continue with "
            "--resume_from_checkpoint latest"
        ) from error


def _require_finite(state: dict[str, torch.Tensor]) -> None:
    """Refuse weights that the last update broke: no later step has looked at what they make of a loss."""
    broken = [name for name, w in state.items() if w.is_floating_point() and not torch.isfinite(w).all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"the last update made weights infinite or not a number ({broken[0]}{more}): the model is not "
            "saved; lower --learning_rate, or go on from an earlier checkpoint"
        )


def full_state(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any) -> dict[str, torch.Tensor]:
    """Return the language model's weights by name, whole, on the main process's CPU; on the others nothing.

    Trained weights are the optimiser's float32 ones; frozen ones are in whatever format the run computes in.
    """
    state = accelerator.get_state_dict(model)
    if not is_deepspeed(accelerator):
        return _language_model(state) if accelerator.is_main_process else {}
    trained = training_state(accelerator, model, optimizer)
    for name, weight in trained.full_weights():
        if accelerator.is_main_process:
            state[name] = weight.cpu()
    if not accelerator.is_main_process:
        return {}
    # A weight with two names is gathered under one of them.
    first: dict[int, str] = {}
    for name, parameter in accelerator.unwrap_model(model).named_parameters(remove_duplicate=False):
        if name != first.setdefault(id(parameter), name):
            state[name] = state[first[id(parameter)]]
    return _language_model(state)


def _language_model(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a `LossModel`'s weights under the names they have in its language model; the KL term's base
    model is left out."""
    return {
        name.removeprefix("model."): weight.detach()
        for name, weight in state.items()
        if name.startswith("model.")
    }


def _write(tuned: Any, state: dict[str, torch.Tensor], form: SavedForm, folder: Path) -> None:
    tokenizer, dtype = form.tokenizer, form.dtype
    if hasattr(tuned, "merge_and_unload"):
        tuned, state = _merge(tuned, state, dtype, folder / "adapter")
    causal = causal_model(tuned)
    causal.config.get_text_config().use_cache = True
    fit_generation_config(causal, tokenizer, form.chat_format.end_strings)
    causal.save_pretrained(folder, state_dict=_cast(state, dtype))
    # Saving notes the dtype of the model in memory; readers load in the one that is noted.
    causal.config.dtype = dtype
    causal.config.save_pretrained(folder)
    save_tokenizer(tokenizer, form.chat_format, folder)


def _merge(
    tuned: Any, state: dict[str, torch.Tensor], dtype: torch.dtype, adapter_folder: Path
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Save the adapters, and return the model inside their wrapper and its weights with the adapters
    added."""
    tuned.save_pretrained(adapter_folder, state_dict=_cast(state, dtype))
    if getattr(tuned, "is_loaded_in_4bit", False):
        model = merged(tuned, dtype).to("cpu")
        return model, dict(model.state_dict())
    layers = adapter_layers(tuned)
    return tuned.unload(), merge_adapters(state, layers)


def _cast(state: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}
    for weight in state.values():
        # A weight with two names is cast once, so that it stays one weight and is saved once.
        if (storage := (weight.data_ptr(), weight.shape)) not in cast:
            cast[storage] = weight.to("cpu", dtype) if weight.is_floating_point() else weight.cpu()
    return {name: cast[weight.data_ptr(), weight.shape] for name, weight in state.items()}


def _replace_model_files(unfinished: Path, folder: Path) -> None:
    """Move the files to their places; an earlier save's, which may be in another number of parts, go
    first."""
    stale = [
        folder / CONFIG_NAME,
        *folder.glob("model*.safetensors*"),
        folder / "adapter",
        folder / CHAT_TEMPLATE_DIR,
    ]
    for path in stale:
        if path.is_dir():
            durable.remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(unfinished.iterdir(), key=lambda path: (path.name == CONFIG_NAME, path.name)):
        os.replace(path, folder / path.name)
    unfinished.rmdir()
    durable.sync(folder)
