"""NEFTune's noise: how large, where, and that (seed, step, example) alone decides it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import LENGTHS, PER_EXAMPLE, random_data, tiny_llama, token_nlls, weigh, wrap

from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.neftune import example_noise
from instruction_modelling.training.plan import GlobalBatch, Layout

LAYOUTS = [
    Layout(True, 1, 1000),
    Layout(True, 1, 30),
    Layout(False, 1, 0),
    Layout(False, 3, 0),
    Layout(False, 8, 0, "left"),
]


def test_magnitude_mean_and_variance() -> None:
    length, width, alpha = 400, 128, 5.0
    bound = alpha / math.sqrt(length * width)
    noise = example_noise((0, 0, 0), length, width, alpha)
    assert noise.shape == (length, width) and noise.dtype == torch.float32
    assert bound * 0.999 < noise.abs().max() <= bound
    # 51,200 draws: the mean's standard deviation is bound / sqrt(3 x 51200), the variance's about bound^2 /
    # 760.
    assert abs(noise.mean()) < 5 * bound / math.sqrt(3 * length * width)
    assert noise.var().item() == pytest.approx(bound**2 / 3, rel=0.02)
    # The norm of the whole is alpha / sqrt(3), whatever the length: the point of the scaling.
    assert noise.norm().item() == pytest.approx(alpha / math.sqrt(3), rel=0.01)
    assert example_noise((0, 0, 0), 9, 24, alpha).norm().item() == pytest.approx(
        alpha / math.sqrt(3), rel=0.15
    )
    quarters = np.histogram(noise.numpy(), bins=4, range=(-bound, bound))[0] / noise.numel()
    np.testing.assert_allclose(quarters, 0.25, atol=0.01)


def test_seed_step_and_example_decide_it() -> None:
    keys = [(seed, step, example) for seed in (0, 1, 11) for step in (0, 1, 11) for example in (0, 1, 11)]
    noises = [example_noise(key, 6, 24, 5.0) for key in keys]
    assert len({noise.numpy().tobytes() for noise in noises}) == len(keys)
    torch.manual_seed(3)
    assert torch.equal(example_noise((1, 11, 0), 6, 24, 5.0), noises[keys.index((1, 11, 0))])
    assert torch.equal(example_noise((1, 11, 0), 6, 24, 10.0), 2 * noises[keys.index((1, 11, 0))])


def test_it_leaves_the_random_state_alone() -> None:
    """Dropout is drawn from that state."""
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    example_noise((0, 0, 0), 6, 24, 5.0)
    assert torch.equal(torch.rand(2), expected)


def embeddings_of(model: Any, batch: Any) -> torch.Tensor:
    seen = []
    handle = model.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    model(**batch.tensors())
    handle.remove()
    return seen[0].detach()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_example_gets_its_own_and_padding_none(layout: Layout) -> None:
    weighted = weigh(random_data())
    model = wrap(tiny_llama(PER_EXAMPLE if layout.packing else "sdpa"), 5.0, seed=4)
    assert model.noise is not None
    for batch in step_micro_batches(weighted, GlobalBatch(9, np.array([4, 0, 7, 3])), layout):
        model.noise.expect(None)
        plain = embeddings_of(model, batch)
        model.noise.expect(batch)
        added = embeddings_of(model, batch) - plain
        for span in batch.example_spans:
            here = added[span.row, span.start : span.start + span.length].clone()
            expected = example_noise((4, 9, span.example), LENGTHS[span.example], 24, 5.0)
            torch.testing.assert_close(here, expected, atol=1e-6, rtol=0)
            added[span.row, span.start : span.start + span.length] = 0
        assert not added.any()


def test_packing_and_padding_get_the_same_noise() -> None:
    weighted = weigh(random_data())
    first, *rest = (
        token_nlls(
            wrap(tiny_llama(PER_EXAMPLE if layout.packing else "sdpa"), 5.0, 4), weighted, layout, range(8)
        )
        for layout in LAYOUTS
    )
    without = token_nlls(wrap(tiny_llama(PER_EXAMPLE)), weighted, LAYOUTS[0], range(8))
    for other in rest:
        for example in range(8):
            np.testing.assert_allclose(other[example], first[example], atol=1e-5)
    assert all(np.abs(without[example] - first[example]).max() > 1e-3 for example in range(8))


def test_off_in_evaluation_and_when_told_nothing() -> None:
    weighted = weigh(random_data())
    (batch,) = step_micro_batches(weighted, GlobalBatch(0, np.arange(8)), LAYOUTS[0])
    model = wrap(tiny_llama(PER_EXAMPLE), 5.0)
    plain = wrap(tiny_llama(PER_EXAMPLE))(**batch.tensors())["nll"]
    assert model.noise is not None
    assert torch.equal(model(**batch.tensors())["nll"], plain)
    model.noise.expect(batch)
    assert not torch.equal(model(**batch.tensors())["nll"], plain)
    model.eval()
    assert torch.equal(model(**batch.tensors())["nll"], plain)
