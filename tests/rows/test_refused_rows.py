"""What each kind of bad row is refused for."""

import math
from pathlib import Path
from typing import Any

import pytest
from row_files import CALL, DEEP, GOOD, GOOD_MESSAGES, TOOL, write

from instruction_modelling.rows.conversations import read_conversations


def chat(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


def user(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "Hi"} | fields


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "Hello"} | fields


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
    ({"prompt": "x", "answer": "y"}, "no recognised columns", ["'prompt'", '"prompt" and "completion"']),
    ({"data": [GOOD], "name": "x"}, "no recognised columns", ["['data', 'name']", "--columns"]),
    ({"data": [GOOD]}, "no recognised columns", ['the list under "data"', "that list alone"]),
    (GOOD | {"images": ["a.png"]}, "images is not supported", ["only text"]),
    ({"messages": None, "prompt": "x", "completion": None}, "no recognised columns", ["['prompt']"]),
    (GOOD | {"conversations": []}, "ambiguous columns", ['"messages" and "conversations"', "keep one"]),
    (GOOD | {"id": True}, "bad id", ["a boolean", "True"]),
    (GOOD | {"id": 1.5}, "bad id", ["1.5", "a string or an integer"]),
    (GOOD | {"id": ["a"]}, "bad id", ["a list"]),
    (GOOD | {"dataset": 3}, "bad dataset", ["a number, 3"]),
    (GOOD | {"tools": {"name": "f"}}, "bad tools", ["'name'", "a list of objects"]),
    (GOOD | {"tools": ["f"]}, "bad tools", ["'f'", "a list of objects"]),
    (GOOD | {"tools": [3]}, "bad tools", ["[3]"]),
    (GOOD | {"tools": [{"function": "f"}]}, "bad tools", ["tools 0", "'f'"]),
    (GOOD | {"tools": [{"name": "f", "parameters": "none"}]}, "bad tools", ["tools 0: parameters", "'none'"]),
    (
        GOOD | {"tools": [{"name": "f", "parameters": {"a": 1}, "input_schema": {}}]},
        "ambiguous tools",
        ["tools 0", "keep one"],
    ),
    (GOOD | {"tools": "[{]"}, "bad tools", ["not JSON", "column 3"]),
    (GOOD | {"tools": "[] []"}, "bad tools", ["More text after the value", "column 4"]),
    (GOOD | {"tools": '[{"name": "a", "name": "b"}]'}, "repeated key", ["tools", "'name'"]),
    (GOOD | {"tools": [{"max": math.inf}]}, "bad tools", ["tools", "infinity"]),
    (GOOD | {"functions": [TOOL], "tools": [{"name": "f"}]}, "ambiguous tools", ['"functions"', "keep one"]),
    (GOOD | {"weight": "0.5"}, "bad weight", ["the row", "'0.5'"]),
    (chat(user(weight=1e300), weight=1e300), "bad weight", ["message 0", "no finite number"]),
    (GOOD | {"system": "a", "system_prompt": "b"}, "two system prompts", ['"system_prompt"', "keep one"]),
    (GOOD | {"chat_template_kwargs": [1]}, "bad chat_template_kwargs", ["a list", "an object"]),
    (GOOD | {"chat_template_kwargs": "{"}, "bad chat_template_kwargs", ["not JSON"]),
    (GOOD | {"chat_template_kwargs": {"tools": []}}, "bad chat_template_kwargs", ['"tools"', "leave it out"]),
    (GOOD | {"system": ["x"]}, "bad system", ["a list"]),
    (
        chat({"role": "system", "content": "a"}, user(), system="b"),
        "two system prompts",
        ["message 0", "keep one"],
    ),
    # messages
    ({"messages": "Hi"}, "messages is not a list", ["a string"]),
    ({"messages": '"Hi"'}, "messages is not a list", ["a string"]),
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
    (chat({"from": None, "value": "x"}), "missing role", ["message 0", '"role"']),
    (chat(user(role="Users")), "unknown role", ["message 0", "'Users'", "system, user, assistant, tool"]),
    (chat(user(), user(role="gpt4")), "unknown role", ["message 1", "'gpt4'"]),
    (chat(user(**{"from": "gpt"})), "ambiguous role", ["message 0", "keep one"]),
    (chat(user(value="x")), "ambiguous content", ["message 0", "keep one"]),
    (chat(user(role=["user"])), "unknown role", ["message 0", "['user']"]),
    (chat(user(), {"role": "assistant"}), "missing content", ["message 1", '"content"']),
    (
        chat(user(), {"role": "assistant"}),
        "missing content",
        ['message 1 has no "content", or null; write a'],
    ),
    (chat(user(content=None)), "missing content", ['message 0 has no "content", or null']),
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
    (chat(user(), assistant(train=0.5)), "bad weight", ["message 1: train is 0.5", "true or false"]),
    (chat(user(), assistant(loss="false")), "bad weight", ["message 1: loss is 'false'", "true, false or"]),
    (chat(assistant(masked=[])), "bad weight", ["message 0: masked is []"]),
    (
        chat(assistant(loss=True, weight=0)),
        "contradictory loss weights",
        ['"weight": 0, "loss": True', "keep one"],
    ),
    (
        chat(assistant(masked=True, loss_weight=0.5)),
        "contradictory loss weights",
        ["message 0", '"masked": True'],
    ),
    (
        chat(assistant(train_detail=[{"begin_offset": 0, "train": False}])),
        "bad train_detail",
        ["message 0: train_detail 0", '"end_offset"'],
    ),
    (chat(assistant(train_detail=[])), "bad train_detail", ["empty list", '"training": false']),
    (
        chat(user(train_detail=[{"begin_offset": 0, "end_offset": 0, "train": True}])),
        "train_detail on a user message",
        ["--loss_weights", "loss_spans"],
    ),
    (
        chat(assistant(train_detail=[{"begin_offset": 0, "end_offset": 5, "train": True}])),
        "bad train_detail",
        ["characters 0 to 5", "has 5"],
    ),
    (
        chat(
            assistant(
                train_detail=[
                    {"begin_offset": 0, "end_offset": 2, "train": True},
                    {"begin_offset": 2, "end_offset": 3, "train": False},
                ]
            )
        ),
        "contradictory train_detail",
        ["character 2 weighs 1 and 0"],
    ),
    (chat(assistant(loss_spans={"start": 0})), "bad loss_spans", ["it must be a list"]),
    (
        chat(assistant(loss_spans=[[0, 1]])),
        "bad loss_spans",
        ["loss_spans 0 is [0, 1]", "[start, end, weight]"],
    ),
    (chat(assistant(loss_spans=[{"start": 0, "end": 2}])), "bad loss_spans", ['"weight"']),
    (
        chat(assistant(loss_spans=[{"start": 0, "end": 2, "weight": 1, "train": True}])),
        "bad loss_spans",
        ["'train'"],
    ),
    (chat(assistant(loss_spans=[[0, 1, 1], [0, 1.5, 1]])), "bad loss_spans", ["loss_spans 1: end is 1.5"]),
    (chat(assistant(loss_spans=[[0, math.inf, 1]])), "bad loss_spans", ["end is inf"]),
    (chat(assistant(loss_spans=[[True, 2, 1]])), "bad loss_spans", ["start is True", "a whole number"]),
    (chat(assistant(loss_spans=[["0", 2, 1]])), "bad loss_spans", ["start is '0'"]),
    (chat(assistant(loss_spans=[[0, 6, 0]])), "bad loss_spans", ["characters 0 to 5", "has 5", "from 0"]),
    (chat(assistant(loss_spans=[[-1, 2, 0]])), "bad loss_spans", ["characters -1 to 1"]),
    (chat(assistant(loss_spans=[[2, 2, 0]])), "bad loss_spans", ["characters 2 to 1"]),
    (chat(assistant(loss_spans=[[0, 2, -0.5]])), "bad loss_spans", ["weight is -0.5", ">= 0"]),
    (chat(assistant(loss_spans=[[0, 2, "1"]])), "bad loss_spans", ["weight is '1'"]),
    (chat(assistant(loss_spans=[[0, 2, True]])), "bad loss_spans", ["weight is True"]),
    (chat(assistant(loss_spans=[[0, 2, math.nan]])), "bad loss_spans", ["weight is nan"]),
    (chat(assistant(loss_spans=[[0, 2, 10**400]])), "bad loss_spans", ["a finite number"]),
    (
        chat(assistant(loss_spans=[[3, 5, 0.5], [0, 4, 0.25]])),
        "contradictory loss_spans",
        ["message 0: loss_spans", "character 3 weighs 0.25 and 0.5"],
    ),
    (
        chat(
            assistant(
                loss_spans=[[0, 1, 0]], train_detail=[{"begin_offset": 0, "end_offset": 0, "train": True}]
            )
        ),
        "ambiguous loss_spans",
        ["loss_spans and train_detail"],
    ),
    (
        chat(assistant(content=[{"type": "text", "text": "Hello"}], loss_spans=[[0, 1, 0]])),
        "bad loss_spans",
        ["the content is a list", "write a string"],
    ),
    (
        chat(
            user(),
            {"role": "tool_call", "content": '{"name": "f", "arguments": {}}', "loss_spans": [[0, 1, 0]]},
        ),
        "loss_spans on calls",
        ["message 1"],
    ),
    (
        chat(user(content=[{"type": "text", "text": "a", "weight": 0}])),
        "weight on a content part",
        ["content part 0", '"weight": 0'],
    ),
    (
        chat(assistant(content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}])),
        "reasoning behind text",
        ["content part 1"],
    ),
    (
        chat(user(content=[{"type": "thinking", "thinking": "b"}])),
        "reasoning on a user message",
        ["message 0"],
    ),
    (
        chat(assistant(content=[{"type": "thinking", "thinking": "b"}], reasoning="a")),
        "ambiguous reasoning",
        ["message 0", "keep one"],
    ),
    (
        chat(assistant(function_call={"name": "f"}, tool_calls=[CALL])),
        "ambiguous tool_calls",
        ["message 0", "keep one"],
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
    (
        chat(assistant(tool_calls=[{"name": "f", "arguments": "{"}])),
        "bad tool_calls",
        ["tool call 0: arguments", "not JSON", "a JSON object"],
    ),
    (chat(assistant(tool_calls=[{"name": "f", "arguments": "[1]"}])), "bad tool_calls", ["a list"]),
    (chat(assistant(tool_calls=[{"name": "f", "args": [1]}])), "bad tool_calls", ["tool call 0: args"]),
    (
        chat(assistant(tool_calls=[{"name": "f", "args": {"a": 1}, "input": {"a": True}}])),
        "ambiguous arguments",
        ["args, input", "keep one"],
    ),
    (
        chat(assistant(tool_calls=[{"function": {"name": "f", "arguments": {}}, "parameters": {"a": 1}}])),
        "ambiguous arguments",
        ["arguments, parameters"],
    ),
    (
        chat(user(role="tool", content=[{"type": "image", "image": "x"}])),
        "content part is not text",
        ["content part 0", "'image'"],
    ),
    (chat(user(role="tool", content={"a": math.nan})), "content is not a string", ["NaN"]),
    (chat(user(role="tool", tool_call_id=3)), "tool_call_id is not a string", ["message 0", "3"]),
    (chat(user(name={})), "name is not a string", ["message 0", "an object"]),
    # the other shapes
    (
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}]},
        "bad tool_calls",
        ["message 1: value", "tool_calls"],
    ),
    (chat(user(), {"role": "tool_call", "content": "add(1)"}), "bad tool_calls", ["message 1", "not JSON"]),
    (
        {"instruction": "x", "output": "y", "response": "z"},
        "ambiguous columns",
        ["output, response", "keep one"],
    ),
    ({"prompt": "x", "response": 3}, "prompt and response do not match", ["a number"]),
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
