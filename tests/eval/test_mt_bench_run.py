"""MT-Bench run against judges that misbehave: answers, judgments, results, costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, JudgeServer
from mt_bench_samples import run_module, write_answers, write_benchmark
from tiny import make_tiny_model

from eval.mt_bench import answers as answers_module
from eval.mt_bench import judgments, run_eval, show_results
from eval.mt_bench.questions import Question, load_benchmark
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.generation.engine import Completion, Engine, EngineOptions, Sampling


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of four questions, two of them with references."""
    return write_benchmark(tmp_path / "data")


ROOT = Path(__file__).resolve().parents[2]


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
    answers_module.write_answers(
        path, "m", answers_module.answer_questions(engine, benchmark.questions, tmp_path / "out")
    )
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
    again = answers_module.answer_questions(engine, benchmark.questions, tmp_path / "out")
    assert [[turn.text.strip() for turn in turns] for turns in again.values()] == [
        row["choices"][0]["turns"] for row in rows
    ]
    assert len(engine.seen) == before
    assert answers_module.MAX_NEW_TOKENS == 1024


def test_answers_that_lack_a_question_are_refused(data: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark(data)
    with pytest.raises(UserError, match=r"lacks answers to every turn of 2 questions \(83, 84\)"):
        answers_module.read_answers(write_answers(tmp_path / "a.jsonl", "x", (81, 82)), benchmark.questions)
    with pytest.raises(UserError, match="answers question 81 twice"):
        answers_module.read_answers(write_answers(tmp_path / "a.jsonl", "x", (81, 81)), benchmark.questions)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"gpt-4\.jsonl: cannot be read: No such file or directory\. "
        r"MT-Bench's own files come with `sh prepare_eval_data\.sh mt_bench`",
    ):
        load_benchmark(tmp_path)
    assert Question(1, "unheard of", ("a",)).temperature == 0.7


def judged(
    monkeypatch: pytest.MonkeyPatch, server: JudgeServer, data: Path, folder: Path, *arguments: object
) -> int:
    answers = write_answers(folder / "tuned.jsonl", "tuned")
    return run_module(
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


def results_of(folder: Path) -> dict[str, Any]:
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
        found = results_of(tmp_path)
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
    assert run_module(monkeypatch, show_results, "--judgments", path) == 0
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
        assert (results_of(tmp_path)["n"], results_of(tmp_path)["unparsed"]) == (7, 1)
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
    left = {path.name for path in (tmp_path / "out" / "mt_bench").iterdir()}
    assert not left & {"results.json", "items.jsonl", "categories.png"}


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
    assert results_of(tmp_path)["average"] == 7 and results_of(tmp_path)["n"] == 8


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
        "4 of 8 judgments: given up after 1 tries; the last: status 503: down (the same command asks for it "
        "again)"
        in capsys.readouterr().err
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
    assert (results_of(tmp_path)["n"], results_of(tmp_path)["unparsed"], results_of(tmp_path)["average"]) == (
        7,
        1,
        7,
    )
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
    printed = capsys.readouterr()
    assert key not in printed.out + printed.err
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
    assert results_of(tmp_path)["n"] == 8
    assert (
        len(
            (tmp_path / "out" / "mt_bench" / "model_judgment" / "judge_single.jsonl").read_text().splitlines()
        )
        == 8
    )


def test_mistakes_are_said_in_a_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_module(monkeypatch, run_eval, "--mode", "pairwise-baseline", "--max_new_tokens", 0) == 2
    printed = capsys.readouterr().err
    assert (
        "give either --model_name_or_path or --answers" in printed
        and "go together" in printed
        and "--max_new_tokens 0" in printed
    )
    answers = write_answers(tmp_path / "tuned.jsonl", "tuned")
    (tmp_path / "other").mkdir()
    pair = (
        "--mode",
        "pairwise-baseline",
        "--baseline_answers",
        write_answers(tmp_path / "other" / "tuned.jsonl", "base"),
    )
    assert run_module(monkeypatch, run_eval, "--answers", answers, "--data_dir", data, *pair) == 2
    assert "both called tuned" in capsys.readouterr().err
    answers.write_text('{"question_id": 81, "choices": [{"turns": "one"}]}')
    assert run_module(monkeypatch, run_eval, "--answers", answers, "--data_dir", data) == 2
    assert "tuned.jsonl:1: choices[0].turns is 'one'; it must be a list of texts" in capsys.readouterr().err


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
    assert run_module(monkeypatch, run_eval, *fixed, "--no_judge") == 0
    first = (tmp_path / "out" / "mt_bench" / "model_answer" / "tiny.jsonl").read_bytes()
    assert run_module(monkeypatch, run_eval, *fixed, "--no_judge", "--max_questions", 2) == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["mt_bench", "mt_bench_first_2"]
    # The answers are there, so no model is loaded to judge them.
    monkeypatch.setattr("eval.mt_bench.answers.open_engine", None)
    with JudgeServer(lambda body, count: "[[3]]") as server:
        assert (
            run_module(
                monkeypatch, run_eval, *fixed, "--judge_base_url", server.url, "--judge_model", "hub/judge"
            )
            == 0
        )
        assert {body["model"] for body in server.requests} == {"hub/judge"} and len(server.requests) == 8
    assert (tmp_path / "out" / "mt_bench" / "model_answer" / "tiny.jsonl").read_bytes() == first
    found = results_of(tmp_path)
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
