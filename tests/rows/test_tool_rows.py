"""Tool calls, definitions and outputs mean what their writer meant, in whichever form they stand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_files import CALL, TOOL, read_one

from instruction_modelling.rows.conversations import Conversation, Message

USER = {"role": "user", "content": "Add."}


def calls_of(folder: Path, *calls: Any) -> tuple[dict[str, Any], ...]:
    return (
        read_one(folder, {"messages": [USER, {"role": "assistant", "tool_calls": list(calls)}]})
        .messages[1]
        .tool_calls
    )


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"type": "function", "function": {"name": "add", "parameters": {"a": 1}, "arguments": None}},
        {"type": "function", "function": {"name": "add"}, "args": {"a": 1}},
        {"type": "function", "function": {"name": "add", "arguments": {"a": 1}, "input": '{ "a":1 }'}},
        {"name": "add", "arguments": {"a": 1}},
        {"name": "add", "arguments": {"a": 1, "b": None}, "function": None},
        {"type": "tool_call", "name": "add", "args": {"a": 1}},
        {"type": "tool_use", "name": "add", "input": {"a": 1}},
        {"name": "add", "parameters": '{"a": 1}'},
        {"type": "function", "function": '{"name": "add", "arguments": {"a": 1}}'},
        '{"name": "add", "arguments": {"a": 1}}',
    ],
)
def test_a_call_is_the_same_call_in_every_form(tmp_path: Path, call: Any) -> None:
    assert calls_of(tmp_path, call, CALL) == (CALL, CALL)


@pytest.mark.parametrize("call", [{"name": "now", "function": None}, {"name": "now", "arguments": ""}])
def test_a_call_without_arguments_has_an_empty_object(tmp_path: Path, call: dict[str, Any]) -> None:
    assert calls_of(tmp_path, call) == ({"type": "function", "function": {"name": "now", "arguments": {}}},)


def test_a_call_keeps_its_id_and_nulls_that_its_writer_wrote_into_a_string(tmp_path: Path) -> None:
    (call,) = calls_of(tmp_path, {"id": "c1", "name": "add", "arguments": '{"a": null, "b": [null]}'})
    arguments = {"a": None, "b": [None]}
    assert call == {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    (call,) = calls_of(tmp_path, {"name": "add", "arguments": {"a": {"x": None, "y": 1}, "b": [None]}})
    assert call["function"]["arguments"] == {"a": {"y": 1}, "b": [None]}


def test_tool_calls_as_a_json_string(tmp_path: Path) -> None:
    row = {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}]}
    assert read_one(tmp_path, row).messages[1] == Message("assistant", "", tool_calls=(CALL,))


def test_arguments_are_an_object_for_a_template_or_the_string_it_asks_for() -> None:
    message = Message("assistant", "", tool_calls=(CALL,))
    assert message.for_template()["tool_calls"] == [CALL]
    (call,) = message.for_template(string_arguments=True)["tool_calls"]
    assert call == {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        {"function": TOOL["function"]},
        {"name": "add", "parameters": {"type": "object"}},
        {"type": "function", "name": "add", "parameters": {"type": "object"}},
        {"name": "add", "input_schema": {"type": "object"}},
        {"name": "add", "parameters": '{"type": "object"}'},
        {"type": "function", "function": json.dumps(TOOL["function"])},
        {"name": "add", "parameters": {"type": "object", "properties": None}, "description": None},
        json.dumps(TOOL),
    ],
)
def test_a_definition_is_the_same_definition_in_every_form(tmp_path: Path, tool: Any) -> None:
    messages = [USER, {"role": "assistant", "content": "x"}]
    for column in ("tools", "functions"):
        assert read_one(tmp_path, {"messages": messages, column: [tool]}).tools == (TOOL,)
        assert (
            read_one(tmp_path, {"messages": messages, column: json.dumps([tool])}).tools[0]["function"][
                "name"
            ]
            == "add"
        )


def test_a_tool_that_the_maker_of_the_model_built_in_stays_as_it_is(tmp_path: Path) -> None:
    tools = [{"type": "code_interpreter"}, TOOL]
    row = {"messages": [USER, {"role": "assistant", "content": "x"}], "tools": tools}
    assert read_one(tmp_path, row).tools == tuple(tools)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": 1, "b": None}, '{"a": 1, "b": null}'),
        ([1, "é"], '[1, "é"]'),
        ([{"type": "event", "n": 1}], '[{"type": "event", "n": 1}]'),
        ([{"type": "text", "text": "15 "}, {"type": "output_text", "text": "m"}], "15 m"),
        (15, "15"),
        (True, "true"),
        ("15", "15"),
    ],
)
def test_a_tool_answers_with_any_json_value(tmp_path: Path, content: Any, text: str) -> None:
    row = {"messages": [USER, {"role": "tool", "content": content, "weight": 0.5}]}
    assert read_one(tmp_path, row).messages[1] == Message("tool", text, weight=0.5)


def test_calls_written_as_the_content_of_a_message(tmp_path: Path) -> None:
    called = json.dumps({"name": "add", "arguments": {"a": 1}})
    for role in ("function_call", "tool_call"):
        row = {
            "conversations": [
                {"from": "human", "value": "Add."},
                {"from": "gpt", "value": "I add."},
                {"from": role, "value": called},
                {"from": role, "value": f"[{called}, {called}]"},
                {"from": "observation", "value": "2"},
                {"from": role, "value": called, "weight": 0},
                {"role": "tool_response", "content": "2"},
            ]
        }
        assert read_one(tmp_path, row).messages == (
            Message("user", "Add."),
            Message("assistant", "I add.", tool_calls=(CALL, CALL, CALL)),
            Message("tool", "2"),
            Message("assistant", "", weight=0.0, tool_calls=(CALL,)),
            Message("tool", "2"),
        )


def test_the_older_function_call_is_one_call(tmp_path: Path) -> None:
    call = {"name": "add", "arguments": '{"a": 1}'}
    row = {"messages": [USER, {"role": "assistant", "content": None, "function_call": call}]}
    assert read_one(tmp_path, row).messages[1] == Message("assistant", "", tool_calls=(CALL,))


ARGUMENTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.recursive(
        st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=ARGUMENTS, indent=st.none() | st.just(1))
def test_arguments_as_a_string_are_the_object(
    tmp_path: Path, arguments: dict[str, Any], indent: int | None
) -> None:
    as_string = {"name": "f", "arguments": json.dumps(arguments, indent=indent)}
    assert calls_of(tmp_path, as_string) == calls_of(tmp_path, {"name": "f", "args": arguments})


def test_real_calls_are_read(shared_data: Path) -> None:
    from instruction_modelling.rows.conversations import read_conversations

    path = shared_data / "raw" / "sharegpt" / "llamafactory_glaive_toolcall_en_demo.json"
    conversations: Sequence[Conversation] = read_conversations(path).conversations
    rows = json.loads(path.read_text())
    for row, conversation in zip(rows, conversations, strict=True):
        written = [
            json.loads(turn["value"]) for turn in row["conversations"] if turn["from"] == "function_call"
        ]
        read = [call["function"] for message in conversation.messages for call in message.tool_calls]
        assert read == written
        assert [tool["function"] for tool in conversation.tools] == json.loads(row["tools"] or "[]")
