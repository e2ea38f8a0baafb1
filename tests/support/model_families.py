"""Tiny configurations of many model families, and the warnings that loading them gives."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import transformers
from step_samples import VOCABULARY

from instruction_modelling.models import loading

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
}
NO_DROPOUT: dict[str, Any] = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
FAMILIES: dict[str, Any] = {
    "llama tied": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=6),
    "mistral, window 5": lambda: transformers.MistralConfig(**SIZES, sliding_window=5),
    "cohere, logits scaled": lambda: transformers.CohereConfig(
        **SIZES, logit_scale=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0
    ),
    "granite, logits divided": lambda: transformers.GraniteConfig(
        **SIZES,
        logits_scaling=3.0,
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
        attention_multiplier=0.3,
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        ffn_dim=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        init_std=0.15,
        dropout=0.0,
        word_embed_proj_dim=24,
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**{**SIZES, "num_key_value_heads": 4}, **NO_DROPOUT),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=24,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.15,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
}
GEMMA2: dict[str, Any] = dict(
    **SIZES,
    head_dim=6,
    final_logit_softcapping=1.5,
    attn_logit_softcapping=2.0,
    sliding_window=5,
    query_pre_attn_scalar=6,
)


@pytest.fixture
def warnings_said() -> Iterator[list[str]]:
    """What loading.py warns of, whatever other tests did to the log."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loading.logger.addHandler(handler)
    yield messages
    loading.logger.removeHandler(handler)
