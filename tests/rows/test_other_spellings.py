"""What other trainers and programs write otherwise is read as it was meant, or the row is refused."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from chat_tokenizers import byte_level_with_bos
from pyarrow import parquet

from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import ConversationFile, read_conversations
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weighted import weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy

ASK = {"role": "user", "content": "hi"}


def read(folder: Path, *rows: dict[str, Any]) -> ConversationFile:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_conversations(path)


def said(file: ConversationFile) -> list[list[tuple[str, str, float]]]:
    """Role, content and weight of each message."""
    assert not file.bad_rows, file.bad_rows
    return [[(m.role, m.content, m.weight) for m in row.messages] for row in file.conversations]


def refusal(folder: Path, row: dict[str, Any]) -> str:
    file = read(folder, row)
    (bad,) = file.bad_rows
    return f"{bad.reason}: {bad.detail}"


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [";", "\t", ","])
def test_the_sign_between_cells_is_that_of_the_first_line(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'prompt{sign}response\n"a{sign}b; c, d"{sign}007\n', encoding="utf-8")
    assert said(read_conversations(path)) == [[("user", f"a{sign}b; c, d", 1.0), ("assistant", "007", 1.0)]]


def test_columns_take_every_name_of_a_role(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a,s\nhi,there,Be brief.\n", encoding="utf-8")
    wanted = [[("system", "Be brief.", 1.0), ("user", "hi", 1.0), ("assistant", "there", 1.0)]]
    assert said(read_conversations(path, "q=Human,a=GPT,s=developer")) == wanted
    with pytest.raises(UserError, match="'function_call' is no role and no known column"):
        read_conversations(path, "q=user,a=function_call")


def test_a_split_of_a_folder_written_like_a_configuration_is_refused(tmp_path: Path) -> None:
    """It was read as the default split."""
    rows = datasets.Dataset.from_list([{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}])
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(str(tmp_path / "set"))
    assert said(read_conversations(f"{tmp_path / 'set'}::test")) == [
        [("user", "c", 1.0), ("assistant", "d", 1.0)]
    ]
    with pytest.raises(
        UserError, match=r"a folder has no configurations as 'test'; a split is named .*set::test"
    ):
        read_conversations(f"{tmp_path / 'set'}:test")


def test_what_cannot_be_read_says_what_to_do_with_it(tmp_path: Path) -> None:
    table = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "a", "response": "b"}]), table)
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress(table.read_bytes()))
    (tmp_path / "rows.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "rows.csv").write_bytes(b"prompt,response\n")
    (tmp_path / "rows.csv.bz2").write_bytes(bz2.compress(b""))
    for name, words in {
        "rows.parquet.gz": "is a compressed Parquet file, not JSON Lines; decompress it first",
        "rows.xlsx": "if it is a spreadsheet, save it as CSV",
        "rows.csv": 'holds no rows; it needs rows with the columns "messages"',
        "rows.csv.bz2": 'is empty; it needs rows with the columns "messages"',
    }.items():
        with pytest.raises(UserError) as refused:
            read_conversations(tmp_path / name)
        assert words in str(refused.value)


# -- rows ----------------------------------------------------------------------------------------------------


def test_a_conversation_of_questions_with_their_answers(tmp_path: Path) -> None:
    xtuner = [
        {"system": "Be brief.", "input": "hi", "output": "yes", "output_with_loss": False},
        {"system": None, "input": "more", "output": "no"},
    ]
    firefly = [{"human": "hi", "assistant": "yes"}, {"human": "more", "assistant": ""}]
    assert said(read(tmp_path, {"conversation": xtuner}, {"conversation": firefly})) == [
        [
            ("system", "Be brief.", 1.0),
            ("user", "hi", 1.0),
            ("assistant", "yes", 0.0),
            ("user", "more", 1.0),
            ("assistant", "no", 1.0),
        ],
        [("user", "hi", 1.0), ("assistant", "yes", 1.0), ("user", "more", 1.0), ("assistant", "", 1.0)],
    ]
    other = refusal(tmp_path, {"conversation": [{"human": "hi", "assistant": "yes", "score": 1}]})
    assert other.startswith("bad conversation: conversation 0 is {") and "or human and assistant" in other


def test_messages_of_a_prompt_and_a_text_that_answers_them(tmp_path: Path) -> None:
    for name in ("completion", "response"):
        row = {"prompt": [{"role": "system", "content": "s"}, ASK], name: "there"}
        (found,) = said(read(tmp_path, row))
        assert found == [("system", "s", 1.0), ("user", "hi", 1.0), ("assistant", "there", 1.0)]
    assert "a list only where prompt is one" in refusal(tmp_path, {"prompt": "hi", "response": [ASK]})


@pytest.mark.parametrize(
    ("columns", "weight"),
    [
        ({"loss": False}, 0),
        ({"train": True}, 1),
        ({"training": False}, 0),
        ({"trainable": False}, 0),
        ({"masked": True}, 0),
        ({"loss_scale": 0.5}, 0.5),
        ({"loss_scale": 0.5, "weight": 3}, 1.5),
        # A loss that was measured, and the name of a split.
        ({"loss": 2.5}, 1),
        ({"train": "yes"}, 1),
    ],
    ids=str,
)
def test_flags_of_a_row_hold_for_all_its_messages(
    tmp_path: Path, columns: dict[str, Any], weight: float
) -> None:
    file = read(tmp_path, {"messages": [ASK, {"role": "assistant", "content": "there"}], **columns})
    assert said(file) == [[("user", "hi", weight), ("assistant", "there", weight)]]
    not_read = [name for name, value in columns.items() if value in (2.5, "yes")]
    assert file.unknown_keys == {f"column {name}": 1 for name in not_read}


def test_a_message_is_trained_or_not_by_every_flag_that_says_which(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "there"}
    (found,) = said(read(tmp_path, {"messages": [ASK, {**answer, "trainable": False}, ASK, answer]}))
    assert [weight for _, _, weight in found] == [1, 0, 1, 1]
    for name in ("mask", "loss_mask"):
        for value in (0, 1, True, False):
            words = refusal(tmp_path, {"messages": [ASK, {**answer, name: value}]})
            assert (
                words.startswith(f"{name} is not supported: message 1 has") and 'say with "weight"' in words
            )
    (found,) = said(read(tmp_path, {"messages": [ASK, {**answer, "mask": None}]}))
    assert found[1] == ("assistant", "there", 1.0)


def test_unread_keys_of_messages_are_counted_in_messages(tmp_path: Path) -> None:
    said_twice = [{**ASK, "mood": "x"}, {"role": "assistant", "content": "a", "mood": "y"}]
    file = read(tmp_path, {"messages": said_twice, "topic": "z"})
    assert file.unread_keys() == "message key mood (2 messages), column topic (1 row)"


# -- tools ---------------------------------------------------------------------------------------------------


def test_arguments_under_a_name_that_nothing_reads_refuse_the_row(tmp_path: Path) -> None:
    """They were trained as a call without arguments."""

    def row(**call: Any) -> dict[str, Any]:
        calls = [{"type": "function", "function": {"name": "f", **call}}]
        return {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": calls}]}

    for call in ({"params": {"x": 1}}, {"kwargs": '{"x": 1}'}, {"input_data": {"x": 1}}):
        (name,) = call
        words = refusal(tmp_path, row(**call))
        assert f'tool call 0 has no arguments, but "{name}":' in words and 'call them "arguments"' in words
    kept = read(tmp_path, row(), row(arguments={"x": 1}, params={"y": 2}), row(params={}, note="none"))
    arguments = [found.messages[1].tool_calls[0]["function"]["arguments"] for found in kept.conversations]
    assert arguments == [{}, {"x": 1}, {}]


def test_the_schema_of_the_model_context_protocol_is_a_definitions_parameters(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    messages = [ASK, {"role": "assistant", "content": "there"}]
    tools = [{"name": "f", "description": "d", "inputSchema": schema}]
    (row,) = read(tmp_path, {"messages": messages, "tools": tools}).conversations
    assert row.tools == (
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
    )
    tools = [{"name": "f", "inputSchema": schema, "parameters": {}}]
    assert "has different objects in parameters, inputSchema" in refusal(
        tmp_path, {"messages": messages, "tools": tools}
    )


# -- what encoding tells -------------------------------------------------------------------------------------


def test_variables_of_rows_that_no_template_reads_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    row = {"messages": [ASK, {"role": "assistant", "content": "there"}]}
    varied = {**row, "chat_template_kwargs": {"enable_thinking": False}}
    file = read(tmp_path, row, varied, varied)
    encoder = RowEncoder(byte_level_with_bos().tokenizer, TuluFormat("</s>"), 100)
    for _ in range(2):
        encode_file(file, encoder)
        assert file.unread_keys() == "chat_template_kwargs enable_thinking (2 rows)"


def test_a_row_whose_response_is_cut_away_is_dropped_for_that(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": "long " * 40},
                {"role": "assistant", "content": "cut away"},
            ]
        },
        {"messages": [ASK, {"role": "assistant", "content": "a", "weight": 0}]},
        {"messages": [ASK, {"role": "assistant", "content": "kept"}]},
    ]
    encoder = RowEncoder(byte_level_with_bos().tokenizer, TuluFormat("</s>"), 60)
    data = collect(encoder.encode(read(tmp_path, *rows).conversations))
    _, dropped = weigh_rows(data, WeightPolicy(), "example", "nonzero")
    assert dropped == {
        0: "no token with a loss weight within the maximum length",
        1: "no token with a loss weight",
    }
