"""The tuned model, saved so that transformers, vLLM and lm-eval load it as it is."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.chat_format import ChatFormat
from instruction_modelling.modeling import causal_model

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat, folder: Path) -> None:
    """The tokenizer, with the chat format it was trained with as its template."""
    tokenizer.chat_template = chat_format.template
    tokenizer.save_pretrained(folder)


def stop_ids(tokenizer: "PreTrainedTokenizerBase", chat_format: ChatFormat, model: Any) -> list[int]:
    """The ids at which a response ends: the chat format's end tokens and the model's own."""
    ids: list[Any] = [tokenizer.convert_tokens_to_ids(text) for text in chat_format.end_strings]
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids += own if isinstance(own, list) else [own]
    return list(dict.fromkeys(int(i) for i in ids if i is not None and i != tokenizer.unk_token_id))


def save_model(accelerator: "Accelerator", model: torch.nn.Module, tokenizer: "PreTrainedTokenizerBase",
               chat_format: ChatFormat, folder: Path, dtype: torch.dtype) -> None:
    """Saves weights (adapters merged into them, and by themselves under adapter/), tokenizer, template and
    generation config to `folder`; every process calls it.

    Files are written aside first, so a killed save leaves no half-written model.
    """
    state = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return
    tuned: Any = accelerator.unwrap_model(model).model
    aside = folder / ".saving-model"
    shutil.rmtree(aside, ignore_errors=True)
    state = {name.removeprefix("model."): weight.detach().to("cpu", dtype) if weight.is_floating_point()
             else weight.cpu() for name, weight in state.items()}
    if hasattr(tuned, "merge_and_unload"):
        tuned.save_pretrained(aside / "adapter", state_dict=state)
        tuned = tuned.to("cpu").merge_and_unload().to(dtype)
        state = {name: weight.detach() for name, weight in tuned.state_dict().items()}
    causal = causal_model(tuned)
    causal.config.use_cache = True
    ids = stop_ids(tokenizer, chat_format, causal)
    causal.generation_config.eos_token_id = ids if len(ids) > 1 else ids[0]
    if causal.generation_config.pad_token_id is None:
        causal.generation_config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ids[0]
    causal.save_pretrained(aside, state_dict=state)
    # Saving notes the dtype of the model in memory; readers load in the one that is noted.
    causal.config.dtype = dtype
    causal.config.save_pretrained(aside)
    save_tokenizer(tokenizer, chat_format, aside)
    for path in aside.iterdir():
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    aside.rmdir()
    accelerator.wait_for_everyone()
