"""What a report answers: only what the measures can tell, in plain words, and no more than they say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from report_checks import data_set_numbers
from report_fixtures import write_losses, write_responses, write_run

from instruction_modelling.comparison.report.answer import LEAST_ROWS, reading
from instruction_modelling.comparison.report.measures import MEASURES

BY_KEY = {measure.key: measure for measure in MEASURES}
FIRST = [f"answer {i}" for i in range(64)]


def answers(
    tmp_path: Path, losses: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[bool]] | None = None
) -> list[str]:
    """Return the answer of runs with these test losses and right or wrong responses, by arm."""
    folders: dict[str, Path] = {}
    for arm, values in losses.items():
        folder = tmp_path / arm
        folders[arm] = folder if arm == "base" else write_run(folder, arm)
        write_losses(folder, "test", list(values), user=1.0)
        if right:
            texts = [FIRST[i] if good else "no" for i, good in enumerate(right[arm])]
            write_responses(folder, texts, FIRST[: len(texts)])
    base = [folders.pop("base")] if "base" in folders else []
    (data,) = data_set_numbers(list(folders.values()), base).values()
    lines: list[str] = data["answer"]
    return lines


def spread(mean: float, rows: int = 40) -> list[float]:
    """Return losses of that mean, from 1 below to 1 above it."""
    return [mean - 1 + 2 * i / (rows - 1) for i in range(rows)]


def test_a_tuned_model_that_is_worse_than_the_untuned_one_is_said_to_be(tmp_path: Path) -> None:
    lines = answers(tmp_path, {"base": spread(2.0), "IT": spread(3.0), "IM": spread(2.5)})
    assert lines[0].startswith("On brief_train, IM is worse than the untuned model: test response loss 2.500")
    assert lines[1].startswith("On brief_train, IT is worse than the untuned model: test response loss 3.000")
    assert lines[2].startswith("On brief_train, IM is better than IT: test response loss 2.500 against 3.000")


def test_the_answer_says_that_the_two_were_trained_on_other_rows(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "IT", "IT", data={"used": 153}),
        write_run(tmp_path / "IM", "IM", data={"used": 206}),
        write_run(tmp_path / "half", "IM w=0.5", data={"used": 9}),
    ]
    for folder, mean in zip(runs, (2.5, 2.0, 2.0), strict=True):
        write_losses(folder, "test", spread(mean))
    (data,) = data_set_numbers(runs, []).values()
    assert data["answer"][-1].startswith(
        "On brief_train: the arms were not trained on the same rows (IM on 206, IT on 153)"
    )


def test_measures_that_point_both_ways_are_said_to_disagree(tmp_path: Path) -> None:
    right = {"base": [False] * 40, "IT": [i % 2 == 0 for i in range(40)], "IM": [i < 2 for i in range(40)]}
    lines = answers(tmp_path, {"base": spread(3.0), "IT": spread(2.5), "IM": spread(2.0)}, right)
    assert lines[2].startswith(
        "On brief_train, the measures disagree about IM and IT: IM is better by test response loss 2.000 "
        "against 2.500"
    )
    assert "and worse by exact match 5.0 % against 50.0 %" in lines[2]


@pytest.mark.parametrize("rows", [LEAST_ROWS - 1, LEAST_ROWS])
def test_fewer_than_thirty_rows_tell_nothing(tmp_path: Path, rows: int) -> None:
    lines = answers(tmp_path, {"base": spread(3.0, rows), "IT": spread(2.5, rows), "IM": spread(2.0, rows)})
    told = [line for line in lines if "better than" in line and "cannot tell" not in line]
    if rows < LEAST_ROWS:
        assert told == [] and all(
            "these runs cannot tell whether" in line
            and "test response loss: 29 rows, at least 30 needed: a larger file or --test_file" in line
            for line in lines
        )
    else:
        assert told == lines and len(lines) == 3


def test_a_score_that_is_0_for_all_says_nothing(tmp_path: Path) -> None:
    right = dict.fromkeys(("base", "IT", "IM"), [False] * 40)
    lines = answers(tmp_path, {"base": spread(3.0), "IT": spread(2.5), "IM": spread(2.0)}, right)
    assert not any("exact match" in line or "token F1" in line for line in lines)


def test_no_clear_difference_names_the_interval(tmp_path: Path) -> None:
    shaken = [value + (0.3 if i % 2 else -0.3) for i, value in enumerate(spread(2.0))]
    lines = answers(tmp_path, {"base": spread(3.0), "IT": spread(2.0), "IM": shaken})
    assert lines[2].startswith(
        "On brief_train, no clear difference between IM and IT was seen: test response"
    )
    assert "95 % interval −0.0" in lines[2]


def test_without_the_untuned_model_that_is_said_first(tmp_path: Path) -> None:
    lines = answers(tmp_path, {"IT": spread(2.5), "IM": spread(2.0)})
    assert "the untuned model was not measured" in lines[0] and "IM is better than IT" in lines[1]


def test_one_arm_alone_is_held_against_the_untuned_model(tmp_path: Path) -> None:
    lines = answers(tmp_path, {"base": spread(3.0), "IT": spread(2.5)})
    assert "IT is better than the untuned model" in lines[0] and "it takes a run of another arm" in lines[1]


@pytest.mark.parametrize(
    ("key", "mean", "word"),
    [
        ("test_response_nll", -0.5, "better"),
        ("test_response_nll", 0.5, "worse"),
        ("exact_match", 0.5, "better"),
        ("exact_match", -0.5, "worse"),
        ("finished", -0.5, "lower"),
        ("test_user_nll", 0.5, "higher"),
    ],
)
def test_a_reading_says_better_only_of_what_has_a_better_side(key: str, mean: float, word: str) -> None:
    verdict = "lower" if mean < 0 else "higher"
    difference: dict[str, Any] = {
        "mean": mean,
        "low": mean - 0.1,
        "high": mean + 0.1,
        "rows": 50,
        "covers_zero": False,
        "verdict": verdict,
        "seeds_agree": None,
    }
    assert reading(BY_KEY[key], difference) == word
    assert reading(BY_KEY[key], difference | {"covers_zero": True}) == "no clear difference"
    assert reading(BY_KEY[key], difference | {"rows": 29}) == "cannot tell"
    assert reading(BY_KEY[key], difference, is_silent=True) == "cannot tell"
