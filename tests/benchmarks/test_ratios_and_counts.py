"""What the benchmark compares: paired ratios, their range, and three honest counts of tokens."""

import random

import pytest
import torch

from benchmarks.contenders.plain_loop import micro_batches, padded
from benchmarks.counts import IGNORED, add_counts, count_batch
from benchmarks.ratios import Spread, paired_ratios, verdict


def test_a_rate_twice_as_high_and_a_cost_half_as_high_are_both_a_ratio_of_two() -> None:
    assert paired_ratios([200.0, 300.0], [100.0, 150.0], higher_is_better=True) == [2.0, 2.0]
    assert paired_ratios([1.0, 3.0], [2.0, 6.0], higher_is_better=False) == [2.0, 2.0]


def test_ratios_are_taken_turn_by_turn_and_not_of_the_medians() -> None:
    # A machine that is four times slower in the second turn disturbs both alike.
    ratios = paired_ratios([100.0, 25.0, 100.0], [80.0, 20.0, 50.0], higher_is_better=True)
    assert ratios == [1.25, 1.25, 2.0]
    assert Spread.of(ratios) == Spread(median=1.25, low=1.25, high=2.0, n=3)


def test_the_median_of_an_even_number_of_turns_lies_between_the_middle_two() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(median=2.5, low=1.0, high=4.0, n=4)


@pytest.mark.parametrize(
    ("ratios", "said"),
    [([1.1, 1.2, 1.3], "ahead"), ([0.9, 0.8], "behind"), ([0.99, 1.2, 1.3], "level"), ([1.0, 1.2], "level")],
)
def test_ahead_and_behind_are_said_only_where_every_turn_agrees(ratios: list[float], said: str) -> None:
    assert verdict(Spread.of(ratios)) == said


@pytest.mark.parametrize("size", [1, 3, 8])
def test_counts_of_padded_batches_are_those_of_the_rows_one_by_one(size: int) -> None:
    draw = random.Random(3)
    rows = []
    for length in (3, 9, 1, 30, 17, 8, 4, 12):
        ids = [draw.randrange(5, 100) for _ in range(length)]
        labels = [id_ if draw.random() < 0.6 else IGNORED for id_ in ids]
        rows.append({"input_ids": ids, "labels": labels})
    groups = micro_batches(rows, size)
    batches = [padded(group) for group in groups]
    counts = add_counts([count_batch(batch["labels"], batch["attention_mask"]) for batch in batches])

    weighted = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    tokens = sum(len(row["input_ids"]) for row in rows)
    positions = sum(max(len(row["input_ids"]) for row in group) * len(group) for group in groups)
    assert counts == {"positions": positions, "tokens": tokens, "weighted": weighted}
    assert sorted(map(id, rows)) == sorted(id(row) for group in groups for row in group)


def test_without_a_mask_every_position_is_a_token() -> None:
    labels = torch.tensor([[7, IGNORED, 8, 9]])
    assert count_batch(labels, None) == {"positions": 4, "tokens": 4, "weighted": 2}
