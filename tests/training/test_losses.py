"""The loss of a step against the paper's formulas, written out as loops over plain transformers logits."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import (
    ALPHA,
    EXAMPLES,
    LENGTHS,
    PER_EXAMPLE,
    POLICY,
    RESPONSE,
    SEED,
    STEP,
    VOCABULARY,
    own_weights,
    plain_log_probabilities,
    random_data,
    relative,
    run_step,
    tiny_llama,
    token_nlls,
    weigh,
    wrap,
)

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training import loss as losses
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout

FORMULAS = list(itertools.product(["example", "token", "square", "sum"], ["nonzero", "response"]))
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
        elif normalization == "square":
            loss = sum(total / own**0.5 for total, own in zip(sums, n, strict=True))
            loss = loss / sum(own**0.5 for own in n)
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
    data = replace(data, message_weights=[[1.0] * 3] * len(data))
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


@pytest.mark.parametrize("normalization", ["example", "token", "square", "sum"])
def test_gradients_are_linear_in_the_instruction_weight(data: EncodedData, normalization: str) -> None:
    model = wrap(tiny_llama(PER_EXAMPLE, dtype=torch.float64))
    for denominator, points in (("nonzero", [0.1, 0.35, 0.7, 1.0]), ("response", [0.0, 0.25, 0.6, 1.0])):
        low, *between, high = (gradient_at(model, data, w, denominator, normalization) for w in points)
        for w, gradient in zip(points[1:-1], between, strict=True):
            share = (w - points[0]) / (points[-1] - points[0])
            assert relative(gradient, low + share * (high - low)) < 1e-6
            assert relative(gradient, low) > 1e-3


def test_under_response_the_instruction_never_dilutes_the_response(data: EncodedData) -> None:
    for normalization in ("example", "token", "square", "sum"):
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
    assert relative(near, at_zero) > 0.02


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
