"""Where a model stops writing: its stop tokens, and the generation config that is saved with it."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# What only sampling reads, and what only a search over several beams reads: transformers saves neither
# beside settings that say there is none.
_OF_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
_OF_BEAMS = ("early_stopping", "length_penalty")
_OF_DETAILED_OUTPUT = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")
_OF_CACHE = ("cache_implementation", "cache_config")


def stop_ids(
    tokenizer: "PreTrainedTokenizerBase", end_strings: Iterable[str], model_ends: int | Sequence[int] | None
) -> list[int]:
    """Return the ids at which a response ends: the chat format's end tokens, then those of the model.

    Args:
        end_strings: the chat format's.
        model_ends: `eos_token_id` of the model's generation config.
    """
    ids = []
    for text in end_strings:
        token = tokenizer.convert_tokens_to_ids(text)
        # What the vocabulary lacks comes back as the unknown token, which ends nothing.
        if isinstance(token, int) and tokenizer.convert_ids_to_tokens(token) == text:
            ids.append(token)
    ids += [model_ends] if isinstance(model_ends, int) else list(model_ends or ())
    return list(dict.fromkeys(ids))


def require_generation_config(folder: Path) -> None:
    """Refuse a model's folder whose generation_config.json transformers would pass over, or fail at.

    Raises:
        UserError: it is no JSON object, or a value is none that transformers takes, such as an end token by
            its text.
    """
    from transformers import GenerationConfig

    path = folder / "generation_config.json"
    if not path.is_file():
        return
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError(f"it is no JSON object but {values!r:.60}")
        ends = values.get("eos_token_id")
        numbers = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if not all(type(number) is int for number in numbers):
            raise TypeError(
                f"eos_token_id is {ends!r:.60}; it must be the number of a token, or a list of numbers"
            )
        GenerationConfig.from_dict(values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be used: {reason}. Mend it, or take it away") from error


def model_ends(model: Any) -> int | Sequence[int] | None:
    """Return the ids at which the model itself ends a text: its generation config's, else its
    configuration's."""
    for config in (getattr(model, "generation_config", None), model.config, model.config.get_text_config()):
        ends = getattr(config, "eos_token_id", None)
        if ends is not None and ends != []:
            return ends
    return None


def model_ends_of(name: str | None) -> list[int]:
    """Return the ids at which the model of a folder or hub name ends a text, without its weights; none where
    nothing says them."""
    from transformers import AutoConfig, GenerationConfig

    for read in (GenerationConfig.from_pretrained, AutoConfig.from_pretrained):
        try:
            config = read(name) if name else None
        except (OSError, ValueError, KeyError, ImportError):
            continue
        ends = getattr(config, "eos_token_id", None)
        if ends is not None and ends != []:
            return [ends] if isinstance(ends, int) else list(ends)
    return []


def fit_generation_config(
    model: Any, tokenizer: "PreTrainedTokenizerBase", end_strings: Iterable[str]
) -> None:
    """Give the model's generation config the stop tokens, a padding token, and no settings that contradict
    one another, with which transformers would not save it.

    Raises:
        UserError: neither the chat format nor the model has a stop token.
    """
    ids = stop_ids(tokenizer, end_strings, model_ends(model))
    if not ids:
        raise UserError(
            "nothing would end a response: the chat format writes no end token, and the model has no "
            "eos_token_id. Set eos_token_id in the model's generation_config.json (and eos_token in "
            "tokenizer_config.json), or give a --chat_format whose responses end with a token"
        )
    config = model.generation_config
    config.eos_token_id = ids if len(ids) > 1 else ids[0]
    if config.pad_token_id is None or config.pad_token_id < 0:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ids[0]
    dropped = _drop_contradictions(config)
    if _problem(config):
        # Nothing that is known here: what is left are the tokens, which always can be saved.
        kept = {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}
        others = set(config.to_diff_dict()) - kept - {"transformers_version", "_from_model_config"}
        dropped += [f"{name} {_forget(config, name)}" for name in sorted(others)]
    if dropped:
        logger.warning(
            "the model's generation_config.json contradicts itself, so transformers would not save it: "
            "the tuned model's leaves out %s",
            ", ".join(dropped),
        )


def _drop_contradictions(config: "GenerationConfig") -> list[str]:
    """Take out what another setting says is not read, where the config cannot be saved with it; return it,
    name and value."""
    names: list[str] = []
    if _problem(config):
        names += _OF_SAMPLING if config.do_sample is not True else ()
        names += _OF_BEAMS if (config.num_beams or 1) == 1 else ()
        names += _OF_DETAILED_OUTPUT if config.return_dict_in_generate is not True else ()
        names += _OF_CACHE if config.use_cache is False else ()
    dropped = []
    for name in names:
        before = _problem(config)
        value = _forget(config, name)
        if _problem(config) == before:
            setattr(config, name, value)
        else:
            dropped.append(f"{name} {value}")
    return dropped


def _problem(config: "GenerationConfig") -> str | None:
    """Return why transformers would not save the config."""
    try:
        config.validate(strict=True)
    except ValueError as error:
        return str(error)
    return None


def _forget(config: "GenerationConfig", name: str) -> Any:
    value = getattr(config, name, None)
    setattr(config, name, None)
    return value
