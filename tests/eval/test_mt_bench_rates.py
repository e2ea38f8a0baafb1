"""Rates of files of MT-Bench judgments, whoever made them."""

import json
from pathlib import Path
from typing import Any

import pytest
from mt_bench_samples import row, run_module, write_benchmark, written

from eval.mt_bench import judgments, show_results


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of four questions, two of them with references."""
    return write_benchmark(tmp_path / "data")


def test_unread_judgments_and_duplicates_are_counted_and_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("other", "single-v1")
    rows = [
        row(81, 1, 8),
        row(81, 2, 4),
        row(82, 1, -1),
        row(82, 2, 6),
        row(82, 2, 7),
        row(82, 2, 5, judge=other),
    ]
    path = written(tmp_path / "judgments.jsonl", rows)
    assert run_module(monkeypatch, show_results, "--judgments", path, "--json", tmp_path / "rates.json") == 0
    assert json.loads((tmp_path / "rates.json").read_text()) == {
        "m": {"turn_1": 8.0, "turn_2": 5.5, "average": 6.0, "n": 5, "unparsed": 1, "duplicates": 1}
    }
    said = capsys.readouterr().out
    assert "duplicates enter the means: 1 of m" in said and "no verdict, in no mean: 1 of m (82_1)" in said
    assert "judgments of several judges enter the same means: gpt-4, other" in said
    # A file without any verdict shows none, and says so by its exit code.
    assert (
        run_module(monkeypatch, show_results, "--judgments", written(path, [row(81, 1, -1)]), "--json") == 2
    )
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "m": {"turn_1": None, "turn_2": None, "average": None, "n": 0, "unparsed": 1, "duplicates": 0}
    }
    assert "only 0 of 1 judgments of m have a verdict" in printed.err


def test_any_form_of_a_judgment_file_gives_the_same_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines or a list, in any order, with a byte order mark, with verdicts that are missing in every way a
    file can miss them."""
    missing = [
        row(83, 1, -1),
        row(83, 2, None),
        row(84, 1, float("nan")),
        row(84, 2, "good"),
        row(85, 1, float("inf")),
        row(85, 2, True),
        row(86, 1, 10**400),
    ]
    del missing[1]["score"]
    rows = [
        row(81, 1, 10),
        row(81, 2, 3.5),
        row(82, 1, 1, "long " * 9),
        row(82, 2, 0),
        row(82, 1, 7),
        row(87, 2, 6, further="a\u2028b"),
        *missing,
    ]
    rows += [row(90 + number, 1, 5) for number in range(5)]
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in rows]
    text = "".join(lines)
    forms = {
        "lines": text,
        "a list": json.dumps(rows, indent=1),
        "reversed": "".join(reversed(lines)),
        "with a mark": "\ufeff" + text,
        "blank lines, no end": "\n\r\n" + text.replace("\n", "\r\n\n").rstrip(),
    }
    expected = {
        "m": {
            "turn_1": pytest.approx((10 + 7 + 25) / 7),
            "turn_2": pytest.approx((3.5 + 0 + 6) / 3),
            "average": pytest.approx(5.15),
            "n": 10,
            "unparsed": 7,
            "duplicates": 0,
        },
        "long " * 9: {"turn_1": 1, "turn_2": None, "average": 1, "n": 1, "unparsed": 0, "duplicates": 0},
    }
    for form, content in forms.items():
        path = tmp_path / "judgments.jsonl"
        path.write_text(content, encoding="utf-8")
        assert run_module(monkeypatch, show_results, "--judgments", path, "--json") == 0, form
        said = capsys.readouterr()
        assert json.loads(said.out, parse_constant=lambda name: pytest.fail(name)) == expected, form
        assert (
            "no verdict, in no mean: 7 of m (" in said.err
            and "scores off the scale from 1 to 10 enter the means: m 82_2: 0" in said.err
        )


def test_files_of_several_models_are_shown_side_by_side_with_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        written(
            tmp_path / f"{model}.jsonl",
            [row(81, 1, score, model), row(81, 2, score, model), row(82, 1, 9, model)],
        )
        for model, score in (("low", 2), ("high", 8))
    ]
    assert (
        run_module(
            monkeypatch,
            show_results,
            "--judgments",
            *files,
            "--question_file",
            data / "question.jsonl",
            "--figure",
            tmp_path / "f.png",
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["model", "turn_1"],
        ["high", "8.5000"],
        ["low", "5.5000"],
    ]
    assert [line.split() for line in lines[-3:]] == [
        ["model", "math", "writing"],
        ["high", "9.00", "8.00"],
        ["low", "9.00", "2.00"],
    ]
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    pairs = written(
        tmp_path / "p.jsonl",
        [
            {
                "question_id": 1,
                "turn": 1,
                "model_1": "a",
                "model_2": "b",
                "g1_winner": "tie",
                "g2_winner": "tie",
            }
        ],
    )
    assert run_module(monkeypatch, show_results, "--judgments", files[0], pairs) == 2
    assert "one kind at a time" in capsys.readouterr().err


def test_pairs_are_ties_where_the_two_orders_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pair(question: int, first: Any, second: Any) -> dict[str, Any]:
        return {
            "question_id": question,
            "turn": 1,
            "model_1": "base",
            "model_2": "m",
            "judge": "j",
            "g1_winner": first,
            "g2_winner": second,
        }

    rows = [
        pair(1, "model_2", "model_2"),
        pair(2, "model_1", "model_2"),
        pair(3, "tie", "tie"),
        pair(4, "error", "model_2"),
        pair(5, "model_1", "model_1"),
        pair(5, "model_1", "model_1"),
        pair(6, None, None),
        pair(7, "tie", "model_1"),
    ]
    found = judgments.pair_rates(rows)
    assert found["m"] == {
        "win": 1,
        "loss": 2,
        "tie": 3,
        "n": 6,
        "unparsed": 2,
        "duplicates": 1,
        "win_rate": 1 / 6,
        "win_rate_adjusted": 2.5 / 6,
    }
    assert found["base"] == {
        **found["m"],
        "win": 2,
        "loss": 1,
        "win_rate": 2 / 6,
        "win_rate_adjusted": 3.5 / 6,
    }
    assert run_module(monkeypatch, show_results, "--judgments", written(tmp_path / "pair.jsonl", rows)) == 0
    assert "no verdict, in no mean: 2 of base and m (4_1, 6_1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no judgments"),
        ("{", "judgments.jsonl:1: its objects go over several lines"),
        ('{"turn": 1}', "judgments.jsonl:1: has no question_id"),
        ("[]", "holds no judgments"),
        ("[3]", "entry 0: is 3; it must be an object"),
        ('[{"turn": 1]', "the JSON array is broken"),
        ("[" * 100_000, "nested too deeply"),
        ('{"question_id": [1], "turn": 1}', "question_id is [1]; it must be a number"),
        ('{"question_id": 1, "turn": 3, "model": "m", "score": 1}', "has the turn 3; it must be 1 or 2"),
        ('{"question_id": 1, "turn": 1, "model": null, "score": 1}', "it lacks model"),
        ('{"question_id": 1, "turn": 1, "model": "m"}', "it lacks score"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_no_judgment_is_named(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judgments.jsonl").write_text(text, errors="surrogateescape")
    assert run_module(monkeypatch, show_results, "--judgments", tmp_path / "judgments.jsonl", "--json") == 2
    out = capsys.readouterr()
    assert said in out.err and out.out == ""
