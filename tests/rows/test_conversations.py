"""Reading training rows: what each shape becomes, and what each kind of bad row is refused for."""

import gzip
import hashlib
import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import (
    ROLES,
    BadRow,
    Conversation,
    ConversationFile,
    Message,
    bad_rows_table,
    check_bad_rows,
    read_conversations,
)

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
GOOD_MESSAGES = (Message("user", "Hi"), Message("assistant", "Hello"))
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def write(folder: Path, *rows: Any, name: str = "data.jsonl") -> Path:
    """A JSON Lines file: bytes as they are, other values as JSON, each on a line of its own."""
    path = folder / name
    path.write_bytes(
        b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    )
    return path


def read_one(folder: Path, row: Any) -> Conversation:
    """The one row's conversation; fails with the reason if it is refused."""
    file = read_conversations(write(folder, row))
    assert file.bad_rows == []
    assert len(file.conversations) == 1
    return file.conversations[0]


# --- Accepted shapes --------------------------------------------------------------------------------------


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


def test_null_fields_are_absent_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("given_role", "role"), [("developer", "system"), ("function", "tool")])
def test_roles_by_other_names_in_messages(tmp_path: Path, given_role: str, role: str) -> None:
    row = {"messages": [{"role": given_role, "content": "x"}]}
    assert read_one(tmp_path, row).messages == (Message(role, "x"),)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_three_names_and_excuses_a_null_content(tmp_path: Path, key: str) -> None:
    row = {"messages": [{"role": "assistant", "content": None, key: "Hm."}]}
    assert read_one(tmp_path, row).messages == (Message("assistant", "", reasoning_content="Hm."),)


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
    "call", [CALL, {"name": "add", "arguments": {"a": 1}}, {"name": "now", "function": None}]
)
def test_tool_calls_are_kept_as_given(tmp_path: Path, call: dict[str, Any]) -> None:
    row = {"messages": [{"role": "assistant", "tool_calls": [call, CALL]}]}
    assert read_one(tmp_path, row).messages == (Message("assistant", "", tool_calls=(call, CALL)),)


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
    sharegpt = {"conversations": [{"from": "human", "value": "sharegpt"}]}
    assert read_one(tmp_path, alpaca | plain | GOOD).messages == GOOD_MESSAGES
    assert read_one(tmp_path, alpaca | plain | sharegpt).messages == (Message("user", "sharegpt"),)
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


# --- Files ------------------------------------------------------------------------------------------------


def test_rows_lines_ids_and_digest(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    path = tmp_path / "lima.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n \n{]\r\n" + good + b"\n\n" + good)
    file = read_conversations(str(path))
    assert [(c.row, c.line, c.id, c.dataset) for c in file.conversations] == [
        (0, 1, "lima_0", "lima"),
        (2, 5, "lima_2", "lima"),
        (3, 7, "lima_3", "lima"),
    ]
    assert [(bad.row, bad.line) for bad in file.bad_rows] == [(1, 4)]
    assert file.bad_rows[0].where(path) == f"{path}:4"
    assert (file.rows, file.blank_lines, file.path) == (4, 3, path)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\n  \t"])
def test_json_array(tmp_path: Path, prefix: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(
        prefix + json.dumps([GOOD, 3, GOOD | {"id": "x"}, {"a": 1, "id": "y"}], indent=2).encode() + b"\n"
    )
    file = read_conversations(path)
    assert [(c.row, c.line, c.id, c.messages) for c in file.conversations] == [
        (0, 1, "rows_0", GOOD_MESSAGES),
        (2, 3, "x", GOOD_MESSAGES),
    ]
    assert [(bad.row, bad.line, bad.id, bad.reason) for bad in file.bad_rows] == [
        (1, 2, None, "not an object"),
        (3, 4, "y", "no recognised columns"),
    ]
    assert (file.rows, file.blank_lines) == (4, 0)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_row_of_an_array_that_would_lose_data_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    good = json.dumps(GOOD)
    path.write_text(f'[{{"messages": 1, "messages": 2}}, {good}, {{"id": 1{"0" * 5000}}}, {good}]')
    file = read_conversations(path)
    assert [bad.reason for bad in file.bad_rows] == ["repeated key", "integer too long"]
    assert [c.row for c in file.conversations] == [1, 3]


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(json.dumps(GOOD).encode() + b"\n",), daemon=True)
    writer.start()
    assert [c.messages for c in read_conversations(path).conversations] == [GOOD_MESSAGES]
    writer.join(timeout=10)


def test_a_long_row_is_read_whole(tmp_path: Path) -> None:
    text = "long " * 400_000
    conversation = read_one(tmp_path, {"prompt": text, "completion": "x"})
    assert conversation.messages[0].content == text


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["is empty", '"messages"']),
        (b"\n \n\r\n", ["holds no rows", '"messages"']),
        (b"\xef\xbb\xbf", ["holds no rows"]),
        (b"[]", ["holds no rows"]),
        (b" [ ] ", ["holds no rows"]),
        (gzip.compress(b"{}\n", mtime=0), ["gzip", "gunzip"]),
        (b"BZh91AY", ["bzip2", "bunzip2"]),
        (b"\xfd7zXZ\x00..", ["xz", "unxz"]),
        (b"\x28\xb5\x2f\xfd....", ["zstd", "unzstd"]),
        (b"PK\x03\x04....", ["zip", "unzip"]),
        (b"PAR1....PAR1", ["Parquet", "from_parquet"]),
        (b"ARROW1\x00\x00", ["Arrow", "from_file"]),
        ("{}".encode("utf-16"), ["UTF-16", "iconv"]),
        ("{}\n".encode("utf-16-le"), ["UTF-16", "convert"]),
        (b"\x7fELF\x02\x01\x01\x00", ["binary"]),
        (b'[{"a": 1},\n {"a": }]', [":2:", "element 2", "column 8"]),
        (b'[{"a": 1},\n', ["element 2", "broken"]),
        (b'[{"a": 1}', [":1:", "element 1", "',' or ']'"]),
        (b"[{}\n{}]", [":2:", "element 1", "',' or ']'"]),
        (b"[{},]", ["element 2", "trailing comma"]),
        (b"[", ["element 1"]),
        (b'[{"a": "x\ny"}]', [":1:", "control character", "\\n"]),
        (b"[{}]\n[{}]\n", [":2:", "more text follows"]),
        (b'[{"a": "\xff"},\n"b\xfe"]', [":1:", "0xff", "UTF-8"]),
        (b"[{}, " + b"[" * 100_000, ["element 2", "nested too deeply"]),
    ],
)
def test_a_file_that_cannot_be_read_is_a_user_error(
    tmp_path: Path, content: bytes, fragments: list[str]
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_conversations(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    for fragment in fragments:
        assert fragment in message


def test_a_path_that_is_no_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_conversations(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="is a directory"):
        read_conversations(tmp_path)
    (tmp_path / "file").write_text("{}")
    with pytest.raises(UserError, match="cannot be read: Not a directory"):
        read_conversations(tmp_path / "file" / "x.jsonl")


# --- Bad rows ---------------------------------------------------------------------------------------------


def chat(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


def user(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "Hi"} | fields


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "Hello"} | fields


DEEP = b"[" * 100_000
HOSTILE: list[tuple[Any, str, list[str]]] = [
    # bytes and JSON
    (
        b'{"prompt": "caf\xe9", "completion": "x"}',
        "not UTF-8",
        ["byte 16", "0xe9", "caf", "save the file as UTF-8"],
    ),
    (b'{"prompt": "\xed\xa0\x80", "completion": "x"}', "not UTF-8", ["byte 13", "0xed"]),
    (b"{", "not JSON", ["column 2", "'{'", "one whole JSON object on one line"]),
    (b"hello", "not JSON", ["column 1", "'hello'"]),
    (b"{'prompt': 'x'}", "not JSON", ["column 2", "double quotes"]),
    (b'{"prompt": "x",}', "not JSON", ["column 16", "trailing commas"]),
    (b'{"prompt": "x"} {"prompt": "y"}', "not JSON", ["More text after the value", "column 17"]),
    (b'{"prompt": "a\tb"}', "not JSON", ["control character", "column 14", "\\t"]),
    (b'{"prompt": "a\rb", "completion": ""}', "not JSON", ["control character", "\\n"]),
    (b'{"prompt": "a\\x41"}', "not JSON", ["escape", "column 14"]),
    (b'\xef\xbb\xbf{"prompt": "x"}', "not JSON", ["column 1", "\\ufeff"]),
    (b"// a comment", "not JSON", ["column 1"]),
    (b'{"a": ' + DEEP, "nested too deeply", ["flatten"]),
    (b'{"tools": ' + DEEP + b"]" * 100_000 + b"}", "nested too deeply", ["flatten"]),
    (b'{"prompt": "x", "completion": "a", "completion": "b"}', "repeated key", ["'completion'", "keep one"]),
    (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "repeated key", ["'content'"]),
    (b'{"id": 1' + b"0" * 5000 + b"}", "integer too long", ["5001 digits", "write it as a string"]),
    # rows
    (None, "not an object", ["None", '"messages"']),
    (3.5, "not an object", ["3.5"]),
    ("text", "not an object", ["'text'"]),
    ([GOOD], "not an object", ["it must be a JSON object"]),
    ({}, "no recognised columns", ["none", '"messages"', '"instruction" and "output"']),
    ({"text": "x", "label": 1}, "no recognised columns", ["['label', 'text']", '"conversations"']),
    ({"prompt": "x", "response": "y"}, "no recognised columns", ["'prompt'", '"prompt" and "completion"']),
    ({"messages": None, "prompt": "x", "completion": None}, "no recognised columns", ["['prompt']"]),
    (GOOD | {"conversations": []}, "ambiguous columns", ['"messages" and "conversations"', "keep one"]),
    (GOOD | {"id": True}, "bad id", ["a boolean", "True"]),
    (GOOD | {"id": 1.5}, "bad id", ["1.5", "a string or an integer"]),
    (GOOD | {"id": ["a"]}, "bad id", ["a list"]),
    (GOOD | {"dataset": 3}, "bad dataset", ["a number, 3"]),
    (GOOD | {"tools": {"name": "f"}}, "bad tools", ["'name'", "a list of objects"]),
    (GOOD | {"tools": ["f"]}, "bad tools", ["['f']"]),
    (GOOD | {"tools": "[{]"}, "bad tools", ["not JSON", "column 3"]),
    (GOOD | {"tools": "[] []"}, "bad tools", ["More text after the value", "column 4"]),
    (GOOD | {"tools": '[{"name": "a", "name": "b"}]'}, "repeated key", ["tools", "'name'"]),
    (GOOD | {"tools": [{"max": math.inf}]}, "bad tools", ["tools", "infinity"]),
    (GOOD | {"functions": [TOOL]}, "functions is not supported", ['"tools"']),
    (GOOD | {"system": ["x"]}, "bad system", ["a list"]),
    (
        chat({"role": "system", "content": "a"}, user(), system="b"),
        "two system prompts",
        ["message 0", "keep one"],
    ),
    # messages
    ({"messages": "Hi"}, "messages is not a list", ["a string"]),
    ({"messages": {"role": "user"}}, "messages is not a list", ["an object"]),
    ({"conversations": 3}, "conversations is not a list", ["a number"]),
    ({"messages": []}, "no messages", ["an empty list"]),
    ({"conversations": []}, "no messages", ["conversations"]),
    (chat(user(), "Hi"), "message is not an object", ["message 1", "'Hi'"]),
    (chat(None), "message is not an object", ["message 0", "None"]),
    (
        chat(user(), {"content": "x"}),
        "missing role",
        ["message 1", '"role"', "system, user, assistant, tool"],
    ),
    (chat({"from": "human", "value": "x"}), "missing role", ["message 0", '"role"']),
    (chat(user(role="User")), "unknown role", ["message 0", "'User'", "system, user, assistant, tool"]),
    (chat(user(), user(role="gpt")), "unknown role", ["message 1", "'gpt'"]),
    (chat(user(role=["user"])), "unknown role", ["message 0", "['user']"]),
    (chat(user(), {"role": "assistant"}), "missing content", ["message 1", '"content"']),
    (chat(user(content=None)), "missing content", ["message 0"]),
    (chat(user(), assistant(content=None, tool_calls=[])), "missing content", ["message 1"]),
    (chat(user(content=5)), "content is not a string", ["message 0", "a number, 5"]),
    (chat(user(), assistant(content={"a": 1})), "content is not a string", ["message 1", "an object"]),
    (chat(user(content=False)), "content is not a string", ["a boolean"]),
    (
        chat(user(content=[{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}])),
        "content part is not text",
        ["message 0", "part 1", "'image_url'"],
    ),
    (chat(user(content=["a"])), "content part is not text", ["message 0", "part 0", "'a'"]),
    (chat(user(content=[{"text": "a"}])), "content part is not text", ["part 0"]),
    (chat(user(content=[{"type": "text"}])), "content is not a string", ["message 0", "part 0", "null"]),
    (chat(user(), assistant(content="ab\ud800c")), "lone surrogate", ["message 1", "\\ud800", "'ab'"]),
    (
        chat(user(content=[{"type": "text", "text": "\udc00"}])),
        "lone surrogate",
        ["message 0", "part 0", "\\udc00"],
    ),
    (GOOD | {"id": "\udfff"}, "lone surrogate", ["id", "\\udfff"]),
    (GOOD | {"tools": [{"name": "\ud83d"}]}, "lone surrogate", ["tools", "\\ud83d"]),
    (chat(assistant(reasoning_content="\ud83d")), "lone surrogate", ["message 0: reasoning_content"]),
    (chat(user(content=""), assistant(content=" \n")), "no content", ["all of the row's 2 messages"]),
    ({"prompt": "", "completion": ""}, "no content", ["empty"]),
    (chat(user(), assistant(weight=True)), "bad weight", ["message 1", "True", "finite number >= 0"]),
    (chat(user(weight=-0.1)), "bad weight", ["message 0", "-0.1"]),
    (chat(user(weight="1")), "bad weight", ["'1'"]),
    (chat(user(weight=math.nan)), "bad weight", ["nan"]),
    (chat(user(weight=math.inf)), "bad weight", ["inf"]),
    (chat(user(weight=10**400)), "bad weight", ["message 0"]),
    (chat(user(weight=[1])), "bad weight", ["[1]"]),
    (b'{"messages": [{"role": "user", "content": "x", "weight": 1e999}]}', "bad weight", ["inf"]),
    (chat(user(), assistant(train=False)), "train is not supported", ["message 1", "False", '"weight": 0']),
    (
        chat(assistant(function_call={"name": "f"})),
        "function_call is not supported",
        ["message 0", "tool_calls"],
    ),
    (chat(assistant(audio={"id": "x"})), "audio is not supported", ["message 0", "text"]),
    (chat(assistant(refusal="No.")), "refusal is not supported", ["message 0", "'No.'", "content"]),
    (chat(user(tool_calls=[CALL])), "tool_calls on a user message", ["message 0", "only an assistant"]),
    (
        chat(user(role="tool", thinking="Hm.")),
        "thinking on a tool message",
        ["message 0", "only an assistant"],
    ),
    (chat(assistant(reasoning_content=["Hm."])), "reasoning is not a string", ["message 0", "a list"]),
    (
        chat(assistant(reasoning="a", thinking="b")),
        "ambiguous reasoning",
        ["message 0", "reasoning, thinking"],
    ),
    (chat(assistant(tool_calls=CALL)), "bad tool_calls", ["message 0", "must be a list"]),
    (chat(assistant(tool_calls=[CALL, "f"])), "bad tool_calls", ["message 0", "tool call 1", "'f'"]),
    (chat(assistant(tool_calls=[{"function": {}}])), "bad tool_calls", ["tool call 0"]),
    (chat(assistant(tool_calls=[{"name": 3}])), "bad tool_calls", ["tool call 0"]),
    (chat(assistant(tool_calls=[{"name": "f", "arguments": {"x": math.nan}}])), "bad tool_calls", ["NaN"]),
    (chat(user(role="tool", tool_call_id=3)), "tool_call_id is not a string", ["message 0", "3"]),
    (chat(user(name={})), "name is not a string", ["message 0", "an object"]),
    # the other shapes
    (
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}]},
        "function_call is not supported",
        ["message 1", "tool_calls"],
    ),
    (
        {"conversations": [{"from": "narrator", "value": "x"}]},
        "unknown role",
        ["message 0", "'narrator'", "human"],
    ),
    ({"conversations": [{"value": "x"}]}, "missing role", ["message 0", '"from"']),
    ({"conversations": [{"from": "gpt"}]}, "missing content", ["message 0", '"value"']),
    ({"conversations": [{"from": "gpt", "value": 3}]}, "content is not a string", ["message 0: value", "3"]),
    (
        {"prompt": "x", "completion": [assistant()]},
        "prompt and completion do not match",
        ["prompt is a string", "completion is a list"],
    ),
    ({"prompt": 1, "completion": 2}, "prompt and completion do not match", ["a number"]),
    (
        {"prompt": [user()], "completion": [assistant(), 1]},
        "message is not an object",
        ["completion message 1"],
    ),
    ({"prompt": [{"role": "x"}], "completion": []}, "unknown role", ["prompt message 0"]),
    ({"prompt": [user()], "completion": []}, "no messages", ["completion"]),
    (
        {"prompt": "x", "completion": "y", "tools": [TOOL]},
        "system or tools on a plain row",
        ["lists of messages"],
    ),
    (
        {"prompt": "x", "completion": "y", "system": "s"},
        "system or tools on a plain row",
        ["lists of messages"],
    ),
    ({"instruction": 3, "output": "x"}, "bad instruction", ["a number, 3"]),
    ({"instruction": "x", "output": ["y"]}, "bad output", ["a list"]),
    ({"instruction": "x", "output": "y", "input": 0}, "bad input", ["a number, 0"]),
    ({"instruction": "x", "output": "y", "history": "z"}, "bad history", ["a string"]),
    ({"instruction": "x", "output": "y", "history": [["a", "b"], ["c"]]}, "bad history", ["pair 1", "['c']"]),
    (
        {"instruction": "x", "output": "y", "history": [["a", None]]},
        "bad history",
        ["pair 0, assistant", "null"],
    ),
]


@pytest.mark.parametrize(("row", "reason", "fragments"), HOSTILE)
def test_hostile_row(tmp_path: Path, row: Any, reason: str, fragments: list[str]) -> None:
    """It is refused for its own reason, says where and what, and spoils no other row and no count."""
    file = read_conversations(write(tmp_path, GOOD, b"", row, GOOD))
    assert [(bad.row, bad.line, bad.reason) for bad in file.bad_rows] == [(1, 3, reason)]
    for fragment in fragments:
        assert fragment in file.bad_rows[0].detail
    assert len(file.bad_rows[0].detail) < 500
    file.bad_rows[0].detail.encode("utf-8")
    assert [(c.row, c.line, c.messages) for c in file.conversations] == [
        (0, 1, GOOD_MESSAGES),
        (2, 4, GOOD_MESSAGES),
    ]


def test_the_details_of_a_huge_bad_value_stay_short(tmp_path: Path) -> None:
    rows: list[Any] = [
        chat(user(role="x" * 100_000)),
        chat(user(), assistant(content={str(i): ["y" * 1000] * 100 for i in range(100)})),
        {f"column {i}": i for i in range(1000)},
        b'"' + b"z" * 100_000,
    ]
    file = read_conversations(write(tmp_path, GOOD, *rows))
    assert len(file.bad_rows) == 4
    assert max(len(bad.detail) for bad in file.bad_rows) < 1000


def test_a_bad_row_keeps_its_id(tmp_path: Path) -> None:
    bad = [{"id": 12, "messages": []}, {"id": "a", "text": "x"}, {"id": [1], "messages": []}]
    assert [row.id for row in read_conversations(write(tmp_path, *bad)).bad_rows] == ["12", "a", None]


# --- What is done about bad rows ----------------------------------------------------------------------------


def bad_row(row: int, reason: str) -> BadRow:
    return BadRow(row, row + 1, None, reason, f"detail {row}")


def file_with(good: int, bad_rows: list[BadRow]) -> ConversationFile:
    conversations = [Conversation(row, row + 1, str(row), "d", GOOD_MESSAGES) for row in range(good)]
    return ConversationFile(Path("train.jsonl"), "", conversations, bad_rows, 0)


def test_bad_rows_table_counts_by_reason_most_first() -> None:
    bad_rows = [bad_row(0, "a"), bad_row(1, "b"), bad_row(2, "b"), bad_row(3, "c")]
    assert list(bad_rows_table(bad_rows).items()) == [("b", 2), ("a", 1), ("c", 1)]
    assert bad_rows_table([]) == {}


def test_bad_rows_within_the_limit_pass() -> None:
    check_bad_rows(file_with(5, []), 0)
    check_bad_rows(file_with(5, [bad_row(5, "a")]), 1)
    check_bad_rows(file_with(5, [bad_row(5, "a")]), 2, more_bad=[bad_row(1, "b")])


def test_bad_rows_past_the_limit_stop_with_reasons_places_and_a_way_on() -> None:
    with pytest.raises(UserError) as caught:
        check_bad_rows(
            file_with(5, [bad_row(6, "not JSON"), bad_row(7, "not JSON")]),
            2,
            more_bad=[bad_row(1, "no span")],
        )
    assert str(caught.value).split("\n") == [
        "train.jsonl: 3 of 7 rows cannot be used (2 not JSON, 1 no span)",
        "  train.jsonl:2: no span: detail 1",
        "  train.jsonl:7: not JSON: detail 6",
        "  train.jsonl:8: not JSON: detail 7",
        "Mend these rows, or go on without them: --max_bad_rows 3",
    ]


def test_only_the_first_ten_bad_rows_are_listed() -> None:
    with pytest.raises(UserError) as caught:
        check_bad_rows(file_with(1, [bad_row(row, "a") for row in range(1, 15)]), 0)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[1] for line in lines[1:11]] == [str(line) for line in range(2, 12)]
    assert lines[11:] == ["  ... and 4 more", "Mend these rows, or go on without them: --max_bad_rows 14"]


def test_no_limit_lets_a_file_without_a_good_row_pass() -> None:
    with pytest.raises(UserError, match="1 of 1 rows cannot be used") as caught:
        check_bad_rows(file_with(0, [bad_row(0, "a")]), 100)
    assert "No usable row is left" in str(caught.value)
    with pytest.raises(UserError, match="No usable row is left"):
        check_bad_rows(file_with(1, []), 100, more_bad=[bad_row(0, "a")])


# --- Properties -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *[
            "id",
            "dataset",
            "messages",
            "conversations",
            "prompt",
            "completion",
            "instruction",
            "output",
            "input",
        ],
        *["system", "history", "tools", "functions", "role", "content", "from", "value", "weight", "name"],
        *["tool_calls", "tool_call_id", "reasoning", "thinking", "type", "text", "function", "arguments"],
    ]
)
TEXTS = st.text(max_size=6) | st.sampled_from([*ROLES, "human", "gpt", "text", "[]", "\ud800", "\u2028\r"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)
MESSAGE_OBJECTS = st.fixed_dictionaries(
    {"role": st.sampled_from([*ROLES, "developer", "robot"]), "content": TEXTS | VALUES},
    optional={
        "weight": VALUES,
        "tool_calls": VALUES,
        "reasoning": VALUES,
        "name": VALUES,
        "tool_call_id": VALUES,
    },
)
ROWS = VALUES | st.dictionaries(
    st.sampled_from(["messages", "conversations", "prompt", "completion", "id", "tools", "system"]),
    st.lists(MESSAGE_OBJECTS | VALUES, max_size=3) | VALUES,
    min_size=1,
)
PROPERTY = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check_invariants(file: ConversationFile, rows: int) -> None:
    assert file.rows == rows
    assert sorted([c.row for c in file.conversations] + [b.row for b in file.bad_rows]) == list(range(rows))
    for conversation in file.conversations:
        assert conversation.messages
        for message in conversation.messages:
            assert message.role in ROLES
            assert math.isfinite(message.weight) and message.weight >= 0
            message.content.encode("utf-8")
        json.dumps([message.for_template() for message in conversation.messages], allow_nan=False)
    for bad in file.bad_rows:
        assert bad.reason and bad.detail and "\n" not in bad.reason + bad.detail
        (bad.reason + bad.detail).encode("utf-8")


@PROPERTY
@given(rows=st.lists(ROWS, max_size=5))
def test_any_json_value_is_a_good_or_a_bad_row(tmp_path: Path, rows: list[Any]) -> None:
    check_invariants(read_conversations(write(tmp_path, GOOD, *rows)), len(rows) + 1)
    array = write(tmp_path, [GOOD, *rows], name="rows.json")
    check_invariants(read_conversations(array), len(rows) + 1)


@PROPERTY
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_rows_or_a_user_error(tmp_path: Path, raw: bytes) -> None:
    file = read_conversations(write(tmp_path, b" " * 1024 + b"\n" + json.dumps(GOOD).encode(), raw))
    check_invariants(file, 1 + sum(1 for line in raw.split(b"\n") if line.strip()))
    path = tmp_path / "raw.jsonl"
    path.write_bytes(raw)
    try:
        read_conversations(path)
    except UserError as error:
        assert str(path) in str(error)


CLEAN_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(ROLES),
    content=CLEAN_TEXTS,
    weight=st.floats(min_value=0, allow_infinity=False, allow_nan=False),
    tool_call_id=st.none() | CLEAN_TEXTS,
    name=st.none() | CLEAN_TEXTS,
) | st.builds(
    Message,
    role=st.just("assistant"),
    content=CLEAN_TEXTS,
    reasoning_content=st.none() | CLEAN_TEXTS,
    tool_calls=st.lists(
        st.builds(lambda name: {"name": name, "arguments": {"x": 1}}, CLEAN_TEXTS), max_size=2
    ).map(tuple),
)


@PROPERTY
@given(
    messages=st.lists(MESSAGES, max_size=4).map(lambda some: (*some, Message("user", "end"))),
    row_id=CLEAN_TEXTS.filter(bool),
    ensure_ascii=st.booleans(),
)
def test_round_trip(tmp_path: Path, messages: tuple[Message, ...], row_id: str, ensure_ascii: bool) -> None:
    row = {
        "id": row_id,
        "messages": [message.for_template() | {"weight": message.weight} for message in messages],
    }
    conversation = read_one(tmp_path, json.dumps(row, ensure_ascii=ensure_ascii).encode())
    assert conversation == Conversation(0, 1, row_id, "data", messages)


# --- Real files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "reasons"),
    [
        ("train/lima_data.jsonl", 1030, {}),
        ("train/alpagasus_3k_dolly.jsonl", 2996, {}),
        ("raw/alpagasus/dolly_3k.json", 2996, {}),
        ("raw/stanford_alpaca/alpaca_5000.json", 5000, {}),
        ("raw/alpaca_format/litgpt_alpaca.json", 23, {}),
        ("raw/alpaca_format/llamafactory_alpaca_en_demo.json", 999, {}),
        ("raw/alpaca_format/torchtune_alpaca_tiny.json", 100, {}),
        ("raw/code_alpaca/code_alpaca_2k.json", 2017, {}),
        ("raw/oasst/vigogne_oasst_20230412_fr_top1.jsonl", 256, {}),
        ("raw/sharegpt/fastchat_dummy_conversation.json", 500, {}),
        (
            "raw/sharegpt/llamafactory_glaive_toolcall_en_demo.json",
            147,
            {"function_call is not supported": 153},
        ),
        ("raw/baize/quora_chat_data.json", 0, {"no recognised columns": 96}),
        ("raw/dolly/litgpt_dolly.json", 0, {"no recognised columns": 12}),
        ("raw/self_instruct/seed_tasks.jsonl", 0, {"no recognised columns": 175}),
    ],
)
def test_real_file(shared_data: Path, name: str, good: int, reasons: dict[str, int]) -> None:
    file = read_conversations(shared_data / name)
    assert len(file.conversations) == good
    assert bad_rows_table(file.bad_rows) == reasons
    assert file.rows == good + sum(reasons.values())


def test_lima_by_value(shared_data: Path) -> None:
    path = shared_data / "train" / "lima_data.jsonl"
    conversations = read_conversations(path).conversations
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert sum(len(c.messages) > 2 for c in conversations) == 30
    assert sum(len(c.messages) for c in conversations) == 2168
    assert [(c.id, c.dataset) for c in conversations] == [(row["id"], row["dataset"]) for row in rows]
    assert [[m.for_template() for m in c.messages] for c in conversations] == [
        row["messages"] for row in rows
    ]


def test_alpaca_by_value(shared_data: Path) -> None:
    conversations = read_conversations(
        shared_data / "raw" / "stanford_alpaca" / "alpaca_5000.json"
    ).conversations
    assert conversations[0].messages == (
        Message(
            "user",
            "Are the two sentences below grammatically correct? Output yes or no.\n\n"
            "Sentence 1: I am going to the store.\nSentence 2: I goes to the store.",
        ),
        Message("assistant", "No"),
    )


def test_baize_is_refused_with_the_columns_it_has(shared_data: Path) -> None:
    bad_rows = read_conversations(shared_data / "raw" / "baize" / "quora_chat_data.json").bad_rows
    assert "['input', 'topic']" in bad_rows[0].detail
    assert '"messages"' in bad_rows[0].detail
