"""MT-Bench: FastChat's rules, published judgments, and runs against judges that misbehave."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, JudgeServer
from tiny import make_tiny_model

from eval.mt_bench import answers, judgments, questions, run_eval, show_results
from eval.mt_bench.judging import single_matches
from eval.mt_bench.questions import Question, load_benchmark
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.engine import Completion, Engine, EngineOptions, Sampling

ROOT = Path(__file__).resolve().parents[2]


def run(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_main(module.main)
    return int(stopped.value.code or 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of four questions, two of them with references."""
    folder = tmp_path / "data"
    (folder / "reference_answer").mkdir(parents=True)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    categories = ["writing", "math", "coding", "stem"]
    write(
        "question.jsonl",
        [
            {"question_id": 81 + n, "category": name, "turns": [f"First {name}?", f"Second {name}?"]}
            for n, name in enumerate(categories)
        ],
    )
    write(
        "reference_answer/gpt-4.jsonl",
        [
            {"question_id": n, "choices": [{"index": 0, "turns": [f"ref {n} one", f"ref {n} two"]}]}
            for n in (82, 83)
        ],
    )
    prompts = []
    for name, template in (
        ("single-v1", "Q {question} A {answer}"),
        ("single-math-v1", "Q {question} R {ref_answer_1} A {answer}"),
        ("single-v1-multi-turn", "{question_1} {answer_1} {question_2} {answer_2}"),
        (
            "single-math-v1-multi-turn",
            "{question_1} {ref_answer_1} {question_2} {ref_answer_2} {answer_1} {answer_2}",
        ),
    ):
        prompts.append(
            {
                "name": name,
                "type": "single",
                "system_prompt": "Be fair.",
                "prompt_template": template,
                "output_format": "[[rating]]",
            }
        )
    for name, template in (
        ("pair-v2", "{question} a={answer_a} b={answer_b}"),
        ("pair-math-v1", "{question} {ref_answer_1} a={answer_a} b={answer_b}"),
        (
            "pair-v2-multi-turn",
            "{question_1} {question_2} a={answer_a_1} {answer_a_2} b={answer_b_1} {answer_b_2}",
        ),
        (
            "pair-math-v1-multi-turn",
            "{question_1} {question_2} {ref_answer_1} {ref_answer_2} a={answer_a_1} {answer_a_2} "
            "b={answer_b_1} {answer_b_2}",
        ),
    ):
        prompts.append(
            {
                "name": name,
                "type": "pairwise",
                "system_prompt": "Be fair.",
                "prompt_template": template,
                "output_format": "[[A]]",
            }
        )
    write("judge_prompts.jsonl", prompts)
    return folder


def write_answers(path: Path, said: str, ids: tuple[int, ...] = (81, 82, 83, 84)) -> Path:
    path.write_text(
        "".join(
            json.dumps(
                {
                    "question_id": n,
                    "answer_id": "x",
                    "model_id": "m",
                    "choices": [{"index": 0, "turns": [f"{said} {n} one", f"{said} {n} two"]}],
                }
            )
            + "\n"
            for n in ids
        )
    )
    return path


# -- FastChat's rules -------------------------------------------------------------------------------------------


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
        ("[[10]] or [[2]]", 10),
        ("Rating: [6]", 6),
        ("[1] source. Rating: [[9]]", 9),
        ("no rating", -1),
        ("[[seven]]", -1),
        ("", -1),
        ("Rating: [[5/10]]", -1),
        (f"[[{'9' * 5000}]]", -1),
    ],
)
def test_ratings_are_read_as_fastchat_reads_them(judgment: str, rating: float) -> None:
    assert judgments.read_rating(judgment) == rating


@pytest.mark.parametrize(
    ("judgment", "output", "winner"),
    [
        ("[[A]]", "[[A]]", "A"),
        ("so [[B]].", "[[A]]", "B"),
        ("[[C]]", "[[A]]", "tie"),
        ("A is better", "[[A]]", "error"),
        ("[[8,6]]", "[[rating_a,rating_b]]", "A"),
        ("[[6, 6.05]]", "[[rating_a,rating_b]]", "tie"),
        ("[3,9]", "[[rating_a,rating_b]]", "B"),
        ("none", "[[rating_a,rating_b]]", "error"),
    ],
)
def test_winners_are_read_as_fastchat_reads_them(judgment: str, output: str, winner: str) -> None:
    assert judgments.read_winner(judgment, output) == winner


# -- published judgments ----------------------------------------------------------------------------------------


def test_every_published_score_is_read_again(shared_data: Path) -> None:
    rows = judgments.read_judgments(
        shared_data / "eval" / "mt_bench" / "don-tpanic" / "model_judgment" / "gpt-4_single.jsonl"
    )
    assert (
        len(rows) == 800
        and sum(judgments.read_rating(row["judgment"]) == row["score"] for row in rows) == 800
    )


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
            answers.read_answers(
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
    assert run(monkeypatch, show_results, "--judgments", path, "--json") == 0
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


def row(
    question: int,
    turn: int,
    score: Any,
    model: str = "m",
    judge: Any = ("gpt-4", "single-v1"),
    **further: Any,
) -> dict[str, Any]:
    """A judgment in FastChat's format."""
    return {
        "question_id": question,
        "model": model,
        "judge": list(judge),
        "judgment": "x",
        "score": score,
        "turn": turn,
        **further,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of judgments, a line each."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


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
    assert run(monkeypatch, show_results, "--judgments", path, "--json", tmp_path / "rates.json") == 0
    assert json.loads((tmp_path / "rates.json").read_text()) == {
        "m": {"turn_1": 8.0, "turn_2": 5.5, "average": 6.0, "n": 5, "unparsed": 1, "duplicates": 1}
    }
    said = capsys.readouterr().out
    assert "duplicates enter the means: 1 of m" in said and "no verdict, in no mean: 1 of m (82_1)" in said
    assert "judgments of several judges enter the same means: gpt-4, other" in said
    # A file without any verdict shows none, and says so by its exit code.
    assert run(monkeypatch, show_results, "--judgments", written(path, [row(81, 1, -1)]), "--json") == 2
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
        assert run(monkeypatch, show_results, "--judgments", path, "--json") == 0, form
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
        run(
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
    assert run(monkeypatch, show_results, "--judgments", files[0], pairs) == 2
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
    assert run(monkeypatch, show_results, "--judgments", written(tmp_path / "pair.jsonl", rows)) == 0
    assert "no verdict, in no mean: 2 of base and m (4_1, 6_1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no judgments"),
        ("{", "judgments.jsonl:1: not JSON"),
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
    assert run(monkeypatch, show_results, "--judgments", tmp_path / "judgments.jsonl", "--json") == 2
    out = capsys.readouterr()
    assert said in out.err and out.out == ""


# -- answers ----------------------------------------------------------------------------------------------------


class Echo(Engine):
    """Says what it was asked, last words first."""

    name = "echo"

    def __init__(self) -> None:
        self.options, self.end_ids, self.chat_format = EngineOptions(model_name_or_path="m"), [2], "none"
        self.seen: list[tuple[list[dict[str, str]], Sampling]] = []
        self._chats: list[list[dict[str, str]]] = []

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        if messages not in self._chats:
            self._chats.append(messages)
        return [self._chats.index(messages) + 1]

    def _complete(self, requests: Any, sampling: Sampling) -> Any:
        for request in requests:
            chat = self._chats[request.ids[0] - 1]
            self.seen.append((chat, sampling))
            yield Completion(request.key, 0, f" to {chat[-1]['content']} ({len(chat)})\n", 4, True)

    def close(self) -> None: ...


def test_the_second_turn_is_answered_with_the_first_in_view(data: Path, tmp_path: Path) -> None:
    benchmark, engine = load_benchmark(data), Echo()
    path = tmp_path / "m.jsonl"
    answers.write_answers(path, "m", answers.answer_questions(engine, benchmark.questions, tmp_path / "out"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [81, 82, 83, 84]
    assert (
        rows[1]["choices"][0]["turns"] == ["to First math? (1)", "to Second math? (3)"]
        and rows[1]["model_id"] == "m"
    )
    second = next(chat for chat, _ in engine.seen if chat[-1]["content"] == "Second math?")
    assert second[1] == {"role": "assistant", "content": "to First math? (1)"}
    assert {chat[0]["content"]: sampling.temperature for chat, sampling in engine.seen} == {
        "First writing?": 0.7,
        "First math?": 0.0,
        "First coding?": 0.0,
        "First stem?": 0.1,
    }
    # Nothing is answered twice.
    before = len(engine.seen)
    again = answers.answer_questions(engine, benchmark.questions, tmp_path / "out")
    assert [[turn.text.strip() for turn in turns] for turns in again.values()] == [
        row["choices"][0]["turns"] for row in rows
    ]
    assert len(engine.seen) == before
    assert answers.MAX_NEW_TOKENS == 1024


def test_answers_that_lack_a_question_are_refused(data: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark(data)
    with pytest.raises(UserError, match=r"lacks answers to every turn of 2 questions \(83, 84\)"):
        answers.read_answers(write_answers(tmp_path / "a.jsonl", "x", (81, 82)), benchmark.questions)
    with pytest.raises(UserError, match="answers question 81 twice"):
        answers.read_answers(write_answers(tmp_path / "a.jsonl", "x", (81, 81)), benchmark.questions)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"gpt-4\.jsonl: cannot be read: No such file or directory\. MT-Bench's own files come with `sh prepare_eval_data\.sh mt_bench`",
    ):
        load_benchmark(tmp_path)
    assert Question(1, "unheard of", ("a",)).temperature == 0.7


# -- runs against a judge ---------------------------------------------------------------------------------------


def judged(
    monkeypatch: pytest.MonkeyPatch, server: JudgeServer, data: Path, folder: Path, *arguments: object
) -> int:
    answers = write_answers(folder / "tuned.jsonl", "tuned")
    return run(
        monkeypatch,
        run_eval,
        "--answers",
        answers,
        "--save_dir",
        folder / "out",
        "--data_dir",
        data,
        "--judge_base_url",
        server.url,
        "--judge_model",
        "judge",
        *arguments,
    )


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "mt_bench" / "results.json").read_text())


def test_a_run_writes_judgments_rates_and_items(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(
        lambda body, count: "Rating: [[9]]" if "Second" in body["messages"][1]["content"] else "[[6]]"
    ) as server:
        assert judged(monkeypatch, server, data, tmp_path) == 0
        assert len(server.requests) == 8 and all(
            body["temperature"] == 0 and body["max_tokens"] == 2048 for body in server.requests
        )
        assert server.requests[0]["messages"][0] == {"role": "system", "content": "Be fair."}
        asked = {body["messages"][1]["content"] for body in server.requests}
        assert (
            "Q First math? R ref 82 one A tuned 82 one" in asked
            and "Q First writing? A tuned 81 one" in asked
        )
        found = results(tmp_path)
        assert (
            found["turn_1"],
            found["turn_2"],
            found["average"],
            found["n"],
            found["unparsed"],
            found["duplicates"],
        ) == (6, 9, 7.5, 8, 0, 0)
        assert found["judge"] == "judge" and found["categories"]["math"] == 7.5
        items = [
            json.loads(line)
            for line in (tmp_path / "out" / "mt_bench" / "items.jsonl").read_text().splitlines()
        ]
        assert items[:3] == [
            {"item": "81_1", "score": 6},
            {"item": "81_2", "score": 9},
            {"item": "82_1", "score": 6},
        ]
        assert (tmp_path / "out" / "mt_bench" / "categories.png").stat().st_size > 1000
        # Asked again, it pays for nothing and writes nothing twice.
        assert judged(monkeypatch, server, data, tmp_path) == 0 and len(server.requests) == 8
    path = tmp_path / "out" / "mt_bench" / "model_judgment" / "judge_single.jsonl"
    assert len(path.read_text().splitlines()) == 8
    assert run(monkeypatch, show_results, "--judgments", path) == 0
    assert "tuned" in capsys.readouterr().out


def test_both_orders_are_judged_against_a_baseline(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that always prefers the first answer says nothing: every game is a tie."""
    base = write_answers(tmp_path / "base.jsonl", "base")
    with JudgeServer(lambda body, count: "[[A]]") as server:
        assert (
            judged(
                monkeypatch, server, data, tmp_path, "--mode", "pairwise-baseline", "--baseline_answers", base
            )
            == 0
        )
        assert len(server.requests) == 16
    with JudgeServer(
        lambda body, count: "[[A]]" if "a=tuned" in body["messages"][1]["content"] else "[[B]]"
    ) as server:
        assert (
            judged(
                monkeypatch,
                server,
                data,
                tmp_path,
                "--mode",
                "pairwise-baseline",
                "--baseline_answers",
                base,
                "--judge_model",
                "other",
            )
            == 0
        )
        # Game 1 shows the model first and game 2 the baseline, as in FastChat.
        shown = {body["messages"][1]["content"] for body in server.requests}
        assert {
            "First writing? a=tuned 81 one b=base 81 one",
            "First writing? a=base 81 one b=tuned 81 one",
        } <= shown
    folder = tmp_path / "out" / "mt_bench"
    rows = judgments.read_judgments(folder / "model_judgment" / "judge_pair.jsonl")
    assert {(row["model_1"], row["model_2"]) for row in rows} == {("tuned", "base")}
    assert judgments.pair_rates(rows)["tuned"]["tie"] == len(rows) == 8
    assert json.loads((folder / "results_pairwise.json").read_text())["win_rate"] == 1.0


def test_verdicts_that_cannot_be_read_are_asked_again_and_listed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(body: dict[str, Any], count: int) -> str:
        words = body["messages"][1]["content"]
        return (
            "I will not say."
            if words.startswith("Q First stem") or ("Q First math" in words and count < 2)
            else "[[5]]"
        )

    with JudgeServer(script) as server:
        assert judged(monkeypatch, server, data, tmp_path, "--min_parsed_share", "0.8") == 0
        # Three times the one that never can be, three times the one that can at last.
        assert len(server.requests) == 8 + 2 + 2
        assert (results(tmp_path)["n"], results(tmp_path)["unparsed"]) == (7, 1)
        assert json.loads((tmp_path / "out" / "mt_bench" / "unparsed.json").read_text()) == [
            {
                "item": "84_1",
                "question_id": 84,
                "turn": 1,
                "reason": "no verdict in the judgment",
                "judgment": "I will not say.",
            }
        ]
        # With a stricter share the same replies are an error, and the earlier figures do not stay behind.
        assert judged(monkeypatch, server, data, tmp_path) == 2
    assert not (tmp_path / "out" / "mt_bench" / "results.json").exists()


def test_faults_of_the_service_are_outlived(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [
        Answer("busy", status=429, headers={"Retry-After": "0"}),
        Answer("broken", status=500),
        Answer(cut=True),
        Answer(body=b"<html>"),
    ]

    def script(body: dict[str, Any], count: int) -> "str | Answer":
        return faults[len(body["messages"][1]["content"]) % 4] if count == 0 else "[[7]]"

    with JudgeServer(script) as server:
        assert judged(monkeypatch, server, data, tmp_path) == 0
    assert results(tmp_path)["average"] == 7 and results(tmp_path)["n"] == 8


def test_a_service_that_stays_away_leaves_no_result_and_keeps_what_was_paid(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(
        lambda body, count: (
            Answer("down", status=503) if "Second" in body["messages"][1]["content"] else "[[7]]"
        )
    ) as server:
        assert judged(monkeypatch, server, data, tmp_path, "--judge_max_tries", 1) == 2
    assert (
        "judgments are not there" in capsys.readouterr().err
        and not (tmp_path / "out" / "mt_bench" / "results.json").exists()
    )
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert judged(monkeypatch, server, data, tmp_path) == 0
        assert all("Second" in body["messages"][1]["content"] for body in server.requests)


def test_a_question_the_service_refuses_is_counted_and_listed_and_the_rest_is_judged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(body: dict[str, Any], count: int) -> "str | Answer":
        return (
            Answer("content filtered", status=400)
            if "Q First stem" in body["messages"][1]["content"]
            else "[[7]] \ud83d"
        )

    with JudgeServer(script) as server:
        assert judged(monkeypatch, server, data, tmp_path, "--min_parsed_share", "0.8") == 0
        assert len(server.requests) == 8
    assert (results(tmp_path)["n"], results(tmp_path)["unparsed"], results(tmp_path)["average"]) == (7, 1, 7)
    unparsed = json.loads((tmp_path / "out" / "mt_bench" / "unparsed.json").read_text())
    assert [one["item"] for one in unparsed] == ["84_1"] and "content filtered" in unparsed[0]["reason"]


def test_asking_again_stays_within_the_limit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first round is below the limit; what it cost and a second one are above."""
    words = "no verdict " * 1000
    prices = ("--price_per_million_input", 1, "--price_per_million_output", 60, "--cost_limit", 1)
    with JudgeServer(lambda body, count: words) as server:
        assert judged(monkeypatch, server, data, tmp_path, *prices) == 2
        assert len(server.requests) == 8
        assert "so far, above --cost_limit $1.00; nothing more was sent" in capsys.readouterr().err
        assert (
            judged(monkeypatch, server, data, tmp_path, *prices, "--yes") == 2 and len(server.requests) == 24
        )
    assert "only 0 of 8 judgments" in capsys.readouterr().err


def test_a_key_that_a_service_repeats_is_in_no_file_and_no_output(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-secret-secret-secret"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with JudgeServer(
        lambda body, count: (
            f"You sent {key}. Rating: [[7]]" if count else Answer(f"{key} is busy", status=429)
        )
    ) as server:
        assert judged(monkeypatch, server, data, tmp_path) == 0
        assert server.headers[0]["authorization"] == f"Bearer {key}"
    said = capsys.readouterr()
    assert key not in said.out + said.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 10 and all(key.encode() not in path.read_bytes() for path in files)
    assert (
        "You sent ***. Rating"
        in (tmp_path / "out" / "mt_bench" / "model_judgment" / "judge_single.jsonl").read_text()
    )


def test_nothing_is_sent_above_the_limit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = ("--price_per_million_input", 1000, "--price_per_million_output", 1000)
    with JudgeServer(lambda body, count: "[[7]]") as server:
        assert judged(monkeypatch, server, data, tmp_path, *prices) == 2
        assert "above --cost_limit" in capsys.readouterr().err and not server.requests
        assert judged(monkeypatch, server, data, tmp_path, *prices, "--yes") == 0


def test_a_killed_run_pays_for_nothing_twice(data: Path, tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "tuned.jsonl", "tuned")
    with JudgeServer(lambda body, count: Answer("[[7]]", delay=0.15)) as server:
        command = [
            sys.executable,
            "-m",
            "eval.mt_bench.run_eval",
            "--answers",
            str(answers),
            "--save_dir",
            str(tmp_path / "out"),
            "--data_dir",
            str(data),
            "--judge_base_url",
            server.url,
            "--judge_model",
            "judge",
            "--judge_parallel",
            "1",
        ]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=dict(os.environ)
        )
        replies = tmp_path / "out" / "mt_bench" / "judge_replies.jsonl"
        deadline = time.monotonic() + 60
        while not (replies.exists() and replies.read_text().count("\n") >= 3):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept, asked = replies.read_text().count("\n"), len(server.requests)
        assert (
            subprocess.run(
                command, cwd=ROOT, capture_output=True, env=dict(os.environ), timeout=60
            ).returncode
            == 0
        )
        assert len(server.requests) - asked <= 8 - kept + 1
    assert results(tmp_path)["n"] == 8
    assert (
        len(
            (tmp_path / "out" / "mt_bench" / "model_judgment" / "judge_single.jsonl").read_text().splitlines()
        )
        == 8
    )


def test_mistakes_are_said_in_a_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, run_eval, "--mode", "pairwise-baseline", "--max_new_tokens", 0) == 2
    said = capsys.readouterr().err
    assert (
        "give either --model_name_or_path or --answers" in said
        and "go together" in said
        and "--max_new_tokens 0" in said
    )
    answers = write_answers(tmp_path / "tuned.jsonl", "tuned")
    (tmp_path / "other").mkdir()
    pair = (
        "--mode",
        "pairwise-baseline",
        "--baseline_answers",
        write_answers(tmp_path / "other" / "tuned.jsonl", "base"),
    )
    assert run(monkeypatch, run_eval, "--answers", answers, "--data_dir", data, *pair) == 2
    assert "both called tuned" in capsys.readouterr().err
    answers.write_text('{"question_id": 81, "choices": [{"turns": "one"}]}')
    assert run(monkeypatch, run_eval, "--answers", answers, "--data_dir", data) == 2
    assert "tuned.jsonl:1: choices[0].turns is 'one'; it must be a list of texts" in capsys.readouterr().err


# -- a model of our own -----------------------------------------------------------------------------------------


def test_a_model_answers_once_and_some_questions_have_a_folder_of_their_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model(tmp_path / "tiny")
    fixed = (
        "--model_name_or_path",
        f"{model}/",
        "--save_dir",
        tmp_path / "out",
        "--data_dir",
        data,
        "--max_new_tokens",
        3,
    )
    assert run(monkeypatch, run_eval, *fixed, "--no_judge") == 0
    first = (tmp_path / "out" / "mt_bench" / "model_answer" / "tiny.jsonl").read_bytes()
    assert run(monkeypatch, run_eval, *fixed, "--no_judge", "--max_questions", 2) == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["mt_bench", "mt_bench_first_2"]
    # The answers are there, so no model is loaded to judge them.
    monkeypatch.setattr("eval.mt_bench.answers.open_engine", None)
    with JudgeServer(lambda body, count: "[[3]]") as server:
        assert (
            run(monkeypatch, run_eval, *fixed, "--judge_base_url", server.url, "--judge_model", "hub/judge")
            == 0
        )
        assert {body["model"] for body in server.requests} == {"hub/judge"} and len(server.requests) == 8
    assert (tmp_path / "out" / "mt_bench" / "model_answer" / "tiny.jsonl").read_bytes() == first
    found = results(tmp_path)
    assert (found["model"], found["engine"], found["chat_format"], found["judge_service"]) == (
        "tiny",
        "transformers",
        "tulu",
        "local",
    )
    assert (tmp_path / "out" / "mt_bench" / "model_judgment" / "hub_judge_single.jsonl").exists()
    monkeypatch.undo()
    with pytest.raises(SystemExit) as stopped, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", *map(str, fixed), "--no_judge", "--max_new_tokens", "4"])
        run_main(run_eval.main)
    assert stopped.value.code == 2, "answers made otherwise are not taken, and not written over"
