"""The interval of a mean over seeds and rows: by value, and how often it holds what it should."""

import math

import numpy as np
import pytest
from scipy import stats

from instruction_modelling.decision.crossed import (
    crossed_mean,
    expected_half_width,
    holm,
    rows_needed,
    seeds_needed,
)
from instruction_modelling.decision.protocol import ERROR, LOOK_SEEDS


def test_mean_squares_are_those_of_a_two_way_layout() -> None:
    values = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 2.0]])
    found = crossed_mean(values)
    # Means of seeds 3 and 3, of rows 2, 3 and 4; what is left is -1, -1, 2 and 1, 1, -2.
    assert (found.mean, found.seed_ms, found.row_ms, found.rest_ms) == (3.0, 0.0, 2.0, 6.0)
    # 0 + 2 - 6 is below both, so the larger of the two counts alone, with its own degrees of freedom.
    assert found.standard_error == pytest.approx(math.sqrt(2.0 / 6)) and found.degrees_of_freedom == 2


def test_one_way_cases_are_the_t_test_of_the_means() -> None:
    draw = np.random.default_rng(0)
    # Rows that are all alike: the seeds' means are all there is to know.
    of_seeds = np.repeat(draw.normal(size=(6, 1)), 50, axis=1)
    low, high = crossed_mean(of_seeds).interval(0.95)
    expected = stats.ttest_1samp(of_seeds[:, 0], 0).confidence_interval(0.95)
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert crossed_mean(of_seeds).p_value() == pytest.approx(stats.ttest_1samp(of_seeds[:, 0], 0).pvalue)
    # Seeds that are all alike: the rows are.
    of_rows = np.repeat(draw.normal(size=(1, 50)), 6, axis=0)
    expected = stats.ttest_1samp(of_rows[0], 0).confidence_interval(0.95)
    assert crossed_mean(of_rows).interval(0.95) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("seeds", [5, 8])
@pytest.mark.parametrize(
    "sd", [(0.05, 0.3, 0.5), (0.3, 0.1, 0.1), (0.0, 0.0, 1.0), (0.1, 0.05, 1.0), (0.02, 1.0, 0.2)]
)
def test_the_interval_covers_the_mean_as_often_as_it_says(seeds: int, sd: tuple[float, float, float]) -> None:
    draw = np.random.default_rng(1)
    of_seed, of_row, rest = sd
    # Skewed rows, as losses are.
    shape, times = (seeds, 200), 800
    hits = {0.95: 0, 0.99: 0}
    for _ in range(times):
        values = of_seed * draw.normal(size=(seeds, 1)) + of_row * (draw.exponential(size=(1, 200)) - 1)
        found = crossed_mean(values + rest * draw.normal(size=shape))
        for confidence in hits:
            low, high = found.interval(confidence)
            hits[confidence] += low <= 0 <= high
    assert hits[0.95] / times >= 0.93 and hits[0.99] / times >= 0.975


@pytest.mark.parametrize("sd", [(0.1, 0.05, 0.05), (0.02, 0.15, 0.25)])
def test_seeds_of_one_pool_say_how_wide_an_interval_for_other_pools_is_at_most(
    sd: tuple[float, float, float],
) -> None:
    """A seed's effect is the mean of its rows'; each study has a pool of its own, and seeds that draw two
    fifths of it."""
    draw, hits, pool, rows = np.random.default_rng(5), {"one": 0, "any": 0}, 400, 160
    of_seed, of_row, rest = sd
    times = 800
    for _ in range(times):
        effects = of_seed * math.sqrt(rows) * draw.normal(size=pool)
        seeds = np.array([draw.choice(effects, rows, replace=False).mean() for _ in range(5)])
        values = seeds[:, None] + of_row * draw.normal(size=(1, 300)) + rest * draw.normal(size=(5, 300))
        found = crossed_mean(values)
        hits["one"] += abs(found.mean) <= found.half_width(0.95)
        hits["any"] += abs(found.mean) <= found.half_width_over_pools(rows / pool, 0.95)
    assert hits["one"] / times < 0.88 and hits["any"] / times >= 0.935
    # Seeds that share nothing are those of other pools.
    assert found.half_width_over_pools(0.0, 0.95) == found.half_width(0.95)


def test_three_looks_together_err_no_more_than_they_may() -> None:
    """Seeds are added to the same rows; an error is an interval at any look that does not hold the mean."""
    draw, times, errors = np.random.default_rng(3), 800, 0
    confidence = 1 - ERROR / len(LOOK_SEEDS)
    for _ in range(times):
        values = 0.3 * draw.normal(size=(12, 1)) + 0.1 * draw.normal(size=(1, 40))
        values = values + 0.1 * draw.normal(size=(12, 40))
        intervals = [crossed_mean(values[:seeds]).interval(confidence) for seeds in LOOK_SEEDS]
        errors += any(not low <= 0 <= high for low, high in intervals)
    assert 0.02 < errors / times <= ERROR


def test_a_bootstrap_of_five_seeds_would_not() -> None:
    draw = np.random.default_rng(2)
    hits, times = 0, 400
    for _ in range(times):
        means = draw.normal(size=5)
        low, high = np.quantile(draw.choice(means, (1000, 5)).mean(axis=1), [0.025, 0.975])
        hits += low <= 0 <= high
    assert hits / times < 0.9


def test_what_is_needed_is_the_least_that_is_enough() -> None:
    variances = (0.02**2, 0.4**2, 0.1**2)
    seeds = seeds_needed(variances, 2000, 0.03, 0.99)
    assert seeds is not None and expected_half_width(variances, seeds, 2000, 0.99) <= 0.03
    assert expected_half_width(variances, seeds - 1, 2000, 0.99) > 0.03
    rows = rows_needed(variances, 8, 0.05, 0.99)
    assert rows is not None and expected_half_width(variances, 8, rows, 0.99) <= 0.05
    assert expected_half_width(variances, 8, rows - 1, 0.99) > 0.05
    # No number of rows mends what the seeds do.
    assert rows_needed((0.1**2, 0.4**2, 0.1**2), 5, 0.01, 0.95) is None


def test_p_values_are_adjusted_by_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == [0.03, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("values", [np.ones((1, 5)), np.ones((5, 1)), np.array([[1.0, np.nan], [1.0, 2.0]])])
def test_too_few_or_not_finite_is_an_error(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"two of each|not finite"):
        crossed_mean(values)
