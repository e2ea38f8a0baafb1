"""MT-Bench reads and asks by FastChat's rules, held against FastChat and published judgments."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from mt_bench_samples import run_module

from eval.mt_bench import answers as answers_module
from eval.mt_bench import judgments, questions, show_results
from eval.mt_bench.judging import single_matches
from eval.mt_bench.questions import load_benchmark


def test_rules_are_those_of_fastchat() -> None:
    spec = find_spec("fastchat")
    assert spec and spec.submodule_search_locations
    source = (Path(next(iter(spec.submodule_search_locations))) / "llm_judge" / "common.py").read_text()
    for ours, name in (
        (judgments._ONE[0], "one_score_pattern"),
        (judgments._ONE[1], "one_score_pattern_backup"),
        (judgments._TWO[0], "two_score_pattern"),
        (judgments._TWO[1], "two_score_pattern_backup"),
    ):
        theirs = re.search(rf'^{name} = re\.compile\("(.*)"\)$', source, re.MULTILINE)
        assert theirs and theirs[1] == ours.pattern
    temperatures = eval(re.search(r"^temperature_config = (\{.*?\n\})", source, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
    assert {
        name: value for name, value in temperatures.items() if name != "arena-hard-200"
    } == questions.TEMPERATURES
    with_reference = eval(re.search(r"^NEED_REF_CATS = (\[.*\])", source, re.MULTILINE)[1])  # type: ignore[index]
    assert [name for name in with_reference if name != "arena-hard-200"] == sorted(
        questions.WITH_REFERENCE, key=with_reference.index
    )
    assert re.search(r"^TIE_DELTA = (.*)$", source, re.MULTILINE)[1] == str(judgments._TIE)  # type: ignore[index]


@pytest.mark.parametrize(
    ("judgment", "rating"),
    [
        ("Good. Rating: [[7]]", 7),
        ("[[8.5]]", 8.5),
        ("[[10]] or [[2]]", 2),
        ("Rating: [6]", 6),
        ("[1] source. Rating: [[9]]", 9),
        ("no rating", -1),
        ("[[seven]]", -1),
        ("", -1),
        ("Rating: [[5/10]]", -1),
        (f"[[{'9' * 5000}]]", -1),
    ],
)
def test_ratings_are_read_by_fastchats_marks_and_the_last_counts(judgment: str, rating: float) -> None:
    assert judgments.read_rating(judgment) == rating


@pytest.mark.parametrize(
    ("judgment", "output", "winner"),
    [
        ("[[A]]", "[[A]]", "A"),
        ("so [[B]].", "[[A]]", "B"),
        ("[[C]]", "[[A]]", "tie"),
        ("By length [[B]], by content [[A]]", "[[A]]", "A"),
        ('"[[A]]" if A is better, "[[B]]" if B is. Mine: [[C]]', "[[A]]", "tie"),
        ("[[8,6]], no: [[6,8]]", "[[rating_a,rating_b]]", "B"),
        ("A is better", "[[A]]", "error"),
        ("[[8,6]]", "[[rating_a,rating_b]]", "A"),
        ("[[6, 6.05]]", "[[rating_a,rating_b]]", "tie"),
        ("[3,9]", "[[rating_a,rating_b]]", "B"),
        ("none", "[[rating_a,rating_b]]", "error"),
    ],
)
def test_winners_are_read_by_fastchats_marks_and_the_last_counts(
    judgment: str, output: str, winner: str
) -> None:
    assert judgments.read_winner(judgment, output) == winner


def test_every_published_score_is_read_again(shared_data: Path) -> None:
    rows = judgments.read_judgments(
        shared_data / "eval" / "mt_bench" / "don-tpanic" / "model_judgment" / "gpt-4_single.jsonl"
    )
    assert (
        len(rows) == 800
        and sum(judgments.read_rating(row["judgment"]) == row["score"] for row in rows) == 800
    )
    assert judgments.disagreeing(rows) == []


def test_the_prompts_of_published_judgments_are_made_again(shared_data: Path) -> None:
    """The very words a judge saw, from the answers, for every judgment whose answers are published."""
    folder = shared_data / "eval" / "mt_bench"
    benchmark = load_benchmark(folder)
    rows = judgments.read_judgments(folder / "don-tpanic" / "model_judgment" / "gpt-4_single.jsonl")
    compared = 0
    for model in ("llama2_7b", "llama2_chat_7b", "finetune_llama2_chat_7b"):
        own = {(row["question_id"], row["turn"]): row for row in rows if row["model"] == model}
        for match in single_matches(
            benchmark,
            answers_module.read_answers(
                folder / "don-tpanic" / "model_answer" / f"{model}.jsonl", benchmark.questions
            ),
        ):
            row = own[match.question.id, match.turn]
            assert (match.user_prompt, match.prompt.name) == (row["user_prompt"], row["judge"][1])
            compared += 1
    assert compared == 480


def test_published_rates_are_those_of_fastchats_own_computation(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pandas = pytest.importorskip("pandas")
    path = shared_data / "eval" / "mt_bench" / "don-tpanic" / "model_judgment" / "gpt-4_single.jsonl"
    assert run_module(monkeypatch, show_results, "--judgments", path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    table = pandas.read_json(path, lines=True)
    table = table[table["score"] != -1]
    assert len(found) == 5
    for model, own in found.items():
        mine = table[table["model"] == model]
        assert own["turn_1"] == pytest.approx(mine[mine["turn"] == 1]["score"].mean(), abs=1e-12)
        assert own["turn_2"] == pytest.approx(mine[mine["turn"] == 2]["score"].mean(), abs=1e-12)
        assert own["average"] == pytest.approx(mine["score"].mean(), abs=1e-12)
        assert (own["n"], own["unparsed"], own["duplicates"]) == (160, 0, 0)
