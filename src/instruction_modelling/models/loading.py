"""Loading models and tokenizers, and fitting a model for training."""

import contextlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from instruction_modelling.cpu import imports_are_over
from instruction_modelling.errors import UserError, first_line, is_out_of_memory
from instruction_modelling.models import attention
from instruction_modelling.models.configurations import read_configurations_alone
from instruction_modelling.models.folders import no_such_folder, require_model
from instruction_modelling.models.sizes import embeddings_needed, refuse_sizes
from instruction_modelling.models.stop_tokens import require_generation_config
from instruction_modelling.models.tekken import is_tekken_alone, load_tekken_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# What torch writes as pickles, and those that are no weights.
_PICKLES, _PICKLES_BESIDE = (
    (".bin", ".pt", ".pth", ".ckpt"),
    ("training_args.bin", "optimizer.pt", "scheduler.pt"),
)

# What transformers says of a model whose attention has soft caps or sinks.
_NO_SDPA = (
    "does not support an attention implementation through torch.nn.functional.scaled_dot_product_attention"
)


# The model that was loaded last and what it was loaded by, where it is kept.
_kept: "dict[tuple[object, ...], PreTrainedModel] | None" = None


def keep_models() -> None:
    """Have this process keep the model that it loaded last, for scripts that run in it one after the other:
    `load_model` gives the same again, with the attention that is asked for."""
    global _kept
    _kept = {}


def load_tokenizer(name: str, use_slow: bool = False) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder or hub name.

    Args:
        use_slow: accepted with a warning; a fast tokenizer is loaded all the same.

    Raises:
        UserError: it cannot be loaded.
    """
    read_configurations_alone()
    from transformers import AutoTokenizer

    if use_slow:
        logger.warning(
            "--use_slow_tokenizer: using the fast tokenizer, which gives the character offsets needed here"
        )
    require_model(name)
    if is_tekken_alone(Path(name)):
        return load_tekken_tokenizer(Path(name))
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except UserError:
        raise
    # Of every kind, where a file of the tokenizer is not what it should be; tokenizers raises plain ones.
    except Exception as error:
        raise UserError(f"no tokenizer at {name}: {_said(error, name)} (give --tokenizer_name)") from error


def stored_dtype(name: str) -> torch.dtype | None:
    """Return the number format that a model is stored in, as its configuration says; None where it does not.

    Raises:
        UserError: the configuration cannot be read.
    """
    from transformers import AutoConfig

    require_model(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"no model at {name}: {_said(error, name)}") from error
    found = config.dtype or config.get_text_config().dtype
    return getattr(torch, found, None) if isinstance(found, str) else found


def load_model(
    name: str,
    dtype: torch.dtype,
    attn_implementation: str = "sdpa",
    config_name: str | None = None,
    **keywords: Any,
) -> "PreTrainedModel":
    """Load a causal language model of a folder or hub name, in `dtype`; of a vision-language model the
    language model, or the whole with all else frozen, where transformers has no part for it.

    Args:
        attn_implementation: as `pick_attention` names it.
        config_name: folder or hub name of a configuration to use instead of the model's own.
        keywords: more of `from_pretrained`'s.

    Raises:
        UserError: it cannot be loaded, or not whole.
    """
    from transformers import AutoConfig

    kept_as = (name, dtype, config_name, str(sorted(keywords.items())))
    if (kept := _kept_model(kept_as, attn_implementation)) is not None:
        return kept
    require_model(name)
    _refuse_pickles(Path(name))
    require_generation_config(Path(name))
    attention.register()
    imports_are_over()
    keywords.update(dtype=dtype, output_loading_info=True, use_safetensors=True, trust_remote_code=False)
    try:
        # Said, since transformers would otherwise ask on the terminal.
        config = AutoConfig.from_pretrained(config_name, trust_remote_code=False) if config_name else None
        given = config or AutoConfig.from_pretrained(name, trust_remote_code=False)
        refuse_sizes(name, given)
        load = _loader(given)
        try:
            model, loaded = load(name, config=config, attn_implementation=attn_implementation, **keywords)
        except ValueError as error:
            if _NO_SDPA not in str(error):
                raise
            if attn_implementation in attention.WORDS:
                raise UserError(
                    f"{name}: SDPA does not compute this model's attention, so it cannot be packed: train it "
                    "without --packing (src/compute_loss.py: with --no_packing)"
                ) from error
            logger.warning(
                "SDPA does not compute the attention of %s: using transformers' own, which takes more memory",
                name,
            )
            model, loaded = load(name, config=config, attn_implementation="eager", **keywords)
    except UserError:
        raise
    # transformers meets a configuration or an index that is wrong with errors of every kind.
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(first_line(error)) from error
        of = f" with the configuration {config_name}" if config_name else ""
        raise UserError(f"no causal language model at {name}{of}: {_said(error, name)}") from error
    _check_places(name, given, model, loaded)
    model.config.get_text_config().use_cache = False
    _freeze_other_senses(model)
    if _kept is not None:
        _kept[kept_as] = model
    return model


def _kept_model(kept_as: tuple[object, ...], attention_name: str) -> "PreTrainedModel | None":
    """Return the model that is kept, with this attention; where it is another one, let go of that."""
    if not _kept:
        return None
    if (model := _kept.get(kept_as)) is not None:
        with contextlib.suppress(ValueError, ImportError):
            model.set_attn_implementation(attention_name)
            if model.config._attn_implementation == attention_name:
                return model
    _kept.clear()
    return None


def _check_places(name: str, given: Any, model: "PreTrainedModel", loaded: dict[str, Any]) -> None:
    """Say which of a folder's weights have no place in its model.

    Args:
        given: the configuration that was read.
        loaded: what transformers says of the loading.

    Raises:
        UserError: there are no weights for a part of the model.
    """
    if loaded["missing_keys"]:
        missing = sorted(loaded["missing_keys"])
        raise UserError(
            f"the model at {name} has no weights for {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}: they would be random"
        )
    if loaded["unexpected_keys"]:
        if isinstance(model.config, type(given.get_text_config())) and given.sub_configs:
            logger.warning("%s: its language model alone is loaded, and will be saved without the rest", name)
        else:
            unplaced = sorted(loaded["unexpected_keys"])
            logger.warning(
                "%s: %d of its weights have no place in the model that its config.json describes and are "
                "left out (%s)",
                name,
                len(unplaced),
                ", ".join(unplaced[:3]) + (", ..." if len(unplaced) > 3 else ""),
            )


def load_outline(name: str) -> "PreTrainedModel | None":
    """Return a model without its weights, on the meta device: its layers and its configuration; None where it
    cannot be made from the configuration alone.

    Raises:
        UserError: there is no such folder, or its sizes are refused (`sizes.refuse_sizes`).
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    require_model(name)
    try:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
            refuse_sizes(name, config)
            outline: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except UserError:
        raise
    # Whatever a model's own code raises: loading it, later, says what is wrong.
    except Exception:
        return None
    return outline


def _said(error: Exception, name: str) -> str:
    """Return in a line why transformers cannot load what stands in a folder, or under a name of the hub."""
    if "trust_remote_code" in str(error):
        return (
            "it is a program of its own (auto_map in its config.json), which is never run here; take a model "
            "that transformers knows"
        )
    if "ignore_mismatched_sizes" in str(error):
        return "its weights are of other sizes than its config.json says; take both from one model"
    for path in sorted(Path(name).glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as broken:
            return f"{path.name} cannot be read: {first_line(broken)}; take the file from the model anew"
        if not isinstance(value, dict) and path.name != "vocab.json":
            return f"{path.name} is no JSON object; take the file from the model anew"
    said = " ".join(str(error).split())[:300]
    if isinstance(error, OSError | ValueError | ImportError):
        also = no_such_folder(name)
        return said.rstrip(".") + also if also else said
    return f"{type(error).__name__}: {said}; take the model's files anew"


def _refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are pickles alone.

    Raises:
        UserError: they are.
    """
    if any(folder.glob("*.safetensors*")):
        return
    found = sorted(path.name for kind in _PICKLES for path in folder.glob(f"*{kind}") if path.is_file())
    found = [file for file in found if file not in _PICKLES_BESIDE]
    if found:
        raise UserError(
            f"the weights at {folder} are pickles ({', '.join(found[:3])}), which can run any program while "
            "they are read, and are never loaded here; take the model's safetensors files, or, if you trust "
            'these, convert them: python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained({str(folder)!r}).save_pretrained('SAFE_FOLDER')\", and copy the tokenizer's "
            "files beside them"
        )


def _loader(config: Any) -> Any:
    """Return the `from_pretrained` of transformers that loads a model of this configuration."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind, remote = config.model_type, getattr(config, "auto_map", None) or {}
    known_as_text = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or "AutoModelForCausalLM" in remote
    if not known_as_text and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText.from_pretrained
    return AutoModelForCausalLM.from_pretrained


def _freeze_other_senses(model: "PreTrainedModel") -> None:
    """Freeze what lies outside the decoder and the head: towers for images and sound, which text never
    reaches."""
    reached = [part for part in (backbone(model), model.get_output_embeddings()) if part is not None]
    kept = {id(weight) for part in reached for weight in part.parameters()}
    others = [weight for weight in model.parameters() if id(weight) not in kept]
    for weight in others:
        weight.requires_grad_(False)
    if others:
        count = sum(getattr(weight, "ds_numel", weight.numel()) for weight in others)
        logger.info("text reaches the language model alone: %d other weights are frozen", count)


def backbone(model: nn.Module) -> Any:
    """Return the part of a language model that gives the last hidden states, without the output head.

    Raises:
        UserError: it is not known which part that is.
    """
    causal = causal_model(model)
    part = causal.get_decoder()
    # Llama-4's and Mllama's own answer is the model itself, or the causal model inside it.
    while hasattr(part, "get_output_embeddings") and part.get_output_embeddings() is not None:
        part = getattr(part, "model", None)
    if part is None:
        raise UserError(
            f"{type(causal).__name__}: it is not known which part of it gives the hidden states that the "
            "output head reads, so it cannot be trained with this loss"
        )
    return part


def pick_attention(packing: bool, use_flash_attn: bool, cuda: bool, half_precision: bool) -> str:
    """Return the name of the attention to load a model with, the quickest that device and number format have,
    and say it where examples are packed; fall back from the flash-attn package with one warning."""
    from transformers.utils import is_flash_attn_2_available

    if use_flash_attn:
        if cuda and half_precision and is_flash_attn_2_available():
            return "flash_attention_2"
        why = "not installed" if not is_flash_attn_2_available() else "needs a GPU and --mixed_precision bf16"
        logger.warning("--use_flash_attn: FlashAttention 2 is %s; using torch's own attention instead", why)
    if not packing:
        return "sdpa"
    chosen = attention.packed_kernel(cuda, half_precision)
    logger.info("packed examples attend by %s (%s)", chosen, attention.WORDS[chosen])
    return chosen


def fit_embeddings(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", seed: int = 0
) -> list[int]:
    """Add embeddings where the tokenizer has more tokens than the model has rows of them; the new rows follow
    from the seed alone. Return the new rows' ids.

    Raises:
        UserError: as `embeddings_needed`.
    """
    rows = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    needed = embeddings_needed(tokenizer)
    if not needed > rows > 0:
        return []
    logger.warning(
        "the tokenizer has %d tokens and the model %d embeddings: adding the missing ones", needed, rows
    )
    torch.manual_seed(seed)
    model.resize_token_embeddings(needed)
    return list(range(rows, needed))


def tokens_unknown_to(name: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids of a tokenizer's tokens that the model of a folder or hub name has not learnt, as far as
    its own tokenizer tells: empty where it has none. Their rows may be there, as padding of the
    embeddings."""
    try:
        known = load_tokenizer(name).get_vocab()
    except UserError:
        return []
    return sorted(number for text, number in tokenizer.get_vocab().items() if known.get(text) != number)


def use_fused_layers(model: "PreTrainedModel") -> None:
    """Put Liger's fused norms, rotary embeddings and MLPs in place on a GPU, where liger-kernel is installed.

    Its losses are left out: ours, in chunks (`training.loss`), is one path under every launcher, and gives
    the KL term and each token's NLL too. Liger's fused linear cross-entropy takes a gradient per token
    (0.8.5) and so could carry our coefficients, but on a path of its own; what it would save is not measured
    here.
    """
    if not torch.cuda.is_available() or importlib.util.find_spec("liger_kernel") is None:
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)
    logger.info("using Liger's fused layers where it knows the model")


def causal_model(model: nn.Module) -> Any:
    """Return the transformers model inside a LoRA wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def draws_dropout(model: nn.Module) -> bool:
    """Return whether training the model draws dropout, in adapters or as its own configuration says."""
    config = causal_model(model).config.get_text_config().to_dict()
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()) or any(
        "drop" in name and isinstance(value, int | float) and value > 0 for name, value in config.items()
    )
