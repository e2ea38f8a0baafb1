"""Attention over packed examples: each by itself, as loops compute it."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from model_families import FAMILIES
from step_samples import PER_EXAMPLE, VOCABULARY, random_data, random_model, token_nlls, weigh, wrap

from instruction_modelling.models.attention import per_example_attention
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.plan import Layout


@pytest.mark.parametrize("family", ["qwen2", "mistral, window 5", "opt", "gpt-neox"])
def test_examples_do_not_see_each_other(family: str) -> None:
    """Other tokens in one example change no bit of the others."""
    data, model = random_data(), wrap(random_model(FAMILIES[family](), PER_EXAMPLE))
    weighted, layout = weigh(data), Layout(True, 1, 1000)
    before = token_nlls(model, weighted, layout, range(8))
    for changed in (0, 3, 7):
        other = random_data()
        other.ids[other.span(changed)] = (other.ids[other.span(changed)] + 7) % VOCABULARY
        after = token_nlls(model, WeightedData(other, weighted.weights), layout, range(8))
        for example in range(8):
            if example == changed:
                assert np.abs(after[example] - before[example]).max() > 1e-3
            else:
                np.testing.assert_array_equal(after[example], before[example])


def naive_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, edges: list[int], window: int | None
) -> Any:
    """[tokens, heads, width] in loops over queries."""
    heads, tokens, width = query.shape[1:]
    out = torch.zeros(tokens, heads, width)
    for start, end in itertools.pairwise(edges):
        for t in range(start, end):
            first = max(start, t - window + 1) if window else start
            for h in range(heads):
                k = h * key.shape[1] // heads
                scores = key[0, k, first : t + 1] @ query[0, h, t] * 0.3
                out[t, h] = torch.softmax(scores, 0) @ value[0, k, first : t + 1]
    return out


@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_attention_by_loops(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 17, 6, generator=generator)
    key, value = (torch.randn(1, 2, 17, 6, generator=generator) for _ in range(2))
    module: Any = torch.nn.Module()
    module.num_key_value_groups = 2
    module.is_causal = True
    edges = [0, 1, 9, 17]
    out, weights = per_example_attention(
        module,
        query,
        key,
        value,
        None,
        scaling=0.3,
        sliding_window=window,
        cu_seq_lens_q=torch.tensor(edges, dtype=torch.int32),
    )
    assert weights is None and out.shape == (1, 17, 4, 6)
    torch.testing.assert_close(
        out[0], naive_attention(query, key, value, edges, window), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("named", "words"), [({}, "boundaries"), ({"softcap": 30.0}, "soft caps"), ({"s_aux": 1.0}, "sinks")]
)
def test_attention_refuses_what_it_cannot_do(named: dict[str, Any], words: str) -> None:
    states = torch.zeros(1, 2, 3, 4)
    if named:
        named = {**named, "cu_seq_lens_q": torch.tensor([0, 3], dtype=torch.int32)}
    with pytest.raises(ValueError, match=words):
        per_example_attention(torch.nn.Module(), states, states, states, None, **named)
