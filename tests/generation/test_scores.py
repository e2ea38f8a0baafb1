import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script_loader import run_script

from instruction_modelling.errors import UserError
from instruction_modelling.generation.responses import Response
from instruction_modelling.generation.scores import exact_match, normalise, run_metric, token_f1


def response(
    row: int, text: str, reference: str | None, tokens: int | None = None, finished: bool | None = None
) -> Response:
    return Response(row, f"r{row}", f"prompt {row}", "", text, reference, tokens, finished)


# -- normalisation, exact match, F1 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Quick, brown\nFox!", "quick brown fox"),
        ("a cat and an apple, the end", "cat and apple end"),
        ("**Paris**", "paris"),
        ("“Well-known” places…", "wellknown places"),
        ("theatre another", "theatre another"),
        ("1,000 m", "1000 m"),
        ("12,345,678", "12345678"),
        ("1,2,3", "1 2 3"),
        ("3.5 kg.", "3.5 kg"),
        ("-5 °C", "-5 °c"),
        ("− 5", "5"),
        ("−5", "-5"),
        ("1914–1918", "1914-1918"),
        ("1/2 at 10:30", "1/2 at 10:30"),
        ("5%", "5 %"),
        ("$5.20 or €5", "$ 5.20 or € 5"),
        ("is...5", "is5"),
        (".5", ".5"),
        ("Cafe\u0301", "café"),
        ("", ""),
        ("The.", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("response_text", "reference", "same"),
    [
        ("The Seine.", "seine", True),
        ("2 hours 45 minutes", "2 Hours, 45 minutes.", True),
        ("12", "12 km", False),
        ("3.5", "35", False),
        ("5", "-5", False),
        ("5%", "5", False),
        ("1/2", "12", False),
        ("", "the", True),
        ("", "Paris", False),
    ],
)
def test_exact_match(response_text: str, reference: str, same: bool) -> None:
    assert exact_match(response_text, reference) is same


@pytest.mark.parametrize(
    ("response_text", "reference", "expected"),
    [
        # Two words shared, of 4 and of 2: 2 * 2 / (4 + 2).
        ("it was Ada Lovelace", "Ada Lovelace", 2 * 2 / 6),
        ("12", "12 km", 2 * 1 / 3),
        ("the cat sat", "the cat sat", 1.0),
        ("b b c", "b c c", 2 * 2 / 6),
        ("red", "blue", 0.0),
        ("", "", 1.0),
        ("the", "", 1.0),
        ("", "blue", 0.0),
    ],
)
def test_token_f1(response_text: str, reference: str, expected: float) -> None:
    assert token_f1(response_text, reference) == pytest.approx(expected, abs=1e-12)


WORDS = st.lists(st.sampled_from(["x", "y", "Z", "the", "7", "-7", "7%", "3.5", "é."]), max_size=8).map(
    " ".join
)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_1_only_for_the_same_words(first: str, second: str) -> None:
    value = token_f1(first, second)
    assert value == token_f1(second, first)
    assert 0 <= value <= 1
    assert (value == 1) == (sorted(normalise(first).split()) == sorted(normalise(second).split()))


@given(st.text(), st.text())
def test_any_text_can_be_scored(first: str, second: str) -> None:
    assert exact_match(first, first)
    assert token_f1(first, first) == 1
    assert 0 <= token_f1(first, second) <= 1


# -- the script -------------------------------------------------------------------------------------------


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROWS = [
    {
        "row": 0,
        "id": "a",
        "prompt": "p0",
        "response": "The Seine.",
        "reference": "seine",
        "tokens": 4,
        "finished": True,
    },
    {
        "row": 1,
        "id": "b",
        "prompt": "p1",
        "response": "it is 12",
        "reference": "12 km",
        "tokens": 8,
        "finished": False,
    },
    {
        "row": 2,
        "id": "c",
        "prompt": "p2",
        "response": "hello",
        "reference": None,
        "tokens": 3,
        "finished": True,
    },
]


def test_scores_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "responses.jsonl", ROWS)
    assert run_script(monkeypatch, "score_responses", "--responses", path) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["rows"] == 3
    assert scores["rows_with_reference"] == 2
    assert scores["exact_match"] == 0.5
    # "it is 12" and "12 km" share one word of 3 + 2.
    assert scores["token_f1"] == pytest.approx((1 + 0.4) / 2)
    assert scores["finished"] == pytest.approx(2 / 3)
    assert scores["mean_tokens"] == 5
    assert scores["mean_words"] == pytest.approx((2 + 3 + 1) / 3)
    assert scores["reference_mean_words"] == 1.5
    assert scores["metrics"] == {}
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert rows[1] == {
        "row": 1,
        "id": "b",
        "exact_match": 0,
        "token_f1": 0.4,
        "finished": False,
        "tokens": 8,
        "words": 3,
        "reference_words": 2,
    }
    assert rows[2]["exact_match"] is None and rows[2]["token_f1"] is None


def test_a_file_without_tokens_or_references_is_scored_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "r.jsonl", [{"response": "two words"}])
    assert (
        run_script(monkeypatch, "score_responses", "--responses", path, "--output_dir", tmp_path / "out") == 0
    )
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["mean_words"] == 2
    assert [scores[key] for key in ("exact_match", "token_f1", "finished", "mean_tokens")] == [None] * 4


METRIC = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    assert list(row) == ["id", "prompt", "response", "reference"], row
    print({body})
"""


def metric(tmp_path: Path, body: str) -> str:
    path = tmp_path / "my metric.py"
    path.write_text(METRIC.replace("{body}", body), encoding="utf-8")
    return f"'{sys.executable}' '{path}'"


def test_metric_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "responses.jsonl", ROWS)
    command = metric(
        tmp_path,
        "json.dumps({'score': len(row['response'])}) if row['id'] == 'a' else len(row['prompt']) / 4",
    )
    code = run_script(
        monkeypatch,
        "score_responses",
        "--responses",
        path,
        "--metric_command",
        command,
        "--metric_name",
        "len",
    )
    assert code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["metrics"] == {
        "len": pytest.approx((10 + 0.5 + 0.5) / 3)
    }
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [row["len"] for row in rows] == [10.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("'nan' if row['id'] == 'b' else 1", "line 2 of its output is 'nan'"),
        ("'inf'", "line 1 of its output is 'inf'"),
        ("'true'", "line 1 of its output is 'true'"),
        ("'good' if row['id'] == 'c' else 1", "line 3 of its output is 'good'"),
        ("'' if row['id'] == 'b' else 1", "line 2 of its output is ''"),
        ("json.dumps({'value': 1})", "line 1 of its output is '{\"value\": 1}'"),
        ("json.dumps({'score': '1'})", "line 1 of its output"),
        ("'1\\n1'", "printed 6 lines for 3 rows"),
        ("sys.exit(3)", "exited with 3"),
    ],
)
def test_a_metric_that_does_not_give_a_number_a_row_is_named(tmp_path: Path, body: str, message: str) -> None:
    rows = [Response(number, "abc"[number], "", "", "text", None) for number in range(3)]
    with pytest.raises(UserError) as error:
        run_metric(metric(tmp_path, body), rows)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program-anywhere", "cannot be run"),
        ("echo 'open", "cannot be split"),
        ("", "is empty"),
        ("true", "printed 0 lines for 1 rows"),
        # No shell: what a shell would redirect is an argument.
        ("echo 1 > /dev/null", "line 1 of its output is '1 > /dev/null'"),
    ],
)
def test_a_metric_that_cannot_run(command: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        run_metric(command, [response(0, "x", "y")])
    assert message in str(error.value)


def test_a_metric_name_that_hides_a_score_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "responses.jsonl", ROWS)
    assert run_script(monkeypatch, "score_responses", "--responses", path, "--metric_name", "token_f1") == 2
    assert "is the name of a score already" in capsys.readouterr().err
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.parametrize(
    ("one", "other", "f1"),
    [
        ("今天天气很好。", "今 天 天 气 很 好", 1.0),
        # Two of three characters on each side.
        ("新德里", "新德市", 2 / 3),
        ("ประเทศไทยคืออะไร", "ประเทศไทย คือ อะไร", 1.0),
        ("राजधानी नई दिल्ली है", "नई दिल्ली", 2 * 2 / (4 + 2)),
        # Words that differ in a vowel sign share nothing.
        ("काला", "कला", 0.0),
        ("كِتَابٌ جديد", "كتاب جديد", 1.0),
        ("한국의 수도", "한국의 수도", 1.0),
        ("１，０００円", "1000 円", 1.0),
        ("Việt", "Vie\u0323\u0302t", 1.0),
        ("5²", "52", 0.0),
    ],
)
def test_words_of_every_script_are_compared(one: str, other: str, f1: float) -> None:
    assert token_f1(one, other) == pytest.approx(f1) and token_f1(other, one) == pytest.approx(f1)
    assert exact_match(one, other) == (f1 == 1.0)


def test_help_says_how_texts_are_normalised(capsys: pytest.CaptureFixture[str]) -> None:
    from script_loader import load_script

    from instruction_modelling.generation import scores

    assert "3.5 is not 35" in " ".join((load_script("score_responses").__doc__ or "").split())
    assert "1/2 is not 12" in " ".join((scores.__doc__ or "").split())
