"""Denominators and coefficients by value."""

from dataclasses import replace

import numpy as np
from step_samples import random_data

from instruction_modelling.chat.spans import INSTRUCTION_KINDS, RESPONSE_KINDS, SpanKind
from instruction_modelling.tokens import weighted
from instruction_modelling.tokens.weights import WeightPolicy


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
        # The roots of n are 1.41421356 and 1, together 2.41421356.
        ("square", [[0, 0.14644661, 0.29289322], [0, 0.82842712]], None),
        ("example", [[0, 0.0625, 0.125], [0, 0.5]], 4),
    ]
    for normalization, expected, full in cases:
        found = weighted.coefficients(weights, counts, normalization, full)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-7)


def four_cells() -> dict[tuple[str, str], weighted.WeightedData]:
    data, out = random_data([27, 42, 19, 35], seed=3), {}
    for arm, instruction in (("IT", 0.0), ("IM", 1.0)):
        for denominator in ("nonzero", "response", "messages"):
            policy = WeightPolicy(instruction)
            out[arm, denominator], dropped = weighted.weigh_rows(data, policy, "example", denominator)
            assert not dropped
    return out


def test_reweighted_it_has_the_coefficients_of_im_on_responses_and_none_elsewhere() -> None:
    cells = four_cells()
    examples = range(len(cells["IT", "nonzero"].data))
    reweighted, _ = cells["IT", "messages"].coefficients(examples)
    of_im, _ = cells["IM", "nonzero"].coefficients(examples)
    of_it, _ = cells["IT", "nonzero"].coefficients(examples)
    kinds = cells["IT", "nonzero"].weights_and_kinds(examples)[1]
    for got, im, it, kind in zip(reweighted, of_im, of_it, kinds, strict=True):
        response = np.isin(kind, RESPONSE_KINDS)
        np.testing.assert_array_equal(got[response], im[response])
        instruction = np.isin(kind, INSTRUCTION_KINDS)
        assert not got[instruction].any() and im[instruction].any()
        # Smaller than IT's, by the same factor everywhere.
        trained = it != 0
        assert np.ptp(got[trained] / it[trained]) < 1e-6 and (got[trained] < it[trained]).all()
    # IM itself counts the same tokens either way.
    for got, im in zip(cells["IM", "messages"].coefficients(examples)[0], of_im, strict=True):
        np.testing.assert_array_equal(got, im)


def test_a_message_that_weighs_nothing_counts_in_no_denominator() -> None:
    data = replace(random_data([10, 11], seed=1), message_weights=[[1.0, 0.0, 1.0]] * 2)
    cell, _ = weighted.weigh_rows(data, WeightPolicy(), "example", "messages")
    im = weighted.WeightedData(data, data.weights(WeightPolicy(1.0)))
    by_hand = [int((im.weights[data.span(i)] != 0).sum()) for i in range(2)]
    assert cell.counts(range(2)).tolist() == by_hand
