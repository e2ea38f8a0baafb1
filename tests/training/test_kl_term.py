"""The KL term against the paper's Eq. 5, written out as loops over plain transformers logits."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import (
    ALPHA,
    EXAMPLES,
    PER_EXAMPLE,
    SEED,
    STEP,
    VOCABULARY,
    own_weights,
    plain_log_probabilities,
    random_data,
    random_model,
    relative,
    run_step,
    tiny_llama,
    weigh,
    wrap,
)

from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training import loss as losses
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout


@pytest.fixture(scope="module")
def data() -> EncodedData:
    return random_data()


def kl_by_loops(tuned: Any, base: Any, data: EncodedData, direction: str, power: float = 1.0) -> torch.Tensor:
    """KL over the whole vocabulary, summed over an example's n tokens of non-zero weight and divided by n to
    the `power`; of these the mean over examples, weighted by n to the power 1 - `power`."""
    parts, shares = [], []
    for example in EXAMPLES.tolist():
        p, q = (
            plain_log_probabilities(tuned, data, example),
            plain_log_probabilities(base, data, example).detach(),
        )
        if direction == "base_to_tuned":
            p, q = q, p
        at = [t for t, weight in enumerate(own_weights(data, example)) if weight]
        parts.append(
            sum(sum(p[t - 1, v].exp() * (p[t - 1, v] - q[t - 1, v]) for v in range(VOCABULARY)) for t in at)
            / len(at) ** power
        )
        shares.append(len(at) ** (1 - power))
    total = sum(parts) / sum(shares)
    assert isinstance(total, torch.Tensor)
    return total


@pytest.mark.parametrize(
    ("direction", "normalization", "power"),
    [("tuned_to_base", "example", 1.0), ("base_to_tuned", "example", 1.0), ("tuned_to_base", "square", 0.5)],
)
def test_the_kl_term_is_the_formula(direction: Any, normalization: str, power: float) -> None:
    data = random_data(seed=1)
    tuned, base = (
        tiny_llama(PER_EXAMPLE, seed=1, dtype=torch.float64),
        tiny_llama(PER_EXAMPLE, dtype=torch.float64),
    )
    plain, plain_base = tiny_llama(seed=1, dtype=torch.float64), tiny_llama(dtype=torch.float64)
    weighted = weigh(data, normalization=normalization)
    batches = step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), Layout(True, 1, 40))
    nll_loss, nll_gradient = run_step(wrap(tuned), batches)
    model = wrap(tuned, kl_weight=0.7, direction=direction, base=base)
    loss, gradient = run_step(model, batches)
    kl = kl_by_loops(plain, plain_base, data, direction, power)
    assert loss == pytest.approx(nll_loss + 0.7 * float(kl.detach()), rel=1e-6)
    own = torch.cat([g.flatten() for g in torch.autograd.grad(kl, list(plain.parameters()))])
    assert relative(gradient, nll_gradient + 0.7 * own) < 1e-6
    assert relative(gradient, nll_gradient) > 0.05
    with torch.no_grad():
        assert sum(float(model(**b.tensors())["kl"]) for b in batches) == pytest.approx(
            float(kl.detach()), rel=1e-6
        )


@pytest.mark.parametrize("direction", ["tuned_to_base", "base_to_tuned"])
def test_the_kl_gradient_against_finite_differences(
    data: EncodedData, direction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2Config

    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 7 * VOCABULARY)

    # Unlike a Llama, it computes its norms in float64 too.
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=24,
        n_layer=2,
        n_head=2,
        n_positions=128,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    tuned, base = (random_model(config, PER_EXAMPLE, seed, torch.float64) for seed in (1, 0))
    model = wrap(tuned, kl_weight=1.0, direction=direction, base=base)
    (batch,) = step_micro_batches(weigh(data), GlobalBatch(0, EXAMPLES), Layout(True, 1, 1000))
    # Without its weights the loss is the KL term alone.
    batch.coefficients = torch.zeros_like(batch.coefficients)
    _, gradient = run_step(model, [batch])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        way = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in tuned.parameters()]
        length = math.sqrt(sum(float(w.square().sum()) for w in way))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for weight, move in zip(tuned.parameters(), way, strict=True):
                    weight.add_(move, alpha=sign * 1e-5 / length)
                values.append(float(model(**batch.tensors())["loss"]))
                for weight, move in zip(tuned.parameters(), way, strict=True):
                    weight.sub_(move, alpha=sign * 1e-5 / length)
        slope = float(torch.cat([w.flatten() for w in way]) @ gradient) / length
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(
            slope, rel=1e-6, abs=1e-8 * float(gradient.norm())
        )


@pytest.mark.parametrize("adapters", [False, True], ids=["a second model", "adapters off"])
def test_dropout_touches_the_tuned_model_alone(data: EncodedData, adapters: bool) -> None:
    from transformers import GPT2Config

    from instruction_modelling.models.adapters import add_lora
    from instruction_modelling.models.loading import causal_model

    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=2, n_positions=128, resid_pdrop=0.5
    )
    (batch,) = step_micro_batches(weigh(data), GlobalBatch(0, EXAMPLES), Layout(True, 1, 1000))
    tuned, base = (random_model(config, PER_EXAMPLE) for _ in range(2))
    model = wrap(
        add_lora(tuned, 4, 8, 0.5) if adapters else tuned, kl_weight=1.0, base=None if adapters else base
    ).train()
    seen: list[torch.Tensor] = []
    for each in {id(m): m for m in (causal_model(model.model), tuned if adapters else base)}.values():
        each.transformer.ln_f.register_forward_hook(
            lambda module, inputs, output: seen.append(output.detach())
        )
    for seed in range(2):
        torch.manual_seed(seed)
        model(**batch.tensors())
    with torch.no_grad():
        model.eval()(**batch.tensors())
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3]) and torch.equal(seen[1], seen[5])
    assert model.train().training and (model.base is None or not model.base.training)


def test_without_weight_there_is_no_kl_term(data: EncodedData) -> None:
    batches = step_micro_batches(weigh(data), GlobalBatch(0, EXAMPLES), Layout(True, 1, 40))
    tuned, base = tiny_llama(PER_EXAMPLE, seed=1), tiny_llama(PER_EXAMPLE)
    alone, gradient = run_step(wrap(tuned), batches)
    assert "kl" not in wrap(tuned, kl_weight=0.0, base=base)(**batches[0].tensors())
    almost, near = run_step(wrap(tuned, kl_weight=1e-9, base=base), batches)
    assert almost == pytest.approx(alone, rel=1e-6)
    assert relative(near, gradient) < 1e-6


def test_the_kl_is_0_at_the_start_and_noise_leaves_the_base_alone(data: EncodedData) -> None:
    batches = step_micro_batches(weigh(data), GlobalBatch(STEP, EXAMPLES), Layout(True, 1, 40))
    still = wrap(tiny_llama(PER_EXAMPLE), kl_weight=1.0, base=tiny_llama(PER_EXAMPLE))
    loss, gradient = run_step(still, batches)
    alone, own = run_step(wrap(tiny_llama(PER_EXAMPLE)), batches)
    with torch.no_grad():
        assert abs(sum(float(still(**b.tensors())["kl"]) for b in batches)) < 1e-6
    assert loss == pytest.approx(alone, rel=1e-6)
    assert relative(gradient, own) < 1e-5
    noisy = wrap(tiny_llama(PER_EXAMPLE), ALPHA, SEED, kl_weight=1.0, base=tiny_llama(PER_EXAMPLE))
    noisy_kl = 0.0
    for batch in batches:
        assert noisy.noise is not None
        noisy.noise.expect(batch)
        noisy_kl += float(noisy(**batch.tensors())["kl"])
    means = []
    for example in EXAMPLES.tolist():
        p = plain_log_probabilities(tiny_llama(), data, example, ALPHA).detach()
        q = plain_log_probabilities(tiny_llama(), data, example).detach()
        at = [t - 1 for t, weight in enumerate(own_weights(data, example)) if weight]
        means.append(float((p.exp() * (p - q)).sum(-1)[at].mean()))
    assert noisy_kl == pytest.approx(np.mean(means), rel=1e-5)
    assert noisy_kl > 1e-3


def test_with_lora_the_base_is_the_model_with_its_adapters_off(data: EncodedData) -> None:
    from instruction_modelling.models.adapters import add_lora

    batches = step_micro_batches(weigh(data), GlobalBatch(STEP, EXAMPLES), Layout(True, 1, 40))
    tuned = add_lora(tiny_llama(PER_EXAMPLE), 4, 8, 0.0)
    for alpha in (0.0, ALPHA):
        model = wrap(tuned, alpha, SEED, kl_weight=0.5)
        with torch.no_grad():
            if model.noise:
                model.noise.expect(batches[0])
            start = float(model(**batches[0].tensors())["kl"])
            if model.noise:
                model.noise.expect(None)
        assert (start > 1e-3) if alpha else (abs(start) < 1e-7)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    model = wrap(tuned, kl_weight=0.5)
    loss, gradient = run_step(model, batches)
    other_loss, other = run_step(wrap(tuned, kl_weight=0.5, base=tiny_llama(PER_EXAMPLE)), batches)
    alone, _ = run_step(wrap(tuned), batches)
    assert loss - alone > 1e-3
    assert loss == pytest.approx(other_loss, rel=1e-6)
    assert relative(gradient, other) < 1e-5


def test_the_released_estimator_only_scales_the_gradient(data: EncodedData) -> None:
    """The released code's penalty, the mean of log p - log p_base at the labels, has the gradient of -NLL:
    with it the step is (1 - lambda) times the one without, which is why the KL here runs over the
    vocabulary."""
    plain, base = tiny_llama(seed=1), tiny_llama()
    example = 4
    ids = torch.from_numpy(data.ids[data.span(example)].astype(np.int64))
    at = torch.arange(1, len(ids))
    log_p = plain_log_probabilities(plain, data, example)[at - 1, ids[at]]
    log_base = plain_log_probabilities(base, data, example)[at - 1, ids[at]].detach()
    nll = torch.cat(
        [g.flatten() for g in torch.autograd.grad(-log_p.mean(), list(plain.parameters()), retain_graph=True)]
    )
    for penalty in (0.01, 0.1, 1.0):
        released = -log_p.mean() + penalty * (log_p - log_base).mean()
        gradient = torch.cat(
            [g.flatten() for g in torch.autograd.grad(released, list(plain.parameters()), retain_graph=True)]
        )
        assert float((gradient - (1 - penalty) * nll).norm()) < 1e-6 * float(nll.norm())
    weighted = WeightedData(data, np.ones(len(data.ids), dtype=np.float32))
    batches = step_micro_batches(weighted, GlobalBatch(0, np.array([example])), Layout(True, 1, 99))
    alone = run_step(wrap(tiny_llama(PER_EXAMPLE, seed=1)), batches)[1]
    assert relative(alone, nll) < 1e-6
    true = run_step(
        wrap(tiny_llama(PER_EXAMPLE, seed=1), kl_weight=1.0, base=tiny_llama(PER_EXAMPLE)), batches
    )[1]
    assert relative(true, alone) > 0.05 and float(true.norm()) > 0.05 * float(alone.norm())
