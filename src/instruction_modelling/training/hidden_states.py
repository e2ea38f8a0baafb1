"""A transformers model in two parts, decoder and output head, so that the head may run on chosen positions
alone."""

from typing import Any, NamedTuple

import torch
from torch import nn

from instruction_modelling.models.adapters import before_tuning
from instruction_modelling.models.attention import LENGTHS
from instruction_modelling.models.loading import backbone, causal_model
from instruction_modelling.training.loss import OutputHead


class PackedRow(NamedTuple):
    """Where the examples of a packed row lie, on the device and, since reading that from it would make it
    wait in every layer, as numbers too."""

    boundaries: torch.Tensor
    """int32[examples + 1], the column where each example begins, and the end."""
    lengths: tuple[int, ...]
    """Tokens of each example."""
    compiled: bool = False
    """Whether compiled layers read this: they get no lengths, for which they would be compiled again."""


def hidden_states(
    model: nn.Module,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    packed: PackedRow | None = None,
) -> torch.Tensor:
    """Return the last hidden states, [R, L, H], without running the output head.

    Args:
        input_ids: int64[R, L]; `position_ids` and `attention_mask` have the same shape.
        packed: where packed examples lie, with R = 1; None for padded ones.
    """
    return backbone(model)(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=attention_mask,
        use_cache=False,
        **packed_keywords(packed),
    ).last_hidden_state


def packed_keywords(packed: PackedRow | None) -> dict[str, Any]:
    """Return what tells the attention where packed examples begin; nothing where none are packed."""
    if packed is None:
        return {}
    longest = max(packed.lengths)
    return {
        "cu_seq_lens_q": packed.boundaries,
        "cu_seq_lens_k": packed.boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
        **({} if packed.compiled else {LENGTHS: packed.lengths}),
    }


def output_head(model: nn.Module, tuned: bool = True) -> OutputHead:
    """Return the output head, with the scaling and capping that some models apply to logits.

    Args:
        tuned: with what adapters change in it; False for the head before tuning.

    The head runs as a module, so that sharding that gathers a module's weights around its forward works.
    """
    causal = causal_model(model)
    head, config = causal.get_output_embeddings(), causal.config.get_text_config()
    head = head if tuned else before_tuning(head)
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits_of(hidden: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        if times:
            logits = logits * times
        if over:
            logits = logits / over
        return torch.tanh(logits / cap) * cap if cap else logits

    return OutputHead(logits_of, int(config.vocab_size), None if times or over or cap else head)
