"""The client of judges: faults, back-off, the cache, keys and costs, against a scripted server."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, JudgeServer, streamed, verdict_logprobs

from eval.chat_client import CallLimits, ChatClient, ChatReply
from eval.chat_service import ChatRequest
from eval.judging_cost import CostEstimate, Price, estimated_tokens, price_of
from instruction_modelling.errors import UserError

SECRET = "sk-test-0123456789abcdefghij"


def question(text: str, **fields: object) -> ChatRequest:
    """A request whose key is its text."""
    return ChatRequest(text, [{"role": "user", "content": text}], **fields)  # type: ignore[arg-type]


def asked(body: dict) -> str:
    """The text of a request that the server got."""
    return body["messages"][-1]["content"]


def opened(
    server: JudgeServer, cache: Path | None = None, key_variable: str = "OPENAI_API_KEY", **limits: Any
) -> ChatClient:
    """A client that does not wait long."""
    return ChatClient(
        server.url,
        "judge",
        cache=cache,
        key_variable=key_variable,
        limits=CallLimits(**{"backoff": 0.01, "timeout": 5.0, **limits}),
    )


def answers(client: ChatClient, *requests: ChatRequest) -> dict[str, ChatReply]:
    """The replies by key."""
    return {reply.key: reply for reply in client.ask(requests)}


FAULTS = {
    "too many requests": Answer("slow down", status=429),
    "server error": Answer("oops", status=500),
    "overloaded": Answer("later", status=503),
    "cut body": Answer("a reply that is cut", cut=True),
    "invalid JSON": Answer(body=b'{"choices": [{"mess'),
    "a page": Answer(body=b"<html>", headers={"Content-Type": "text/html"}),
    "no choices": Answer(choices=[]),
    "choice without message": Answer(choices=[{"index": 0}]),
    "null": Answer(body=b"null"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_followed_by_another_attempt_and_the_reply(fault: str) -> None:
    with (
        JudgeServer(lambda body, count: FAULTS[fault] if count < 2 else "[[7]]") as server,
        opened(server) as client,
    ):
        reply = answers(client, question("q"))["q"]
        assert (reply.text, reply.error, len(server.requests)) == ("[[7]]", None, 3)
        assert reply.usage == {"prompt_tokens": 1, "completion_tokens": 1}
        assert (client.usage.requests, client.usage.failed) == (1, 0)


def test_a_server_that_hangs_is_left_after_the_timeout() -> None:
    with (
        JudgeServer(lambda body, count: Answer("late", delay=2.0) if count == 0 else "in time") as server,
        opened(server, timeout=0.3) as client,
    ):
        begin = time.monotonic()
        assert answers(client, question("q"))["q"].text == "in time"
        assert time.monotonic() - begin < 1.9


DRIPPING = {
    "whole": Answer("late", drip=0.05),
    "as a stream": replace(streamed("late"), drip=0.05),
    # As services do that keep a connection open while a model thinks.
    "no piece at all": Answer(
        body=b": wait\n\n" * 100, headers={"Content-Type": "text/event-stream"}, drip=0.05
    ),
}


@pytest.mark.parametrize("kind", DRIPPING)
def test_a_server_that_sends_a_byte_now_and_then_is_left_too(kind: str) -> None:
    """No byte is late by itself, and the answer would take 9 s and more."""
    with (
        JudgeServer(lambda body, count: DRIPPING[kind]) as server,
        opened(server, timeout=0.1, max_tries=1) as client,
    ):
        begin = time.monotonic()
        reply = answers(client, question("q"))["q"]
        assert reply.error == "given up after 1 tries; the last: no whole answer within 1 s"
        assert 0.9 < time.monotonic() - begin < 4


def test_attempts_have_an_end_and_the_error_says_what_happened_last() -> None:
    with (
        JudgeServer(lambda body, count: Answer("no", status=500)) as server,
        opened(server, max_tries=3) as client,
    ):
        reply = answers(client, question("q"))["q"]
        assert reply.error == "given up after 3 tries; the last: status 500: no" and not reply.refused
        assert len(server.requests) == 3


def test_a_judge_that_is_not_there_ends_the_run_instead_of_being_asked_every_question() -> None:
    with (
        JudgeServer(lambda body, count: Answer("no", status=502)) as server,
        opened(server, max_tries=2, parallel=2) as client,
    ):
        replies = answers(client, *[question(str(number)) for number in range(40)])
        assert len(replies) == 40 and all(reply.error for reply in replies.values())
        # Five given up one after the other are enough; those under way beside them may still end.
        sent = len(server.requests)
        assert sent <= 2 * (5 + 2)
        assert sum(not reply.asked for reply in replies.values()) >= 40 - 7
        assert answers(client, question("later"))["later"].error and len(server.requests) > sent, (
            "asked anew, it is tried anew"
        )


@pytest.mark.parametrize("date", [False, True])
def test_the_wait_a_server_asks_for_is_kept_as_seconds_and_as_a_date(date: bool) -> None:
    def script(body: dict, count: int) -> str | Answer:
        # A date has whole seconds, so two from now is at least one.
        wait = formatdate(time.time() + 2, usegmt=True) if date else "0.7"
        return Answer("wait", status=429, headers={"Retry-After": wait}) if count == 0 else "done"

    with JudgeServer(script) as server, opened(server) as client:
        assert answers(client, question("q"))["q"].text == "done"
        assert server.times[1] - server.times[0] >= (0.9 if date else 0.7)


def test_other_requests_wait_too_when_the_server_asks_for_it() -> None:
    def script(body: dict, count: int) -> str | Answer:
        return (
            Answer("wait", status=429, headers={"Retry-After": "0.6"})
            if asked(body) == "0" and count == 0
            else "done"
        )

    with JudgeServer(script) as server, opened(server, parallel=1) as client:
        list(client.ask([question("0"), question("1")]))
        assert [asked(body) for body in server.requests] == ["0", "0", "1"]
        assert server.times[1] - server.times[0] >= 0.6


def test_the_pause_doubles_with_each_attempt() -> None:
    with (
        JudgeServer(lambda body, count: Answer("no", status=500)) as server,
        opened(server, backoff=0.1, max_tries=4) as client,
    ):
        answers(client, question("q"))
        pauses = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
        for number, pause in enumerate(pauses):
            # A random part of at most a half is taken off; the request itself takes a little.
            assert 0.05 * 2**number <= pause <= 0.1 * 2**number + 0.2


def test_a_request_the_service_refuses_is_told_from_one_it_did_not_get_to() -> None:
    with (
        JudgeServer(lambda body, count: Answer("maximum context length", status=400)) as server,
        opened(server) as client,
    ):
        reply = answers(client, question("q"))["q"]
        assert reply.refused and "maximum context length" in (reply.error or "") and len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (
            Answer(f"Incorrect API key provided: {SECRET}", status=401),
            "does not take the key in the environment variable JUDGE_KEY",
        ),
        (Answer("no such model", status=404), "does not give judge"),
        (Answer("You exceeded your current quota", status=429, code="insufficient_quota"), "no money left"),
    ],
)
def test_what_no_further_request_can_mend_stops_the_run_at_once(
    answer: Answer, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with (
        JudgeServer(lambda body, count: answer) as server,
        opened(server, parallel=2, key_variable="JUDGE_KEY") as client,
    ):
        with pytest.raises(UserError, match=what) as error:
            list(client.ask([question(str(number)) for number in range(50)]))
        assert SECRET not in str(error.value)
        assert len(server.requests) <= 4


def test_the_key_goes_to_the_server_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def script(body: dict, count: int) -> str | Answer:
        # A gateway may repeat what it was sent.
        if asked(body) == "refused":
            return Answer(f"bad request with Authorization: Bearer {SECRET}", status=400)
        if asked(body) == "fails":
            return Answer(f"trouble with {SECRET}", status=500)
        return f"you are {SECRET}"

    with (
        caplog.at_level("DEBUG"),
        JudgeServer(script) as server,
        opened(server, tmp_path / "replies.jsonl", key_variable="JUDGE_KEY", max_tries=2) as client,
    ):
        replies = answers(client, question("fine"), question("refused"), question("fails"))
        assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in (tmp_path / "replies.jsonl").read_text()
    assert all(SECRET not in (reply.error or "") for reply in replies.values())
    assert SECRET not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("eval")
    )


def test_a_missing_key_is_an_error_that_names_the_variable_except_for_a_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"OPENAI_API_KEY is not set; put the key of api\.openai\.com there"):
        ChatClient("https://api.openai.com/v1", "gpt-4")
    with JudgeServer(lambda body, count: "yes") as server, opened(server) as client:
        assert answers(client, question("q"))["q"].text == "yes"


def test_an_address_that_is_none_or_holds_a_password_is_refused() -> None:
    with pytest.raises(UserError, match="must look like"):
        ChatClient("api.openai.com", "gpt-4")
    with pytest.raises(UserError, match="holds a name or password") as error:
        ChatClient("https://me:secret@judge.example/v1", "gpt-4")
    assert "secret" not in str(error.value)


def test_what_is_asked_arrives_as_it_was_given() -> None:
    logprobs = verdict_logprobs(m=0.75, M=0.25)
    with JudgeServer(lambda body, count: Answer("m", logprobs=logprobs)) as server, opened(server) as client:
        request = question(
            "q", temperature=0.7, max_tokens=1, logprobs=True, top_logprobs=5, extra={"seed": 3}
        )
        reply = answers(client, request)["q"]
        assert server.requests == [
            {
                "model": "judge",
                "messages": [{"role": "user", "content": "q"}],
                "temperature": 0.7,
                "max_tokens": 1,
                "logprobs": True,
                "top_logprobs": 5,
                "seed": 3,
            }
        ]
        assert reply.logprobs == logprobs


def test_requests_are_under_way_side_by_side_up_to_the_number_asked_for() -> None:
    with (
        JudgeServer(lambda body, count: Answer("x", delay=0.1)) as server,
        opened(server, parallel=5) as client,
    ):
        assert len(list(client.ask([question(str(number)) for number in range(20)]))) == 20
        assert server.most_at_once == 5


def test_a_reply_is_paid_once_and_then_comes_from_the_file(tmp_path: Path) -> None:
    cache = tmp_path / "judge" / "replies.jsonl"
    requests = [question(str(number)) for number in range(6)]
    with JudgeServer(lambda body, count: f"answer {asked(body)}") as server:
        with opened(server, cache) as client:
            first = answers(client, *requests[:4])
        with opened(server, cache) as client:
            second = answers(client, *requests)
            assert (client.usage.requests, client.usage.cached) == (2, 4)
        assert len(server.requests) == 6
        assert {key: reply.cached for key, reply in second.items()} == {str(n): n < 4 for n in range(6)}
        assert all(second[key].text == first[key].text for key in first)
        with opened(server, cache) as client:
            assert len(list(client.ask([question("0", attempt=1)]))) == 1
        assert len(server.requests) == 7, "another attempt is another request"
    # Another port of this machine is the same judge: a local server's changes from start to start.
    with JudgeServer(lambda body, count: "no") as other, opened(other, cache) as client:
        assert answers(client, requests[0])["0"].text == "answer 0" and not other.requests


@pytest.mark.parametrize(
    "change", [{"temperature": 1.0}, {"max_tokens": 5}, {"logprobs": True}, {"extra": {"seed": 1}}]
)
def test_another_request_is_not_answered_from_the_file(change: dict, tmp_path: Path) -> None:
    with JudgeServer(lambda body, count: "x") as server, opened(server, tmp_path / "replies.jsonl") as client:
        list(client.ask([question("q")]))
        assert [reply.cached for reply in client.ask([question("q", **change)])] == [False]


def test_equal_requests_are_sent_once_and_each_gets_the_reply() -> None:
    with JudgeServer(lambda body, count: str(count)) as server, opened(server) as client:
        messages = [{"role": "user", "content": "q"}]
        replies = answers(client, *[ChatRequest(key, messages) for key in "abc"])
        assert {key: reply.text for key, reply in replies.items()} == {"a": "0", "b": "0", "c": "0"}
        assert len(server.requests) == 1


def test_text_that_utf_8_cannot_hold_is_refused_when_asked_and_kept_when_answered(tmp_path: Path) -> None:
    half = "half a pair: \ud83d"
    with JudgeServer(lambda body, count: half) as server:
        with opened(server, tmp_path / "replies.jsonl") as client:
            assert client.estimate([question(half)]).prompt_tokens > 0
            replies = answers(client, question(half), question("q"))
        assert replies[half].refused and "surrogate" in (replies[half].error or "")
        with opened(server, tmp_path / "replies.jsonl") as client:
            again = answers(client, question("q"))["q"]
        assert again.cached and again.text == replies["q"].text == half


def test_a_torn_last_line_is_cut_off_and_only_that_request_is_sent_again(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    requests = [question(str(number)) for number in range(3)]
    with JudgeServer(lambda body, count: f"answer {asked(body)}") as server:
        with opened(server, cache, parallel=1) as client:
            list(client.ask(requests))
        whole = cache.read_bytes()
        cache.write_bytes(whole[:-20])
        with opened(server, cache) as client:
            replies = answers(client, *requests)
        assert [asked(body) for body in server.requests] == ["0", "1", "2", "2"]
    assert {reply.text for reply in replies.values()} == {"answer 0", "answer 1", "answer 2"}
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 3


def test_a_run_killed_in_the_middle_pays_for_no_reply_twice(tmp_path: Path) -> None:
    """Killed while requests are under way: those answered before are kept, and the server sees each of them
    once."""
    cache = tmp_path / "replies.jsonl"
    program = (
        "import sys; from pathlib import Path; from eval.chat_client import *\n"
        "from eval.chat_service import *\n"
        "limits = CallLimits(parallel=2)\n"
        "with ChatClient(sys.argv[1], 'judge', limits=limits, cache=Path(sys.argv[2])) as client:\n"
        "    for reply in client.ask([ChatRequest(str(n), [{'role': 'user', 'content': str(n)}]) for n in "
        "range(12)]):\n"
        "        print(reply.text, flush=True)\n"
    )
    with JudgeServer(
        lambda body, count: Answer(asked(body), delay=0.0 if int(asked(body)) < 5 else 0.5)
    ) as server:
        command = [sys.executable, "-c", program, server.url, str(cache)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        before = {run.stdout.readline().strip() for _ in range(5)}
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        run.stdout.close()
        assert before == {"0", "1", "2", "3", "4"}
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert sorted(map(int, again.stdout.split())) == list(range(12))
        sent = [asked(body) for body in server.requests]
        assert all(sent.count(text) == 1 for text in before)


def test_a_reader_that_stops_early_sends_nothing_more_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    cache = tmp_path / "replies.jsonl"
    with (
        JudgeServer(lambda body, count: Answer("x", delay=0.05)) as server,
        opened(server, cache, parallel=2) as client,
    ):
        replies = client.ask([question(str(number)) for number in range(50)])
        next(replies)
        replies.close()  # type: ignore[attr-defined]
        sent = len(server.requests)
        time.sleep(0.2)
        assert len(server.requests) == sent < 10
        assert len(cache.read_text().splitlines()) == sent


def test_two_runs_never_share_a_file_of_replies(tmp_path: Path) -> None:
    with (
        JudgeServer(lambda body, count: "x") as server,
        opened(server, tmp_path / "replies.jsonl"),
        pytest.raises(UserError, match="another run is asking the judge"),
    ):
        opened(server, tmp_path / "replies.jsonl")


# -- costs ------------------------------------------------------------------------------------------------


def test_the_estimate_counts_only_what_is_still_to_be_paid(tmp_path: Path) -> None:
    with JudgeServer(lambda body, count: "x") as server, opened(server, tmp_path / "replies.jsonl") as client:
        list(client.ask([question("a" * 400, max_tokens=10)]))
        estimate = client.estimate([question(letter * 400, max_tokens=10) for letter in "abcc"], 30.0, 60.0)
        # Two are new, of 100 tokens and 4 for the message each; the third is the second once more.
        assert (estimate.requests, estimate.cached, estimate.prompt_tokens, estimate.reply_tokens) == (
            2,
            2,
            208,
            20,
        )
        assert estimate.cost == pytest.approx((208 * 30 + 20 * 60) / 1e6)
        assert len(server.requests) == 1, "an estimate sends nothing"


def test_the_price_is_the_flags_then_nothing_on_this_machine_then_the_table_then_unknown() -> None:
    assert price_of("gpt-4", False) == Price(30.0, 60.0, "list prices of July 2025")
    assert price_of("gpt-4", True) == Price(0.0, 0.0, "a server on this machine")
    assert price_of("gpt-4", True, 1.0, 2.0) == Price(1.0, 2.0, "given by flags")
    assert price_of("judge", False) is None


def test_spending_above_the_limit_needs_a_yes_and_so_does_an_unknown_price() -> None:
    dear = CostEstimate("gpt-4", 805, 0, 600_000, 80_500, Price(30.0, 60.0, "list prices of July 2025"))
    assert dear.cost == pytest.approx(22.83)
    out = io.StringIO()
    with pytest.raises(UserError, match=r"about \$22\.83, above --cost_limit \$5\.00; nothing was sent"):
        dear.confirm(False, 5.0, out)
    assert "805 requests to send (0 answered before), about 600,000 prompt tokens" in out.getvalue()
    dear.confirm(True, 5.0, out)
    dear.confirm(False, 25.0, out)
    unknown = CostEstimate("judge", 3, 0, 100, 100, None)
    with pytest.raises(UserError, match="the price of judge is not known, so nothing was sent"):
        unknown.confirm(False, 5.0, out)
    unknown.confirm(True, 5.0, out)
    # With everything answered before, there is nothing to ask about.
    CostEstimate("judge", 0, 5, 0, 0, None).confirm(False, 0.0, out)


def test_the_estimated_tokens_are_close_above_those_that_were_billed(shared_data: Path) -> None:
    """GPT-4's own counts of the published AlpacaEval 2 judgments of vicuna-7b, prompt and one reply token
    each."""
    from eval.alpaca_farm.benchmarks import ALPACA_EVAL_2
    from eval.alpaca_farm.judging import Annotator
    from eval.alpaca_farm.pairs import Pair

    path = shared_data / "eval/alpaca_eval/results/vicuna-7b/weighted_alpaca_eval_gpt4_turbo/annotations.json"
    annotator, estimated, billed = Annotator(ALPACA_EVAL_2), 0, 0.0
    for place, record in enumerate(json.loads(path.read_text())):
        if record["raw_completion"] is None:
            continue
        pair = Pair(place, record["instruction"], "", record["output_1"], "", record["output_2"], "")
        estimated += estimated_tokens(annotator.request("", pair, False, 0).messages) + 1
        billed += record["raw_completion"]["total_tokens"]
    assert billed == 776_040
    assert 1.0 <= estimated / billed <= 1.3
