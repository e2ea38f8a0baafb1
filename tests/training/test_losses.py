"""The loss of a step against the paper's formulas, written out as loops over plain transformers logits."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import (
    LENGTHS,
    PER_EXAMPLE,
    POLICY,
    VOCABULARY,
    random_data,
    random_model,
    relative,
    run_step,
    tiny_llama,
    token_nlls,
    weigh,
    wrap,
)

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens import weighted
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training import loss as losses
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.seeding import derived_seed

STEP, SEED, ALPHA = 3, 11, 5.0
EXAMPLES = np.array([4, 0, 7, 2, 1, 6, 5, 3])
RESPONSE = {SpanKind.ASSISTANT, SpanKind.END, SpanKind.REASONING, SpanKind.TOOL_CALLS}
BY_KIND = {
    SpanKind.TEMPLATE: POLICY.template,
    SpanKind.TOOLS: POLICY.template,
    SpanKind.SYSTEM: POLICY.instruction,
    SpanKind.USER: POLICY.instruction,
    SpanKind.TOOL: 0.0,
    SpanKind.TEXT: 1.0,
    **dict.fromkeys(RESPONSE, POLICY.response),
}
FORMULAS = list(itertools.product(["example", "token", "sum"], ["nonzero", "response"]))
LAYOUTS = {
    "one at a time": Layout(False, 1, 0),
    "padded right 2x4": Layout(False, 2, 0),
    "padded right 8x1": Layout(False, 8, 0),
    "padded left 2x4": Layout(False, 2, 0, "left"),
    "padded left 8x1": Layout(False, 8, 0, "left"),
    "packed 1x8": Layout(True, 1, max(LENGTHS)),
    "packed 2x4": Layout(True, 2, 2 * max(LENGTHS)),
    "packed 8x1": Layout(True, 8, sum(LENGTHS)),
}


def own_weights(data: EncodedData, example: int, by_kind: dict[SpanKind, float] | None = None) -> list[float]:
    """The weight of each token of an example, from the definition alone."""
    at = data.span(example)
    weights = []
    for place, (kind, message) in enumerate(
        zip(data.kinds[at].tolist(), data.messages[at].tolist(), strict=True)
    ):
        factor = 1.0 if message == -1 else data.message_weights[example][message]
        weights.append(0.0 if place == 0 else (by_kind or BY_KIND)[SpanKind(kind)] * factor)
    return weights


def plain_log_probabilities(model: Any, data: EncodedData, example: int, alpha: float = 0.0) -> torch.Tensor:
    """log p(. | tokens before), [n, vocabulary], of one example alone, by transformers' own forward."""
    ids = torch.from_numpy(data.ids[data.span(example)].astype(np.int64))[None]
    inputs = model.get_input_embeddings()(ids)
    if alpha:
        generator = torch.Generator().manual_seed(derived_seed(SEED, STEP, example))
        uniform = torch.rand(ids.shape[1], inputs.shape[-1], generator=generator) * 2 - 1
        inputs = inputs + alpha / math.sqrt(ids.shape[1] * inputs.shape[-1]) * uniform
    return torch.log_softmax(model(inputs_embeds=inputs, use_cache=False).logits[0], dim=-1)


def by_the_formula(
    model: Any, data: EncodedData, alpha: float
) -> dict[tuple[str, str], tuple[float, torch.Tensor]]:
    """(normalisation, denominator) to the loss of the step over EXAMPLES and its gradient."""
    sums, counts = [], []
    for example in EXAMPLES.tolist():
        ids, kinds = data.ids[data.span(example)].tolist(), data.kinds[data.span(example)].tolist()
        logs, weights = plain_log_probabilities(model, data, example, alpha), own_weights(data, example)
        weighted, nonzero, response = torch.zeros(()), 0, 0
        for t in range(1, len(ids)):
            weighted = weighted - weights[t] * logs[t - 1, ids[t]]
            nonzero += weights[t] != 0
            response += weights[t] != 0 and SpanKind(kinds[t]) in RESPONSE
        sums.append(weighted)
        counts.append({"nonzero": nonzero, "response": response})
    out = {}
    for normalization, denominator in FORMULAS:
        n = [count[denominator] for count in counts]
        if normalization == "example":
            loss = sum(total / own for total, own in zip(sums, n, strict=True)) / len(sums)
        elif normalization == "token":
            loss = sum(sums) / sum(n)
        else:
            loss = sum(sums)
        assert isinstance(loss, torch.Tensor)
        parts = torch.autograd.grad(
            loss, [w for w in model.parameters() if w.requires_grad], retain_graph=True
        )
        out[normalization, denominator] = (
            float(loss.detach()),
            torch.cat([g.double().flatten() for g in parts]),
        )
    return out


@pytest.fixture(scope="module")
def data() -> EncodedData:
    return random_data()


@pytest.fixture(scope="module")
def expected(data: EncodedData) -> dict[float, dict[tuple[str, str], tuple[float, torch.Tensor]]]:
    return {alpha: by_the_formula(tiny_llama(), data, alpha) for alpha in (0.0, ALPHA)}


@pytest.mark.parametrize("alpha", [0.0, ALPHA], ids=["no noise", "NEFTune"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_step_is_the_formula(data: EncodedData, expected: dict, layout: Layout, alpha: float) -> None:
    model = wrap(tiny_llama(PER_EXAMPLE if layout.packing else "sdpa"), alpha, SEED)
    for (normalization, denominator), (loss, gradient) in expected[alpha].items():
        weighted = weigh(data, POLICY, normalization, denominator)
        found, own = run_step(model, step_micro_batches(weighted, GlobalBatch(STEP, EXAMPLES), layout))
        assert found == pytest.approx(loss, rel=1e-6)
        assert relative(own, gradient) < 1e-6


def test_the_formulas_differ(expected: dict) -> None:
    """Else the test above could not tell them apart. `sum` has no denominator."""
    gradients = [
        gradient
        for (name, denominator), (_, gradient) in expected[0.0].items()
        if name != "sum" or denominator == "nonzero"
    ]
    gradients.append(expected[ALPHA]["example", "nonzero"][1])
    for one, other in itertools.combinations(gradients, 2):
        assert relative(one, other) > 1e-2
    assert relative(expected[0.0]["sum", "nonzero"][1], expected[0.0]["sum", "response"][1]) == 0


def test_the_nll_of_each_token(data: EncodedData) -> None:
    plain = tiny_llama()
    weighted = weigh(data)
    for layout in LAYOUTS.values():
        found = token_nlls(
            wrap(tiny_llama(PER_EXAMPLE if layout.packing else "sdpa")), weighted, layout, EXAMPLES.tolist()
        )
        for example in EXAMPLES.tolist():
            logs = plain_log_probabilities(plain, data, example)
            ids = data.ids[data.span(example)].tolist()
            own = [
                -float(logs[t - 1, ids[t]].detach())
                for t, weight in enumerate(own_weights(data, example))
                if weight
            ]
            np.testing.assert_allclose(found[example], own, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_with_weights_0_and_1_it_is_the_loss_of_transformers(data: EncodedData, tied: bool) -> None:
    plain, model = (
        tiny_llama(tie_word_embeddings=tied),
        wrap(tiny_llama(PER_EXAMPLE, tie_word_embeddings=tied)),
    )
    weighted = weigh(data, WeightPolicy(1.0, 1.0, 0.0))
    weighted.weights[:] = weighted.weights != 0
    for example in range(len(data)):
        ids = torch.from_numpy(data.ids[data.span(example)].astype(np.int64))
        labels = torch.where(torch.from_numpy(weighted.weights[data.span(example)]) == 1, ids, -100)
        loss = plain(input_ids=ids[None], labels=labels[None], use_cache=False).loss
        parts = torch.autograd.grad(loss, list(plain.parameters()))
        found, gradient = run_step(
            model, step_micro_batches(weighted, GlobalBatch(0, np.array([example])), Layout(True, 1, 99))
        )
        assert found == pytest.approx(float(loss.detach()), rel=1e-6)
        assert relative(gradient, torch.cat([g.flatten() for g in parts])) < 1e-6


# -- weights of the instruction ----------------------------------------------------------------------------


def test_weight_0_is_it_and_weight_1_is_im(data: EncodedData) -> None:
    """By the definitions of the two: labels on the response alone; labels on instruction and response."""
    data = random_data()
    data.message_weights[:] = [[1.0] * 3] * len(data)
    first = np.zeros(len(data.ids), dtype=bool)
    first[data.offsets[:-1]] = True
    response = np.isin(data.kinds, list(RESPONSE)) & ~first
    instruction = np.isin(data.kinds, [SpanKind.USER, SpanKind.SYSTEM]) & ~first
    text = (data.kinds == SpanKind.TEXT) & ~first
    np.testing.assert_array_equal(weigh(data, WeightPolicy(0.0)).weights, np.float32(response | text))
    np.testing.assert_array_equal(
        weigh(data, WeightPolicy(1.0)).weights, np.float32(response | text | instruction)
    )


def gradient_at(
    model: Any, data: EncodedData, weight: float, denominator: str, normalization: str
) -> torch.Tensor:
    weighted = weigh(data, WeightPolicy(weight), normalization, denominator)
    return run_step(model, step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), Layout(True, 1, 60)))[1]


@pytest.mark.parametrize("normalization", ["example", "token", "sum"])
def test_gradients_are_linear_in_the_instruction_weight(data: EncodedData, normalization: str) -> None:
    model = wrap(tiny_llama(PER_EXAMPLE, dtype=torch.float64))
    for denominator, points in (("nonzero", [0.1, 0.35, 0.7, 1.0]), ("response", [0.0, 0.25, 0.6, 1.0])):
        low, *between, high = (gradient_at(model, data, w, denominator, normalization) for w in points)
        for w, gradient in zip(points[1:-1], between, strict=True):
            share = (w - points[0]) / (points[-1] - points[0])
            assert relative(gradient, low + share * (high - low)) < 1e-6
            assert relative(gradient, low) > 1e-3


def test_under_response_the_instruction_never_dilutes_the_response(data: EncodedData) -> None:
    for normalization in ("example", "token", "sum"):
        parts = []
        for w in (0.0, 0.2, 1.0):
            weighted = weigh(data, WeightPolicy(w), normalization, "response")
            loss, _ = weighted.coefficients(EXAMPLES)
            kinds = weighted.weights_and_kinds(EXAMPLES)[1]
            parts.append(
                np.concatenate([c[np.isin(k, list(RESPONSE))] for c, k in zip(loss, kinds, strict=True)])
            )
        np.testing.assert_array_equal(parts[0], parts[1])
        np.testing.assert_array_equal(parts[0], parts[2])


def test_under_nonzero_it_jumps_at_0(data: EncodedData) -> None:
    model = wrap(tiny_llama(PER_EXAMPLE))
    at_zero, near = (gradient_at(model, data, w, "nonzero", "example") for w in (0.0, 1e-6))
    assert relative(near, at_zero) > 0.05


# -- the output head ---------------------------------------------------------------------------------------


def test_the_head_sees_only_tokens_with_a_loss_and_few_at_once(
    data: EncodedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighted = weigh(data, WeightPolicy(0.0))
    with_loss = int((weighted.weights != 0).sum())
    assert with_loss < len(data.ids) / 2
    batches = step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), Layout(True, 1, 1000))
    model = wrap(tiny_llama(PER_EXAMPLE))
    rows: list[int] = []
    head: Any = model.model.get_output_embeddings()  # type: ignore[operator]
    head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    with torch.no_grad():
        whole_nll = model(**batches[0].tensors())["nll"]
    assert rows == [with_loss]
    whole_loss, whole = run_step(model, batches)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 5 * VOCABULARY + VOCABULARY - 1)
    rows.clear()
    with torch.no_grad():
        nll = model(**batches[0].tensors())["nll"]
    assert max(rows) == 5 and sum(rows) == with_loss
    rows.clear()
    loss, gradient = run_step(model, batches)
    # Once forward, and once more in the backward pass.
    assert max(rows) == 5 and sum(rows) == 2 * with_loss
    torch.testing.assert_close(nll, whole_nll, atol=1e-6, rtol=0)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    assert relative(gradient, whole) < 1e-6


def test_a_vocabulary_larger_than_the_limit_goes_one_row_at_a_time(
    data: EncodedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 1)
    model = wrap(tiny_llama(PER_EXAMPLE))
    rows: list[int] = []
    head: Any = model.model.get_output_embeddings()  # type: ignore[operator]
    head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[0]))
    run_step(model, step_micro_batches(weigh(data), GlobalBatch(0, EXAMPLES[:2]), Layout(True, 1, 1000)))
    assert set(rows) == {1}


@pytest.mark.parametrize("kl", [False, True], ids=["no KL", "KL"])
def test_every_process_runs_the_head_equally_often(
    data: EncodedData, monkeypatch: pytest.MonkeyPatch, kl: bool
) -> None:
    """Its k-th micro-batches have unequal numbers of targets, one of them none; together they are still the
    step."""
    weighted, base = weigh(data, WeightPolicy(0.0)), tiny_llama(PER_EXAMPLE, seed=1) if kl else None
    model = wrap(tiny_llama(PER_EXAMPLE), kl_weight=0.5 if kl else 0.0, base=base)
    whole_loss, whole = run_step(
        model, step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), Layout(True, 1, 1000))
    )
    runs: list[str] = []
    for name, each in (("tuned", model.model), ("base", base)):
        if each is not None:
            head: Any = each.get_output_embeddings()  # type: ignore[operator]
            head.register_forward_hook(lambda module, inputs, output, name=name: runs.append(name))
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * VOCABULARY)
    ranks, targets, found = 3, [], []
    total, gradient = 0.0, torch.zeros_like(whole)
    for rank in range(ranks):
        batches = step_micro_batches(weighted, GlobalBatch(0, EXAMPLES), Layout(True, 1, 24), rank, ranks)
        targets.append([batch.tokens_with_loss for batch in batches])
        runs.clear()
        loss, own = run_step(model, batches)
        found.append(list(runs))
        total, gradient = total + loss, gradient + own
    assert 0 in np.ravel(targets) and all(len(set(same)) > 1 for same in zip(*targets, strict=True))
    assert found[0] == found[1] == found[2]
    assert total == pytest.approx(whole_loss, rel=1e-6)
    assert relative(gradient, whole) < 1e-6


# -- the KL term -------------------------------------------------------------------------------------------


def kl_by_loops(tuned: Any, base: Any, data: EncodedData, direction: str) -> torch.Tensor:
    """Mean over examples of the mean over their tokens of non-zero weight of KL over the whole vocabulary."""
    means = []
    for example in EXAMPLES.tolist():
        p, q = (
            plain_log_probabilities(tuned, data, example),
            plain_log_probabilities(base, data, example).detach(),
        )
        if direction == "base_to_tuned":
            p, q = q, p
        at = [t for t, weight in enumerate(own_weights(data, example)) if weight]
        means.append(
            sum(sum(p[t - 1, v].exp() * (p[t - 1, v] - q[t - 1, v]) for v in range(VOCABULARY)) for t in at)
            / len(at)
        )
    total = sum(means) / len(means)
    assert isinstance(total, torch.Tensor)
    return total


@pytest.mark.parametrize("direction", ["tuned_to_base", "base_to_tuned"])
def test_the_kl_term_is_the_formula(direction: Any) -> None:
    data = random_data(seed=1)
    tuned, base = (
        tiny_llama(PER_EXAMPLE, seed=1, dtype=torch.float64),
        tiny_llama(PER_EXAMPLE, dtype=torch.float64),
    )
    plain, plain_base = tiny_llama(seed=1, dtype=torch.float64), tiny_llama(dtype=torch.float64)
    batches = step_micro_batches(weigh(data), GlobalBatch(0, EXAMPLES), Layout(True, 1, 40))
    nll_loss, nll_gradient = run_step(wrap(tuned), batches)
    model = wrap(tuned, kl_weight=0.7, direction=direction, base=base)
    loss, gradient = run_step(model, batches)
    kl = kl_by_loops(plain, plain_base, data, direction)
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

    from instruction_modelling.models.loading import add_lora, causal_model

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
    from instruction_modelling.models.loading import add_lora

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


# -- the counts --------------------------------------------------------------------------------------------


def test_denominators_by_value() -> None:
    weights = [np.array([0, 0.5, 0, 2], dtype=np.float32), np.zeros(3, dtype=np.float32)]
    kinds = [
        np.array([0, SpanKind.USER, SpanKind.ASSISTANT, SpanKind.END], dtype=np.int8),
        np.full(3, 3, dtype=np.int8),
    ]
    np.testing.assert_array_equal(weighted.denominators(weights, kinds, "nonzero"), [2, 0])
    np.testing.assert_array_equal(weighted.denominators(weights, kinds, "response"), [1, 0])


def test_coefficients_by_value() -> None:
    weights = [np.array([0, 0.5, 1], dtype=np.float32), np.array([0, 2], dtype=np.float32)]
    counts = np.array([2, 1])
    cases: list[tuple[str, list[list[float]], int | None]] = [
        ("example", [[0, 0.125, 0.25], [0, 1]], None),
        ("token", [[0, 0.5 / 3, 1 / 3], [0, 2 / 3]], None),
        ("sum", [[0, 0.5, 1], [0, 2]], None),
        ("example", [[0, 0.0625, 0.125], [0, 0.5]], 4),
    ]
    for normalization, expected, full in cases:
        found = weighted.coefficients(weights, counts, normalization, full)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-7)
