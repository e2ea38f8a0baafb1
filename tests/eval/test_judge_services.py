"""What services do to single questions, and in which form they take them: against a scripted server."""

import json
import math
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from judge_server import Answer, JudgeServer, streamed, verdict_logprobs

from eval.alpaca_farm.verdicts import letter_choices
from eval.chat_client import CallLimits, ChatClient, ChatReply
from eval.chat_service import ChatRequest
from eval.verdict_text import Unread, concluding_text
from instruction_modelling.errors import UserError

SECRET = "sk-canary-0123456789abcdefghij"


def question(text: str, **fields: Any) -> ChatRequest:
    """A request whose key is its text."""
    return ChatRequest(text, [{"role": "user", "content": text}], **fields)


def asked(body: dict[str, Any]) -> str:
    """The text of a request that the server got."""
    return body["messages"][-1]["content"]


def opened(address: str, cache: Path | None = None, **further: Any) -> ChatClient:
    """A client that does not wait long."""
    limits = {"backoff": 0.01, "timeout": 5.0, **further.pop("limits", {})}
    return ChatClient(address, "judge", cache=cache, limits=CallLimits(**limits), **further)


def answers(client: ChatClient, *requests: ChatRequest) -> dict[str, ChatReply]:
    """The replies by key."""
    return {reply.key: reply for reply in client.ask(requests)}


def completion(message: dict[str, Any], finish: str = "stop") -> Answer:
    """An answer of status 200 with this message."""
    return Answer(choices=[{"index": 0, "message": message, "finish_reason": finish}])


def body(**fields: Any) -> Answer:
    """An answer of status 200 with this body."""
    return Answer(body=json.dumps(fields).encode())


# What a service does to one question, the words that must be told, and how often it is asked.
OWN_WORDS: dict[str, tuple[Answer, str, int]] = {
    "a content filter on the reply": (
        completion({"role": "assistant"}, "content_filter"),
        "the service filtered the reply (finish_reason content_filter)",
        1,
    ),
    "moderation, 403": (
        Answer("Your input was flagged for violence", status=403),
        "refused with status 403: Your input was flagged for violence",
        1,
    ),
    "a policy, 451": (Answer("not in your country", status=451), "status 451: not in your country", 1),
    "an error within an answer of status 200": (
        body(error={"message": "Provider returned error", "code": 502}),
        "given up after 3 tries; the last: the service answered with an error: Provider returned error",
        3,
    ),
    "a policy within an answer of status 200": (
        body(error={"message": "no", "code": "content_policy_violation"}),
        "the service answered with an error: no",
        1,
    ),
    "an error of the choice": (
        Answer(choices=[{"error": {"message": "flagged", "code": 403}, "message": {"content": ""}}]),
        "the service answered with an error: flagged",
        1,
    ),
    "another shape of error": (
        body(object="error", message="the context length is 2048", code=40303),
        "the service answered with an error: the context length is 2048",
        1,
    ),
    "empty choices": (
        body(choices=[], prompt_filter_results=["jailbreak"]),
        'the answer holds no message: {"choices": [], "prompt_filter_results": ["jailbreak"]}',
        3,
    ),
}


@pytest.mark.parametrize("what", OWN_WORDS)
def test_one_question_is_refused_in_the_services_words_and_not_asked_again_in_a_later_run(
    what: str, tmp_path: Path
) -> None:
    answer, words, tries = OWN_WORDS[what]
    requests = [question(text) for text in ("bad", "good", "fine")]
    with JudgeServer(lambda got, count: answer if asked(got) == "bad" else "[[8]]") as server:
        with opened(server.url, tmp_path / "replies.jsonl") as client:
            replies = answers(client, *requests)
        assert replies["bad"].refused and words in (replies["bad"].error or ""), replies["bad"].error
        assert [replies[key].text for key in ("good", "fine")] == ["[[8]]", "[[8]]"]
        assert [asked(got) for got in server.requests].count("bad") == tries
        sent = len(server.requests)
        with opened(server.url, tmp_path / "replies.jsonl") as client:
            again = answers(client, *requests)
            assert client.estimate(requests).requests == 0
        assert len(server.requests) == sent and again["bad"].error == replies["bad"].error
        with opened(server.url, tmp_path / "replies.jsonl", limits={"ask_refused_again": True}) as client:
            answers(client, *requests)
        assert {asked(got) for got in server.requests[sent:]} == {"bad"}


def test_what_was_refused_and_then_answered_is_kept_as_answered(tmp_path: Path) -> None:
    refuse = True

    def script(got: dict[str, Any], count: int) -> "str | Answer":
        return Answer("flagged", status=403) if refuse and asked(got) == "bad" else "[[8]]"

    cache = tmp_path / "replies.jsonl"
    with JudgeServer(script) as server:
        with opened(server.url, cache) as client:
            answers(client, question("bad"), question("good"))
        refuse = False
        with opened(server.url, cache, limits={"ask_refused_again": True}) as client:
            assert answers(client, question("bad"))["bad"].text == "[[8]]"
        with opened(server.url, cache) as client:
            assert answers(client, question("bad"))["bad"] == ChatReply(
                "bad",
                "[[8]]",
                usage={"prompt_tokens": 1, "completion_tokens": 1},
                cached=True,
                finish_reason="stop",
            )


def test_a_service_that_refuses_everybody_ends_the_run_and_nothing_is_kept_as_refused(tmp_path: Path) -> None:
    refuse = True
    requests = [question(str(number)) for number in range(60)]

    def script(got: dict[str, Any], count: int) -> "str | Answer":
        return Answer("this key has no access", status=403) if refuse else "yes"

    with JudgeServer(script) as server:
        with (
            opened(server.url, tmp_path / "replies.jsonl", limits={"parallel": 2}) as client,
            pytest.raises(UserError, match=r"does not give judge: .*this key has no access"),
        ):
            answers(client, *requests)
        assert len(server.requests) <= 12
        refuse = False
        with opened(server.url, tmp_path / "replies.jsonl") as client:
            assert {reply.text for reply in answers(client, *requests).values()} == {"yes"}


def test_a_question_that_only_breaks_the_service_is_given_up_and_asked_again_in_a_later_run(
    tmp_path: Path,
) -> None:
    with JudgeServer(
        lambda got, count: Answer("kaput", status=500) if asked(got) == "bad" else "[[8]]"
    ) as server:
        for _ in range(2):
            before = len(server.requests)
            with opened(server.url, tmp_path / "replies.jsonl", limits={"max_tries": 4}) as client:
                reply = answers(client, question("bad"), question("good"))["bad"]
            assert (reply.error, reply.refused, reply.asked) == (
                "given up after 4 tries; the last: status 500: kaput",
                False,
                True,
            )
            assert [asked(got) for got in server.requests[before:]].count("bad") == 4


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Rating: "}, {"type": "text", "text": "[[8]]"}], "Rating: [[8]]"),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "perhaps [[2]]"}]},
                {"type": "text", "text": "[[8]]"},
            ],
            "[[8]]",
        ),
        (["[[", "8]]"], "[[8]]"),
        ([{"type": "refusal", "refusal": "I will not."}], "I will not."),
        ([], ""),
        (None, ""),
    ],
)
def test_a_reply_may_be_a_list_of_parts_and_its_thoughts_are_left_out(content: Any, text: str) -> None:
    with (
        JudgeServer(lambda got, count: completion({"role": "assistant", "content": content})) as server,
        opened(server.url) as client,
    ):
        reply = answers(client, question("q"))["q"]
        assert (reply.text, reply.error, len(server.requests)) == (text, None, 1)


def test_an_account_without_money_ends_the_run() -> None:
    with (
        JudgeServer(lambda got, count: Answer("Insufficient Balance", status=402)) as server,
        opened(server.url) as client,
        pytest.raises(UserError, match="no money left: Insufficient Balance"),
    ):
        answers(client, *[question(str(number)) for number in range(50)])


# -- the form of requests ----------------------------------------------------------------------------------


def test_max_completion_tokens_and_no_temperature_are_sent_where_the_service_says_so(tmp_path: Path) -> None:
    def script(got: dict[str, Any], count: int) -> "str | Answer":
        if "max_tokens" in got:
            words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            return Answer(words + "'max_completion_tokens' instead.", status=400, param="max_tokens")
        if got.get("temperature", 1) != 1:
            words = (
                "'temperature' does not support 0 with this model. Only the default (1) value is supported."
            )
            return Answer(words, status=400, code="unsupported_value", param="temperature")
        return "[[8]]"

    requests = [question(str(number), max_tokens=2048, temperature=0.0) for number in range(6)]
    with (
        JudgeServer(script) as server,
        opened(server.url, tmp_path / "replies.jsonl", limits={"parallel": 1}) as client,
    ):
        assert {reply.text for reply in answers(client, *requests).values()} == {"[[8]]"}
        # Learnt once: two refusals, then every request in the form that is taken.
        assert len(server.requests) == 8
        last = server.requests[-1]
        assert last["max_completion_tokens"] == 2048 and not {"max_tokens", "temperature"} & last.keys()
        words = ["max_tokens sent as max_completion_tokens", "temperature left out"]
        assert client.service_changes == words
    # A later run that finds all replies says the same.
    with opened(server.url, tmp_path / "replies.jsonl") as client:
        assert all(reply.cached for reply in answers(client, *requests).values())
        assert client.service_changes == words


def test_a_temperature_that_a_flag_has_set_is_never_dropped_unseen() -> None:
    with (
        JudgeServer(
            lambda got, count: Answer("Unsupported value: 'temperature'", status=400, param="temperature")
        ) as server,
        opened(server.url, changes={"temperature": (0.7, "--judge_temperature 0.7")}) as client,
        pytest.raises(UserError, match=r"does not take --judge_temperature 0\.7: Unsupported value"),
    ):
        answers(client, question("q"))


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("Unrecognized request argument supplied: max_tokens", "max_tokens"),
        ("max_tokens: Extra inputs are not permitted", "max_tokens"),
        ("Please use max_completion_tokens instead of max_tokens", "max_tokens"),
        ("`temperature` may only be set to 1 when thinking is enabled", "temperature"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("temperature is deprecated for this model", "temperature"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_what_is_not_taken_is_told_from_the_words_alone(words: str, field: str, status: int) -> None:
    with (
        JudgeServer(lambda got, count: Answer(words, status=status) if field in got else "[[8]]") as server,
        opened(server.url) as client,
    ):
        reply = answers(client, question("q", max_tokens=100, temperature=0.0))["q"]
        assert reply.text == "[[8]]" and len(server.requests) == 2
        assert server.requests[1].get("max_completion_tokens") == (100 if field == "max_tokens" else None)


def test_log_probabilities_come_with_a_stream_too() -> None:
    given = verdict_logprobs(m=0.75, M=0.25)
    with (
        JudgeServer(lambda got, count: streamed("m", finish_reason="length", logprobs=given)) as server,
        opened(server.url) as client,
    ):
        reply = answers(client, question("q", logprobs=True))["q"]
        assert (reply.text, reply.finish_reason) == ("m", "length")
        assert letter_choices(reply) == (
            [
                {"token": "m", "logprob": math.log(0.75)},
                {"token": "M", "logprob": pytest.approx(math.log(0.25))},
            ],
            ["m"],
        )


def test_options_of_a_stream_that_are_not_taken_are_left_out() -> None:
    def script(got: dict[str, Any], count: int) -> Answer:
        if not got.get("stream"):
            return Answer("stream must be true", status=400)
        if "stream_options" in got:
            return Answer("unknown field stream_options", status=422)
        return streamed("[[8]]")

    with JudgeServer(script) as server, opened(server.url) as client:
        assert answers(client, question("q"))["q"].text == "[[8]]" and len(server.requests) == 3


@pytest.mark.parametrize(
    ("theirs", "ours"), [("MAX_TOKENS", "length"), ("model_length", "length"), ("stop", "stop")]
)
def test_other_services_names_of_an_end_are_read(theirs: str, ours: str) -> None:
    with (
        JudgeServer(lambda got, count: Answer("[[8]]", finish_reason=theirs)) as server,
        opened(server.url) as client,
    ):
        assert answers(client, question("q"))["q"].finish_reason == ours


def test_a_limit_of_the_context_is_no_unknown_field() -> None:
    """vLLM names both fields where a reply is too long for the window."""
    words = (
        "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is "
        "2048 tokens and your request has 52 input tokens"
    )
    with JudgeServer(lambda got, count: Answer(words, status=400)) as server, opened(server.url) as client:
        reply = answers(client, question("q", max_tokens=2048))["q"]
        assert reply.refused and words in (reply.error or "") and len(server.requests) == 1


def test_changes_hold_for_every_request_and_are_another_request() -> None:
    changes = {
        "max_tokens": (5000, "--judge_max_tokens 5000"),
        "temperature": (None, "--judge_temperature none"),
        "extra": ({"chat_template_kwargs": {"enable_thinking": False}}, "--judge_extra_body"),
    }
    with JudgeServer(lambda got, count: "[[8]]") as server, opened(server.url, changes=changes) as client:
        answers(client, question("q", max_tokens=1, temperature=0.0))
        assert server.requests == [
            {
                "model": "judge",
                "messages": [{"role": "user", "content": "q"}],
                "max_tokens": 5000,
                "chat_template_kwargs": {"enable_thinking": False},
            }
        ]


@pytest.mark.parametrize("says_so", [True, False])
def test_a_service_that_only_streams_is_read_as_a_stream(says_so: bool) -> None:
    words = "This model only support stream mode, please enable the stream parameter"

    def script(got: dict[str, Any], count: int) -> Answer:
        if says_so and not got.get("stream"):
            return Answer(words, status=400)
        return streamed("Rating: ", "[[8]]")

    with JudgeServer(script) as server, opened(server.url, limits={"parallel": 1}) as client:
        replies = answers(client, question("a"), question("b"))
        assert {reply.text for reply in replies.values()} == {"Rating: [[8]]"}
        assert replies["a"].usage == {"prompt_tokens": 3, "completion_tokens": 4}
        assert replies["a"].finish_reason == "stop" and len(server.requests) == 3
        assert client.service_changes == ["replies as a stream"]


def test_a_stream_that_breaks_off_or_tells_an_error_is_no_reply() -> None:
    broken = {
        "0": streamed("Rating: [[2", finish_reason=None),
        "1": Answer(
            body=b'data: {"error": {"message": "out of memory", "code": 500}}\n\n',
            headers={"Content-Type": "text/event-stream"},
        ),
    }

    def script(got: dict[str, Any], count: int) -> Answer:
        # The first asking shows that the service streams.
        return broken[asked(got)] if count == 0 and got.get("stream") else streamed("Rating: [[8]]")

    with JudgeServer(script) as server, opened(server.url) as client:
        replies = answers(client, question("0"), question("1"))
        assert {reply.text for reply in replies.values()} == {"Rating: [[8]]"}
    with (
        JudgeServer(lambda got, count: broken[asked(got)]) as server,
        opened(server.url, limits={"max_tries": 2}) as client,
    ):
        replies = answers(client, question("0"), question("1"))
        assert "ended in the middle of its stream" in (replies["0"].error or "")
        assert "the service answered with an error: out of memory" in (replies["1"].error or "")


def test_an_address_may_hold_a_query_and_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    path = "/openai/deployments/gpt-4/chat/completions"
    with JudgeServer(lambda got, count: "[[8]]", path) as server:
        root = server.url.removesuffix("/v1")
        for address in ("/openai/deployments/gpt-4", "/openai/deployments/gpt-4/", path):
            with opened(f"{root}{address}?api-version=2024-02-01") as client:
                assert answers(client, question("q"))["q"].text == "[[8]]"
        assert set(server.paths) == {f"{path}?api-version=2024-02-01"}
        assert {headers["api-key"] for headers in server.headers} == {SECRET}


def test_a_redirect_is_not_followed_since_it_would_take_the_key_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with JudgeServer(lambda got, count: "[[8]]") as other:
        target = f"{other.url}/chat/completions"
        with (
            JudgeServer(lambda got, count: Answer("", status=307, headers={"Location": target})) as server,
            opened(f"{server.url}?api-version=1") as client,
            pytest.raises(UserError, match=f"redirect to {target} .*--judge_base_url"),
        ):
            answers(client, question("q"))
        assert not other.requests


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("https://judge.example/v1?api-key=hidden-key-hidden", r'holds a key \("api-key"\)'),
        ("https://judge.example/v1?Token=hidden-key-hidden", r'holds a key \("Token"\)'),
        ("http://[::1", "must look like"),
    ],
)
def test_an_address_that_holds_a_key_is_refused_without_repeating_it(address: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as error:
        ChatClient(address, "gpt-4")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("key", ["sk-one\nsk-two-of-two", "sk-“quoted-by-a-page”"])
def test_a_key_that_cannot_be_one_is_named_before_anything_is_sent(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters that no key has") as error:
        ChatClient("https://judge.example/v1", "gpt-4")
    assert "sk-" not in str(error.value)


CANARIES: dict[str, Answer] = {
    "status 400": Answer(f"bad header Bearer {SECRET}", status=400),
    "status 403": Answer(f"{SECRET} may not", status=403),
    "status 500": Answer(f"{SECRET} broke it", status=500),
    "error body": body(error={"message": f"unknown key {SECRET}"}),
    "no message": body(choices=[], request={"authorization": f"Bearer {SECRET}"}),
    "filtered": Answer(
        choices=[
            {
                "message": {"role": "assistant"},
                "finish_reason": "content_filter",
                "content_filter_results": {"header": SECRET},
            }
        ]
    ),
    "logprobs": Answer("m", logprobs=verdict_logprobs(**{SECRET: 0.5, "m": 0.5})),
    "stream": streamed("you are ", SECRET),
    "page": Answer(body=f"<html>{SECRET}".encode()),
}


@pytest.mark.parametrize("what", CANARIES)
def test_a_key_that_a_service_repeats_is_in_no_reply_file_or_log(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    cache = tmp_path / "replies.jsonl"
    with (
        caplog.at_level("DEBUG"),
        JudgeServer(lambda got, count: CANARIES[what] if asked(got) == "bad" else "fine") as server,
        opened(server.url, cache, limits={"max_tries": 2}) as client,
    ):
        replies = answers(client, question("bad"), question("good"))
        assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(replies)
    assert SECRET not in cache.read_text()
    assert SECRET not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("eval")
    )


def test_a_piece_of_a_stream_that_is_none_is_told_without_its_contents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client's own warning of a piece of another type repeats what is in it."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    piece = {"id": "c", "choices": [{"index": 0, "delta": {"content": [SECRET]}, "finish_reason": "stop"}]}
    odd = Answer(
        body=f"data: {json.dumps(piece)}\n\n".encode(), headers={"Content-Type": "text/event-stream"}
    )
    with (
        JudgeServer(lambda got, count: odd if asked(got) == "bad" else "fine") as server,
        warnings.catch_warnings(record=True) as seen,
        opened(server.url, limits={"max_tries": 2}) as client,
    ):
        replies = answers(client, question("bad"))
    assert SECRET not in repr(replies) and not any(SECRET in str(warning.message) for warning in seen)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_service_sends_each_question_has_a_reply_or_a_reason(seed: int) -> None:
    rng = random.Random(seed)
    junk = [None, "", 0, 1.5, True, [], {}, "x", [None], {"a": 1}, {"message": "no"}, {"code": [1]}, 10**400]
    whole = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "[[8]]"},
                "delta": {"role": "assistant", "content": "[[8]]"},
                "logprobs": verdict_logprobs(m=0.5, M=0.5),
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "error": None,
    }

    def places(value: Any) -> list[tuple[Any, Any]]:
        inside = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        return [one for key, part in list(inside) for one in ((value, key), *places(part))]

    def script(got: dict[str, Any], count: int) -> Answer:
        changed = json.loads(json.dumps(whole))
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(places(changed))
            holder[key] = rng.choice(junk)
        text = json.dumps(changed)
        if rng.random() < 0.3:
            stream = {"Content-Type": "text/event-stream"}
            return Answer(body=f"data: {text}\n\ndata: [DONE]\n\n".encode(), headers=stream)
        return Answer(body=text.encode(), status=rng.choice([200, 200, 200, 400, 403, 422, 451, 500]))

    requests = [question(str(number), max_tokens=5) for number in range(120)]
    with JudgeServer(script) as server, opened(server.url, limits={"max_tries": 2}) as client:
        replies = answers(client, *requests)
    assert len(replies) == 120
    for reply in replies.values():
        assert isinstance(reply.text, str) and (reply.error is None or reply.error.strip())
        json.dumps([reply.logprobs, reply.usage], allow_nan=False)
        assert isinstance(concluding_text(reply), str | Unread)
        letter_choices(reply)
    assert 5 < sum(reply.error is None for reply in replies.values()) < 115


# -- what a judge concluded --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "finish", "concluded"),
    [
        ("<think>\nmaybe [[4]]\n</think>\n\nRating: [[9]]", "stop", "Rating: [[9]]"),
        ("maybe [[4]]\n</think>\n\nRating: [[9]]", "stop", "Rating: [[9]]"),
        ("Rating: [[9]]", None, "Rating: [[9]]"),
        ("It leaves `<think>` in. Rating: [[9]]", "stop", "It leaves  in. Rating: [[9]]"),
        ('Rating: [[9]], since "</think>" is left', "stop", "Rating: [[9]], since  is left"),
        ("It shows `<think>[[2]]</think>`. Rating: [[9]]", "stop", "It shows ``. Rating: [[9]]"),
    ],
)
def test_thoughts_are_not_part_of_the_conclusion(text: str, finish: str | None, concluded: str) -> None:
    read = concluding_text(ChatReply("k", text, finish_reason=finish))
    assert isinstance(read, str) and read.strip() == concluded


@pytest.mark.parametrize(
    ("text", "finish", "reason", "again"),
    [
        ("<think>\n[[2]] is for answers", "length", "ran out of tokens while the judge was thinking", False),
        # A chat template has opened the thought: nothing in the text says that it is one.
        ("[[2]] is for answers that say nothing; this", "length", "ran out of tokens before it ended", False),
        ("<think>\n[[2]] is for answers", "stop", "ends while the judge is thinking", True),
        ("", "length", "ran out of tokens before it ended", False),
        ("", "stop", "the reply is empty", True),
        ("The answer", "content_filter", "the service filtered the reply", False),
    ],
)
def test_a_reply_that_did_not_end_concludes_nothing(text: str, finish: str, reason: str, again: bool) -> None:
    read = concluding_text(ChatReply("k", text, finish_reason=finish))
    assert isinstance(read, Unread) and reason in read.reason and read.again is again


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b"7"])
def test_an_answer_that_is_no_object_ends(body: bytes) -> None:
    def script(_: Any, count: int) -> Answer:
        return Answer(body=body) if count < 5 else Answer("Rating: [[7]]")

    with JudgeServer(script) as server:
        client = ChatClient(server.url, "j", limits=CallLimits(max_tries=2))
        (reply,) = client.ask([ChatRequest(key="k", messages=[{"role": "user", "content": "q"}])])
        assert reply.error and reply.text == "" and len(server.requests) == 2
