"""AlpacaEval's win rates of published and of made-up annotations, length-controlled ones among them."""

import csv
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from alpaca_annotations import GPT4, TURBO, on_leaderboard, published, scored, written

from eval.alpaca_farm import rates
from eval.alpaca_farm.benchmarks import package

PUBLISHED = [
    ("llama-2-7b-chat-hf", GPT4, "data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv", 71.366, 805, 0),
    ("text_davinci_001", GPT4, "data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv", 15.174, 804, 1),
    ("vicuna-7b", TURBO, "data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv", 4.163, 805, 0),
    (
        "text_davinci_001",
        TURBO,
        "data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv",
        2.764,
        803,
        0,
    ),
]


@pytest.mark.parametrize(("model", "annotator", "board", "rate", "n_total", "unparsed"), PUBLISHED)
def test_published_annotations_give_the_published_rate_and_standard_error(  # noqa: PLR0913 (fixtures and a table of cases)
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: str,
    annotator: str,
    board: str,
    rate: float,
    n_total: int,
    unparsed: int,
) -> None:
    code, out, _ = scored(
        monkeypatch, capsys, "--annotations", published(shared_data, model, annotator), "--json"
    )
    answer = json.loads(out)
    row = on_leaderboard(shared_data, board, model)
    assert code == 0
    assert set(answer) == {"win_rate", "standard_error", "n_total", "unparsed"}
    assert round(answer["win_rate"], 3) == rate
    assert answer["win_rate"] == pytest.approx(float(row["win_rate"]), abs=1e-9)
    assert answer["standard_error"] == pytest.approx(float(row["standard_error"]), abs=1e-9)
    assert (answer["n_total"], answer["unparsed"]) == (n_total, unparsed) == (int(row["n_total"]), unparsed)


def test_the_text_form_names_the_judgment_without_a_verdict(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = scored(monkeypatch, capsys, "--annotations", published(shared_data, "text_davinci_001", GPT4))
    assert "win rate 15.174 % ± 1.235 (112 won, 672 lost, 20 drawn, 804 in all)" in out
    assert "unparsed: 1 of 805 (annotations 793, counted from 0)" in out


def test_the_rate_is_the_mean_and_its_error_that_of_the_mean_over_verdicts_alone() -> None:
    draw = random.Random(0)
    for _ in range(30):
        valid = [draw.choice([1, 2, 1.5, 0, draw.uniform(1, 2)]) for _ in range(draw.randrange(2, 40))]
        broken: list[Any] = [
            draw.choice([None, -1, 3, "2", True, float("nan"), {}]) for _ in range(draw.randrange(5))
        ]
        preferences = valid + broken
        draw.shuffle(preferences)
        rate = rates.win_rate([{"preference": preference} for preference in preferences])
        scores = [100 * ((1.5 if value == 0 else value) - 1) for value in valid]
        assert rate.win_rate == pytest.approx(statistics.fmean(scores))
        assert rate.standard_error == pytest.approx(statistics.stdev(scores) / math.sqrt(len(scores)))
        assert (rate.n_total, rate.unparsed) == (len(valid), len(broken))
        assert rate.n_wins + rate.n_wins_base + rate.n_draws == len(valid)


def test_too_few_verdicts_are_an_error_after_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "a.json", [2, 1, 2, None])
    code, out, err = scored(monkeypatch, capsys, "--annotations", file, "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "win_rate": pytest.approx(200 / 3),
            "standard_error": pytest.approx(100 / 3),
            "n_total": 3,
            "unparsed": 1,
        },
    )
    assert "unparsed: 1 of 4 (annotations 3, counted from 0)" in err
    code, again, err = scored(monkeypatch, capsys, "--annotations", file, "--json", "--min_parsed_share", 0.8)
    assert code == 2 and "only 3 of 4 judgments hold a verdict" in err and again == out
    code, out, _ = scored(
        monkeypatch, capsys, "--annotations", written(tmp_path / "b.json", [None, None]), "--json"
    )
    assert (code, json.loads(out)) == (
        2,
        {"win_rate": None, "standard_error": None, "n_total": 0, "unparsed": 2},
    )


def test_any_form_of_an_annotation_file_gives_the_rate_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list or lines, with a mark, reversed; verdicts of both versions, and missing in every way a file can
    miss them."""
    preferences = [2, 1, 1.5, 0, 2.0, 1.25, 1.0000001, 1.9, 2, 1, None, float("nan"), -1, 3, 0.5, 2.5]
    records: list[dict[str, Any]] = [
        {"instruction": f"do {n} \u2028", "preference": value} for n, value in enumerate(preferences)
    ]
    records.append({"instruction": "not judged"})
    package_rates = package().metrics.get_winrate(
        [{"preference": math.nan if value is None else value} for value in preferences]
    )
    forms = {
        "list": json.dumps(records),
        "lines": "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        "reversed": json.dumps(records[::-1], indent=2),
        "mark": "\ufeff" + json.dumps(records),
    }
    for form, content in forms.items():
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        code, out, err = scored(monkeypatch, capsys, "--annotations", tmp_path / "a.json", "--json")
        assert code == 0 and json.loads(out) == {
            "win_rate": pytest.approx(package_rates["win_rate"]),
            "standard_error": pytest.approx(package_rates["standard_error"]),
            "n_total": package_rates["n_total"],
            "unparsed": 7,
        }, form
        assert package_rates["n_total"] == 10 and "unparsed: 7 of 17" in err


def test_what_one_rate_would_hide_is_said_and_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models, of which one is judged by two annotators and once twice."""

    def record(instruction: str, model: str, annotator: str, preference: float) -> dict[str, Any]:
        return {
            "instruction": instruction,
            "generator_1": "ref",
            "generator_2": model,
            "annotator": annotator,
            "preference": preference,
        }

    records = [
        record("a", "x", "gpt", 2),
        record("b", "x", "gpt", 2),
        record("b", "x", "gpt", 2),
        record("a", "x", "llama", 1),
        record("a", "y", "gpt", 1),
        record("b", "y", "gpt", 1),
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    code, out, err = scored(monkeypatch, capsys, "--annotations", tmp_path / "a.json", "--json")
    assert (code, json.loads(out)["win_rate"], json.loads(out)["n_total"]) == (0, 50, 6)
    assert (
        "annotations of 2 models enter one rate (x 4, y 2)" in err
        and "of 2 annotators enter one rate (gpt 5, llama 1)" in err
    )
    assert "duplicates enter the rate: 1 annotations judge again" in err
    code, out, err = scored(
        monkeypatch,
        capsys,
        "--annotations",
        tmp_path / "a.json",
        "--json",
        "--generator",
        "x",
        "--annotator",
        "gpt",
    )
    assert (code, json.loads(out)["win_rate"], json.loads(out)["n_total"]) == (
        0,
        100,
        3,
    ) and "models" not in err
    code, out, err = scored(monkeypatch, capsys, "--annotations", tmp_path / "a.json", "--generator", "z")
    assert (code, out) == (2, "") and "holds nothing for --generator z; it has x, y" in err


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[]", "holds no annotations"),
        ("", "holds no annotations"),
        ("{", "a.json:1: its objects go over several lines"),
        ('[{"output": ""}]', "none of its 1 entries has"),
        ('[{"preference": 1}, 3]', "entry 1: is 3; it must be an object"),
        ("[" * 100_000, "nested too deeply"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_file_that_holds_no_annotations_is_refused(
    content: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.json").write_text(content, errors="surrogateescape")
    code, out, err = scored(monkeypatch, capsys, "--annotations", tmp_path / "a.json", "--json")
    assert (code, out) == (2, "") and what in err and "Traceback" not in err


def gamed_file(path: Path, count: int) -> Path:
    """A file of the form of the package's df_gamed.csv: two gamed models, of which the longer wins."""
    draw = random.Random(1)
    with path.open("w", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(
            ["model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        )
        difficulty = [draw.gauss(0, 1) for _ in range(count)]
        for model, delta in (("concise", 1.0), ("verbose", -1.0)):
            for place in range(count):
                table.writerow([model, place, 0.35 if delta > 0 else 0.65, delta, difficulty[place], False])
    return path


def judged_by_length(count: int, generator: str = "mine") -> list[dict[str, Any]]:
    """Annotations of a judge that takes the longer answer, of a model that is longer four times of five."""
    draw = random.Random(2)
    records = []
    for _ in range(count):
        longer = draw.random() < 0.8
        lengths = (100, 100 + draw.randrange(50, 400)) if longer else (100 + draw.randrange(50, 400), 100)
        records.append(
            {
                "preference": 1.9 if longer else 1.1,
                "output_1": "x" * lengths[0],
                "output_2": "y" * lengths[1],
                "generator_1": "other",
                "generator_2": generator,
            }
        )
    return records


def test_a_model_that_wins_by_length_alone_is_brought_back_to_a_half(tmp_path: Path) -> None:
    gamed = gamed_file(tmp_path / "df_gamed.csv", 200)
    annotations = judged_by_length(200)
    raw = rates.win_rate(annotations).win_rate
    fitted = rates.length_controlled_rate(annotations, gamed)
    assert isinstance(fitted, rates.LengthControlledRate) and raw is not None
    assert raw > 70
    assert 45 < fitted.win_rate < 60 and fitted.win_rate < raw - 12


def test_the_length_controlled_rate_of_a_file_does_not_depend_on_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each instruction's difficulty is found by the reference's order, whatever the file's."""
    gamed = gamed_file(tmp_path / "df_gamed.csv", 60)
    records = [{**record, "instruction": f"do {n}"} for n, record in enumerate(judged_by_length(60))]
    reference = tmp_path / "reference.json"
    reference.write_text(
        json.dumps(
            [{"instruction": record["instruction"], "output": record["output_1"]} for record in records]
        )
    )
    found = []
    for order in (records, random.Random(5).sample(records, 60)):
        (tmp_path / "a.json").write_text(json.dumps(order))
        code, out, err = scored(
            monkeypatch,
            capsys,
            "--annotations",
            tmp_path / "a.json",
            "--json",
            "--length_controlled_file",
            gamed,
            "--reference_path",
            reference,
        )
        assert code == 0, err
        found.append(json.loads(out)["length_controlled_win_rate"])
    assert found[0] == found[1] == rates.length_controlled_rate(records, gamed).win_rate  # type: ignore[union-attr]
    (tmp_path / "a.json").write_text(json.dumps([*records[:-1], records[0]]))
    code, _, err = scored(
        monkeypatch,
        capsys,
        "--annotations",
        tmp_path / "a.json",
        "--length_controlled_file",
        gamed,
        "--reference_path",
        reference,
    )
    assert code == 2 and "some instructions are annotated twice" in err


def test_a_model_against_itself_is_at_a_half(tmp_path: Path) -> None:
    fitted = rates.length_controlled_rate(
        judged_by_length(50, generator="other"), gamed_file(tmp_path / "df_gamed.csv", 50)
    )
    assert fitted == rates.LengthControlledRate(50.0, 0.0)


def test_without_what_it_needs_there_is_no_length_controlled_rate_and_a_reason(tmp_path: Path) -> None:
    annotations = judged_by_length(50)
    gamed = gamed_file(tmp_path / "df_gamed.csv", 60)
    assert (
        rates.length_controlled_rate(annotations, tmp_path / "none.csv")
        == f"{tmp_path / 'none.csv'} is not there"
    )
    assert (
        rates.length_controlled_rate(annotations, gamed)
        == f"{gamed} is of 60 instructions and the annotations of 50"
    )
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "is not the package's df_gamed.csv" in str(
        rates.length_controlled_rate(annotations, tmp_path / "other.csv")
    )


def test_the_package_is_left_as_it_was(tmp_path: Path) -> None:
    import logging

    from alpaca_eval.metrics import glm_winrate

    level, fetch = logging.getLogger().level, glm_winrate.hf_hub_download
    rates.length_controlled_rate(judged_by_length(50), gamed_file(tmp_path / "df_gamed.csv", 50))
    package()
    assert glm_winrate.hf_hub_download is fetch and logging.getLogger().level == level
    assert not (Path(glm_winrate.__file__).parent / "weights").exists()
