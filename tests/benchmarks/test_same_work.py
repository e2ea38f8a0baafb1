"""Whoever does other work is said to, and no verdict rests on it."""

from typing import Any

import pytest
import torch
from tiny import make_tiny_model

from benchmarks.contenders.generation import answer_length
from benchmarks.counts import IGNORED
from benchmarks.preparation import expected_loss, first_losses
from benchmarks.results import answer, row_result
from benchmarks.rows import OURS, Contender, Row, all_rows, chosen_rows
from benchmarks.turns import Readings, take_turns_in_groups
from instruction_modelling.errors import UserError

SUMS = [(6.0, 3), (20.0, 5), (1.0, 1), (9.0, 2)]


def test_the_first_loss_follows_from_each_rows_sum_whatever_divides_it() -> None:
    assert expected_loss(SUMS, "example") == pytest.approx((2 + 4 + 1 + 4.5) / 4)
    assert expected_loss(SUMS, "token") == pytest.approx(36 / 11)
    assert expected_loss(SUMS, "micro_batches", 2) == pytest.approx((26 / 8 + 10 / 3) / 2)


def test_first_losses_are_the_models_own(tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    make_tiny_model(tmp_path)
    row = {"input_ids": [5, 9, 200, 31, 7], "labels": [5, IGNORED, 200, IGNORED, 7]}
    ((total, count),) = first_losses(str(tmp_path), [row])
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    assert count == 2
    assert total == pytest.approx(-float(logits[1, 200] + logits[3, 7]), rel=1e-5)


def readings(rate: float, loss: float = 3.0, tokens: int = 10, **first: Any) -> Readings:
    """One warm-up and two turns at so many tokens per second."""
    turn = {"seconds": tokens / rate, "tokens": tokens, "weighted": 4, "positions": 12, "loss": loss}
    return Readings(first=first, warm_up=turn, turns=[turn, turn])


ROW = Row(
    "training-x",
    "training",
    "tokens per second",
    "tokens",
    (
        Contender(OURS, "ours:train"),
        Contender("slow", "x:y", {"loss": "example"}),
        Contender("other", "x:y", {"loss": "example"}),
        Contender("leaky", "x:y", {"packing": True}),
    ),
    {"precision": "fp32"},
)
FIRST = [(3.0, 1), (6.0, 2)]


def result(other: Readings, ours: Readings | None = None, leaky: Readings | None = None) -> dict[str, Any]:
    """The row's result with this contender `other`."""
    of = {OURS: ours or readings(100), "slow": readings(50), "other": other, "leaky": leaky or readings(90)}
    for reading in of.values():
        reading.beside = of[OURS].turns
    return row_result(ROW, of, FIRST, (0.0, 0.0))


def test_the_peer_that_comes_closest_is_the_one_compared() -> None:
    found = result(readings(80), leaky=readings(70))
    assert (found["best_peer"], found["verdict"]) == ("other", "ahead")
    assert found["contenders"]["other"]["ratio"] == {"median": 1.25, "low": 1.25, "high": 1.25, "n": 2}
    counts = found["contenders"]["other"]["counts"]
    assert [counts[name]["median"] for name in ("positions", "tokens", "weighted")] == pytest.approx(
        [96, 80, 32]
    )


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (readings(200, loss=3.1), "first loss 3.10000 and not 3.00000"),
        (readings(200, tokens=9), "9 tokens and not 10"),
    ],
)
def test_a_faster_peer_that_does_other_work_is_named_and_decides_nothing(other: Readings, why: str) -> None:
    found = result(other, leaky=readings(200, sees_others=True))
    assert found["contenders"]["other"]["other_work"] == why
    assert found["contenders"]["leaky"]["other_work"] == "documents see each other"
    assert (found["best_peer"], found["verdict"]) == ("slow", "ahead")


def test_a_shared_model_is_held_against_the_loss_before_anyones_first_update() -> None:
    found = result(readings(200, loss=2.5, losses={"other": 3.0}))
    assert found["contenders"]["other"]["other_work"] is None
    assert found["verdict"] == "behind"


def test_peers_that_do_not_fit_into_memory_together_are_compared_with_our_turns_beside_each() -> None:
    """Ours is twice as quick beside the second group, when the machine is: no ratio may cross groups."""
    rates = iter(({OURS: 100, "slow": 50}, {OURS: 200, "other": 125}, {OURS: 100, "leaky": 50}))

    def pretended(row: Row) -> dict[str, Readings]:
        of_group = next(rates)
        assert [contender.name for contender in row.contenders] == list(of_group)
        return {name: readings(rate) for name, rate in of_group.items()}

    of = take_turns_in_groups(ROW, 2, pretended)
    found = row_result(ROW, of, FIRST, (0.0, 0.0))["contenders"]
    assert {name: found[name]["ratio"]["median"] for name in ("slow", "other", "leaky")} == {
        "slow": 2.0,
        "other": pytest.approx(1.6),
        "leaky": 2.0,
    }
    assert found[OURS]["value"] == {"median": 100, "low": 100, "high": 200, "n": 6}


def test_where_our_own_first_loss_is_wrong_nothing_is_claimed() -> None:
    found = result(readings(10), ours=readings(1000, loss=3.2))
    assert (found["best_peer"], found["verdict"]) == (None, "not measured")


def test_a_contender_that_fails_is_said_to_and_the_rest_still_compares() -> None:
    found = result(Readings(failed="ImportError: no such peer"), leaky=readings(50))
    assert found["contenders"]["other"]["failed"] == "ImportError: no such peer"
    assert found["verdict"] == "ahead"


def test_the_answer_counts_rows_and_names_those_that_are_not_won() -> None:
    rows = [
        {"row": name, "verdict": said} for name, said in (("a", "ahead"), ("b", "behind"), ("c", "level"))
    ]
    assert answer(rows) == "Ahead in 1 of 3 rows; level in: c; behind in: b."


def test_rows_are_chosen_by_the_beginning_of_their_names() -> None:
    names = [row.name for row in chosen_rows(False, ["training-im", "scoring"])]
    assert names == ["training-im-bf16", "training-im-fp32", "scoring-fp32", "scoring-bf16"]
    (row,) = chosen_rows(False, ["training-im-fp32"], ["TRL", "plain loop, 1"])
    assert [one.name for one in row.contenders] == [
        OURS,
        "plain loop, 1 at a time",
        "TRL, padded 8",
        "TRL, packing",
    ]
    assert chosen_rows(False, [], ["whole logits"])[0].name == "loss-memory-2048"
    with pytest.raises(UserError, match="--only nothing"):
        chosen_rows(False, ["nothing"])


def test_every_row_has_us_first_and_names_of_its_own() -> None:
    for quick in (True, False):
        rows = all_rows(quick)
        assert len({row.name for row in rows}) == len(rows)
        for row in rows:
            names = [contender.name for contender in row.contenders]
            assert names[0] == OURS and len(set(names)) == len(names) > 1


def test_an_answers_length_counts_its_end_and_no_padding() -> None:
    assert answer_length([4, 5, 2, 2, 2], [2]) == 3
    assert answer_length([4, 5, 6], [2]) == 3
