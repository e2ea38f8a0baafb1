"""Which examples meet in a step, and that no layout or split over processes changes what the step
computes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from step_samples import LENGTHS, PER_EXAMPLE, random_data, relative, run_step, tiny_llama, weigh, wrap

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.tokens.weighted import (
    DROPPED_NO_RESPONSE,
    DROPPED_NO_WEIGHT,
    WeightedData,
    weigh_rows,
)
from instruction_modelling.tokens.weights import WeightPolicy
from instruction_modelling.training.batches import SequenceLoss, make_micro_batch, step_micro_batches
from instruction_modelling.training.loss_model import LossModel
from instruction_modelling.training.plan import (
    GlobalBatch,
    Layout,
    StepPlan,
    epoch_order,
    groups_by_length,
    pack,
    share_out,
)

some_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=60)


# -- packing -----------------------------------------------------------------------------------------------


def first_fit_decreasing(lengths: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        for i, room in enumerate(rooms):
            if room >= length:
                rooms[i] -= length
                break
        else:
            rooms.append(capacity - length)
    return len(rooms)


@given(some_lengths, st.integers(40, 120))
def test_bins_hold_every_example_once_within_capacity_and_are_few(lengths: list[int], capacity: int) -> None:
    bins = pack(lengths, capacity)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    assert all(own and sum(lengths[i] for i in own) <= capacity for own in bins)
    # First-fit-decreasing's guarantee, which best-fit-decreasing shares: 11/9 of the best, itself at least
    # total / capacity.
    best = -(-sum(lengths) // capacity)
    assert len(bins) <= max(best, 11 / 9 * first_fit_decreasing(lengths, capacity) + 6 / 9)
    # No two bins could have been one.
    loads = sorted(sum(lengths[i] for i in own) for own in bins)
    assert len(loads) < 2 or loads[0] + loads[1] > capacity


def test_packing_by_value() -> None:
    assert pack([3, 7, 5, 2, 3], 10) == [[1, 0], [2, 4, 3]]
    # The fullest bin that still has room, not the first: 8 + 2 and 7 + 3, where the first room for 2 would be
    # 7's.
    assert [sorted(own) for own in pack([7, 8, 2, 3], 10)] == [[1, 2], [0, 3]]
    with pytest.raises(ValueError, match="11 tokens does not fit 10"):
        pack([4, 11], 10)


def test_equal_input_gives_equal_bins() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 50, 200)]
    assert pack(lengths, 64) == pack(list(lengths), 64)
    fill = sum(lengths) / (64 * len(pack(lengths, 64)))
    assert fill > 0.97


@given(some_lengths, st.integers(1, 9))
def test_groups_by_length_hold_every_example_once(lengths: list[int], size: int) -> None:
    groups = groups_by_length(lengths, size)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    assert [len(own) for own in groups[:-1]] == [size] * (len(groups) - 1)
    flat = [lengths[i] for own in groups for i in own]
    assert flat == sorted(lengths, reverse=True)


@given(some_lengths, st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_ranks_share_every_example_once_in_equally_many_micro_batches(
    lengths: list[int], ranks: int, size: int, packing: bool
) -> None:
    dealt = Layout(packing, size, 64).micro_batches(lengths, ranks)
    assert len(dealt) == ranks
    assert len({len(own) for own in dealt}) == 1
    assert sorted(i for own in dealt for group in own for i in group) == list(range(len(lengths)))
    # Empty ones only where there is nothing to share out, and at most one a rank.
    assert all(sum(not group for group in own) <= 1 for own in dealt)


def test_dealing_back_and_forth_evens_the_load() -> None:
    lengths = [8, 7, 6, 5, 4, 3]
    assert share_out([[i] for i in range(6)], lengths, 2) == [[[0], [3], [4]], [[1], [2], [5]]]
    assert share_out([[0]], lengths, 3) == [[[0]], [[]], [[]]]


# -- which examples ----------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**32), st.integers(1, 4))
def test_an_epoch_has_every_example_once(examples: int, batch_size: int, seed: int, epochs: int) -> None:
    plan = StepPlan(examples, batch_size, seed, 1000)
    for epoch in range(epochs):
        steps = [plan.batch(epoch * plan.steps_per_epoch + i) for i in range(plan.steps_per_epoch)]
        assert sorted(np.concatenate(steps).tolist()) == list(range(examples))
        assert [len(step) for step in steps[:-1]] == [batch_size] * (len(steps) - 1)
        assert len(steps[-1]) == examples - batch_size * (len(steps) - 1)


def test_a_step_is_a_function_of_seed_and_step() -> None:
    steps = [3, 0, 17, 3, 8]
    forward = {step: StepPlan(50, 8, 5, 100).batch(step).tolist() for step in steps}
    epoch_order.cache_clear()
    for step in reversed(steps):
        assert StepPlan(50, 8, 5, 20).batch(step).tolist() == forward[step]


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(100)) not in orders


def test_the_order_never_changes_between_releases() -> None:
    """A run of yesterday must be resumable and reproducible tomorrow."""
    assert epoch_order(12, 0, 0).tolist() == [0, 7, 6, 1, 9, 3, 8, 10, 5, 2, 4, 11]
    assert epoch_order(12, 7, 3).tolist() == [4, 10, 9, 8, 7, 3, 11, 5, 0, 6, 1, 2]


# -- tensors -----------------------------------------------------------------------------------------------


def own_losses(weighted: WeightedData, examples: list[int]) -> list[SequenceLoss]:
    return [
        SequenceLoss(example, example, 0, *parts)
        for example, *parts in zip(examples, *weighted.coefficients(examples), strict=True)
    ]


def test_a_packed_and_a_padded_batch_by_value() -> None:
    data = random_data([3, 5], seed=3)
    weighted = weigh(data, WeightPolicy(1.0, 1.0, 1.0))
    weighted.weights[:] = [0, 0, 2, 0, 1, 0, 0, 4]
    ids = data.ids.tolist()
    packed = make_micro_batch(data, 6, own_losses(weighted, [0, 1]), Layout(True, 8, 100))
    assert packed.step == 6
    assert packed.input_ids.tolist() == [ids]
    assert packed.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert packed.attention_mask is None
    assert packed.boundaries is not None and packed.boundaries.tolist() == [0, 3, 8]
    assert packed.boundaries.dtype == torch.int32
    assert packed.logit_positions.tolist() == [1, 3, 6]
    assert packed.targets.tolist() == [ids[2], ids[4], ids[7]]
    assert packed.coefficients.tolist() == [1.0, 0.25, 1.0]
    assert packed.kl_coefficients.tolist() == [0.5, 0.25, 0.25]
    assert packed.example_of_target.tolist() == [0, 1, 1]
    assert packed.kinds.tolist() == data.kinds[[2, 4, 7]].tolist()
    assert (packed.real_tokens, packed.tokens_with_loss) == (8, 3)
    for side, starts in (("right", (0, 0)), ("left", (2, 0))):
        padded = make_micro_batch(data, 6, own_losses(weighted, [0, 1]), Layout(False, 8, 0, side))
        assert padded.boundaries is None and padded.attention_mask is not None
        for row, (start, own) in enumerate(zip(starts, (ids[:3], ids[3:]), strict=True)):
            here = slice(start, start + len(own))
            assert padded.input_ids[row, here].tolist() == own
            assert padded.position_ids[row, here].tolist() == list(range(len(own)))
            assert padded.attention_mask[row].tolist() == [
                int(start <= c < start + len(own)) for c in range(5)
            ]
        assert padded.logit_positions.tolist() == [starts[0] + 1, 5 + 0, 5 + 3]
        assert padded.targets.tolist() == packed.targets.tolist()
        assert padded.coefficients.tolist() == packed.coefficients.tolist()


def test_the_first_token_has_no_loss_even_where_it_has_a_weight() -> None:
    weighted = WeightedData(random_data([4, 4]), np.ones(8, dtype=np.float32))
    batch = make_micro_batch(weighted.data, 0, own_losses(weighted, [0, 1]), Layout(True, 8, 100))
    # Position 3, the last of the first example, must not predict the first token of the second.
    assert batch.logit_positions.tolist() == [0, 1, 2, 4, 5, 6]


def test_rows_without_a_loss_are_left_out_with_their_reason() -> None:
    data = random_data([4, 4, 4, 4])
    data.messages[:] = -1
    data.kinds[:] = np.repeat([SpanKind.TEMPLATE, SpanKind.ASSISTANT, SpanKind.USER, SpanKind.USER], 4)
    data.kinds[12] = SpanKind.ASSISTANT
    weighted, dropped = weigh_rows(data, WeightPolicy(0.5), "example", "response")
    assert dropped == {0: DROPPED_NO_WEIGHT, 2: DROPPED_NO_RESPONSE, 3: DROPPED_NO_RESPONSE}
    assert weighted.data.rows.tolist() == [1]
    assert weigh_rows(data, WeightPolicy(0.5), "example", "nonzero")[0].data.rows.tolist() == [1, 2, 3]
    assert weigh_rows(data, WeightPolicy(0.5), "sum", "response")[0].data.rows.tolist() == [1, 2, 3]
    assert weigh_rows(data, WeightPolicy(0.0), "example", "nonzero")[1] == dict.fromkeys(
        [0, 2, 3], DROPPED_NO_WEIGHT
    )


# -- processes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> dict[bool, LossModel]:
    return {packing: wrap(tiny_llama(PER_EXAMPLE if packing else "sdpa"), 5.0) for packing in (True, False)}


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 25), min_size=1, max_size=9),
    ranks=st.integers(2, 3),
    packing=st.booleans(),
    normalization=st.sampled_from(["example", "token", "square", "sum"]),
    full=st.sampled_from([None, 16]),
)
def test_gradients_of_ranks_add_up_to_those_of_one(  # noqa: PLR0913 (what is drawn)
    models: dict[bool, LossModel],
    lengths: list[int],
    ranks: int,
    packing: bool,
    normalization: str,
    full: int | None,
) -> None:
    weighted = weigh(random_data(lengths, seed=sum(lengths)), normalization=normalization)
    examples, layout = np.arange(len(lengths))[::-1], Layout(packing, 2, 30)
    loss, gradient = run_step(
        models[packing], step_micro_batches(weighted, GlobalBatch(2, examples, full), layout)
    )
    shares = [
        step_micro_batches(weighted, GlobalBatch(2, examples, full), layout, rank, ranks)
        for rank in range(ranks)
    ]
    assert len({len(share) for share in shares}) == 1
    examples_run = [span.example for share in shares for batch in share for span in batch.example_spans]
    assert sorted(examples_run) == sorted(examples.tolist())
    for same in zip(*shares, strict=True):
        assert {batch.max_targets_of_any_rank for batch in same} == {
            max(len(batch.targets) for batch in same)
        }
    parts = [run_step(models[packing], share) for share in shares]
    assert sum(part for part, _ in parts) == pytest.approx(loss, rel=1e-6)
    assert relative(torch.stack([own for _, own in parts]).sum(0), gradient) < 1e-6
    for share, (part, own) in zip(shares, parts, strict=True):
        if not any(batch.example_spans for batch in share):
            assert part == 0 and not own.any()


@pytest.mark.parametrize("packing", [True, False])
def test_an_empty_micro_batch_adds_nothing_but_runs_every_module(
    models: dict[bool, LossModel], packing: bool
) -> None:
    weighted = weigh(random_data())
    (empty,) = step_micro_batches(
        weighted, GlobalBatch(0, np.array([3])), Layout(packing, 1, 30), rank=1, ranks=2
    )
    assert empty.example_spans == [] and (empty.real_tokens, empty.tokens_with_loss) == (0, 0)
    model = models[packing]
    loss, gradient = run_step(model, [empty])
    assert loss == 0 and not gradient.any()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_batch_of_rows_without_weights_adds_nothing(models: dict[bool, LossModel]) -> None:
    weighted = weigh(random_data())
    weighted.weights[weighted.data.span(0)] = 0
    # What is left of a one-example micro-batch is a placeholder.
    batches = step_micro_batches(weighted, GlobalBatch(0, np.arange(2)), Layout(True, 1, 17))
    assert [batch.tokens_with_loss > 0 for batch in batches] == [True, False]
    assert run_step(models[True], batches[1:])[0] == 0


def test_the_released_partial_step_divides_by_the_full_size() -> None:
    weighted = weigh(random_data())
    examples = np.array([1, 4, 2])
    own, full = (weighted.coefficients(examples, size)[0] for size in (None, 8))
    for one, other in zip(own, full, strict=True):
        np.testing.assert_allclose(other, one * 3 / 8, rtol=1e-6)
    by_token = weigh(random_data(), normalization="token")
    for one, other in zip(*(by_token.coefficients(examples, size)[0] for size in (None, 8)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_lengths_are_those_the_models_see() -> None:
    assert random_data().lengths.tolist() == list(LENGTHS)
