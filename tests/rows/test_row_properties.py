"""Whatever a file holds, its rows are good or refused, and good ones come back as they were written."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from row_files import GOOD, GOOD_MESSAGES, read_one, write

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import (
    ROLES,
    Conversation,
    ConversationFile,
    Message,
    read_conversations,
)

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
        *["loss", "loss_weight", "train", "masked", "args", "parameters", "input_schema", "function_call"],
        *["response", "question", "context", "conversation", "system_prompt", "chat_template_kwargs"],
    ]
)
TEXTS = st.text(max_size=6) | st.sampled_from(
    [*ROLES, "human", "gpt", "text", "[]", "{}", "\ud800", "\u2028\r"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)
CALL_OBJECTS = st.fixed_dictionaries(
    {"name": TEXTS}, optional={"function": VALUES, "arguments": VALUES, "args": VALUES, "input": VALUES}
)
MESSAGE_OBJECTS = st.fixed_dictionaries(
    {"role": st.sampled_from([*ROLES, "developer", "GPT", "tool_call", "robot"]), "content": TEXTS | VALUES},
    optional={
        "weight": VALUES,
        "loss": VALUES,
        "masked": VALUES,
        "tool_calls": VALUES | st.lists(CALL_OBJECTS, max_size=2),
        "reasoning": VALUES,
        "name": VALUES,
        "tool_call_id": VALUES,
    },
)
ROWS = VALUES | st.dictionaries(
    st.sampled_from(
        [
            *["messages", "conversations", "prompt", "completion", "response", "id", "tools", "system"],
            *["weight", "chat_template_kwargs"],
        ]
    ),
    st.lists(MESSAGE_OBJECTS | VALUES, max_size=3) | VALUES,
    min_size=1,
)
PROPERTY = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    reasoning_key=st.just("reasoning_content"),
    tool_calls=st.lists(
        st.builds(
            lambda name: {"type": "function", "function": {"name": name, "arguments": {"x": 1}}}, CLEAN_TEXTS
        ),
        max_size=2,
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


@PROPERTY
@given(
    data=st.data(),
    kind=st.sampled_from(["rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.csv", "rows.json"]),
)
def test_a_damaged_file_of_any_kind_is_rows_or_a_user_error(
    tmp_path: Path, data: st.DataObject, kind: str
) -> None:
    rows = [{"prompt": "é", "completion": "x"}] * 3
    whole = tmp_path / f"whole.{kind}"
    if not whole.exists():
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(whole), "wb") as sink:
            if kind == "rows.parquet":
                parquet.write_table(table, sink)
            elif kind == "rows.arrow":
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
            else:
                text = "prompt,completion\né,x\n" if kind == "rows.csv" else json.dumps(rows, indent=1)
                sink.write(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / kind
    path.write_bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))])
    try:
        file = read_conversations(path)
    except UserError as error:
        assert str(error).startswith(f"{path}:") and "\n" not in str(error)
    else:
        check_invariants(file, file.rows)


ODD: list[Any] = [0, 0.5, 2, True, False, "x", "", " ", [], ["x"], [{}], {}, {"a": 1}]
MESSAGE_KEYS = [
    *[
        "weight",
        "loss",
        "loss_weight",
        "loss_scale",
        "train",
        "training",
        "masked",
        "train_detail",
        "loss_spans",
    ],
    *["reasoning_content", "reasoning", "thinking", "tool_calls", "function_call", "tool_call_id", "name"],
    *["refusal", "audio", "images", "from", "value"],
]
ROW_KEYS = [
    *["weight", "loss_weight", "system", "system_prompt", "tools", "functions", "chat_template_kwargs", "id"],
    *["dataset", "images", "conversations", "conversation"],
]
# What says nothing: the value a key has where it is left out, or an empty one where a table fills it.
EMPTY: tuple[Any, ...] = (0, False, "", [], {})
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "loss": (True,),
    "train": (True,),
    "training": (True,),
    "masked": (0, False),
    "tool_calls": (0, False, "", " ", [], {}),
    # An empty list is refused: with it, axolotl does not train the message.
    "train_detail": (0, False, "", {}),
    **dict.fromkeys(["function_call", "loss_spans", "refusal", "audio", "images"], EMPTY),
    **dict.fromkeys(["row system", "row system_prompt"], ("", " ")),
    **dict.fromkeys(["row tools", "row functions"], (0, False, "", " ", [], {})),
    "row chat_template_kwargs": ("", " ", {}),
    **dict.fromkeys(["row id", "row dataset"], ("",)),
    "row images": EMPTY,
}


def test_no_value_of_a_key_that_is_read_is_without_effect(tmp_path: Path) -> None:
    """Each is refused, or changes the conversation, or says nothing."""
    answer = {"role": "assistant", "content": "Hello"}
    rows = [
        (key, value, {"messages": [GOOD["messages"][0], answer | {key: value}]})
        for key in MESSAGE_KEYS
        for value in ODD
    ]
    rows += [(f"row {key}", value, GOOD | {key: value}) for key in ROW_KEYS for value in ODD]
    file = read_conversations(write(tmp_path, *(row for _, _, row in rows)))
    assert file.unknown_keys == {}
    without: dict[str, list[str]] = {}
    for conversation in file.conversations:
        plain = Conversation(
            conversation.row, conversation.line, f"data_{conversation.row}", "data", GOOD_MESSAGES
        )
        if conversation == plain:
            key, value, _ = rows[conversation.row]
            without.setdefault(key, []).append(json.dumps(value))
    assert without == {key: list(map(json.dumps, values)) for key, values in NEUTRAL.items()}
