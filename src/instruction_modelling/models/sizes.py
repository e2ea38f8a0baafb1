"""Sizes in a model's configuration that cannot be meant, refused before anything of them is built: a wrong
digit there would fill the machine's memory, or make layers for hours."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LAYERS = re.compile(r"num_(hidden_)?layers|n_layers?")
_EXPERTS = re.compile(r"(num|n)_(local_|routed_|shared_)*experts")
_WIDTHS = re.compile(r"(hidden|vocab)_size|d_model|n_embd")
_OTHER_WIDTHS = re.compile(r"(\w+_)?intermediate_size|ffn_(hidden_size|dim)|n_inner|head_dim")
# Each layer and each expert is a module of its own, made one after another.
_MOST_MODULES, _WIDEST = 5_000, 10**8
# Quantised weights pack up to 16 of the configuration's numbers into one of the file.
_PACKED = 16
# Fewer numbers than these fill no machine.
_FEW = 10**8
# Ids that a tokenizer may leave without a token: so many times its tokens, and some.
_MOST_IDS, _IDS_LEFT_FREE = 4, 10_000


def refuse_sizes(name: str, config: Any) -> None:
    """Refuse a configuration whose sizes no model has, or whose model is far larger than the weights that lie
    beside it.

    Args:
        name: the model's folder, or its name on a hub.
        config: as transformers read it.

    Raises:
        UserError: it is such a one; the message has the size.
    """
    text_config = config.get_text_config()
    numbers, tensors = _stored(Path(name))
    for key, value in text_config.to_dict().items():
        is_layers, is_width = _LAYERS.fullmatch(key), _WIDTHS.fullmatch(key)
        known = is_layers or is_width or _EXPERTS.fullmatch(key) or _OTHER_WIDTHS.fullmatch(key)
        if not known or not isinstance(value, int):
            continue
        where = f"the model at {name}: its config.json says {key} {value:,}"
        if value < 1 and (is_layers or is_width):
            raise UserError(f"{where}, which has to be 1 or more; take the file from the model anew")
        most = _WIDEST if is_width or _OTHER_WIDTHS.fullmatch(key) else _MOST_MODULES
        if value > most:
            raise UserError(
                f"{where}, and no model has more than {most:,}; take the file from the model anew"
            )
        if is_layers and tensors and value > tensors:
            raise UserError(
                f"{where}, and the weights beside it are {tensors:,} tensors; take both from one model"
            )
    described = _numbers(text_config) if numbers else 0
    if described > max(_PACKED * numbers, _FEW):
        raise UserError(
            f"the model at {name}: its config.json describes {described:,} numbers "
            f"({described * 4 / 1e9:,.0f} GB in float32), and the weights beside it hold {numbers:,}; take "
            "both from one model"
        )


def embeddings_needed(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the rows of embeddings that a tokenizer's tokens need: one more than the largest id.

    Raises:
        UserError: the ids reach far beyond the number of tokens.
    """
    vocabulary = tokenizer.get_vocab()
    token, largest = max(vocabulary.items(), key=lambda item: item[1], default=("", -1))
    if largest >= _MOST_IDS * len(vocabulary) + _IDS_LEFT_FREE:
        raise UserError(
            f"the tokenizer has {len(vocabulary):,} tokens, and {token!r} has the id {largest:,}: the "
            "rows of the embeddings up to there would stand for nothing; give it an id behind the others"
        )
    return largest + 1


def require_embeddings(model: Any, largest: int) -> None:
    """Refuse rows with a token that a model has no embedding for.

    Args:
        largest: the largest id of the rows.

    Raises:
        UserError: there is one.
    """
    rows = int(model.get_input_embeddings().num_embeddings)
    if largest >= rows:
        raise UserError(
            f"the rows hold the token {largest:,}, and the model has embeddings of {rows:,} tokens: the "
            "tokenizer is not the model's; give the one that it was trained with (--tokenizer_name)"
        )


def _stored(folder: Path) -> tuple[int, int]:
    """Return how many numbers, and how many tensors, the safetensors files of a folder hold; 0 of each where
    that cannot be told."""
    numbers = tensors = 0
    try:
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                header = json.loads(handle.read(length)) if length < path.stat().st_size else {}
            shapes = [tensor["shape"] for key, tensor in header.items() if key != "__metadata__"]
            numbers, tensors = numbers + sum(map(math.prod, shapes)), tensors + len(shapes)
    # A file that is no such file is refused where it is loaded, by its name.
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0, 0
    return numbers, tensors


def _numbers(config: Any) -> int:
    """Return how many numbers the model of a configuration has, 0 where it cannot be made from that alone."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    # Whatever a model's own code raises: loading it says what is wrong.
    except Exception:
        return 0
    return sum(weight.numel() for weight in model.parameters())
