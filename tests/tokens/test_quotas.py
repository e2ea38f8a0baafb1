"""What an epoch takes of several files that have proportions."""

from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import ConversationFile, Member
from instruction_modelling.tokens.quotas import Quotas, largest_remainders, quotas_of
from instruction_modelling.training.plan import StepPlan


@pytest.mark.parametrize(
    ("total", "shares", "wanted"),
    [
        (10, (0.5, 0.3, 0.2), (5, 3, 2)),
        (7, (0.5, 0.3, 0.2), (4, 2, 1)),
        (3, (1 / 3, 1 / 3, 1 / 3), (1, 1, 1)),
        (4, (1 / 3, 1 / 3, 1 / 3), (2, 1, 1)),
        (100, (0.29, 0.71), (29, 71)),
        (1, (0.9, 0.1), (1, 0)),
    ],
)
def test_shares_are_rounded_by_largest_remainders(
    total: int, shares: tuple[float, ...], wanted: tuple[int, ...]
) -> None:
    assert largest_remainders(total, shares) == wanted


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(1, 10**7))
def test_rounded_shares_add_up_and_are_less_than_one_off(weights: list[int], total: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    found = largest_remainders(total, shares)
    assert sum(found) == total
    assert all(abs(count - total * share) < 1 for count, share in zip(found, shares, strict=True))


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.integers(1, 5),
)
def test_an_epoch_has_the_quota_of_each_set_and_none_of_its_rows_twice_more_than_another(
    sets: list[tuple[int, int]], seed: int, epochs: int
) -> None:
    """Over any number of epochs from the first on."""
    quotas = Quotas(tuple(size for size, _ in sets), tuple(quota for _, quota in sets))
    edges = np.cumsum([0, *quotas.sizes])
    seen: Counter[int] = Counter()
    for epoch in range(epochs):
        order = quotas.order(seed, epoch).tolist()
        for low, high, quota in zip(edges, edges[1:], quotas.an_epoch, strict=False):
            assert sum(low <= example < high for example in order) == quota
        seen.update(order)
        for low, high in pairwise(edges):
            counts = [seen[example] for example in range(low, high)]
            assert max(counts) - min(counts) <= 1


def test_the_order_never_changes_between_releases() -> None:
    """A run of yesterday must be resumable and reproducible tomorrow."""
    quotas = Quotas((4, 9), (6, 5))
    assert [quotas.order(3, epoch).tolist() for epoch in (0, 1)] == ORDERS
    assert len({tuple(quotas.order(seed, epoch).tolist()) for seed in range(4) for epoch in range(4)}) == 16


ORDERS = [[10, 11, 0, 0, 1, 3, 9, 7, 8, 2, 3], [0, 1, 1, 3, 4, 2, 2, 6, 5, 12, 9]]


def test_steps_are_those_of_the_epochs_order_and_a_function_of_the_step() -> None:
    quotas = Quotas((4, 9), (8, 5))
    plan = StepPlan(13, 4, 7, 12, quotas)
    assert plan.steps_per_epoch == 4
    steps = [plan.batch(step).tolist() for step in (7, 2, 0, 1, 3, 4, 5, 6)]
    again = [plan.batch(step).tolist() for step in range(8)]
    assert steps == [again[step] for step in (7, 2, 0, 1, 3, 4, 5, 6)]
    assert list(chain.from_iterable(again[:4])) == quotas.order(7, 0).tolist()
    assert list(chain.from_iterable(again[4:])) == quotas.order(7, 1).tolist()


def file_of(proportions: tuple[float, ...] | None) -> ConversationFile:
    members = tuple(Member(name, Path(name), first, "") for name, first in (("a", 0), ("b", 10), ("c", 15)))
    return ConversationFile(Path("a + b + c"), "", [], [], 0, members=members, proportions=proportions)


def test_quotas_are_of_the_rows_that_have_a_loss() -> None:
    rows = np.array([0, 1, 2, 5, 11, 12, 15, 17, 18, 19])
    quotas = quotas_of(file_of((0.2, 0.5, 0.3)), rows)
    assert quotas == Quotas((4, 2, 4), (2, 5, 3))
    assert quotas.passes == (0.5, 2.5, 0.75)
    assert quotas.times().tolist() == [0.5] * 4 + [2.5] * 2 + [0.75] * 4
    assert quotas_of(file_of(None), rows) is None


def test_a_file_that_cannot_have_its_share_is_named() -> None:
    with pytest.raises(
        UserError, match=r"b: none of its rows has a loss, so it cannot be 50\.0% of an epoch"
    ):
        quotas_of(file_of((0.2, 0.5, 0.3)), np.array([0, 1, 2, 3, 4, 15]))
    with pytest.raises(UserError, match=r"c: its share, 0\.01 of an epoch of 12 examples, is less than one"):
        quotas_of(file_of((0.49, 0.5, 0.01)), np.array([*range(10), 10, 15]))
