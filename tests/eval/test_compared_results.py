"""src/collect_results.py --compare: what a difference is of, where it has an interval, when it is clear."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_fixtures import ITEMS, humaneval, tasks_of, write_model, write_nlp, write_part
from training_runs import run

from eval.table.compare import compare
from eval.table.items import TaskItems
from eval.table.suite import BENCHMARKS

MMLU = tasks_of(BENCHMARKS[0])


def compared(tmp_path: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    """The comparison of it and im as --json has it, and what is printed."""
    folders = (tmp_path / "it", tmp_path / "im")
    outcome = run(
        "collect_results", *folders, "--compare", "it", "im", "--json", tmp_path / "t.json", *arguments
    )
    assert outcome.code == 0, outcome.err
    return json.loads((tmp_path / "t.json").read_text())["comparison"], outcome.out


def judged(folder: Path, score: float, items: int = 40, **result: Any) -> None:
    """AlpacaEval 1 of a model that has this score on every item."""
    write_part(
        folder,
        "alpaca_eval_1",
        {"win_rate": 100 * score, "judge": "gpt-4", **result},
        {str(item): score for item in range(items)},
    )


# -- what a difference is of ------------------------------------------------------------------------------


def test_tasks_that_one_run_lacks_are_named_and_counted_and_in_no_category(tmp_path: Path) -> None:
    write_model(tmp_path / "it", 0.5)
    write_model(tmp_path / "im", 0.5, leave_out=("mmlu",))
    write_nlp(tmp_path / "im", {MMLU[0]: [0.0] * ITEMS}, name="2026-01-02")
    found, said = compared(tmp_path)
    mmlu = found["differences"]["mmlu"]
    assert (mmlu["difference"], mmlu["items"], mmlu["unpaired"]) == (-50, ITEMS, 56 * ITEMS)
    assert mmlu["lacking"] == {"im": sorted(MMLU[1:])} and not mmlu["clear"]
    assert not {"understanding", "mean"} & set(found["differences"])
    assert (
        "(im has no results for these tasks of mmlu: mmlu_anatomy, mmlu_astronomy, " in said
        and " and 48 more; " in said
    )
    found, _ = compared(tmp_path, "--partial")
    assert found["differences"]["understanding"]["difference"] == -10 and "mean" in found["differences"]
    assert found["differences"]["mean"]["unpaired"] == 56 * ITEMS


def test_tasks_whose_items_alone_are_lost_are_lacking_too(tmp_path: Path) -> None:
    for name in ("it", "im"):
        write_model(tmp_path / name, 0.5)
    next((tmp_path / "im").glob("nlp/*/samples_arc_easy_*")).unlink()
    found, _ = compared(tmp_path)
    arc = found["differences"]["ai2_arc"]
    assert (arc["items"], arc["unpaired"], arc["lacking"]) == (ITEMS, ITEMS, {"im": ["arc_easy"]})
    assert not {"commonsense", "mean"} & set(found["differences"])


def test_a_benchmark_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    write_nlp(tmp_path / "it", {"piqa": [1.0], "winogrande": [1.0], "coqa": [1.0]})
    write_nlp(tmp_path / "im", {"piqa": [1.0], "winogrande": [1.0]})
    samples = next((tmp_path / "im").glob("nlp/*/samples_winogrande_*"))
    samples.write_text(samples.read_text().replace('"doc_hash": "0"', '"doc_hash": "another"'))
    found, said = compared(tmp_path)
    assert list(found["differences"]) == ["piqa"]
    assert found["not_compared"] == {
        "winogrande": "no item is in every run",
        "coqa": "no scores of items in im",
    }
    assert "(not compared: coqa, no scores of items in im)" in said


def test_a_question_with_one_turn_is_no_partner_of_one_with_two(tmp_path: Path) -> None:
    for name, lost in (("it", ""), ("im", "7_2")):
        turns = {f"{item}_{turn}": 5.0 for item in range(40) for turn in (1, 2)}
        # The turn that is lost is the bad one: without it the question would seem to gain.
        turns |= {"7_1": 9.0, "7_2": 1.0}
        turns.pop(lost, None)
        write_part(tmp_path / name, "mt_bench", {"average": 5.0, "judge": "gpt-4"}, turns)
    found = compared(tmp_path)[0]["differences"]["mt_bench"]
    assert (found["difference"], found["items"], found["unpaired"]) == (0, 39, 1)


# -- where it has an interval -----------------------------------------------------------------------------


@pytest.mark.parametrize("items", [2, 29, 30])
def test_fewer_than_thirty_items_have_no_interval_and_are_never_clear(tmp_path: Path, items: int) -> None:
    for name, score in (("it", 0.0), ("im", 1.0)):
        judged(tmp_path / name, score, items)
    found, said = compared(tmp_path)
    difference = found["differences"]["alpaca_eval_1"]
    line = next(line for line in said.splitlines() if "AlpacaEval 1  " in line)
    enough = items == 30
    assert difference["difference"] == 100 and difference["clear"] == enough
    assert [difference["low"], difference["high"]] == ([100, 100] if enough else [None, None])
    assert line.endswith("clear") == enough
    assert (f"no interval ({items} items, at least 30 needed)" in line) != enough


def test_copies_of_an_item_are_one_item(tmp_path: Path) -> None:
    """Forty times one item tells no more than once; the score is still that of all forty."""
    for name, score in (("it", 0.0), ("im", 1.0)):
        write_nlp(tmp_path / name, {"piqa": [score] * 40})
        path = next((tmp_path / name).glob("nlp/*/samples_*"))
        lines = [{**json.loads(line), "doc_hash": "same"} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, said = compared(tmp_path)
    difference = found["differences"]["piqa"]
    assert (difference["difference"], difference["items"], difference["copies"]) == (100, 40, 39)
    assert difference["low"] is None and not difference["clear"]
    assert "no interval (1 different item, at least 30 needed)      40 items, 39 of them copies" in said


@pytest.mark.parametrize("metric", [None, "ter"])
def test_copies_are_drawn_together(metric: str | None) -> None:
    """Items that stand there four times each have the interval of the items once."""
    value = {i: float(i % 3) for i in range(60)}
    texts = {i: (f"the house stands on hill {i}", f"the house is on hill {i + i % 3}") for i in range(60)}

    def arm(copies: int, second: bool) -> dict[str, dict[str, TaskItems]]:
        names = {f"{copy} {i}": i for copy in range(copies) for i in range(60)}
        items = TaskItems(corpus=metric, contents={name: str(i) for name, i in names.items()})
        for name, i in names.items():
            if metric:
                items.pairs[name] = texts[i] if second else (texts[i][0], "the house")
            else:
                items.scores[name] = value[i] if second else 0.0
        return {"benchmark": {"task": items}}

    once, often = (
        compare({"it": arm(copies, False)}, {"im": arm(copies, True)})["benchmark"] for copies in (1, 4)
    )
    assert (once["copies"], often["copies"], often["items"]) == (0, 180, 240)
    assert often["difference"] == pytest.approx(once["difference"])
    width = once["high"] - once["low"]
    assert often["high"] - often["low"] == pytest.approx(width, rel=0.05) and width > 0


def test_many_tasks_of_two_items_spread_as_their_items_do() -> None:
    """Resamples of two items have half the variance of two items; the interval has all of it."""
    tasks = {f"task_{task}": TaskItems({"a": 0.0, "b": 100.0}) for task in range(50)}
    none = {f"task_{task}": TaskItems({"a": 0.0, "b": 0.0}) for task in range(50)}
    found = compare({"it": {"benchmark": none}}, {"im": {"benchmark": tasks}})["benchmark"]
    # Each item is 0 or 100 with a sample variance of 5,000; the mean is that of 100 of them. Plain resamples
    # would give less than 10 each way.
    half = 1.96 * (5000 / 100) ** 0.5
    assert found["difference"] == 50
    assert (found["low"], found["high"]) == pytest.approx((50 - half, 50 + half), abs=2)


# -- when it is clear -------------------------------------------------------------------------------------


def test_arms_of_different_judges_are_not_clearly_different(tmp_path: Path) -> None:
    judged(tmp_path / "it", 0.0)
    judged(tmp_path / "im", 1.0, judge="llama", judging={"temperature": 1})
    found, said = compared(tmp_path)
    difference = found["differences"]["alpaca_eval_1"]
    assert difference["low"] == 100 and not difference["clear"]
    assert difference["made_differently"] == [
        "alpaca_eval_1: judge: gpt-4 (it), llama (im)",
        "alpaca_eval_1: judge_temperature: not recorded (it), 1 (im)",
    ]
    assert "and so not clear: alpaca_eval_1: judge: gpt-4 (it), llama (im)" in said
    assert next(line for line in said.splitlines() if "AlpacaEval 1  " in line).endswith("made differently")


@pytest.mark.parametrize(
    ("changes", "way"),
    [
        ({"shots": 0}, "num_fewshot: 10 (it), 0 (im)"),
        ({"chat_template": "x"}, "chat_template: False (it), True (im)"),
        ({"system_instruction": "x"}, "system_message: False (it), True (im)"),
        ({"lm_eval_version": "0.4.2"}, "harness: lm-eval 0.4.13 (it), lm-eval 0.4.2 (im)"),
        ({"limit": 40}, "evaluated: all items (it), 40 of 1,000 items (im)"),
        ({"dataset": "json"}, "local_files: False (it), True (im)"),
    ],
)
def test_benchmarks_run_in_different_ways_are_not_clearly_different(
    tmp_path: Path, changes: dict[str, Any], way: str
) -> None:
    write_nlp(tmp_path / "it", {"piqa": [0.0] * 40})
    write_nlp(tmp_path / "im", {"piqa": [1.0] * 40})
    assert compared(tmp_path)[0]["differences"]["piqa"]["clear"]
    write_nlp(tmp_path / "im", {"piqa": [1.0] * 40}, **changes)
    difference = compared(tmp_path)[0]["differences"]["piqa"]
    assert difference["made_differently"] == [f"piqa: {way}"] and not difference["clear"]


def test_humaneval_at_two_temperatures_makes_its_category_unclear_too(tmp_path: Path) -> None:
    for name, score, temperature in (("it", 0.0, 0.1), ("im", 1.0, 0.7)):
        write_nlp(tmp_path / name, {"gsm8k_cot": [score] * 40})
        humaneval(tmp_path / name, temperature, score)
    found = compared(tmp_path)[0]["differences"]
    assert found["gsm8k_cot"]["clear"] and not found["humaneval"]["clear"]
    assert found["math"]["low"] == 100 and not found["math"]["clear"]
    assert found["math"]["made_differently"] == ["humaneval: temperature: 0.1 (it), 0.7 (im)"]
    # Where each run has both, the better one counts: one rule for all.
    humaneval(tmp_path / "it", 0.7, 0.0)
    humaneval(tmp_path / "im", 0.1, 0.0)
    found = compared(tmp_path)[0]["differences"]
    assert found["humaneval"]["clear"] and found["math"]["made_differently"] == []


def test_items_without_the_result_that_they_are_of_are_left_out_and_named(tmp_path: Path) -> None:
    for name in ("it", "im"):
        judged(tmp_path / name, 0.5)
        write_nlp(tmp_path / name, {"piqa": [1.0] * 40})
    (tmp_path / "im" / "alpaca_eval_1" / "results.json").unlink()
    found, said = compared(tmp_path)
    assert "alpaca_eval_1" not in found["differences"]
    assert found["not_compared"] == {"alpaca_eval_1": "no scores of items in im"}
    assert "alpaca_eval_1/items.jsonl: is left out, for there is no results.json beside it" in said


def test_an_item_that_stands_there_twice_is_named(tmp_path: Path) -> None:
    for name in ("it", "im"):
        judged(tmp_path / name, 0.5)
    path = tmp_path / "im" / "alpaca_eval_1" / "items.jsonl"
    path.write_text(path.read_text() + '{"item": "3", "score": 1.0}\n')
    found, said = compared(tmp_path)
    assert found["differences"]["alpaca_eval_1"]["difference"] == pytest.approx(50 / 40)
    assert "items.jsonl: holds the item 3 more than once; the last one counts" in said
