"""The advice: its numbers are the published ones, and it depends on the numbers of the set as documented."""

import math

import pytest
from script_loader import load_script

from instruction_modelling.analysis import literature
from instruction_modelling.analysis.advisor import SetNumbers, advise
from instruction_modelling.analysis.literature import PAPER_SETS
from instruction_modelling.arms.table import read_arms


@pytest.mark.parametrize("known", PAPER_SETS, ids=lambda known: known.name)
def test_a_set_of_the_paper_is_within_its_range_and_nearest_to_itself(known: literature.PaperSet) -> None:
    advice = advise(SetNumbers(known.rows, known.instruction, known.output))
    place = advice["position"]
    assert place["ratio_in_paper_range"] and place["rows_in_paper_range"]
    assert place["log_ratio"] == pytest.approx(math.log(known.instruction / known.output))
    if known.scores:
        assert advice["nearest"][0]["name"] == known.name and advice["nearest"][0]["distance"] == 0.0


def test_predictions_are_the_lines_at_the_set() -> None:
    by_ratio, drawn, by_rows = advise(SetNumbers(3000, 100.0, 10.0))["predictions"]
    x = math.log(10)
    assert by_ratio["ae1_gain_percent"] == pytest.approx(19.615 * x + 31.077, abs=0.01)
    assert drawn["by_printed_line"] == 18.85 * x + 25.83
    assert by_rows["by_printed_line"] == -39.37 * math.log(3000) + 431.74
    assert by_rows["applies"] and by_rows["low"] < by_rows["ae1_gain_percent"] < by_rows["high"]
    assert not any(prediction["extrapolated"] for prediction in (by_ratio, drawn, by_rows))


def test_the_line_by_rows_is_not_applied_to_other_ratios() -> None:
    assert not advise(SetNumbers(1030, 41.72, 442.75))["predictions"][2]["applies"]


def test_outside_the_papers_range_it_says_so() -> None:
    advice = advise(SetNumbers(50, 1000.0, 1.0))
    assert not advice["position"]["ratio_in_paper_range"] and not advice["position"]["rows_in_paper_range"]
    assert {"ratio out of range", "rows out of range"} <= {caution["key"] for caution in advice["cautions"]}
    assert all(prediction["extrapolated"] for prediction in advice["predictions"])


def test_sets_of_other_languages_are_told_that_all_published_is_english() -> None:
    def keys(share: float) -> set[str]:
        advice = advise(SetNumbers(3000, 50.0, 60.0, not_latin_share=share))
        return {caution["key"] for caution in advice["cautions"]}

    assert "not English" in keys(0.6) and "not English" not in keys(0.1)
    assert (
        "words are characters"
        in advise(SetNumbers(3000, 50.0, 60.0, counting="words are characters"))["in_brief"]
    )


@pytest.mark.parametrize(
    ("instruction", "output", "regime", "finding"),
    [
        (200.0, 10.0, "long instructions, short outputs", "long user turns"),
        (10.0, 200.0, "short instructions, long outputs", "long outputs"),
        (50.0, 60.0, "neither much longer than the other", "middle ratios"),
        # Alpagasus Dolly 9k, which gained 43 %, is no set like LIMA.
        (16.79, 56.62, "neither much longer than the other", "middle ratios"),
    ],
)
def test_each_regime_has_its_findings_for_and_against(
    instruction: float, output: float, regime: str, finding: str
) -> None:
    advice = advise(SetNumbers(3000, instruction, output))
    assert advice["regime"] == regime
    assert finding in {found["key"] for found in advice["findings"]}
    assert {"for", "against"} <= {found["stance"] for found in advice["findings"]}
    assert {"safety", "seed noise", "contamination", "template wrappers"} <= {
        caution["key"] for caution in advice["cautions"]
    }


def test_the_arms_and_flags_are_ones_the_scripts_know() -> None:
    from dataclasses import fields

    known = {field.name for field in fields(load_script("finetune").FinetuneOptions)}
    for lengths in ((200.0, 10.0), (10.0, 200.0), (50.0, 60.0)):
        advice = advise(SetNumbers(3000, *lengths, path="a file.jsonl"))
        names = [arm["name"] for arm in advice["arms"]]
        assert names[:2] == ["IT", "IM"] and set(names) <= set(read_arms())
        assert f"--arms {' '.join(names)} --seeds 0 1 2" in advice["commands"][0]
        for command in advice["commands"][1:]:
            assert "'a file.jsonl'" in command
            assert {word[2:] for word in command.split() if word.startswith("--")} <= known


def test_the_commands_read_the_file_as_it_was_read() -> None:
    numbers = SetNumbers(3000, 50.0, 60.0, path="qa.csv", columns="My question=user,Answer=assistant")
    for command in advise(numbers)["commands"]:
        assert "--train_file qa.csv --columns 'My question=user,Answer=assistant' --output_dir" in command
    assert not any("--columns" in command for command in advise(SetNumbers(3000, 50.0, 60.0))["commands"])


def test_what_was_counted_in_the_file_becomes_cautions() -> None:
    clean = {
        caution["key"] for caution in advise(SetNumbers(3000, 10.0, 20.0, response_share_im=0.8))["cautions"]
    }
    spoilt = advise(
        SetNumbers(
            3000,
            10.0,
            20.0,
            response_share_im=0.037,
            duplicate_share=0.2,
            conflicting_rows=7,
            empty_outputs=4,
            tokens_lost_share=0.05,
        )
    )["cautions"]
    own = [caution for caution in spoilt if caution["key"] not in clean]
    assert [caution["key"] for caution in own] == [
        "little on responses",
        "duplicates",
        "conflicting outputs",
        "empty outputs",
        "truncation",
    ]
    assert [
        "3.7%" in own[0]["text"],
        "20.0%" in own[1]["text"],
        own[2]["text"].startswith("7 "),
        own[3]["text"].startswith("4 "),
        "5.00%" in own[4]["text"],
    ] == [True] * 5


def test_in_brief_says_what_the_papers_sets_of_the_same_regime_gained() -> None:
    gains: dict[str, list[float]] = {}
    means: dict[str, list[float]] = {}
    for known in PAPER_SETS:
        if known.scores:
            regime = advise(SetNumbers(known.rows, known.instruction, known.output))["regime"]
            gains.setdefault(regime, []).append(known.ae1_gain_percent)
            means.setdefault(regime, []).append(known.scores["IM"].mean - known.scores["IT"].mean)
    for regime, said in literature.IN_BRIEF.items():
        if len(gains[regime]) == 3:
            low, middle, high = (f"{gain:.0f}" for gain in sorted(gains[regime]))
            assert f"{low}, {middle} and {high} %" in said
            assert f"{min(means[regime]):.1f} to {max(means[regime]):.1f} points" in said
    assert len(gains[literature.LONG_OUTPUTS]) == 1 and round(means[literature.LONG_OUTPUTS][0], 1) == 0.8


def test_in_brief_names_what_is_wrong_with_the_file() -> None:
    clean = advise(SetNumbers(7000, 10.0, 20.0))["in_brief"]
    assert clean == [literature.IN_BRIEF[literature.MIDDLE], clean[-1]] and "three seeds" in clean[-1]
    _, few, wrong, _ = advise(
        SetNumbers(
            3000,
            10.0,
            20.0,
            duplicate_share=0.2,
            conflicting_rows=70,
            empty_outputs=4,
            tokens_lost_share=0.05,
        )
    )["in_brief"]
    assert few.startswith("3,000 rows are few") and wrong == (
        "Look first at this: 20.0% of the rows repeat others; 70 rows give an instruction of others another "
        "output; 4 rows have "
        "an empty response; the maximum length cuts 5.0% of the tokens."
    )
    assert (
        "4 rows have no response or an empty one, of which IT trains at most the end token"
        in (advise(SetNumbers(3000, 10.0, 20.0, without_response=4))["in_brief"][2])
    )
    assert advise(SetNumbers(50_000, 10.0, 20.0))["in_brief"][1].startswith("50,000 rows are many")
    assert "nothing on so few" in advise(SetNumbers(100, 10.0, 20.0))["in_brief"][1]


@pytest.mark.parametrize(("instruction", "output"), [(0.0, 10.0), (10.0, 0.0)])
def test_a_set_without_a_ratio_gets_no_prediction(instruction: float, output: float) -> None:
    advice = advise(SetNumbers(10, instruction, output))
    assert advice["position"] is None and not advice["predictions"]
    (caution,) = advice["cautions"]
    # IT has nothing to learn where no response has a word.
    assert ("tune with IT" in caution["text"]) == (output > 0)
    assert ("--columns" in caution["text"]) == (output == 0)
