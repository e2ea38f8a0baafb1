"""Files of training rows: JSON Lines and arrays, real ones, and files that cannot be read."""

import gzip
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from row_files import GOOD, GOOD_MESSAGES, read_one

from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import Message, bad_rows_table, read_conversations


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
    assert file.place(file.bad_rows[0]) == f"{path}:4"
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
        (gzip.compress(b"{}\n" * 99, mtime=0)[:-9], ["is damaged", "compressed data"]),
        (gzip.compress(gzip.compress(b"{}\n", mtime=0), mtime=0), ["gzip", "gunzip"]),
        (gzip.compress(b"", mtime=0), ["is empty"]),
        (b"BZh91AY", ["is damaged"]),
        (b"\xfd7zXZ\x00..", ["is damaged"]),
        (b"\x28\xb5\x2f\xfd....", ["cannot be read", "ZSTD"]),
        (b"PK\x03\x04....", ["zip", "unzip"]),
        (b"PAR1....PAR1", ["is damaged", "Parquet"]),
        (b"ARROW1\x00\x00", ["is damaged"]),
        (b"\xff\xff\xff\xff\x10\x00", ["is damaged"]),
        (b'{\n"a": 1\n}\n{\n"b" 2\n}\n', [":5:", "object 2 is broken", "jq -c"]),
        (b'{\n"a" 1\n}\n', [":2:", "object 1 is broken", "jq -c"]),
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
    with pytest.raises(UserError, match="is a directory without a file of rows"):
        read_conversations(tmp_path)
    (tmp_path / "file").write_text("{}")
    with pytest.raises(UserError, match="cannot be read: Not a directory"):
        read_conversations(tmp_path / "file" / "x.jsonl")


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
        ("raw/sharegpt/llamafactory_glaive_toolcall_en_demo.json", 300, {}),
        ("raw/baize/quora_chat_data.json", 0, {"no recognised columns": 96}),
        ("raw/dolly/litgpt_dolly.json", 12, {}),
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
