"""From gains to verdicts: each in its order, and what a size cannot tell is said with what it would take."""

import numpy as np
import pytest

from instruction_modelling.decision.verdict import decide, verdict_of


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.2), "helps"),
        ((-0.2, -0.01), "hurts"),
        ((-0.04, 0.04), "no difference that matters"),
        # Sure, and too small to matter.
        ((0.01, 0.04), "no difference that matters"),
        ((-0.04, -0.01), "no difference that matters"),
        ((-0.01, 0.2), "cannot tell"),
        ((-0.06, 0.04), "cannot tell"),
        ((-0.05, 0.05), "cannot tell"),
        (None, "cannot tell"),
    ],
)
def test_verdicts_are_read_in_their_order(interval: tuple[float, float] | None, verdict: str) -> None:
    assert verdict_of(interval, 0.05) == verdict


def losses(seeds: int, rows: int, gain: float, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    reference = 2 + draw.normal(size=(1, rows)) + noise * draw.normal(size=(seeds, rows))
    return reference - gain + noise * draw.normal(size=(seeds, rows)), reference


def test_a_gain_is_the_reference_minus_the_arm() -> None:
    arm, reference = losses(5, 100, 0.2)
    found = decide(("IM", "IT"), arm, reference, 0.05, 0.99)
    assert found.mean == pytest.approx(0.2, abs=0.01) and found.verdict == "helps"
    assert decide(("IT", "IM"), reference, arm, 0.05, 0.99).verdict == "hurts"
    assert len(found.by_seed) == 5 and np.mean(found.by_seed) == pytest.approx(found.mean)


def test_rows_that_are_hard_for_both_take_nothing_from_a_verdict() -> None:
    # The rows' losses scatter by 1 nat; their differences do not.
    arm, reference = losses(5, 100, 0.0)
    assert decide(("IM", "IT"), arm, reference, 0.05, 0.99).verdict == "no difference that matters"


def test_one_seed_cannot_tell() -> None:
    arm, reference = losses(1, 500, 1.0)
    found = decide(("IM", "IT"), arm, reference, 0.05, 0.99)
    assert found.verdict == "cannot tell" and found.interval is None and found.needed() == (None, None)


def test_the_untuned_model_is_one_row_for_all_seeds() -> None:
    arm, reference = losses(5, 100, 0.3)
    found = decide(("IM", "base"), arm, reference[:1], 0.05, 0.95)
    assert found.mean == pytest.approx(0.3, abs=0.01) and found.verdict == "helps"


def test_what_cannot_be_told_says_what_it_would_take() -> None:
    arm, reference = losses(5, 40, 0.0, noise=0.6)
    found = decide(("IM", "IT"), arm, reference, 0.05, 0.99)
    assert found.verdict == "cannot tell" and found.gain is not None
    seeds, rows = found.needed()
    assert seeds is not None and seeds > 5 and rows is not None and rows > 40
    # Either ends before 0 or within the margin.
    target = max(abs(found.mean), 0.05 - abs(found.mean))
    assert found.gain.half_width_at(seeds, 40, 0.99) <= target
    assert found.as_dict()["seeds_needed"] == seeds and found.as_dict()["rows_needed"] == rows
