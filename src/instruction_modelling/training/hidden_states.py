"""A transformers model in two parts, decoder and output head, so that the head may run on chosen positions
alone."""

from typing import Any

import torch
from torch import nn

from instruction_modelling.models.adapters import before_tuning
from instruction_modelling.models.loading import backbone, causal_model
from instruction_modelling.training.loss import OutputHead


def hidden_states(
    model: nn.Module,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    boundaries: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the last hidden states, [R, L, H], without running the output head.

    Args:
        input_ids: int64[R, L]; `position_ids` and `attention_mask` have the same shape.
        boundaries: int32[examples + 1] of packed examples, with R = 1; None for padded ones.
    """
    return backbone(model)(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=attention_mask,
        use_cache=False,
        **packed_keywords(boundaries),
    ).last_hidden_state


def packed_keywords(boundaries: torch.Tensor | None) -> dict[str, Any]:
    """Return what tells transformers' attention where packed examples begin; nothing without boundaries."""
    if boundaries is None:
        return {}
    longest = int((boundaries[1:] - boundaries[:-1]).max())
    return {
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
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

    return OutputHead(logits_of, int(config.vocab_size))
