"""What counts as a judge's verdict, and what an answers file holds that is no answer: whole runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from alpaca_runs import COUNT, evaluate, instruction, mine_first, number_in, output_file, ranking, read
from judge_server import Answer, JudgeServer, verdict_logprobs
from mt_bench_samples import run_module, write_answers, write_benchmark

from eval.alpaca_farm.benchmarks import ALPACA_EVAL_1, ALPACA_EVAL_2
from eval.alpaca_farm.judging import Annotator
from eval.alpaca_farm.verdicts import ranking_verdicts
from eval.chat_client import ChatReply
from eval.mt_bench import judgments, run_eval, show_results
from eval.verdict_text import Unread


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A benchmark of four questions, 81 to 84."""
    return write_benchmark(tmp_path / "data")


def mt_bench(
    monkeypatch: pytest.MonkeyPatch, server: JudgeServer, data: Path, answers: Path, *arguments: object
) -> int:
    """Judge these answers, and return the exit code."""
    judge = ["--judge_base_url", server.url, "--judge_model", "judge"]
    own = ["--answers", answers, "--save_dir", answers.parent / "out", "--data_dir", data]
    return run_module(monkeypatch, run_eval, *own, *judge, *arguments)


def results(folder: Path, name: str = "results.json") -> Any:
    return json.loads((folder / "out" / "mt_bench" / name).read_text())


# -- MT-Bench ----------------------------------------------------------------------------------------------


def test_a_rating_is_the_one_after_the_thoughts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JudgeServer(lambda body, count: "<think>Rating: [[4]]?</think>\nRating: [[9]]") as server:
        assert mt_bench(monkeypatch, server, data, write_answers(tmp_path / "m.jsonl", "m")) == 0
    found = results(tmp_path)
    assert (found["average"], found["n"], found["disagreeing"]) == (9, 8, 0)
    assert not (tmp_path / "out" / "mt_bench" / "disagreeing.json").exists()


def test_a_reply_that_was_cut_off_has_no_verdict_and_is_not_paid_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(
        lambda body, count: Answer("Scores like [[2]] are for", finish_reason="length")
    ) as server:
        assert mt_bench(monkeypatch, server, data, write_answers(tmp_path / "m.jsonl", "m")) == 2
        assert len(server.requests) == 8
    errors = capsys.readouterr().err
    assert "error: 8 of 8 judgments: the reply ran out of tokens" in errors and "--judge_max_tokens" in errors
    assert [one["judgment"] for one in results(tmp_path, "unparsed.json")] == [
        "Scores like [[2]] are for"
    ] * 8


def test_of_verdicts_that_differ_the_last_counts_and_they_are_listed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any], count: int) -> str:
        first = body["messages"][1]["content"].startswith("Q First stem")
        return "At first [[4]]. But no: [[9]]" if first else "[[5]], so Rating: [[5]]"

    with JudgeServer(script) as server:
        assert mt_bench(monkeypatch, server, data, write_answers(tmp_path / "m.jsonl", "m")) == 0
    assert results(tmp_path)["average"] == (9 + 7 * 5) / 8 and results(tmp_path)["disagreeing"] == 1
    assert results(tmp_path, "disagreeing.json") == [
        {"item": "84_1", "verdicts": [4, 9], "counted": 9, "judgment": "At first [[4]]. But no: [[9]]"}
    ]
    said = "several verdicts that differ within one judgment: 1 (m 84_1: 4, 9 counted as 9)"
    assert said in capsys.readouterr().out
    # Anyone's file of judgments is told of the same way, with what counts there.
    path = tmp_path / "out" / "mt_bench" / "model_judgment" / "judge_single.jsonl"
    path.write_text(path.read_text().replace('"score": 9', '"score": 4'))
    assert run_module(monkeypatch, show_results, "--judgments", path) == 0
    assert said.replace("as 9", "as 4") in capsys.readouterr().out


def test_the_last_winner_counts_in_both_orders(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge weighs the other verdict before it prefers the baseline."""

    def script(body: dict[str, Any], count: int) -> str:
        best, other = ("B", "A") if "a=tuned" in body["messages"][1]["content"] else ("A", "B")
        return f"By length alone [[{other}]]. It does not count, so: [[{best}]]"

    base = write_answers(tmp_path / "base.jsonl", "base")
    with JudgeServer(script) as server:
        pair = ("--mode", "pairwise-baseline", "--baseline_answers", base)
        answers = write_answers(tmp_path / "tuned.jsonl", "tuned")
        # The second turns' prompts hold a=tuned as well.
        assert mt_bench(monkeypatch, server, data, answers, *pair) == 0
    found = results(tmp_path, "results_pairwise.json")
    assert (found["win"], found["loss"], found["tie"], found["disagreeing"]) == (0, 8, 0, 16)


@pytest.mark.parametrize(
    ("turns", "stopped", "judged"),
    [
        (["$ERROR$", "$ERROR$"], None, 6),
        (["one", " $ERROR$\n"], None, 7),
        (["one", None], None, 7),
        # The judge of the second turn would see the first.
        (["", "two"], None, 6),
        # This repository's own answers say that the model itself said nothing: that is its answer.
        (["one", ""], [True, True], 8),
        (["one", ""], [True, False], 7),
    ],
)
def test_what_is_no_answer_is_named_and_not_judged(  # noqa: PLR0913 (fixtures)
    turns: list[Any],
    stopped: list[bool] | None,
    judged: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    rows[2]["choices"][0]["turns"] = turns
    rows[2] |= {} if stopped is None else {"stopped": stopped}
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert mt_bench(monkeypatch, server, data, answers, "--min_parsed_share", 0.7) == 0
        assert len(server.requests) == judged
        assert not any("$ERROR$" in body["messages"][1]["content"] for body in server.requests)
    found = results(tmp_path)
    assert (found["average"], found["n"], found["unparsed"]) == (8, judged, 8 - judged)
    unread = results(tmp_path, "unparsed.json")
    assert all(one["reason"].startswith("not judged: the answer to turn") for one in unread)
    assert ("which is no answer: 83_" in caplog.text) is (judged < 8)


def test_too_little_that_is_an_answer_is_no_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = write_answers(tmp_path / "m.jsonl", "m")
    answers.write_text(answers.read_text().replace("m 83 one", "$ERROR$"))
    with JudgeServer(lambda body, count: "[[8]]") as server:
        assert mt_bench(monkeypatch, server, data, answers) == 2
    assert "error: 2 of 8 judgments: not judged: the answer to turn 1 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer", [Answer("flagged", status=403), Answer(choices=[]), Answer("", status=400)]
)
def test_a_question_that_is_never_answered_stops_no_run_and_is_not_asked_in_the_next(
    answer: Answer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first question, in both turns, one request at a time: the service has answered nothing before."""

    def script(body: dict[str, Any], count: int) -> "str | Answer":
        return answer if "writing" in body["messages"][1]["content"] else "[[8]]"

    with JudgeServer(script) as server:
        for _ in range(2):
            arguments = ("--judge_parallel", 1, "--min_parsed_share", 0.7)
            answers = write_answers(tmp_path / "m.jsonl", "m")
            assert mt_bench(monkeypatch, server, data, answers, *arguments) == 0
            assert (results(tmp_path)["average"], results(tmp_path)["unparsed"]) == (8, 2)
            sent = sum("writing" in body["messages"][1]["content"] for body in server.requests)
        assert sent == (6 if answer.choices == [] else 2)


def test_no_verdict_at_all_is_a_result_where_that_was_allowed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JudgeServer(lambda body, count: Answer("no access", status=403)) as server:
        answers = write_answers(tmp_path / "m.jsonl", "m")
        assert mt_bench(monkeypatch, server, data, answers, "--min_parsed_share", 0) == 0
    assert (results(tmp_path)["average"], results(tmp_path)["n"], results(tmp_path)["unparsed"]) == (
        None,
        0,
        8,
    )


@pytest.mark.parametrize("status", [500, 503])
def test_a_judge_that_is_not_there_is_no_result_whatever_share_is_allowed(  # noqa: PLR0913 (fixtures)
    status: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: list[object],
) -> None:
    allowed = ("--min_parsed_share", 0, "--judge_max_tries", 1, "--judge_parallel", 16)
    with JudgeServer(lambda body, count: Answer("kaput", status=status)) as server:
        assert mt_bench(monkeypatch, server, data, write_answers(tmp_path / "m.jsonl", "m"), *allowed) == 2
        words = "8 of 8 judgments are not there, because the judge said nothing: given up after 1 tries"
        assert words in capsys.readouterr().err
        outcome = evaluate(1, server, *files, *allowed, "--max_instructions", 6)
        assert outcome.code == 2 and "did not answer 6 of 6 questions" in outcome.err


def test_a_question_that_is_only_given_up_when_it_is_asked_again_stops_no_run(
    files: list[object], tmp_path: Path
) -> None:
    def script(body: dict[str, Any], count: int) -> "str | Answer":
        if number_in(body) == 5:
            return "I cannot say." if count == 0 else Answer("kaput", status=500)
        return ranking(body, True)

    with JudgeServer(script) as server:
        assert evaluate(1, server, *files, "--judge_max_tries", 2).code == 0
    folder = tmp_path / "results" / "alpaca_eval_1"
    assert read(folder, "results.json")["n_total"] == 19
    assert "status 500: kaput" in read(folder, "unparsed.json")[0]["reason"]


def test_a_limit_of_the_window_is_told_first_and_a_flag_leaves_room(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(body: dict[str, Any], count: int) -> "str | Answer":
        if body["max_tokens"] > 2000:
            return Answer("This model's maximum context length is 2048 tokens.", status=400)
        return "[[8]]"

    answers = write_answers(tmp_path / "m.jsonl", "m")
    with JudgeServer(script) as server:
        assert mt_bench(monkeypatch, server, data, answers) == 2
        first = capsys.readouterr().err.split("error: ")[1].splitlines()[0]
        assert first.startswith(
            "8 of 8 judgments: refused with status 400: This model's maximum context length is 2048 tokens."
        )
        assert "--judge_max_tokens" in first
        assert mt_bench(monkeypatch, server, data, answers, "--judge_max_tokens", 1000) == 0
    usage = results(tmp_path)["judge_usage"]
    assert (results(tmp_path)["average"], usage["max_tokens"], usage["temperature"]) == (8, 1000, 0.0)


def test_flags_of_the_judge_that_do_not_fit_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = '{"n": 2, "Api-Key": "sk-hidden"}'
    flags = ["--judge_temperature", "warm", "--judge_max_tokens", 0, "--judge_extra_body", extra]
    assert run_module(monkeypatch, run_eval, "--answers", "x", *flags) == 2
    errors = capsys.readouterr().err
    assert "--judge_temperature warm must be a number" in errors
    assert "--judge_max_tokens 0 must be 1 or more" in errors
    assert '--judge_extra_body: "n" is set by the benchmark' in errors
    assert '--judge_extra_body: "Api-Key" holds a key' in errors and "sk-hidden" not in errors
    assert run_module(monkeypatch, run_eval, "--answers", "x", "--judge_extra_body", "[1]") == 2
    assert "--judge_extra_body [1]: give a JSON object" in capsys.readouterr().err


# -- AlpacaEval --------------------------------------------------------------------------------------------

PAIR = "[{'model': 'model_1', 'rank': %s}, {'model': 'model_2', 'rank': %s}]"


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        (PAIR % (1, 1), 1.5),
        (PAIR % (2, 2), 1.5),
        (PAIR % ("'1'", "'2'"), 1.0),
        (PAIR % (1, 0), 2.0),
        ("```python\n" + PAIR % (2, 1) + "\n```", 2.0),
        ("Here it is:\n```json\n" + (PAIR % (1, 2)).replace("'", '"') + "\n```\nI hope it helps.", 1.0),
        ("<think>" + PAIR % (1, 2) + " or not?</think>" + PAIR % (2, 1), 2.0),
        (PAIR % (1, 2) + " or not?</think>\n\n" + PAIR % (2, 1), 2.0),
        ("<think>" + PAIR % (1, 2), None),
        ('{"model": "model_2", "rank": 1}\n{"model": "model_1", "rank": 2}', 2.0),
        (PAIR % (1, 2) + "\nOn reflection:\n" + PAIR % (2, 1), 2.0),
        (PAIR % ("'best'", "'worst'"), None),
        (PAIR % ("float('nan')", 1), None),
        ("[{'model': 'model_1', 'rank': 1}, {'model': 'mod", None),
    ],
)
def test_a_ranking_is_read_wherever_it_stands_and_equal_ranks_are_a_tie(
    text: str, preference: float | None
) -> None:
    annotator = Annotator(ALPACA_EVAL_1)
    assert annotator.preference(ChatReply("", text), False) == preference
    assert annotator.preference(ChatReply("", text), True) == (None if preference is None else 3 - preference)


def test_rankings_are_all_found_in_their_order() -> None:
    assert ranking_verdicts(f"{PAIR % (1, 2)} {PAIR % (1, 1)} {PAIR % (2, 1)}") == [1.0, 1.5, 2.0]
    assert ranking_verdicts("{'model': 'model_1', 'rank': 1} and " + PAIR % (2, 1)) == [2.0]


def step(*pairs: tuple[str, Any]) -> dict[str, Any]:
    """A token and the likeliest in its place, each with its probability (or its logarithm's stand-in)."""
    top = [
        {"token": token, "logprob": math.log(share) if isinstance(share, float) and share > 0 else share}
        for token, share in pairs
    ]
    return {**top[0], "top_logprobs": top}


@pytest.mark.parametrize(
    ("steps", "finish", "preference"),
    [
        ([step(("m", 1.0), ("M", None))], "length", 1.0),
        ([step(("M", 1.0), ("m", -math.inf))], "length", 2.0),
        ([step(("M", 1.0), ("m", math.nan))], "length", 2.0),
        ([step(("M", 0.5), ("m", "-inf"))], "length", 2.0),
        ([step((" m", 0.7), (" M", 0.2), ("\n", 0.1))], "length", 2 - 0.7 / 0.9),
        ([step(("▁M", 0.6), ("▁m", 0.4))], "length", 1.6),
        ([step(("ĠM", 0.75), ("m", 0.25))], "length", 1.75),
        # The bare letters are the likelier form: as the package reads them.
        ([step(("M", 0.8), ("m", 0.1), (" m", 0.05))], "length", 2 - 0.1 / 0.9),
        ([step(("<think>", 0.99), ("m", 0.01))], "length", None),
        (
            [
                step(("<think>", 1.0)),
                step(("m", 0.9), ("M", 0.1)),
                step(("</think>", 1.0)),
                step(("\n\n", 1.0)),
                step(("M", 0.8), ("m", 0.2)),
            ],
            "stop",
            1.8,
        ),
        (
            [step(("so", 1.0)), step(("</", 1.0)), step(("think>", 1.0)), step(("M", 0.8), ("m", 0.2))],
            "stop",
            1.8,
        ),
        (
            [step(("The", 0.9), ("m", 0.1)), step((" best", 1.0)), step((" M", 0.75), (" m", 0.25))],
            "stop",
            1.75,
        ),
        # A letter that begins a word is none.
        ([step(("M", 0.9), ("m", 0.1)), step(("any", 1.0)), step((" m", 0.9), (" M", 0.1))], "stop", 1.1),
        ([step(("The", 0.5), ("A", 0.5))], "length", None),
        ([], "length", None),
    ],
)
def test_the_letter_is_read_where_the_judge_names_it(
    steps: list[dict[str, Any]], finish: str, preference: float | None
) -> None:
    annotator = Annotator(ALPACA_EVAL_2)
    reply = ChatReply("", "x", logprobs={"content": steps}, finish_reason=finish)
    expected = None if preference is None else pytest.approx(preference)
    assert annotator.preference(reply, False) == expected


def test_a_judge_that_thinks_first_is_told_to_need_more_tokens() -> None:
    reply = ChatReply("", "<think>", logprobs={"content": [step(("<think>", 1.0))]}, finish_reason="length")
    read_of_reply = Annotator(ALPACA_EVAL_2).read(reply, False)
    assert isinstance(read_of_reply, Unread) and not read_of_reply.again
    assert "while the judge was thinking" in read_of_reply.reason
    assert "--judge_max_tokens" in read_of_reply.remedy


@pytest.mark.parametrize(
    ("text", "content", "finish", "reason"),
    [
        ("m", None, "length", "comes without log-probabilities"),
        ("m", [], "stop", "comes without log-probabilities"),
        ("", None, "length", "ran out of tokens before it ended"),
        ("", [], "stop", "the reply is empty"),
    ],
)
def test_a_reply_without_tokens_says_why_it_holds_no_letter(
    text: str, content: Any, finish: str, reason: str
) -> None:
    reply = ChatReply("", text, logprobs={"content": content}, finish_reason=finish)
    found = Annotator(ALPACA_EVAL_2).read(reply, False)
    assert isinstance(found, Unread) and reason in found.reason


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """Arguments: answers of two models and a folder."""
    reference = output_file(tmp_path / "reference.json", "other", lambda n: f"<other {n}>")
    model = output_file(tmp_path / "model.json", "mine", lambda n: f"<mine {n}>")
    return ["--reference_path", reference, "--model_outputs", model, "--save_dir", tmp_path / "results"]


def test_equal_ranks_everywhere_are_draws_everywhere(files: list[object], tmp_path: Path) -> None:
    with JudgeServer(lambda body, count: PAIR % (1, 1)) as server:
        assert evaluate(1, server, *files).code == 0
    result = read(tmp_path / "results" / "alpaca_eval_1", "results.json")
    assert (result["win_rate"], result["n_draws"], result["n_total"]) == (50, COUNT, COUNT)


def test_rankings_that_differ_within_one_reply_are_counted(
    files: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def script(body: dict[str, Any], count: int) -> str:
        before = ranking(body, False) + "\nNo:\n" if number_in(body) < 3 else ""
        return before + ranking(body, True)

    with JudgeServer(script) as server:
        assert evaluate(1, server, *files).code == 0
    folder = tmp_path / "results" / "alpaca_eval_1"
    result = read(folder, "results.json")
    assert (result["win_rate"], result["disagreeing"]) == (100, 3)
    assert (
        "3 replies name several verdicts that differ, of which the last counts: items 0, 1, 2" in caplog.text
    )
    assert [n for n, one in enumerate(read(folder, "annotations.json")) if one.get("disagreeing")] == [
        0,
        1,
        2,
    ]


def test_impossible_tokens_leave_files_that_are_json(files: list[object], tmp_path: Path) -> None:
    def script(body: dict[str, Any], count: int) -> Answer:
        letters = ("m", "M") if mine_first(body) else ("M", "m")
        certain = verdict_logprobs(**{letters[0]: 1.0})
        certain["content"][0]["top_logprobs"].append({"token": letters[1], "logprob": -math.inf})
        return Answer(letters[0], logprobs=certain, finish_reason="length")

    with JudgeServer(script) as server:
        assert evaluate(2, server, *files).code == 0
    folder = tmp_path / "results" / "alpaca_eval_2"
    assert read(folder, "results.json")["win_rate"] == 100
    for path in folder.iterdir():
        assert "Infinity" not in path.read_text() and "NaN" not in path.read_text(), path


def test_answers_of_a_file_that_are_none_are_named_and_not_judged(
    files: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {3: "$ERROR$", 5: "", 7: " \n"}
    path = output_file(tmp_path / "model.json", "mine", lambda n: texts.get(n, f"<mine {n}>"))
    rows = json.loads(path.read_text())
    rows[5]["output"] = None
    path.write_text(json.dumps(rows))
    with JudgeServer(lambda body, count: ranking(body, True)) as server:
        outcome = evaluate(1, server, *files)
        assert outcome.code == 2 and "only 17 of 20 judgments have a verdict" in outcome.err
        assert "error: 2 of 20 judgments: not judged: the answer in" in outcome.err
        assert evaluate(1, server, *files, "--min_parsed_share", 0.8).code == 0
        assert sorted(number_in(body) for body in server.requests) == [
            n for n in range(COUNT) if n not in texts
        ]
    folder = tmp_path / "results" / "alpaca_eval_1"
    result = read(folder, "results.json")
    assert (result["win_rate"], result["n_total"], result["unparsed"]) == (100, 17, 3)
    assert [one["reason"].rsplit(" is ")[-1] for one in read(folder, "unparsed.json")] == [
        "$ERROR$",
        "empty",
        "empty",
    ]
    assert "3 answers are empty or $ERROR$, which is no answer, the first to 'instruction 03.'" in caplog.text


# -- an evaluated service -----------------------------------------------------------------------------------


def engine(server: JudgeServer, tmp_path: Path, *arguments: object) -> list[object]:
    """Arguments for a model behind an address."""
    reference = output_file(tmp_path / "reference.json", "other", lambda n: f"<other {n}>")
    return ["--reference_path", reference, "--openai_engine", "m", "--save_dir", tmp_path / "r", *arguments]


def test_a_service_that_returns_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(body: dict[str, Any], count: int) -> "str | Answer":
        return "<mine 0>" if number_in(body) == 0 else Answer(None, finish_reason="length")

    with JudgeServer(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        outcome = evaluate(1, None, *engine(server, tmp_path), "--no_evaluate_with_llm")
    assert outcome.code == 2 and "m did not answer 19 of 20 instructions" in outcome.err
    assert (
        "19 times: the answer is empty (finish_reason length): it ran out of --max_new_tokens" in outcome.err
    )
    assert not (tmp_path / "r" / "alpaca_eval" / "model_outputs.json").exists()


def test_an_instruction_that_a_service_will_not_answer_is_listed_and_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def script(body: dict[str, Any], count: int) -> "str | Answer":
        if "temperature" in body:
            return Answer("Unsupported parameter: temperature", status=400, param="temperature")
        number = number_in(body)
        return Answer("filtered: violence", status=400) if number == 4 else f"<mine {number}>"

    with JudgeServer(script) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        arguments = engine(server, tmp_path, "--engine_extra_body", '{"top_k": 1}')
        assert evaluate(1, None, *arguments, "--no_evaluate_with_llm").code == 0
        assert server.requests[-1]["top_k"] == 1
        sent = len(server.requests)
        with JudgeServer(lambda body, count: ranking(body, True)) as judge:
            outcome = evaluate(1, judge, *arguments)
            assert outcome.code == 0, outcome.err
            assert len(judge.requests) == COUNT - 1
        assert len(server.requests) == sent, "what was refused is not asked again"
    folder = tmp_path / "r"
    assert read(folder / "alpaca_eval", "unanswered.json") == [
        {"instruction": instruction(4), "reason": "refused with status 400: filtered: violence"}
    ]
    assert "m left 1 of 20 instructions without an answer" in caplog.text
    result = read(folder / "alpaca_eval_1", "results.json")
    assert (result["win_rate"], result["n_total"], result["unparsed"]) == (100, 19, 1)
    made = result["outputs"]
    assert (made["unanswered"], made["service_changes"], made["extra_body"]) == (
        1,
        ["temperature left out"],
        {"top_k": 1},
    )


def test_judgments_of_published_answers_are_not_touched(shared_data: Path) -> None:
    """The last mark of a judgment is the first in all 800, thoughts or not."""
    path = shared_data / "eval" / "mt_bench" / "don-tpanic" / "model_judgment" / "gpt-4_single.jsonl"
    for row in judgments.read_judgments(path):
        said = judgments.verdicts_in(row["judgment"], "[[rating]]")
        assert said[0] == said[-1] == row["score"]
