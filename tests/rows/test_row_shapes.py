"""What each shape of training row becomes."""

import json
from pathlib import Path
from typing import Any

import pytest
from row_files import CALL, GOOD, GOOD_MESSAGES, TOOL, read_one, write

from instruction_modelling.rows.conversations import Conversation, Message, read_conversations


def test_messages_row_keeps_every_field(tmp_path: Path) -> None:
    row = {
        "id": "a1",
        "dataset": "mine",
        "tools": [TOOL],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": " 1+1? \n", "name": "ann", "weight": 0},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [CALL],
                "reasoning_content": "Add.",
                "weight": 2.5,
            },
            {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
            {"role": "assistant", "content": "2"},
        ],
    }
    assert read_one(tmp_path, row) == Conversation(
        row=0,
        line=1,
        id="a1",
        dataset="mine",
        messages=(
            Message("system", "Be brief."),
            Message("user", " 1+1? \n", weight=0.0, name="ann"),
            Message("assistant", "", weight=2.5, reasoning_content="Add.", tool_calls=(CALL,)),
            Message("tool", "2", tool_call_id="c1", name="add"),
            Message("assistant", "2"),
        ),
        tools=(TOOL,),
        plain=False,
    )


def test_for_template_has_only_the_fields_that_are_set() -> None:
    assert Message("user", "Hi", weight=3.0).for_template() == {"role": "user", "content": "Hi"}
    full = Message("assistant", "", 1.0, reasoning_content="", tool_calls=(CALL,), tool_call_id="c", name="n")
    assert full.for_template() == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "",
        "tool_calls": [CALL],
        "tool_call_id": "c",
        "name": "n",
    }


def test_null_fields_are_absent_and_unknown_ones_are_counted(tmp_path: Path) -> None:
    nulls = [
        "weight",
        "tool_calls",
        "reasoning_content",
        "train",
        "function_call",
        "audio",
        "refusal",
        "name",
    ]
    message: dict[str, Any] = dict.fromkeys([*nulls, "tool_call_id"]) | GOOD["messages"][0]
    message |= {"token_count": 3, "annotations": []}
    row: dict[str, Any] = {"messages": [message, GOOD["messages"][1]], "score": 0.5}
    row |= dict.fromkeys(["conversations", "id", "dataset", "tools", "system", "prompt", "functions"])
    conversation = read_one(tmp_path, row)
    assert conversation.messages == GOOD_MESSAGES
    assert (conversation.id, conversation.dataset, conversation.tools) == ("data_0", "data", ())
    assert read_conversations(write(tmp_path, row, row)).unknown_keys == {
        "message key token_count": 2,
        "message key annotations": 2,
        "column score": 2,
    }


@pytest.mark.parametrize(("given_role", "role"), [("developer", "system"), ("function", "tool")])
def test_roles_by_other_names_in_messages(tmp_path: Path, given_role: str, role: str) -> None:
    row = {"messages": [{"role": given_role, "content": "x"}]}
    assert read_one(tmp_path, row).messages == (Message(role, "x"),)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_three_names_and_excuses_a_null_content(tmp_path: Path, key: str) -> None:
    row = {"messages": [{"role": "assistant", "content": None, key: "Hm."}]}
    (message,) = read_one(tmp_path, row).messages
    assert message == Message("assistant", "", reasoning_content="Hm.", reasoning_key=key)
    assert message.for_template() == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
        key: "Hm.",
    }


def test_the_same_reasoning_under_two_names_is_one(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "assistant", "content": "x", "reasoning": "Hm.", "reasoning_content": "Hm."}]
    }
    assert read_one(tmp_path, row).messages == (Message("assistant", "x", reasoning_content="Hm."),)


def test_empty_assistant_only_fields_on_another_role_are_absent(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "x", "reasoning_content": "", "tool_calls": []}]}
    assert read_one(tmp_path, row).messages == (Message("user", "x"),)


def test_text_parts_are_joined_as_they_are(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "a "},
        {"type": "text", "text": ""},
        {"type": "text", "text": "b\n", "image": None},
    ]
    assert read_one(tmp_path, {"messages": [{"role": "user", "content": parts}]}).messages == (
        Message("user", "a b\n"),
    )


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[
            ("human", "user"),
            ("user", "user"),
            ("system", "system"),
            ("gpt", "assistant"),
            ("chatgpt", "assistant"),
        ],
        *[("bing", "assistant"), ("bard", "assistant"), ("assistant", "assistant"), ("model", "assistant")],
        *[("tool", "tool"), ("observation", "tool"), ("function_response", "tool")],
    ],
)
def test_sharegpt_roles(tmp_path: Path, name: str, role: str) -> None:
    expected = (Message(role, "x"),)
    assert read_one(tmp_path, {"conversations": [{"from": name, "value": "x"}]}).messages == expected
    assert read_one(tmp_path, {"conversations": [{"role": name, "content": "x"}]}).messages == expected
    with_nulls = {"from": None, "value": None, "role": name, "content": "x"}
    assert read_one(tmp_path, {"conversations": [with_nulls]}).messages == expected


def test_sharegpt_row_with_system_and_tools_as_a_json_string(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi", "weight": 0.5}, {"from": "gpt", "value": "Hello"}]
    conversation = read_one(
        tmp_path, {"conversations": turns, "system": "Be kind.", "tools": json.dumps([TOOL])}
    )
    assert conversation.messages == (
        Message("system", "Be kind."),
        Message("user", "Hi", weight=0.5),
        Message("assistant", "Hello"),
    )
    assert conversation.tools == (TOOL,)
    assert read_one(tmp_path, {"conversations": turns, "system": " ", "tools": ""}).messages[0].role == "user"


def test_system_column_that_the_messages_repeat_is_not_doubled(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be kind."}
    expected = (Message("system", "Be kind."), *GOOD_MESSAGES)
    assert (
        read_one(tmp_path, {"messages": [system, *GOOD["messages"]], "system": "Be kind."}).messages
        == expected
    )
    assert read_one(tmp_path, {"messages": GOOD["messages"], "system": "Be kind."}).messages == expected


def test_prompt_and_completion_strings_are_plain_and_verbatim(tmp_path: Path) -> None:
    conversation = read_one(tmp_path, {"prompt": "  Q:\n", "completion": " A </s> "})
    assert conversation.plain
    assert conversation.messages == (Message("user", "  Q:\n"), Message("assistant", " A </s> "))


def test_prompt_and_completion_lists_are_one_chat(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello"}],
    }
    conversation = read_one(tmp_path, row | {"tools": [TOOL]})
    assert not conversation.plain
    assert conversation.messages == GOOD_MESSAGES
    assert conversation.tools == (TOOL,)


@pytest.mark.parametrize(
    ("extra", "user"),
    [
        ({}, "Add."),
        ({"input": ""}, "Add."),
        ({"input": " \n"}, "Add."),
        ({"input": None}, "Add."),
        ({"input": "1 2"}, "Add.\n\n1 2"),
    ],
)
def test_alpaca_row(tmp_path: Path, extra: dict[str, Any], user: str) -> None:
    conversation = read_one(tmp_path, {"instruction": "Add.", "output": "3"} | extra)
    assert conversation.messages == (Message("user", user), Message("assistant", "3"))
    assert not conversation.plain


def test_alpaca_row_with_system_and_history(tmp_path: Path) -> None:
    row = {
        "instruction": "And 2+2?",
        "input": "",
        "output": "4",
        "system": "S",
        "history": [["1+1?", "2"], ["Sure?", "Yes"]],
    }
    assert read_one(tmp_path, row).messages == (
        Message("system", "S"),
        Message("user", "1+1?"),
        Message("assistant", "2"),
        Message("user", "Sure?"),
        Message("assistant", "Yes"),
        Message("user", "And 2+2?"),
        Message("assistant", "4"),
    )


def test_the_first_shape_wins(tmp_path: Path) -> None:
    alpaca = {"instruction": "alpaca", "output": "alpaca"}
    plain = {"prompt": "plain", "completion": "plain"}
    turns = [{"from": name, "value": "sharegpt"} for name in ("human", "gpt")]
    sharegpt = {"conversations": turns}
    assert read_one(tmp_path, alpaca | plain | GOOD).messages == GOOD_MESSAGES
    assert read_one(tmp_path, alpaca | plain | sharegpt).messages[0] == Message("user", "sharegpt")
    assert read_one(tmp_path, alpaca | plain).messages[0].content == "plain"
    assert read_one(tmp_path, alpaca | plain | {"completion": None}).messages[0].content == "alpaca"


def test_valid_but_unusual_rows(tmp_path: Path) -> None:
    """A trailing user turn, a system message in the middle, an empty response, NUL and U+2028 in a string."""
    row = {
        "id": 7,
        "messages": [
            {"role": "assistant", "content": ""},
            {"role": "system", "content": "a\u2028b\u0085c\x00d"},
            {"role": "user", "content": "😀"},
        ],
    }
    expected = (Message("assistant", ""), Message("system", "a\u2028b\u0085c\x00d"), Message("user", "😀"))
    for ensure_ascii in (True, False):
        conversation = read_one(tmp_path, json.dumps(row, ensure_ascii=ensure_ascii).encode())
        assert conversation.messages == expected
        assert conversation.id == "7"


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize("as_string", [False, True])
def test_lists_of_messages_by_every_name_and_as_a_json_string(
    tmp_path: Path, column: str, as_string: bool
) -> None:
    for messages in (
        GOOD["messages"],
        [{"from": "Human", "value": "Hi"}, {"from": "GPT", "value": "Hello"}],
        [{"role": "USER", "content": "Hi"}, {"role": "model", "content": "Hello"}],
    ):
        row = {column: json.dumps(messages) if as_string else messages}
        assert read_one(tmp_path, row).messages == GOOD_MESSAGES


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "response": "Hello"},
        {"prompt": [GOOD["messages"][0]], "response": [GOOD["messages"][1]]},
        {"instruction": "Hi", "context": "", "response": "Hello", "category": "qa"},
        {"instruction": "Hi", "input": " ", "response": "Hello"},
        {"question": "Hi", "response": "Hello"},
    ],
)
def test_pairs_of_columns_are_a_chat(tmp_path: Path, row: dict[str, Any]) -> None:
    conversation = read_one(tmp_path, row)
    assert (conversation.messages, conversation.plain) == (GOOD_MESSAGES, False)


def test_dolly_row_has_its_context_behind_the_instruction(tmp_path: Path) -> None:
    row = {"instruction": "Add", "context": "1 and 2", "response": "3"}
    assert read_one(tmp_path, row).messages == (Message("user", "Add\n\n1 and 2"), Message("assistant", "3"))


def test_system_prompt_is_the_system_column_by_another_name(tmp_path: Path) -> None:
    expected = (Message("system", "Be kind."), *GOOD_MESSAGES)
    for row in (GOOD, {"question": "Hi", "response": "Hello"}, {"instruction": "Hi", "output": "Hello"}):
        assert read_one(tmp_path, row | {"system_prompt": "Be kind."}).messages == expected
        both = {"system_prompt": "Be kind.", "system": "Be kind."}
        assert read_one(tmp_path, row | both).messages == expected


@pytest.mark.parametrize("given", [{"enable_thinking": False, "x": None}, '{"enable_thinking": false}'])
def test_template_variables_are_kept_with_the_row(tmp_path: Path, given: Any) -> None:
    row = GOOD | {"chat_template_kwargs": given}
    assert read_one(tmp_path, row).template_variables == {"enable_thinking": False}


def test_reasoning_parts_are_reasoning(tmp_path: Path) -> None:
    for thinking in ("Hm.", [{"type": "text", "text": "Hm."}]):
        parts = [{"type": "thinking", "thinking": thinking}, {"type": "output_text", "text": "x"}]
        row = {"messages": [{"role": "assistant", "content": parts}]}
        assert read_one(tmp_path, row).messages == (Message("assistant", "x", reasoning_content="Hm."),)
