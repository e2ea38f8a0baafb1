"""Denominators and coefficients by value."""

import numpy as np

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens import weighted


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
