"""Means over seeds, bootstrap intervals and paired differences."""

from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruction_modelling.statistics import (
    bootstrap_interval,
    mean_and_sample_sd,
    paired_difference,
    row_means,
)


def test_mean_and_sample_standard_deviation() -> None:
    assert mean_and_sample_sd([1.0, 2.0, 6.0]) == {"mean": 3.0, "sd": pytest.approx(7**0.5), "n": 3}
    assert mean_and_sample_sd([4.0]) == {"mean": 4.0, "sd": None, "n": 1}
    assert mean_and_sample_sd([]) is None


def test_interval_is_that_of_all_resamples() -> None:
    differences = [1.9, 0.9, -0.1, -0.1]
    means = [fmean(drawn) for drawn in product(differences, repeat=4)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert bootstrap_interval(np.array(differences)) == (pytest.approx(low), pytest.approx(high))


def test_interval_of_many_rows_is_the_normal_one() -> None:
    differences = np.random.default_rng(3).normal(0.2, 1.0, 5000)
    interval = bootstrap_interval(differences)
    assert interval is not None
    half = 1.96 * differences.std() / 5000**0.5
    assert interval == (
        pytest.approx(differences.mean() - half, abs=0.002),
        pytest.approx(differences.mean() + half, abs=0.002),
    )
    assert interval == bootstrap_interval(differences)


def test_one_row_has_no_interval() -> None:
    assert bootstrap_interval(np.array([1.0])) is None
    found = paired_difference([(0, {3: 1.0})], [(0, {3: 2.0})])
    assert found is not None and found.mean == -1.0 and found.low is None
    assert found.verdict == "no clear difference" and found.as_dict()["covers_zero"] is None


def test_rows_are_averaged_over_the_seeds_that_all_have_them() -> None:
    assert row_means([(0, {0: 1.0, 1: 5.0, 2: 7.0}), (1, {2: 9.0, 0: 2.0})]) == {0: 1.5, 2: 8.0}
    assert row_means([]) == {}


def test_seeds_that_disagree_are_told() -> None:
    reference = [(0, dict.fromkeys(range(50), 0.0)), (1, dict.fromkeys(range(50), 0.0))]
    arm = [(0, dict.fromkeys(range(50), -2.0)), (1, dict.fromkeys(range(50), 1.0))]
    found = paired_difference(arm, reference)
    assert found is not None and found.mean == -0.5 and found.verdict == "lower"
    assert found.by_seed == {"0": -2.0, "1": 1.0} and found.seeds_agree is False


def test_only_seeds_in_both_arms_are_compared_by_seed() -> None:
    found = paired_difference(
        [(1, {0: 3.0, 1: 4.0}), (2, {0: 5.0, 1: 6.0})], [(0, {0: 1.0, 1: 1.0}), (2, {0: 2.0, 1: 2.0})]
    )
    assert found is not None and found.by_seed == {"2": 3.5} and found.seeds_agree is None
    assert found.mean == pytest.approx(4.5 - 1.5)


ROWS = st.dictionaries(st.integers(0, 30), st.floats(-100, 100), min_size=1)


@given(ROWS, ROWS)
def test_the_mean_difference_is_that_of_the_shared_rows(
    ours: dict[int, float], theirs: dict[int, float]
) -> None:
    found = paired_difference([(0, ours)], [(0, theirs)])
    shared = set(ours) & set(theirs)
    if not shared:
        assert found is None
        return
    assert found is not None and set(found.by_row) == shared
    assert found.mean == pytest.approx(fmean(ours[row] - theirs[row] for row in shared), abs=1e-9)
    if found.low is not None and found.high is not None:
        assert found.low <= found.high
        assert (
            min(found.by_row.values()) - 1e-9 <= found.low and found.high <= max(found.by_row.values()) + 1e-9
        )
