"""src/collect_results.py: result folders to the paper's table, by value."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fixtures import humaneval, tasks_of, write_model, write_nlp, write_part
from training_runs import Outcome, run

from eval.table.compare import compare
from eval.table.items import TaskItems
from eval.table.results import read_results
from eval.table.suite import BENCHMARKS, CATEGORIES, category_mean, paper_row, paper_table
from eval.table.table import cells


def collect(*arguments: object) -> Outcome:
    return run("collect_results", *arguments)


def table(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The table as --json has it."""
    outcome = collect(*arguments, "--json", tmp_path / "table.json")
    assert outcome.code == 0, outcome.err
    return json.loads((tmp_path / "table.json").read_text())


# -- Table 1 ----------------------------------------------------------------------------------------------


def test_other_tasks_that_ask_the_same_questions_are_not_mmlu() -> None:
    mmlu = BENCHMARKS[0]
    assert len(tasks_of(mmlu)) == 57 and all(map(mmlu.has, tasks_of(mmlu)))
    for task in (
        "anatomy_continuation",
        "anatomy_generative",
        "flan_n_shot_loglikelihood_anatomy",
        "stem",
        "pro_law",
    ):
        assert not mmlu.has(f"mmlu_{task}")


def test_the_means_of_table_1_come_out_of_its_categories() -> None:
    rows = paper_table()["rows"]
    assert len(rows) == 23
    for row in rows:
        values = dict(zip(paper_table()["columns"], row["values"], strict=True))
        mean = category_mean(values)
        # The published numbers are rounded; half a unit of the last place is no difference.
        assert mean is not None and abs(mean - values["mean"]) <= 0.01 + 1e-9, row


def test_table_1_is_printed_and_its_rows_are_named() -> None:
    outcome = collect("--paper", "all")
    assert outcome.code == 0 and "49.60" in outcome.out and outcome.out.count("NEFTune") == 7 + 1 + 7
    assert "72.43" in outcome.out and "IT+KL 0.01" in outcome.out
    assert paper_row("lima_data", "IM") is not None and paper_row("lima_data", "SFT") is None


# -- the table --------------------------------------------------------------------------------------------


def test_scores_are_put_together_as_the_paper_does(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    own = {
        task: [1.0, 1.0, 1.0, 0.0]
        for benchmark in BENCHMARKS
        if benchmark.key == "piqa"
        for task in tasks_of(benchmark)
    }
    write_nlp(folder, own, name="2026-02-01")
    row = table(tmp_path, folder)["rows"]["im"]
    # Five benchmarks, one of them at 75.
    assert row["understanding"]["value"] == pytest.approx((50 * 4 + 75) / 5)
    assert row["math"]["value"] == pytest.approx((50 + 50) / 2) and row["bbh"]["value"] == 50
    ter = read_results(folder).scores["translation"].value
    assert row["multilinguality"]["value"] == pytest.approx((50 + ter) / 2)
    assert row["mean"]["value"] == pytest.approx(sum(row[name]["value"] for name in CATEGORIES) / 6)
    assert (row["mt_bench"]["value"], row["alpaca_eval_1"]["value"], row["alpaca_eval_2"]["value"]) == (
        5.0,
        50.0,
        50.0,
    )


def test_tasks_of_a_benchmark_weigh_by_their_items(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5, leave_out=("mmlu",))
    scores = {task: [0.0, 0.0] for task in tasks_of(BENCHMARKS[0])}
    scores["mmlu_abstract_algebra"] = [1.0] * 20
    write_nlp(folder, scores, name="2026-01-02")
    assert read_results(folder).scores["mmlu"].value == pytest.approx(100 * 20 / (20 + 56 * 2))


def test_the_corrected_way_names_and_mends_each_wrong_turn(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    humaneval(folder, 0.7, 0.9)
    paper, corrected = (
        table(tmp_path, folder, "--aggregation", way)["rows"]["im"] for way in ("paper", "corrected")
    )
    assert paper["math"]["value"] == pytest.approx((50 + 90) / 2) and corrected["math"][
        "value"
    ] == pytest.approx((50 + 50) / 2)
    chrf = read_results(folder, corrected=True).scores["translation"].value
    assert chrf > 50 and corrected["multilinguality"]["value"] == pytest.approx((50 + chrf) / 2)
    for way in ("paper", "corrected"):
        said = collect(folder, "--aggregation", way).out
        assert (
            "TER, an error rate" in said
            and "the better of two temperatures" in said
            and f"aggregation {way}" in said
        )
    assert "chrF of the same translations" in collect(folder, "--aggregation", "corrected").out


def test_what_is_missing_shows_as_missing_and_never_as_nought(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5, leave_out=("toxigen", "humaneval", "mt_bench"))
    found = table(tmp_path, folder)["rows"]["im"]
    for column in ("safety", "math", "mean", "mt_bench"):
        assert found[column]["value"] is None, column
    assert found["safety"]["missing"] == ["toxigen"] and found["mean"]["missing"] == ["math", "safety"]
    outcome = collect(folder)
    line = next(line for line in outcome.out.splitlines() if line.startswith("im "))
    assert (
        line.count("–") == 4 and " 0.00" not in line and "lacks: humaneval, mt_bench, toxigen" in outcome.out
    )
    partial = table(tmp_path, folder, "--partial")["rows"]["im"]
    assert (
        partial["safety"]["value"] == 50
        and partial["math"]["value"] == 50
        and partial["mt_bench"]["value"] is None
    )
    assert "50.00*" in collect(folder, "--partial").out
    empty = tmp_path / "nothing"
    empty.mkdir()
    assert table(tmp_path, empty)["rows"]["nothing"]["mean"]["value"] is None


def test_a_benchmark_in_part_is_no_benchmark(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5, leave_out=("bbh_cot_fewshot",))
    write_nlp(folder, {f"bbh_cot_fewshot_task_{i}": [1.0, 1.0] for i in range(26)}, name="2026-01-02")
    cell = table(tmp_path, folder)["rows"]["im"]["bbh"]
    assert cell["value"] is None and cell["missing"] == ["bbh_cot_fewshot (in part)"]


def test_errors_are_those_of_independent_scores(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    row = table(tmp_path, folder)["rows"]["im"]
    one = 100 * math.sqrt(4 * 0.25 / 3 / 4)
    mmlu, two = one / math.sqrt(57), one / math.sqrt(2)
    assert row["understanding"]["error"] == pytest.approx(math.sqrt(mmlu**2 + 3 * one**2 + two**2) / 5)
    # HumanEval's items all have one score here.
    assert row["math"]["error"] == pytest.approx(one / 2)
    assert row["mean"]["error"] == pytest.approx(
        math.sqrt(sum(row[name]["error"] ** 2 for name in CATEGORIES)) / 6
    )


def test_a_slice_never_hides_an_older_whole_result(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    write_nlp(folder, {"piqa": [1.0]}, name="2026-03-01", limit=1)
    results = read_results(folder)
    assert results.scores["piqa"].value == 50 and "an older result of all items counts" in results.problems[0]
    write_nlp(folder, {"piqa": [1.0] * 5}, name="2026-04-01")
    assert read_results(folder).scores["piqa"].value == 100


def test_damaged_files_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    (folder / "nlp" / "model" / "results_2026-09-09.json").write_text('{"results": ')
    (folder / "mt_bench" / "results.json").write_text("[]")
    (folder / "humaneval_t0.7" / "results.json").write_text('{"pass@1": NaN}')
    outcome = collect(folder)
    assert outcome.code == 0 and "Traceback" not in outcome.err
    for said in (
        "results_2026-09-09.json: cannot be read",
        "mt_bench/results.json: is not a JSON object",
        "has no pass@1",
        "at temperature 0.1 alone",
    ):
        assert said in outcome.out, said
    assert cells(read_results(folder), partial=False)["understanding"].value == 50


# -- seeds ------------------------------------------------------------------------------------------------


def test_seeds_of_one_arm_are_one_row_of_mean_and_deviation(tmp_path: Path) -> None:
    folders = [
        write_model(tmp_path / f"im_seed{seed}", score) for seed, score in enumerate((0.25, 0.5, 0.75))
    ]
    folders.append(write_model(tmp_path / "it", 0.5))
    rows = table(tmp_path, *folders)["rows"]
    assert list(rows) == ["im", "it"]
    assert rows["im"]["bbh"]["value"] == pytest.approx(50) and rows["im"]["bbh"]["error"] == pytest.approx(25)
    assert (rows["im"]["bbh"]["runs"], rows["it"]["bbh"]["runs"]) == (3, 1)
    assert "50.00 ± 25.00 (3)" in collect(*folders).out
    # A seed without a result is counted as missing, not as nought.
    folders.append(write_model(tmp_path / "im_seed3", 0.5, leave_out=("bbh_cot_fewshot",)))
    assert "(3 of 4)" in collect(*folders).out
    assert list(table(tmp_path, *folders, "--group", "")["rows"]) == [
        "im_seed0",
        "im_seed1",
        "im_seed2",
        "it",
        "im_seed3",
    ]


# -- differences ------------------------------------------------------------------------------------------


def test_differences_are_paired_and_their_intervals_those_of_a_plain_bootstrap(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    base = generator.random(200) < 0.5
    better = base | (generator.random(200) < 0.2)
    arms = []
    for name, right in (("it", base), ("im", better)):
        folder = tmp_path / name
        write_nlp(folder, {"piqa": [float(one) for one in right]})
        arms.append(folder)
    found = table(tmp_path, *arms, "--compare", "it", "im")["comparison"]["differences"]["piqa"]
    gains = 100 * (better.astype(float) - base)
    assert found["difference"] == pytest.approx(gains.mean()) and (found["items"], found["unpaired"]) == (
        200,
        0,
    )
    draws = np.random.default_rng(0).choice(gains, (20000, 200)).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.7) and found["high"] == pytest.approx(high, abs=0.7)
    assert found["low"] > 0 and "clear" in collect(*arms, "--compare", "it", "im").out


def test_items_are_paired_by_what_they_are_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name, values in (("it", [0.0, 1.0, 0.0]), ("im", [1.0, 1.0, 1.0, 0.0])):
        write_part(
            tmp_path / name,
            "alpaca_eval_2",
            {"win_rate": 50.0, "judge": "j"},
            {str(i): value for i, value in enumerate(values)},
        )
    found = table(tmp_path, tmp_path / "it", tmp_path / "im", "--compare", "it", "im")["comparison"][
        "differences"
    ]["alpaca_eval_2"]
    assert found["difference"] == pytest.approx(100 * 2 / 3) and (found["items"], found["unpaired"]) == (3, 1)


def test_arms_of_several_seeds_are_compared_by_their_means(tmp_path: Path) -> None:
    values = {
        "it_seed0": [0.0, 0.0, 1.0, 0.0],
        "it_seed1": [0.0, 1.0, 1.0, 0.0],
        "im_seed0": [1.0, 1.0, 1.0, 0.0],
        "im_seed1": [1.0, 0.0, 1.0, 0.0],
    }
    for name, own in values.items():
        write_nlp(tmp_path / name, {"piqa": own})
    found = table(tmp_path, *(tmp_path / name for name in values), "--compare", "it", "im")["comparison"][
        "differences"
    ]["piqa"]
    assert found["difference"] == pytest.approx(100 * (5 / 8 - 3 / 8))


@pytest.mark.parametrize("metric", ["ter", "chrf"])
def test_translations_are_drawn_anew_as_a_corpus(metric: str) -> None:
    """Against sacrebleu on the drawn sentences, one draw after another."""
    from sacrebleu.metrics import CHRF, TER

    words = [
        "the",
        "old",
        "house",
        "stands",
        "on",
        "a",
        "hill",
        "above",
        "the",
        "river",
        "and",
        "waits",
        "for",
        "rain",
    ]
    generator = np.random.default_rng(1)
    pairs = {}
    for arm in (0, 1):
        for i in range(30):
            theirs = " ".join(words[: 4 + i % 8])
            ours = (
                " ".join(word for word in theirs.split() if generator.random() < (0.9 if arm else 0.7))
                or "the"
            )
            pairs[arm, str(i)] = (theirs, ours)
    items = [
        {
            "translation": {
                "wmt14-en-fr": TaskItems(
                    pairs={i: pair for (own, i), pair in pairs.items() if own == arm}, corpus=metric
                )
            }
        }
        for arm in (0, 1)
    ]
    found = compare({"it": items[0]}, {"im": items[1]})["translation"]
    measure = TER() if metric == "ter" else CHRF()

    def score(arm: int, chosen: list[str]) -> float:
        own = [pairs[arm, i] for i in chosen]
        return measure.corpus_score([ours for _, ours in own], [[theirs for theirs, _ in own]]).score

    every = [str(i) for i in range(30)]
    assert found["difference"] == pytest.approx(score(1, every) - score(0, every), abs=1e-9)
    draws = [[str(i) for i in np.random.default_rng(seed).integers(0, 30, 30)] for seed in range(200)]
    plain = np.array([score(1, draw) - score(0, draw) for draw in draws])
    spread = plain.std()
    assert found["low"] == pytest.approx(np.quantile(plain, 0.025), abs=spread / 2)
    assert found["high"] == pytest.approx(np.quantile(plain, 0.975), abs=spread / 2)


# -- beside the paper -------------------------------------------------------------------------------------


def test_a_run_beside_the_paper_says_what_can_be_compared(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    outcome = collect(folder, "--paper", "lima_data/IM")
    lines = [line for line in outcome.out.splitlines() if "  paper " in line]
    assert len(lines) == 10 and all("comparable in what is recorded" in line for line in lines)
    assert (
        "Understanding" in lines[0] and "64.49" in lines[0] and "mmlu: lm-eval 0.4.13, 5 examples" in lines[0]
    )
    assert "MT-Bench" in lines[7] and "judge gpt-4" in lines[7]


@pytest.mark.parametrize(
    ("change", "column", "why"),
    [
        (
            lambda folder: write_nlp(folder, {"piqa": [1.0]}, name="2026-02", shots=0),
            "understanding",
            "piqa: 0 examples, not 10",
        ),
        (
            lambda folder: write_nlp(folder, {"piqa": [1.0]}, name="2026-02", shots="unrecorded"),
            "understanding",
            "piqa: how many examples is not recorded (10 in the paper)",
        ),
        (
            lambda folder: write_nlp(folder, {"piqa": [1.0]}, name="2026-02", dataset="json"),
            "understanding",
            "local files",
        ),
        (
            lambda folder: write_nlp(folder, {"coqa": [1.0]}, name="2026-02", chat_template="x"),
            "commonsense",
            "coqa: asked in the chat format",
        ),
        (lambda folder: humaneval(folder, 0.1, 0.5, n=1), "math", "n 1, not 20"),
        (
            lambda folder: write_part(folder, "mt_bench", {"average": 5, "judge": "llama"}, {}),
            "mt_bench",
            "judged by llama, not gpt-4",
        ),
        (
            lambda folder: write_part(
                folder,
                "alpaca_eval_2",
                {"win_rate": 5, "judge": "gpt-4-1106-preview", "instructions": 10},
                {},
            ),
            "alpaca_eval_2",
            "instructions 10, not 805",
        ),
    ],
)
def test_what_differs_from_the_papers_way_is_not_comparable(
    tmp_path: Path, change: Any, column: str, why: str
) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    change(folder)
    found = table(tmp_path, folder, "--paper", "lima_data/IM")["paper"]["runs"]["im"]
    assert any(why in reason for reason in found[column]["not_comparable"]), found[column]
    outcome = collect(folder, "--paper", "lima_data/IM")
    assert why.split(": ")[-1] in outcome.out and "not comparable" in outcome.out
    if column in CATEGORIES:
        assert found["mean"]["not_comparable"] == [column]


# -- files and mistakes -----------------------------------------------------------------------------------


def test_the_table_comes_as_files_and_a_picture(tmp_path: Path) -> None:
    folders = [write_model(tmp_path / name, score) for name, score in (("it", 0.5), ("im", 0.75))]
    outcome = collect(
        *folders, "--markdown", tmp_path / "t.md", "--csv", tmp_path / "t.csv", "--figure", tmp_path / "t.png"
    )
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert (
        [row["model"] for row in rows] == ["it", "im"]
        and float(rows[1]["bbh"]) == 75.0
        and rows[1]["bbh_runs"] == "1"
    )
    assert (tmp_path / "t.md").read_text().splitlines()[0].count("|") == 12 and "| im |" in (
        tmp_path / "t.md"
    ).read_text()
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_are_listed_where_asked_for(tmp_path: Path) -> None:
    outcome = collect(write_model(tmp_path / "im", 0.5), "--per_task")
    lines = outcome.out.splitlines()
    assert ["wmt16-ro-en", "7.14"] in [line.split() for line in lines] and ["arc_easy", "50.00"] in [
        line.split() for line in lines
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name result folders"),
        (("/nowhere",), "there is no folder /nowhere"),
        (("{im}", "--compare", "im"), "takes two names"),
        (("{im}", "--compare", "im", "other"), "--compare other: there is im"),
        (("{im}", "--paper", "lima"), "give DATA/METHOD"),
        (("{im}", "--paper", "lima/IM"), "lima_data"),
        (("{im}", "--group", "("), "not a regular expression"),
        (("{im}", "{im}"), "have one name"),
        (("{im}", "--figure", "t.nothing"), "--figure t.nothing"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    folder = write_model(tmp_path / "im", 0.5)
    outcome = collect(*(argument.format(im=folder) for argument in arguments))
    assert outcome.code == 2 and said in outcome.err and "Traceback" not in outcome.err
