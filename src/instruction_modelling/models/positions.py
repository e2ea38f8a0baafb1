"""How many positions a model has, and rows that are longer."""

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from instruction_modelling.errors import UserError
from instruction_modelling.models.loading import backbone, causal_model

logger = logging.getLogger(__name__)


def positions_of(model: nn.Module) -> tuple[int | None, bool]:
    """Return how many positions a model was made for (None: no number is known), and whether it has a vector
    for each of them, and so can compute no more."""
    count = _configured(causal_model(model).config.get_text_config())
    return count, count is not None and _has_a_vector_for_each(model, count)


def positions_of_name(name: str) -> int | None:
    """Return how many positions the model of a folder or hub name was made for, by its configuration; None
    where that says none, or cannot be read, of which loading the model says more."""
    from transformers import AutoConfig

    try:
        return _configured(AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config())
    except (OSError, ValueError, AttributeError):
        return None


def _configured(config: Any) -> int | None:
    count = next(
        (
            value
            for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
            if isinstance(value := getattr(config, name, None), int) and value > 0
        ),
        None,
    )
    if count is None:
        return None
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if isinstance(factor, int | float) and isinstance(before, int):
        count = max(count, int(factor * before))
    return count


def _has_a_vector_for_each(model: nn.Module, count: int) -> bool:
    """Return whether a model looks its positions up: in a layer beside the embeddings of tokens (OPT's,
    GPT-2's), or in a table (GPT-J's)."""
    part = backbone(model)
    tokens = part.get_input_embeddings()
    for name, module in part.named_modules():
        table = getattr(module, "embed_positions", None)
        if table is not None and getattr(table, "ndim", 0) == 2 and table.shape[0] == count:
            return True
        if module is tokens or not isinstance(module, nn.Embedding):
            continue
        # OPT's has two rows in front; names tell it from embeddings of other things.
        if "pos" in name.lower() or name.endswith("wpe"):
            return bool(count <= module.num_embeddings <= count + 2)
    return False


def check_positions(model: nn.Module, lengths: Sequence[int], block_size: int | None = None) -> None:
    """Compare the rows that a model is to compute with its positions.

    Args:
        lengths: tokens of each row.
        block_size: of --block_size, where it was given.

    Raises:
        UserError: rows are longer than a model that has a vector for each position, or blocks than any.
    """
    count, fixed = positions_of(model)
    if count is None:
        return
    if block_size is not None and block_size > count:
        raise UserError(
            f"--block_size {block_size}: the model has {count} positions; give at most as many tokens a block"
        )
    longer, longest = sum(length > count for length in lengths), max(lengths, default=0)
    if not longer:
        return
    rows = f"{longer} row{'s are' if longer > 1 else ' is'} longer (up to {longest} tokens) than the model's"
    if fixed:
        raise UserError(
            f"{rows} {count} positions, and it has no vector for more: cut them with --max_seq_length {count}"
        )
    logger.warning(
        "%s %d positions, beyond which it has not been trained: --max_seq_length %d cuts them",
        rows,
        count,
        count,
    )
