"""src/plot_paper.py: the paper's figures from run folders, by value; what is missing is said and never 0."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from paper_runs import all_benchmarks, alpaca_eval, train_file, tuned
from report_fixtures import write_bleu, write_losses, write_responses
from training_runs import SAMPLE, Outcome, run

from eval.paper.gains import paired_gain
from eval.paper.runs import read_paper_runs


def plot(tmp_path: Path, figure: str, *arguments: object) -> Outcome:
    """Run the script with the test's folders of results and pictures."""
    shared = ("--results", tmp_path / "results", "--output_dir", tmp_path / "out")
    return run("plot_paper", figure, *arguments, *shared)


def numbers(tmp_path: Path, name: str) -> dict[str, Any]:
    """The numbers beside a picture, once the picture is seen to be one in both forms."""
    out = tmp_path / "out"
    assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert ElementTree.parse(out / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    return json.loads((out / f"{name}.json").read_text())


# -- Figure 2 ---------------------------------------------------------------------------------------------


def judged_pair(
    tmp_path: Path, name: str, lengths: tuple[int, int], gain: float, rows: int = 4
) -> list[Path]:
    """IT and IM on one data set of these mean words, with win rates of which the second is so much higher."""
    data = train_file(tmp_path / f"{name}.jsonl", *lengths)
    folders = [
        tuned(tmp_path / f"{name}_{arm}", arm, data, rows=rows, options={"instruction_loss_weight": weight})
        for arm, weight in (("IT", 0.0), ("IM", 1.0))
    ]
    for folder, rate in zip(folders, (20.0, 20.0 * (1 + gain / 100)), strict=True):
        alpaca_eval(tmp_path / "results" / folder.name, rate)
    return folders


def test_figure_2_finds_the_line_that_was_planted_and_the_papers_own(tmp_path: Path) -> None:
    lengths = {"short": (4, 16), "even": (12, 12), "long": (30, 3), "longest": (48, 6)}
    sizes = {"short": 1000, "even": 3000, "long": 1000, "longest": 3000}
    folders = [
        folder
        for name, (instruction, output) in lengths.items()
        for folder in judged_pair(
            tmp_path, name, (instruction, output), 10 * math.log(instruction / output) + 20, sizes[name]
        )
    ]
    outcome = plot(tmp_path, "2", *folders)
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path, "figure_2")
    fit = found["fits"]["by_ratio"]
    assert (fit["slope"], fit["intercept"]) == pytest.approx((10, 20)) and fit["points"] == 4
    assert {point["data"]: point["ratio"] for point in found["points"]} == pytest.approx(
        {"short": 0.25, "even": 1, "long": 10, "longest": 8}
    )
    assert outcome.out.startswith(
        "Over 4 data sets the gain of IM over IT on AlpacaEval 1 rises with the length ratio (instruction / "
        "output words): +6.9 points (+6.9 to +6.9, 95 %) with twice the instruction for each word of output, "
        "on the line 10.00 ln(x) +20.00, R² 1.00; the paper's points by its own tables say +13.6 points a "
        "doubling.\n"
    )
    # Two sets are near a ratio of 10, and a line needs three.
    assert found["fits"]["by_rows"] is None and "2 of 4 data sets have it" in outcome.out
    drawn, corrected = (found["paper"]["by_ratio"][key]["fit"] for key in ("as_drawn", "corrected"))
    rows = found["paper"]["by_rows"]["as_drawn"]["fit"]
    shown = [
        tuple(round(line[key], 2) for key in ("slope", "intercept", "r_squared"))
        for line in (drawn, corrected, rows)
    ]
    # The points are read off a picture: the last place of a refit is theirs.
    assert shown == [
        pytest.approx(line, abs=0.04)
        for line in ((18.87, 25.8, 0.68), (19.59, 31.06, 0.69), (-39.33, 431.48, 0.72))
    ]
    assert found["paper"]["by_ratio"]["printed"] == [18.85, 25.83]


def test_the_interval_of_the_papers_slope_is_that_of_least_squares() -> None:
    from eval.paper.gains import paper_lines

    line = paper_lines()["by_ratio"]["corrected"]
    x, y = np.log([ratio for ratio, _ in line["points"]]), np.array([gain for _, gain in line["points"]])
    design = np.column_stack([x, np.ones(len(x))])
    coefficients, squares, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = math.sqrt(squares[0] / (len(x) - 2) * np.linalg.inv(design.T @ design)[0, 0])
    # 2.1098 is Student's t at 0.975 with 17 degrees of freedom.
    assert line["fit"]["slope_low"] == pytest.approx(coefficients[0] - 2.1098 * error, abs=1e-3)
    assert line["fit"]["slope_high"] == pytest.approx(coefficients[0] + 2.1098 * error, abs=1e-3)


def test_figure_2_says_what_it_cannot_place(tmp_path: Path) -> None:
    fine = judged_pair(tmp_path, "fine", (10, 5), 50)
    part = judged_pair(tmp_path, "part", (10, 5), 50)
    alpaca_eval(tmp_path / "results" / "part_IM", 30.0, instructions=20)
    none = judged_pair(tmp_path, "none", (10, 5), 50)
    alpaca_eval(tmp_path / "results" / "none_IT", 0.0)
    changed = judged_pair(tmp_path, "changed", (12, 5), 50)
    train_file(tmp_path / "changed.jsonl", 20, 5)
    alone = judged_pair(tmp_path, "alone", (10, 5), 50)[:1]
    unjudged = tuned(tmp_path / "unjudged_IM", "IM", tmp_path / "alone.jsonl")
    outcome = plot(tmp_path, "2", *fine, *part, *none, *changed, *alone, unjudged)
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path, "figure_2")
    assert {point["data"]: (point["gain"], point["ratio"]) for point in found["points"]} == {
        "fine": (pytest.approx(50), 2.0),
        "changed": (pytest.approx(50), None),
    }
    said = "\n".join(found["missing"])
    for words in (
        "part_IM: AlpacaEval 1 score is of a part of the items (alpaca_eval_1 20 of 805 instructions)",
        "none: no gain, for IT's win rate is 0",
        "changed: no length ratio, for",
        "unjudged_IM: no results in",
    ):
        assert words in said
    assert outcome.out.startswith("Cannot tell how the gain") and "1 of 5 data sets have it" in outcome.out


def test_two_runs_of_one_name_are_never_given_each_others_results(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = [tuned(tmp_path / parent / "run", arm, data) for parent, arm in (("a", "IT"), ("b", "IM"))]
    alpaca_eval(tmp_path / "results" / "run", 20.0)
    outcome = plot(tmp_path, "2", *folders)
    assert outcome.code == 2 and "have one name" in outcome.err
    # Losses lie in the run folders themselves.
    for folder in folders:
        write_losses(folder, "test", [1.0, 2.0])
    assert plot(tmp_path, "3", *folders).code == 0


def test_what_cannot_be_read_or_is_lost_is_said(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    it, im = (tuned(tmp_path / arm, arm, data) for arm in ("IT", "IM"))
    for folder in (it, im):
        write_losses(folder, "test", [1.0, 2.0, 3.0])
        alpaca_eval(tmp_path / "results" / folder.name, 20.0, words=[3])
    lines = (im / "eval" / "test" / "losses.jsonl").read_text().replace('"response": 2.0', '"response": NaN')
    (im / "eval" / "test" / "losses.jsonl").write_text(lines)
    plot(tmp_path, "3", it, im)
    found = numbers(tmp_path, "figure_3_mine")
    assert found["splits"]["test"]["arms"]["IM"]["rows"] == 2
    assert any("1 of 3 test rows have no finite loss in every run of IM" in line for line in found["missing"])
    # Answers to two test files are no one length.
    for folder, sha256 in ((it, "a" * 64), (im, "b" * 64)):
        write_responses(folder, ["one"], ["one"])
        generation = folder / "eval" / "test" / "generation.json"
        generation.write_text(json.dumps({**json.loads(generation.read_text()), "sha256": sha256}))
    outcome = plot(tmp_path, "11", it, im, "--lengths", "test")
    assert "the answers that are counted are to different test files" in outcome.out
    # What lies among the results and is none, and a judge other than the paper's.
    alpaca_eval(tmp_path / "results" / "IM", 30.0, judge="another")
    (tmp_path / "results" / "IT" / "alpaca_eval_2").mkdir()
    (tmp_path / "results" / "IT" / "alpaca_eval_2" / "results.json").write_text("{")
    outcome = plot(tmp_path, "2", it, im)
    assert "judged by another, not gpt-4" in outcome.out and "alpaca_eval_2" in outcome.out
    answers = tmp_path / "results" / "IT" / "alpaca_eval" / "model_outputs.json"
    answers.write_text(json.dumps([{"instruction": "a", "output": 3}]))
    outcome = plot(tmp_path, "6", it, im)
    assert outcome.code == 2 and "must be a string" in outcome.err and "Traceback" not in outcome.err


def test_a_score_of_a_part_of_the_items_counts_where_that_is_asked_for(tmp_path: Path) -> None:
    folders = judged_pair(tmp_path, "part", (10, 5), 50)
    alpaca_eval(tmp_path / "results" / "part_IM", 30.0, instructions=20)
    assert json.loads(plotted(tmp_path, folders)).get("points") == []
    (point,) = json.loads(plotted(tmp_path, folders, "--partial"))["points"]
    assert point["gain"] == pytest.approx(50)


def plotted(tmp_path: Path, folders: list[Path], *arguments: object) -> str:
    """The numbers of Figure 2 as they lie there."""
    assert plot(tmp_path, "2", *folders, *arguments).code == 0
    return (tmp_path / "out" / "figure_2.json").read_text()


def test_of_several_learning_rates_the_nearest_pair_is_taken_and_said(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 10, 5)
    folders = []
    for arm, rate, wins in (("IT", 1e-5, 10.0), ("IT", 2e-5, 20.0), ("IM", 2e-5, 30.0)):
        folders.append(tuned(tmp_path / f"{arm}_{rate}", arm, data, options={"learning_rate": rate}))
        alpaca_eval(tmp_path / "results" / folders[-1].name, wins)
    assert plot(tmp_path, "2", *folders).code == 0
    found = numbers(tmp_path, "figure_2")
    (point,) = found["points"]
    assert point["gain"] == pytest.approx(50) and point["arms"] == ["IT (learning_rate 2e-05)", "IM"]
    assert any("IT (learning_rate 1e-05) left out" in line for line in found["doubts"])


def test_the_interval_of_a_gain_is_that_of_resampled_items() -> None:
    random = np.random.default_rng(3)
    before = random.random(60)
    after = np.minimum(1.0, before + 0.1)
    drawn = random.integers(0, 60, (20_000, 60))
    gains = 100 * (after[drawn].mean(axis=1) / before[drawn].mean(axis=1) - 1)
    gain = 100 * (after.mean() / before.mean() - 1)
    low, high = np.quantile(gains, [0.025, 0.975])
    found = paired_gain(before, after)
    assert found is not None and found[0] == pytest.approx(gain)
    assert found[1:] == pytest.approx((low, high), abs=0.5)
    assert paired_gain(np.zeros(40), np.ones(40)) is None


def gain_of(tmp_path: Path, it: dict[str, float], *im: dict[str, float] | None) -> dict[str, Any]:
    """Figure 2's numbers of IT with these scores of items, and of a seed of IM with each of the others."""
    data = train_file(tmp_path / "mine.jsonl", 10, 5)
    folders = []
    for number, scores in enumerate((it, *im)):
        arm, seed = ("IM", number - 1) if number else ("IT", 0)
        folders.append(tuned(tmp_path / f"{arm}_{seed}", arm, data, seed))
        alpaca_eval(tmp_path / "results" / folders[-1].name, 30.0 if number else 20.0, scores)
        if scores is None:
            (tmp_path / "results" / folders[-1].name / "alpaca_eval_1" / "items.jsonl").unlink()
    return json.loads(plotted(tmp_path, folders))


def test_a_gain_and_its_interval_are_of_the_same_items_and_what_lacks_is_named(tmp_path: Path) -> None:
    it = {str(item): 0.25 for item in range(60)}
    # Of the items that both have, IM wins twice as often; of all, not at all so.
    found = gain_of(tmp_path, it, {str(item): 0.5 for item in range(20, 60)})
    (point,) = found["points"]
    assert [point[name] for name in ("gain", "low", "high", "items")] == [100, 100, 100, 40]
    assert f"mine: the gain is of 40 of 60 judged items, for {tmp_path}/IM_0 lacks 20" in found["doubts"]


@pytest.mark.parametrize(
    ("im", "why"),
    [
        ((None, 60), "there are no scores of items (items.jsonl in the results of alpaca_eval_1) of {}/IM_0"),
        ((29, 60), "29 items were judged in all runs, at least 30 needed"),
    ],
)
def test_a_gain_without_an_interval_is_of_the_win_rates_and_says_why(
    tmp_path: Path, im: tuple[int | None, ...], why: str
) -> None:
    scores = [None if count is None else {str(item): 0.5 for item in range(count)} for count in im]
    found = gain_of(tmp_path, {str(item): 0.25 for item in range(60)}, *scores)
    (point,) = found["points"]
    assert [point[name] for name in ("gain", "low", "high", "items")] == [pytest.approx(50), None, None, 0]
    assert f"mine: the gain has no interval, for {why.format(tmp_path)}" in found["missing"]


def test_a_run_without_a_win_rate_takes_no_items_from_the_others(tmp_path: Path) -> None:
    whole = {str(item): 0.5 for item in range(40)}
    gain_of(tmp_path, dict.fromkeys(whole, 0.25), whole, {"0": 1.0})
    alpaca_eval(tmp_path / "results" / "IM_1", 90.0, {"0": 1.0}, instructions=1)
    folders = [tmp_path / name for name in ("IT_0", "IM_0", "IM_1")]
    (point,) = json.loads(plotted(tmp_path, folders))["points"]
    assert (point["gain"], point["items"], point["win_rates"][1]["n"]) == (100, 40, 1)


def test_runs_that_were_not_judged_in_one_way_are_said(tmp_path: Path) -> None:
    whole = {str(item): 0.5 for item in range(40)}
    gain_of(tmp_path, whole, whole)
    alpaca_eval(tmp_path / "results" / "IM_0", 50.0, whole, judge="another")
    doubts = json.loads(plotted(tmp_path, [tmp_path / "IT_0", tmp_path / "IM_0"]))["doubts"]
    assert "mine: the runs were not judged in one way: judge: gpt-4 (IT_0), another (IM_0)" in doubts


# -- Figures 3, 8 and 9 -----------------------------------------------------------------------------------


def test_figure_3_counts_each_response_once_and_says_which_losses_are_not_there(tmp_path: Path) -> None:
    data = train_file(tmp_path / "lima_data.jsonl", 5, 5)
    it, im = tuned(tmp_path / "it", "IT", data), tuned(tmp_path / "im", "IM", data)
    ours = {
        it: ([1.0, 1.2, 1.4, 2.0] * 8, [2.0, 2.2, 2.4, 3.0] * 8),
        im: ([1.5, 1.7, 1.9, 2.5] * 8, [1.8, 2.0, 2.2, 2.8] * 8),
    }
    for folder, (train, test) in ours.items():
        write_losses(folder, "train", train)
        write_losses(folder, "test", test)
    outcome = plot(tmp_path, "3", it, im)
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path, "figure_3_lima_data")["splits"]
    for split, position in (("train", 0), ("test", 1)):
        for folder, arm in ((it, "IT"), (im, "IM")):
            of_arm = found[split]["arms"][arm]
            assert of_arm["mean"] == pytest.approx(np.mean(ours[folder][position]))
            assert sum(of_arm["counts"]) == of_arm["rows"] == 32
    assert (
        found["train"]["arms"]["IM"]["paper_mean"] == 1.45
        and found["test"]["arms"]["IT"]["paper_mean"] == 1.32
    )
    assert outcome.out.startswith(
        "lima_data: IM's loss against IT's is higher on training responses (+0.500, +0.500 to +0.500) and "
        "lower on test responses (-0.200, -0.200 to -0.200)"
    )
    for path in (im / "eval" / "test").iterdir():
        path.unlink()
    outcome = plot(tmp_path, "9", it, im)
    found = numbers(tmp_path, "figure_9_lima_data")
    assert "IM" not in found["splits"]["test"]["arms"] and "cannot tell on test responses" in outcome.out
    assert any("no losses of IM on test rows" in line for line in found["missing"])
    write_losses(im, "test", ours[im][1][:29])
    said = "cannot tell on test responses (29 rows, at least 30 needed)"
    assert said in plot(tmp_path, "9", it, im).out


# -- Figures 4, 10 and 11 ---------------------------------------------------------------------------------


def scheduled(tmp_path: Path, arm: str, data: Path, rates: dict[int, float], seed: int = 0) -> list[Path]:
    """A run of four epochs and its checkpoints of the first and second, with AlpacaEval of each."""
    folders = []
    for epoch, rate in rates.items():
        name = f"{arm}_s{seed}" + ("" if epoch == 4 else f"_epoch_{epoch}")
        exported: dict[str, Any] = {} if epoch == 4 else {"exported_from": f"{arm}_s{seed}/epoch_{epoch}"}
        folders.append(
            tuned(
                tmp_path / name,
                arm,
                data,
                seed,
                epochs=epoch,
                steps=3 * epoch,
                options={"num_train_epochs": 4},
                **exported,
            )
        )
        alpaca_eval(tmp_path / "results" / name, rate, words=[10 * epoch, 30 * epoch])
    return folders


def test_epochs_of_one_schedule_and_of_runs_of_their_own_are_two_curves(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = [
        *scheduled(tmp_path, "IT", data, {1: 10.0, 2: 12.0, 4: 11.0}),
        *scheduled(tmp_path, "IT", data, {1: 14.0, 2: 12.0, 4: 13.0}, seed=1),
        *scheduled(tmp_path, "IM", data, {1: 13.0, 2: 11.0, 4: 16.0}),
    ]
    own = tuned(tmp_path / "own", "IM", data, epochs=2, steps=6, options={"num_train_epochs": 2})
    alpaca_eval(tmp_path / "results" / "own", 15.0)
    outcome = plot(tmp_path, "10", *folders, own)
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path, "figure_10_mine")
    curves = {
        (curve["arm"], curve["schedule"]): {
            point["epochs"]: (point["mean"], point["n"]) for point in curve["points"]
        }
        for curve in found["curves"]
    }
    assert curves == {
        ("IT", "one schedule of 4 epochs"): {1: (12.0, 2), 2: (12.0, 2), 4: (12.0, 2)},
        ("IM", "one schedule of 4 epochs"): {1: (13.0, 1), 2: (11.0, 1), 4: (16.0, 1)},
        ("IM", "a run for each number of epochs"): {2: (15.0, 1), 4: (16.0, 1)},
    }
    assert outcome.out.startswith("IM's AlpacaEval 1 score is above IT's on 2 of 3 numbers of epochs")
    assert found["curves"][0]["points"][0]["sd"] == pytest.approx(math.sqrt(8))


def test_figure_11_has_a_tenth_of_the_deviation_over_answers_and_says_which_are_not_there(
    tmp_path: Path,
) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = scheduled(tmp_path, "IT", data, {1: 10.0, 2: 12.0})
    (tmp_path / "results" / "IT_s0_epoch_2" / "alpaca_eval" / "model_outputs.json").unlink()
    outcome = plot(tmp_path, "11", *folders)
    found = numbers(tmp_path, "figure_11_mine")
    (point,) = found["curves"][0]["points"]
    # Answers of 10 and 30 words: deviation 10.
    assert (point["epochs"], point["mean"], point["bar"]) == (1, 20.0, pytest.approx(1.0))
    assert any("IT_s0_epoch_2: no answers in" in line for line in found["missing"])
    assert outcome.out.startswith("Cannot tell how IM's length of answers")
    # Answers to the test file are counted where that is asked for.
    write_responses(folders[0], ["one two", "one two three four"], ["a", "b"])
    scores = folders[0] / "eval" / "test" / "scores.jsonl"
    scores.write_text(
        "".join(json.dumps({"row": row, "words": words}) + "\n" for row, words in enumerate((2, 4)))
    )
    outcome = plot(tmp_path, "11", *folders, "--lengths", "test")
    assert numbers(tmp_path, "figure_11_mine")["curves"][0]["points"][0]["mean"] == 3.0


def test_one_model_is_not_counted_as_two_seeds(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = scheduled(tmp_path, "IT", data, {1: 10.0, 4: 12.0})
    # The checkpoint of the last epoch is the run itself.
    last = tuned(
        tmp_path / "last",
        "IT",
        data,
        epochs=4,
        steps=12,
        options={"num_train_epochs": 4},
        exported_from="IT_s0/epoch_4",
    )
    alpaca_eval(tmp_path / "results" / "last", 12.0)
    assert plot(tmp_path, "10", *folders, last).code == 0
    points = numbers(tmp_path, "figure_10_mine")["curves"][0]["points"]
    assert [(point["epochs"], point["n"]) for point in points] == [(1, 1), (4, 1)]
    twin = tuned(tmp_path / "twin", "IT", data, epochs=4, steps=12, options={"num_train_epochs": 4})
    outcome = plot(tmp_path, "10", *folders, twin)
    assert outcome.code == 2 and "would count as two seeds" in outcome.err and "twin" in outcome.err


def test_figure_4_is_of_the_mean_of_six_categories_and_never_of_five(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    it, im = tuned(tmp_path / "it", "IT", data), tuned(tmp_path / "im", "IM", data)
    all_benchmarks(tmp_path / "results" / "it", 0.5)
    all_benchmarks(tmp_path / "results" / "im", 0.75, leave_out=("mmlu",))
    outcome = plot(tmp_path, "4", it, im)
    found = numbers(tmp_path, "figure_4_mine")
    from eval.table.results import read_results
    from eval.table.table import cells

    mean = cells(read_results(tmp_path / "results" / "it"), False)["mean"].value
    assert [(curve["arm"], curve["points"][0]["mean"]) for curve in found["curves"]] == [("IT", mean)]
    assert any("im: no mean of the NLP benchmarks, for it lacks" in line for line in found["missing"])
    assert outcome.out.startswith("Cannot tell")
    plot(tmp_path, "4", it, im, "--partial")
    doubts = numbers(tmp_path, "figure_4_mine")["doubts"]
    assert any("im: mean of the NLP benchmarks is without understanding" in line for line in doubts)


# -- Figures 5, 6, 7 and Table 2 --------------------------------------------------------------------------


def test_figure_5_has_a_picture_for_each_model_and_null_for_what_is_missing(tmp_path: Path) -> None:
    folders = []
    for model, rates in (("opt", (3.0, 5.0)), ("big", (40.0, None))):
        data = train_file(tmp_path / "mine.jsonl", 5, 5)
        for arm, rate in zip(("IT", "IM"), rates, strict=True):
            folder = tmp_path / f"{model}_{arm}"
            folders.append(tuned(folder, arm, data, model={"name_or_path": f"facebook/{model}"}))
            if rate is not None:
                alpaca_eval(tmp_path / "results" / folder.name, rate)
    outcome = plot(tmp_path, "5", *folders)
    assert outcome.code == 0, outcome.err
    opt, big = numbers(tmp_path, "figure_5_opt"), numbers(tmp_path, "figure_5_big")
    assert opt["differences"]["alpaca_eval_1"] == [{"data": "mine", "arms": ["IT", "IM"], "difference": 2.0}]
    assert big["scores"]["mine"]["IM"] == {"mean": None, "alpaca_eval_1": None}
    assert big["scores"]["mine"]["IT"]["alpaca_eval_1"]["mean"] == 40.0
    assert "opt: cannot tell of the mean of the NLP benchmarks" in outcome.out
    assert "IM's AlpacaEval 1 score is above IT's on 1 of 1 data sets" in outcome.out


def test_figure_6_holds_length_and_wins_of_each_fraction(tmp_path: Path) -> None:
    folders = []
    for name, rows, it_words, im_words in (("part", 10, 20, 10), ("whole", 100, 20, 30)):
        data = train_file(tmp_path / f"{name}.jsonl", 5, 5, rows=rows)
        for arm, words, rate in (("IT", it_words, 60.0), ("IM", im_words, 65.0)):
            folders.append(tuned(tmp_path / f"{name}_{arm}", arm, data, rows=rows))
            alpaca_eval(tmp_path / "results" / folders[-1].name, rate, words=[words, words + 2])
    outcome = plot(tmp_path, "6", *folders)
    assert outcome.code == 0, outcome.err
    points = numbers(tmp_path, "figure_6")["points"]
    assert [(point["data"], point["arm"], point["rows"], point["words"]["mean"]) for point in points] == [
        ("part", "IT", 10, 21.0),
        ("part", "IM", 10, 11.0),
        ("whole", "IT", 100, 21.0),
        ("whole", "IM", 100, 31.0),
    ]
    assert outcome.out.startswith(
        "IM's answers are longer than IT's on 1 of 2 data sets; IM's win rate is higher than IT's "
        "on 2 of 2 data sets."
    )
    alpaca_eval(tmp_path / "results" / "whole_IM", 65.0, words=[30, 32, 34])
    said = f"{tmp_path}/whole_IM answered 3 instructions and {tmp_path}/part_IT 2"
    assert said in plot(tmp_path, "6", *folders).out


def test_figure_7_counts_the_words_of_files_and_of_runs_training_files(tmp_path: Path) -> None:
    path = SAMPLE / "brief_answers_train.jsonl"
    gone = tuned(tmp_path / "gone", "IT", tmp_path / "gone.jsonl")
    outcome = plot(tmp_path, "7", path, tuned(tmp_path / "run", "IT", path), gone)
    assert outcome.code == 0, outcome.err
    found = numbers(tmp_path, "figure_7_brief_answers_train")
    rows = [json.loads(line)["messages"] for line in path.read_text().splitlines()]
    words = [
        sum(
            len(f"<|assistant|>\n{part['content'].strip()}</s>\n".split())
            for part in row
            if part["role"] == "assistant"
        )
        for row in rows
    ]
    assert (found["mean"], found["median"]) == (np.mean(words), np.median(words))
    assert sum(found["counts"]) + found["beyond"] == len(words) == found["rows"]
    assert found["mode"] == min(
        value for value in set(words) if words.count(value) == max(map(words.count, words))
    )
    assert len(list((tmp_path / "out").glob("*.json"))) == 1
    assert any("gone: its training file" in line for line in found["missing"])


def test_figure_7_gives_the_papers_own_numbers_of_its_data(tmp_path: Path, shared_data: Path) -> None:
    files = [shared_data / "train" / f"{name}.jsonl" for name in ("lima_data", "alpagasus_3k_dolly")]
    assert plot(tmp_path, "7", *files).code == 0
    for file in files:
        found = numbers(tmp_path, f"figure_7_{file.stem}")
        assert [round(found[key], 2) for key in ("mean", "median", "mode")] == [
            found["paper"][key] for key in ("mean", "median", "mode")
        ]


def test_table_2_of_answers_that_share_nothing_with_the_references_tells_nothing(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = [tuned(tmp_path / arm, arm, data) for arm in ("IT", "IM")]
    for folder in folders:
        write_bleu(folder, "train", 0.0, 0.0)
    outcome = plot(tmp_path, "table_2", *folders)
    assert outcome.out.startswith("Cannot tell") and "every BLEU is 0" in outcome.out


@pytest.mark.parametrize("second", ["IT+NEFTune", "prompt only"])
def test_what_is_not_im_is_not_called_so(tmp_path: Path, second: str) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    folders = [tuned(tmp_path / arm, arm, data) for arm in ("IT", second)]
    for folder, bleu in zip(folders, (20.0, 10.0), strict=True):
        write_bleu(folder, "train", bleu, bleu)
    outcome = plot(tmp_path, "table_2", *folders)
    assert outcome.out.startswith("Cannot tell whether IM's answers repeat the training outputs less")


def test_table_2_stands_beside_the_papers_and_lacks_what_was_not_measured(tmp_path: Path) -> None:
    data = {name: train_file(tmp_path / f"{name}.jsonl", 5, 5) for name in ("lima_data", "mine")}
    folders = []
    for name, arm, seed, bleu in (
        ("lima_data", "IT", 0, 20.0),
        ("lima_data", "IT", 1, 22.0),
        ("lima_data", "IM", 0, 18.0),
        ("mine", "IT", 0, 60.0),
        ("mine", "IM", 0, None),
    ):
        folders.append(tuned(tmp_path / f"{name}_{arm}_{seed}", arm, data[name], seed))
        if bleu is not None:
            write_bleu(folders[-1], "train", bleu, bleu + 1)
    outcome = plot(tmp_path, "table_2", *folders)
    assert outcome.code == 0, outcome.err
    cells = {(cell["data"], cell["arm"]): cell for cell in numbers(tmp_path, "table_2")["cells"]}
    assert cells["lima_data", "IT"]["sentence"] == {"mean": 21.0, "sd": pytest.approx(math.sqrt(2)), "n": 2}
    assert (cells["lima_data", "IT"]["paper"], cells["lima_data", "IM"]["paper"]) == (18.15, 17.30)
    assert cells["mine", "IM"]["sentence"] is None and cells["mine", "IT"]["paper"] is None
    assert outcome.out.startswith(
        "IM's answers repeat the training outputs less than IT's (lower BLEU) on 1 of 1 data sets, by "
        "-3.00 in the mean"
    )
    assert "| mine | IM | missing | missing | – |" in (tmp_path / "out" / "table_2.md").read_text()


def test_unfinished_runs_are_left_out_and_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    data = train_file(tmp_path / "mine.jsonl", 5, 5)
    half = tuned(tmp_path / "half", "IM", data, finished=False)
    whole = tuned(tmp_path / "whole", "IT", data)
    runs = read_paper_runs([whole, half, whole], tmp_path / "results")
    assert [run.folder for run in runs.runs] == [whole] and runs.missing == [
        f"{half}: did not finish, and is left out"
    ]
    assert plot(tmp_path, "5", half).code == 2
    outcome = plot(tmp_path, "5", tmp_path)
    assert outcome.code == 2 and "is not a run folder" in outcome.err
    # Nothing was measured: the numbers say so, and there is no picture of nothing.
    outcome = plot(tmp_path, "2", whole)
    assert outcome.code == 0 and not (tmp_path / "out" / "figure_2.png").exists()
    assert json.loads((tmp_path / "out" / "figure_2.json").read_text())["points"] == []
