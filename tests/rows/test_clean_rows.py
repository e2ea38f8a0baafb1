"""The usable rows written back are read as the same conversations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_files import CALL, GOOD, TOOL, write

from instruction_modelling.rows.clean import write_clean
from instruction_modelling.rows.conversations import (
    BadRow,
    Conversation,
    ConversationFile,
    read_conversations,
)

NULLS = json.dumps({"a": None, "b": [None, {"c": None}]})
ROWS: list[Any] = [
    GOOD,
    {"prompt": " a ", "completion": "b\n", "weight": 0.5},
    {"id": 7, "dataset": "d", "instruction": "i", "input": "x", "output": "", "system": "s"},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}], "loss": False, "name": "n"},
            {"role": "assistant", "thinking": "t", "content": None},
            {"role": "assistant", "reasoning": "r", "tool_calls": [{"name": "f", "arguments": NULLS}, CALL]},
            {"role": "tool", "content": {"a": None}, "tool_call_id": "c", "weight": 2},
            {"role": "function_call", "content": json.dumps({"name": "g", "arguments": {}})},
        ],
        "tools": [TOOL, {"name": "h", "input_schema": {}}],
        "chat_template_kwargs": {"enable_thinking": False},
        "weight": 0.5,
    },
    GOOD | {"tools": json.dumps([{"name": "f", "parameters": {"default": None}}])},
    GOOD | {"chat_template_kwargs": '{"a": null}'},
    {
        "messages": [
            {"role": "user", "content": "abc", "loss_spans": [[0, 2, 0.5]]},
            {
                "role": "assistant",
                "content": "abcd",
                "train_detail": [{"begin_offset": 1, "end_offset": 2, "train": True}],
            },
        ]
    },
    {"messages": []},
]


def contents(file: ConversationFile) -> list[Conversation]:
    return [replace(conversation, row=0, line=0) for conversation in file.conversations]


def test_clean_rows_are_the_same_conversations(tmp_path: Path) -> None:
    file = read_conversations(write(tmp_path, *ROWS))
    assert write_clean(tmp_path / "clean.jsonl", [(file, [])]) == 7
    clean = read_conversations(tmp_path / "clean.jsonl")
    assert contents(clean) == contents(file) and clean.bad_rows == []
    assert clean.unknown_keys == {}
    rows = [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()]
    assert [set(row) & {"messages", "prompt"} for row in rows] == [
        {"prompt"} if number == 1 else {"messages"} for number in range(7)
    ]


def test_rows_refused_after_reading_are_left_out_and_files_follow_one_another(tmp_path: Path) -> None:
    file = read_conversations(write(tmp_path, GOOD, GOOD | {"id": "b"}))
    refused = BadRow(0, 1, None, "reason", "detail")
    write_clean(tmp_path / "clean.jsonl", [(file, [refused]), (file, [])])
    ids = [c.id for c in read_conversations(tmp_path / "clean.jsonl").conversations]
    assert ids == ["b", "data_0", "b"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(0, 2) | st.text("aé<", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)
CALLS = st.fixed_dictionaries(
    {"name": st.text("ab", max_size=2)},
    optional={
        "arguments": st.dictionaries(st.sampled_from("ab"), VALUES) | VALUES.map(json.dumps),
        "id": st.text("ab", max_size=2),
        "index": VALUES,
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "GPT", "function_call"]),
        "content": st.text("aé<", max_size=3) | VALUES | CALLS.map(json.dumps),
    },
    optional={
        "weight": st.floats(0, 2),
        "loss": st.booleans(),
        "reasoning": st.text("ab", max_size=2),
        "thinking": st.text("ab", max_size=2),
        "tool_calls": st.lists(CALLS, max_size=2),
        "name": st.text("ab", max_size=2),
    },
)
PROPERTY_ROWS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES, min_size=1, max_size=3)},
    optional={
        "tools": st.lists(
            st.dictionaries(st.sampled_from(["name", "type", "parameters"]), VALUES), max_size=2
        ),
        "chat_template_kwargs": st.dictionaries(st.sampled_from("ab"), VALUES) | VALUES.map(json.dumps),
        "weight": st.floats(0, 2),
        "system": st.text("ab", max_size=2),
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(PROPERTY_ROWS, min_size=1, max_size=3))
def test_any_usable_row_survives_being_written(tmp_path: Path, rows: list[Any]) -> None:
    file = read_conversations(write(tmp_path, GOOD, *rows))
    write_clean(tmp_path / "clean.jsonl", [(file, [])])
    clean = read_conversations(tmp_path / "clean.jsonl")
    assert clean.bad_rows == [] and contents(clean) == contents(file)
