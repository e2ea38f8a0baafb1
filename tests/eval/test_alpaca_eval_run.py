"""AlpacaEval run against judges that misbehave: results, costs, keys, restarts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from alpaca_runs import (
    COUNT,
    FIRST_WINS,
    evaluate,
    instruction,
    mine_first,
    number_in,
    output_file,
    ranking,
    read,
)
from judge_server import Answer, JudgeServer, verdict_logprobs


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Arguments: answers of two models, equal for instruction 3, and a folder."""
    reference = output_file(
        tmp_path / "reference.json", "other", lambda n: "same" if n == 3 else f"<other {n}>"
    )
    model = output_file(tmp_path / "model.json", "mine", lambda n: "same" if n == 3 else f"<mine {n}>")
    return ["--reference_path", reference, "--model_outputs", model, "--save_dir", tmp_path / "results"]


def test_alpaca_eval_1_from_answers_to_results(files: list[object], tmp_path: Path) -> None:
    """The model wins on even numbers; number 3 is a draw that nobody is asked about: (10 + 1/2) of 20."""
    with JudgeServer(lambda body, count: ranking(body, number_in(body) % 2 == 0)) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0, outcome.err
        assert len(server.requests) == COUNT - 1
        assert {mine_first(body) for body in server.requests} == {True, False}
    folder = tmp_path / "results" / "alpaca_eval_1"
    result = read(folder, "results.json")
    assert result["win_rate"] == pytest.approx(52.5) and (result["n_total"], result["unparsed"]) == (20, 0)
    assert (result["n_wins"], result["n_wins_base"], result["n_draws"]) == (10, 9, 1)
    assert (
        result["judge"],
        result["judge_service"],
        result["reference"],
        result["annotator"],
        result["model"],
    ) == ("scripted", "local", "other", "alpaca_eval_gpt4", "mine")
    assert result["harness"] == {"name": "alpaca-eval", "version": "0.6.6"}
    assert result["length_controlled_win_rate"] is None
    assert result["judging"]["requests"] == 19 and result["judging"]["dollars"] == 0
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert items == [{"item": n, "score": 0.5 if n == 3 else float(n % 2 == 0)} for n in range(COUNT)]
    annotations = read(folder, "annotations.json")
    assert [annotation["instruction"] for annotation in annotations] == [instruction(n) for n in range(COUNT)]
    # The order the judge saw is kept with each, and its words read to the preference in that order.
    for number, annotation in enumerate(annotations):
        if number != 3:
            first = 1 if annotation["preference_raw_completion"] == FIRST_WINS else 2
            assert annotation["preference"] == (3 - first if annotation["is_switched_outputs"] else first)
    assert read(folder, "unparsed.json") == []
    assert (
        "win rate 52.50 ± 11.17 % against other" in outcome.out
        and "20 of 20 judgments, 0 unparsed" in outcome.out
    )
    assert "19 requests to send (0 answered before)" in outcome.err


def test_alpaca_eval_2_weighs_the_judges_probabilities(files: list[object], tmp_path: Path) -> None:
    """`m` stands for the answer shown first; the model's gets 0.8 on even numbers, 0.3 on the others."""

    def script(body: dict[str, Any], count: int) -> Answer:
        mine = 0.8 if number_in(body) % 2 == 0 else 0.3
        first = mine if mine_first(body) else 1 - mine
        # What is left goes to neither, as real judges do.
        return Answer("m", logprobs=verdict_logprobs(m=0.9 * first, M=0.9 * (1 - first), The=0.1))

    with JudgeServer(script) as server:
        outcome = evaluate(2, server, *files)
    assert outcome.code == 0, outcome.err
    result = read(tmp_path / "results" / "alpaca_eval_2", "results.json")
    assert result["win_rate"] == pytest.approx(100 * (10 * 0.8 + 9 * 0.3 + 0.5) / 20)
    assert (result["n_wins"], result["n_wins_base"], result["n_draws"]) == (10, 9, 1)
    assert (result["annotator"], result["benchmark"]) == ("weighted_alpaca_eval_gpt4_turbo", "AlpacaEval 2")


def test_faults_on_the_way_change_nothing_of_the_result(files: list[object], tmp_path: Path) -> None:
    faults = [
        Answer("slow", status=429, headers={"Retry-After": "0.1"}),
        Answer("oops", status=500),
        Answer("cut here", cut=True),
        Answer(body=b"{"),
        Answer(choices=[]),
        Answer("bad gateway", status=502),
    ]

    def script(body: dict[str, Any], count: int) -> str | Answer:
        return faults[number_in(body) % 6] if count == 0 else ranking(body, number_in(body) < 5)

    with JudgeServer(script) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0, outcome.err
        assert len(server.requests) == 2 * (COUNT - 1)
    result = read(tmp_path / "results" / "alpaca_eval_1", "results.json")
    assert result["win_rate"] == pytest.approx(100 * 4.5 / 20) and result["judging"]["failed"] == 0


def test_what_cannot_be_read_is_asked_again_then_counted_and_listed(
    files: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Instruction 4 is readable at the second asking, 5 never."""

    def script(body: dict[str, Any], count: int) -> str:
        if number_in(body) == 5 or (number_in(body) == 4 and count == 0):
            return "I cannot say."
        return ranking(body, True)

    with JudgeServer(script) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0, outcome.err
        asked = [number_in(body) for body in server.requests]
        assert (asked.count(4), asked.count(5), asked.count(6)) == (2, 3, 1)
        folder = tmp_path / "results" / "alpaca_eval_1"
        result = read(folder, "results.json")
        assert (result["n_total"], result["unparsed"], result["instructions"]) == (19, 1, 20)
        assert result["win_rate"] == pytest.approx(100 * 18.5 / 19)
        assert read(folder, "unparsed.json") == [
            {
                "item": 5,
                "instruction": instruction(5),
                "attempts": 3,
                "reason": "no verdict in 'I cannot say.'",
                "reply": "I cannot say.",
            }
        ]
        assert [json.loads(line)["item"] for line in (folder / "items.jsonl").read_text().splitlines()] == [
            n for n in range(COUNT) if n != 5
        ]
        assert (
            "1 of 20 judgments have no verdict" in caplog.text
            and "no verdict in 'I cannot say.'" in caplog.text
        )
        # Run again: every reply is there, the unreadable ones too.
        again = evaluate(1, server, *files)
        assert again.code == 0 and len(server.requests) == len(asked)
        assert read(folder, "results.json")["win_rate"] == result["win_rate"]


def test_a_request_the_judge_refuses_is_counted_and_not_asked_again(
    files: list[object], tmp_path: Path
) -> None:
    def script(body: dict[str, Any], count: int) -> str | Answer:
        return Answer("content filtered", status=400) if number_in(body) == 7 else ranking(body, True)

    with JudgeServer(script) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0, outcome.err
        assert [number_in(body) for body in server.requests].count(7) == 1
    unparsed = read(tmp_path / "results" / "alpaca_eval_1", "unparsed.json")
    assert [entry["item"] for entry in unparsed] == [7] and "content filtered" in unparsed[0]["reason"]


def test_a_judge_that_cannot_judge_is_an_error_and_no_result(files: list[object], tmp_path: Path) -> None:
    with JudgeServer(
        lambda body, count: "Both are nice." if number_in(body) < 8 else ranking(body, True)
    ) as server:
        outcome = evaluate(1, server, *files)
        folder = tmp_path / "results" / "alpaca_eval_1"
        assert outcome.code == 2 and "only 13 of 20 judgments have a verdict" in outcome.err
        assert not (folder / "results.json").exists() and len(read(folder, "unparsed.json")) == 7
        assert evaluate(1, server, *files, "--min_parsed_share", 0.6).code == 0
        assert read(folder, "results.json")["n_total"] == 13 and (folder / "items.jsonl").exists()
        # What an earlier run wrote does not stay behind, its items no more than its rate.
        assert evaluate(1, server, *files).code == 2
        assert not (folder / "results.json").exists() and not (folder / "items.jsonl").exists()


def test_no_verdict_at_all_shows_no_rate_where_that_was_allowed(files: list[object], tmp_path: Path) -> None:
    with JudgeServer(lambda body, count: "Both are nice.") as server:
        outcome = evaluate(1, server, *files, "--min_parsed_share", 0)
        assert outcome.code == 0 and "(1 of 20 judgments, 19 unparsed)" in outcome.out, outcome.err
    result = read(tmp_path / "results" / "alpaca_eval_1", "results.json")
    assert (result["win_rate"], result["standard_error"], result["n_draws"]) == (50.0, None, 1)


def test_a_judge_without_log_probabilities_cannot_judge_alpaca_eval_2_and_is_left_soon(
    files: list[object],
) -> None:
    with JudgeServer(lambda body, count: "m") as server:
        outcome = evaluate(2, server, *files, "--judge_parallel", 2)
        assert outcome.code == 2 and "gives no log-probabilities" in outcome.err
        assert len(server.requests) <= 10


def test_a_judge_that_fails_leaves_the_replies_for_the_next_run(files: list[object], tmp_path: Path) -> None:
    broken = True

    def script(body: dict[str, Any], count: int) -> str | Answer:
        return Answer("down", status=503) if broken and number_in(body) >= 15 else ranking(body, True)

    with JudgeServer(script) as server:
        outcome = evaluate(1, server, *files, "--judge_max_tries", 2)
        assert outcome.code == 2 and "5 of 20 judgments: given up after 2 tries" in outcome.err
        assert "the same command asks for it again" in outcome.err
        assert not (tmp_path / "results" / "alpaca_eval_1" / "results.json").exists()
        broken = False
        before = len(server.requests)
        assert evaluate(1, server, *files).code == 0
        assert sorted(number_in(body) for body in server.requests[before:]) == [15, 16, 17, 18, 19]
    assert read(tmp_path / "results" / "alpaca_eval_1", "results.json")["n_total"] == 20


def test_a_run_killed_while_it_judges_goes_on_and_asks_nothing_twice(
    files: list[object], tmp_path: Path
) -> None:
    slow = True

    def script(body: dict[str, Any], count: int) -> Answer:
        return Answer(
            ranking(body, number_in(body) % 2 == 0), delay=1.0 if slow and number_in(body) >= 10 else 0.0
        )

    replies = tmp_path / "results" / "alpaca_eval_1" / "judge_replies.jsonl"
    with JudgeServer(script) as server:
        command = [
            sys.executable,
            "-m",
            "eval.alpaca_farm.run_eval",
            *map(str, files),
            "--judge_base_url",
            server.url,
            "--judge_model",
            "scripted",
            "--judge_parallel",
            "1",
        ]
        run = subprocess.Popen(
            command,
            env={**os.environ, "IS_ALPACA_EVAL_2": "False"},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while (
            not (replies.exists() and replies.read_bytes().count(b"\n") >= 5) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        kept, slow = replies.read_bytes().count(b"\n"), False
        assert 5 <= kept < COUNT - 1
        before = len(server.requests)
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0, outcome.err
        assert len(server.requests) - before == COUNT - 1 - kept
    assert read(tmp_path / "results" / "alpaca_eval_1", "results.json")["win_rate"] == pytest.approx(52.5)


def test_nothing_is_sent_above_the_cost_limit_without_a_yes(files: list[object]) -> None:
    dear = ["--price_per_million_input", 1000, "--price_per_million_output", 1000, "--cost_limit", 1]
    with JudgeServer(lambda body, count: ranking(body, True)) as server:
        outcome = evaluate(1, server, *files, *dear)
        assert outcome.code == 2 and "above --cost_limit $1.00; nothing was sent" in outcome.err
        assert not server.requests
        assert evaluate(1, server, *files, *dear, "--yes").code == 0


def test_a_key_is_in_no_file_and_no_output(
    files: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret-secret")
    # A gateway may repeat what it was sent, in a reply that can be read and in one that cannot.
    key = "sk-secret-secret-secret"
    with JudgeServer(
        lambda body, count: (ranking(body, True) if number_in(body) else "") + f" # for {key}"
    ) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 0 and server.headers[0]["authorization"] == f"Bearer {key}"
    assert "# for ***" in (tmp_path / "results" / "alpaca_eval_1" / "unparsed.json").read_text()
    assert "sk-secret" not in outcome.out + outcome.err
    assert all(b"sk-secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_sample_has_folders_of_its_own(files: list[object], tmp_path: Path) -> None:
    with JudgeServer(lambda body, count: ranking(body, True)) as server:
        assert evaluate(1, server, *files, "--max_instructions", 6).code == 0
        assert len(server.requests) in (5, 6)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["alpaca_eval_1_sample_6"]
    result = read(tmp_path / "results" / "alpaca_eval_1_sample_6", "results.json")
    assert (result["n_total"], result["instructions"]) == (6, 6)


def test_published_judgments_replayed_by_a_server_give_the_published_rate(
    shared_data: Path, tmp_path: Path
) -> None:
    """Every step but GPT-4 itself: 803 questions about vicuna-7b, answered with what GPT-4 answered."""
    results = shared_data / "eval/alpaca_eval/results"
    records = json.loads((results / "vicuna-7b/weighted_alpaca_eval_gpt4_turbo/annotations.json").read_text())

    def shown(text: str) -> str:
        return f'"instruction": """{text}""",'

    replies = {shown(record["instruction"]): record["raw_completion"] for record in records}

    def script(body: dict[str, Any], count: int) -> Answer:
        content = body["messages"][-1]["content"]
        start = content.index('"instruction": """')
        asked = content[start : content.index('""",\n}\n\n## Model Outputs') + 4]
        reply = replies[asked]
        return Answer(reply["message"]["content"], logprobs=reply["logprobs"])

    with JudgeServer(script) as server:
        outcome = evaluate(
            2,
            server,
            "--reference_path",
            results / "gpt4_1106_preview/model_outputs.json",
            "--model_outputs",
            results / "vicuna-7b/model_outputs.json",
            "--save_dir",
            tmp_path,
        )
        assert outcome.code == 0, outcome.err
        assert len(server.requests) == 803
    result = read(tmp_path / "alpaca_eval_2", "results.json")
    assert round(result["win_rate"], 3) == 4.163
    assert result["standard_error"] == pytest.approx(0.6135107768217068, abs=1e-6)
    assert (result["n_total"], result["avg_length"]) == (805, 1044)


@pytest.mark.parametrize(("number", "name"), [(1, "text_davinci_003"), (2, "gpt4_1106_preview")])
def test_missing_references_name_the_command_that_fetches_them(
    number: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = output_file(tmp_path / "model.json", "mine", str)
    outcome = evaluate(number, None, "--model_outputs", model)
    assert outcome.code == 2
    assert f"data/eval/alpaca_eval/{name}.json: cannot be read" in outcome.err
    assert "sh prepare_eval_data.sh alpaca_eval" in outcome.err and "--reference_path" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "give one of --model_name_or_path, --openai_engine and --model_outputs"),
        (
            ["--model_outputs", "x", "--chat_formatting_function", "a.b"],
            "no effect without --use_chat_format",
        ),
        (["--model_outputs", "x", "--load_in_8bit"], "--load_in_8bit is not offered"),
        (["--model_outputs", "x", "--min_parsed_share", "2"], "must be between 0 and 1"),
        (["--model_outputs", "x", "--judge_parallel", "0"], "--judge_parallel 0 must be above 0"),
        (["--model_outputs", "x", "--price_per_million_input", "3"], "go together"),
        (["--model_outputs", "x", "--max_new_tokens", "0"], "--max_new_tokens 0 must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_named_before_anything_is_done(arguments: list[str], what: str) -> None:
    outcome = evaluate(1, None, *arguments)
    assert outcome.code == 2 and what in outcome.err and "Traceback" not in outcome.err
