"""Rows come in any file that people have them in, and are the same rows in each."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from row_files import CALL, GOOD, GOOD_MESSAGES, TOOL, write

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import Message, check_bad_rows, read_conversations

ROWS = [GOOD | {"id": "a"}, GOOD | {"id": "b"}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def packed(name: str, pack: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(pack(LINES))
        return folder / name

    return make


def parquet_file(folder: Path) -> Path:
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=1)
    return folder / "rows.parquet"


def arrow_file(folder: Path) -> Path:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return folder / "rows.arrow"


def saved_set(folder: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def arrow_stream(folder: Path) -> Path:
    return next(saved_set(folder).glob("*.arrow"))


def saved_splits(folder: Path) -> Path:
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list([GOOD] * 5)}
    datasets.DatasetDict(splits).save_to_disk(folder / "saved")
    return folder / "saved"


def folder_of_files(folder: Path) -> Path:
    for number, row in enumerate(ROWS):
        write(folder, row, name=f"part-{number}.jsonl")
    (folder / "README.md").write_text("about")
    return folder


def folder_of_splits(folder: Path) -> Path:
    (folder / "data").mkdir()
    write(folder / "data", *ROWS, name="train-00000-of-00001.jsonl")
    write(folder / "data", GOOD, GOOD, GOOD, name="test-00000-of-00001.jsonl")
    return folder


def folder_of_plain_splits(folder: Path) -> Path:
    write(folder, *ROWS, name="train.jsonl")
    write(folder, GOOD, name="validation.jsonl")
    write(folder, GOOD, GOOD, GOOD, name="test.jsonl")
    return folder


KINDS = [
    packed("rows.jsonl", lambda raw: raw),
    packed("rows.jsonl.gz", gzip.compress),
    packed("rows.jsonl.bz2", bz2.compress),
    packed("rows.jsonl.xz", lzma.compress),
    packed("rows.jsonl.zst", lambda raw: pa.compress(raw, "zstd", asbytes=True)),
    packed("rows.json.gz", lambda raw: gzip.compress(json.dumps(ROWS).encode())),
    packed("pretty.json", lambda raw: b"\n".join(json.dumps(row, indent=2).encode() for row in ROWS)),
    packed("glued.json", lambda raw: b"\xef\xbb\xbf" + raw.replace(b"\n", b"")),
    packed("rows.json", lambda raw: json.dumps(ROWS, indent=1).encode()),
    parquet_file,
    arrow_file,
    arrow_stream,
    saved_set,
    saved_splits,
    folder_of_files,
    folder_of_splits,
    folder_of_plain_splits,
]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    file = read_conversations(path)
    assert file.bad_rows == []
    assert [(c.row, c.id, c.messages) for c in file.conversations] == [
        (0, "a", GOOD_MESSAGES),
        (1, "b", GOOD_MESSAGES),
    ]
    assert file.path == path
    if path.is_file():
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_conversations(path).sha256 == file.sha256


def test_a_folder_with_one_split_is_that_split(tmp_path: Path) -> None:
    write(tmp_path, *ROWS, name="train.jsonl")
    for name in (tmp_path, f"{tmp_path}::train"):
        assert [c.id for c in read_conversations(name).conversations] == ["a", "b"]


def test_the_digest_of_a_folder_says_when_a_file_of_it_changes(tmp_path: Path) -> None:
    path = folder_of_files(tmp_path)
    before = read_conversations(path).sha256
    write(tmp_path, GOOD, name="part-1.jsonl")
    assert read_conversations(path).sha256 != before


@pytest.mark.parametrize("make", [saved_splits, folder_of_splits])
def test_a_split_of_a_folder(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    assert read_conversations(f"{path}::test").rows in (3, 5)
    with pytest.raises(UserError, match="has the splits train, test; name one of them"):
        read_conversations(f"{path}::dev")


def test_tables_as_csv_and_tsv(tmp_path: Path) -> None:
    text = 'instruction,input,output,weight,id\r\nAdd,"1,\n""2""",3,0.5,\r\n\r\nStop,,,,x\r\n'
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "rows.tsv").write_text("question\tresponse\nHi\tHello\n")
    for name in ("rows.csv", "rows.csv.gz"):
        file = read_conversations(tmp_path / name)
        assert file.bad_rows == []
        assert [(c.id, c.messages) for c in file.conversations] == [
            (
                f"{(tmp_path / name).stem}_0",
                (Message("user", 'Add\n\n1,\n"2"', weight=0.5), Message("assistant", "3", weight=0.5)),
            ),
            ("x", (Message("user", "Stop"), Message("assistant", ""))),
        ]
    assert read_conversations(tmp_path / "rows.tsv").conversations[0].messages == GOOD_MESSAGES


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (b"instruction,output\na,b\nc\n", ["row 2", "wrong number of cells", "1 cells, the first line 2"]),
        (b"instruction,instruction\na,b\n", [":1:", "the same name"]),
        (b'instruction,output\na,"b\n', ["unexpected end of data"]),
        (b"instruction,output\na,\xff\n", ["not UTF-8", "CSV UTF-8", "iconv -f WINDOWS-1252 -t UTF-8"]),
        (b"instruction,output,weight\na,b,heavy\n", ["row 1", "bad weight", "'heavy'"]),
        (b"instruction,output\n", ["holds no rows"]),
    ],
)
def test_a_bad_csv_says_what_is_wrong(tmp_path: Path, text: bytes, fragments: list[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        check_bad_rows(read_conversations(path), 0)
    for fragment in [str(path), *fragments]:
        assert fragment in str(caught.value)


def test_nulls_of_the_common_schema_of_a_table_are_no_arguments(tmp_path: Path) -> None:
    def row(arguments: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
        function = {"name": "add", "parameters": {"type": "object", "properties": properties}}
        call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
        messages = [
            {"role": "user", "content": "x", "tool_calls": None},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
        return {"messages": messages, "tools": [{"type": "function", "function": function}]}

    rows = [
        row({"a": 1}, {"a": {"type": "number"}}),
        row({"b": [{"c": "x"}]}, {"b": {"items": {"type": "string"}}}),
    ]
    table = datasets.Dataset.from_list(rows)
    table.to_parquet(tmp_path / "rows.parquet")
    table.to_json(tmp_path / "rows.jsonl")
    table.save_to_disk(tmp_path / "saved")
    for name in ("rows.parquet", "rows.jsonl", "saved"):
        conversations = read_conversations(tmp_path / name).conversations
        assert [list(c.tools) for c in conversations] == [row["tools"] for row in rows]
        assert [list(c.messages[1].tool_calls) for c in conversations] == [
            row["messages"][1]["tool_calls"] for row in rows
        ]


def test_columns_that_the_library_keeps_as_json_are_the_values_they_are(tmp_path: Path) -> None:
    rows = [
        {"messages": json.dumps(GOOD["messages"]), "tools": [TOOL], "chat_template_kwargs": {"a": 1}},
        {"messages": json.dumps(GOOD["messages"]), "tools": [TOOL], "chat_template_kwargs": {"b": "x"}},
    ]
    features = datasets.Features(
        {
            "messages": datasets.Value("string"),
            "tools": datasets.List(datasets.Json()),
            "chat_template_kwargs": datasets.Json(),
        }
    )
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    file = read_conversations(tmp_path / "rows.parquet")
    assert [c.template_variables for c in file.conversations] == [{"a": 1}, {"b": "x"}]
    assert [c.tools for c in file.conversations] == [(TOOL,), (TOOL,)]


def test_values_that_json_has_not_are_refused_where_they_would_be_read(tmp_path: Path) -> None:
    import datetime

    rows = [
        {"prompt": b"x", "completion": "y", "when": datetime.date(2020, 1, 1)},
        {"prompt": None, "completion": "y", "when": None},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    reasons = [bad.reason for bad in read_conversations(tmp_path / "rows.parquet").bad_rows]
    assert reasons == ["prompt and completion do not match", "no recognised columns"]


def test_a_text_of_a_table_that_is_not_utf8_refuses_its_row_alone(tmp_path: Path) -> None:
    prompts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
    parquet.write_table(pa.table({"prompt": prompts, "response": ["x", "y", "z"]}), tmp_path / "rows.parquet")
    file = read_conversations(tmp_path / "rows.parquet")
    assert [(bad.row, bad.reason) for bad in file.bad_rows] == [(1, "not UTF-8")]
    assert [c.messages[0].content for c in file.conversations] == ["a", "c"]


def test_a_row_of_an_array_or_a_table_is_named_by_its_number_and_id(tmp_path: Path) -> None:
    bad = [GOOD, {"messages": [], "id": "x7"}, GOOD, {"messages": []}]
    array = tmp_path / "rows.json"
    array.write_text(json.dumps(bad))
    file = read_conversations(array)
    assert list(map(file.place, file.bad_rows)) == [f"{array}: row 2 (id x7)", f"{array}: row 4"]
    with pytest.raises(UserError, match=r"rows\.json: row 2 \(id x7\): no messages: .*\n.*also row 4"):
        check_bad_rows(file, 0)
    (tmp_path / "of_files").mkdir()
    write(tmp_path / "of_files", *bad, name="a.jsonl")
    write(tmp_path / "of_files", *bad, name="b.jsonl")
    file = read_conversations(tmp_path / "of_files")
    assert list(map(file.place, file.bad_rows)) == [
        f"{tmp_path}/of_files/{name}.jsonl:{line}" for name in "ab" for line in (2, 4)
    ]


def test_a_data_set_of_the_hub_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def load(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        if name == "some/missing":
            raise FileNotFoundError("no such data set\nmore")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    digests = {read_conversations(name).sha256 for name in ("some/set:small:dev", "set::train[:10]", "a/b:")}
    assert asked == [("some/set", "small", "dev"), ("set", None, "train[:10]"), ("a/b", None, "train")]
    assert len(digests) == 1 and not os.listdir(tmp_path)
    file = read_conversations("some/set:small:dev")
    assert [(c.id, c.messages) for c in file.conversations] == [("a", GOOD_MESSAGES), ("b", GOOD_MESSAGES)]
    with pytest.raises(
        UserError, match=r"some/missing::train: cannot be loaded: no such data set;.*NAME:CONFIG"
    ):
        read_conversations("some/missing::train")


def test_lines_that_are_broken_stay_bad_lines(tmp_path: Path) -> None:
    file = read_conversations(write(tmp_path, b"{]", GOOD, b'{"a": 1} {', GOOD))
    assert [(bad.line, bad.reason) for bad in file.bad_rows] == [(1, "not JSON"), (3, "not JSON")]
    assert [file.place(c) for c in file.conversations] == [f"{file.path}:2", f"{file.path}:4"]


def test_calls_of_a_table_of_json_strings(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    rows = [{"messages": json.dumps(messages), "tools": json.dumps([TOOL])}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (conversation,) = read_conversations(tmp_path / "rows.parquet").conversations
    assert conversation.messages[1].tool_calls == (CALL,) and conversation.tools == (TOOL,)
