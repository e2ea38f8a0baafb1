"""What saving a model needs, tried before the first step: a run must not end in a model that cannot be
saved."""

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.models.loading import causal_model
from instruction_modelling.models.stop_tokens import fit_generation_config
from instruction_modelling.processes.collectives import together
from instruction_modelling.runs.checkpoints import size_in_words
from instruction_modelling.runs.folder import existing_parent
from instruction_modelling.runs.model import UNFINISHED, SavedForm, save_tokenizer

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


def try_saving(
    accelerator: "Accelerator", model: "torch.nn.Module", form: SavedForm, folder: Path, dry: bool = False
) -> None:
    """Save all of a model but its weights to `folder`, and take it away again; every process calls it.

    Args:
        model: a `LossModel`, prepared for the processes at hand.
        dry: save it to a temporary folder; `folder` may be absent.

    Raises:
        UserError: nothing would end a response, the disk has no room for the model, or transformers does not
            save the configuration or the tokenizer; on every process.
    """
    with together(accelerator):
        if accelerator.is_main_process:
            tuned = accelerator.unwrap_model(model).model
            fit_generation_config(causal_model(tuned), form.tokenizer, form.chat_format.end_strings)
            _check_room(tuned, form, folder)
            with TemporaryDirectory() if dry else nullcontext(folder) as place:
                _save_all_but_weights(causal_model(tuned), form, Path(place) / UNFINISHED)


def saved_bytes(tuned: "torch.nn.Module", form: SavedForm) -> int:
    """Return about how many bytes the saved model takes."""
    names = tuned.named_parameters()
    numbers = {name: int(getattr(weight, "ds_numel", weight.numel())) for name, weight in names}
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    # Adapters are saved twice: added to the weights, and by themselves.
    beside = sum(numbers[name] for name in trained) if hasattr(tuned, "peft_config") else 0
    return (sum(numbers.values()) + beside) * form.dtype.itemsize


def _check_room(tuned: "torch.nn.Module", form: SavedForm, folder: Path) -> None:
    """Say how much the saved model takes, and refuse a disk that has less room."""
    needed, free = saved_bytes(tuned, form), shutil.disk_usage(existing_parent(folder)).free
    logger.info(
        "the saved model takes about %s; %s are free in %s",
        size_in_words(needed),
        size_in_words(free),
        folder,
    )
    if free < needed:
        half = ", or give --save_dtype bfloat16" if form.dtype.itemsize > 2 else ""
        raise UserError(
            f"--output_dir {folder} has no room for the tuned model: it takes {size_in_words(needed)}, and "
            f"{size_in_words(free)} are free. Make room, or choose another folder{half}"
        )


def _save_all_but_weights(causal: Any, form: SavedForm, unfinished: Path) -> None:
    use_cache = causal.config.get_text_config().use_cache
    durable.remove_tree(unfinished)
    try:
        causal.config.get_text_config().use_cache = True
        causal.config.save_pretrained(unfinished)
        causal.generation_config.save_pretrained(unfinished)
        save_tokenizer(form.tokenizer, form.chat_format, unfinished)
    except OSError:
        raise
    except Exception as error:
        # Any library's refusal: better now than after the last step.
        raise UserError(
            f"the tuned model could not be saved ({type(error).__name__}: {error}): mend the model's folder "
            "before it is trained"
        ) from error
    finally:
        causal.config.get_text_config().use_cache = use_cache
        durable.remove_tree(unfinished)
