"""Rows of no known shape: what their refusal says to do reads them, whole."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from row_files import write

from instruction_modelling.errors import UserError
from instruction_modelling.rows.advice import advice
from instruction_modelling.rows.conversations import read_conversations

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TALK, OTHER = [USER, ANSWER], [USER, {**ANSWER, "content": "Go away"}]
ROW = {"prompt": "Hi", "response": "Hello"}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}, "prompt=user,chosen=assistant"),
        ({"prompt": "Hi", "chosen": TALK, "rejected": OTHER}, "chosen=messages"),
        ({"chosen": TALK, "rejected": OTHER}, "chosen=messages"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": OTHER[1:]}, "chosen=completion"),
        ({"input": [USER], "output": [ANSWER]}, "input=prompt,output=completion"),
        ({"dialog": TALK}, "dialog=messages"),
        ({"MESSAGES": TALK, "Score": 3}, "MESSAGES=messages"),
        ({"conversation_a": TALK, "conversation_b": OTHER, "winner": "a"}, "conversation_a=messages"),
        ({"Question": "Hi", "Answer": "Hello", "": 0}, "Question=user,Answer=assistant"),
    ],
)
def test_the_columns_that_a_refusal_names_read_the_row(
    tmp_path: Path, row: dict[str, Any], columns: str
) -> None:
    path = write(tmp_path, row)
    (bad,) = read_conversations(path).bad_rows
    said = re.search(r"--columns (\S+)$", bad.detail)
    assert said and shlex.split(said[1]) == [columns]
    (conversation,) = read_conversations(path, columns).conversations
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("user", "Hi"),
        ("assistant", "Hello"),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (USER, ['{"messages": [...]}, with its messages in order']),
        ({"data": [ROW], "version": 1}, ['the list under "data"', "jq -c '.[\"data\"][]' FILE"]),
        ({"0": ROW, "1": ROW}, ['under "0" and the others', "jq -c '.[]' FILE"]),
        ({"id": 1, "data": {"q": "Hi", "a": "Hello"}}, ['under "data"', "jq -c '.[\"data\"]' FILE"]),
        ({"chat": [{"sender": "human", "text": "Hi"}]}, ["['sender', 'text']", '"role"']),
        ({"prompt": "Hi", "chosen": [ANSWER]}, ['"chosen" begins with an answer']),
    ],
)
def test_rows_that_lie_elsewhere_or_are_written_otherwise(row: dict[str, Any], words: list[str]) -> None:
    assert advice(row).startswith(". ")
    for word in words:
        assert word in advice(row)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Hi"},
        # Each has an answer that the advice to read a part of it would lose.
        {"request": {"messages": [USER]}, "response": {"choices": [ANSWER]}},
        {"input": {"messages": [USER]}, "output": [3]},
        {"q": "1 + 1", "a": 2},
    ],
)
def test_nothing_is_said_where_it_would_lose_something(row: dict[str, Any]) -> None:
    assert advice(row) == ""


@pytest.mark.parametrize("name", ["input", "context", "history"])
def test_a_question_is_not_read_without_what_stands_beside_it(tmp_path: Path, name: str) -> None:
    """It would be trained to be answered out of nothing; an instruction is read with it."""
    beside: Any = [["One?", "Two."]] if name == "history" else "The text asked about."
    rows: list[dict[str, Any]] = [
        {"question": "Hi", "response": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": "Hi", "response": "Hello"},
    ]
    for row in rows:
        asked, answered = row
        assert not read_conversations(write(tmp_path, row | {name: ""})).bad_rows
        path = write(tmp_path, row | {name: beside})
        (bad,) = read_conversations(path).bad_rows
        assert bad.reason == f"{name} beside a {asked}"
        read, left_out = re.findall(r"--columns (\S+)", bad.detail)
        (whole,) = read_conversations(path, read).conversations
        texts = [message.content for message in whole.messages]
        assert texts == (
            ["One?", "Two.", "Hi", "Hello"] if name == "history" else [f"Hi\n\n{beside}", "Hello"]
        )
        without = read_conversations(path, left_out)
        assert [message.content for message in without.conversations[0].messages] == ["Hi", "Hello"]
        assert without.unknown_keys == {f"column {name}": 1}
        assert answered in left_out


def test_messages_as_python_and_pandas_print_them_are_named_as_that(tmp_path: Path) -> None:
    (bad,) = read_conversations(write(tmp_path, {"messages": str(TALK)})).bad_rows
    assert bad.detail.endswith('pandas writes rows by to_json(FILE, orient="records", lines=True)')
    (bad,) = read_conversations(write(tmp_path, {"prompt": {"0": "Hi"}, "response": {"0": "Hello"}})).bad_rows
    assert bad.reason == "prompt and response do not match"
    (bad,) = read_conversations(write(tmp_path, {"question": {"0": "Hi"}, "response": {"0": "a"}})).bad_rows
    assert bad.detail.endswith('pandas writes rows by to_json(FILE, orient="records", lines=True)')
    (tmp_path / "lists.jsonl").write_text(f"{json.dumps(TALK)}\n{json.dumps(OTHER)}\n")
    with pytest.raises(UserError, match=re.escape("jq -c '{messages: .}' FILE writes them so")):
        read_conversations(tmp_path / "lists.jsonl")


def test_parts_that_are_no_text_say_where_they_belong(tmp_path: Path) -> None:
    for kind, word in (("tool_use", '"tool_calls"'), ("tool_result", 'role "tool"'), ("image", "only text")):
        content = [{"type": kind, "id": "1"}]
        (bad,) = read_conversations(write(tmp_path, {"messages": [{**USER, "content": content}]})).bad_rows
        assert word in bad.detail


def test_tables_of_spreadsheets(tmp_path: Path) -> None:
    """A first line that says what separates cells, bars, and commas within quoted names."""
    for text, names in (
        ('sep=;\r\n"Q";A\r\n"a;b";c\r\n', "Q=user,A=assistant"),
        ('"sep=|"\nQ|A\na;b|c\n', "Q=user,A=assistant"),
        ("Q|A\na;b|c\n", "Q=user,A=assistant"),
        ('"Q, long";prompt;response\nx;a;b\n', None),
    ):
        path = tmp_path / "table.csv"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        file = read_conversations(path, names)
        assert file.bad_rows == []
        texts = [message.content for message in file.conversations[0].messages]
        assert texts == (["a;b", "c"] if names else ["a", "b"])
    path.write_text('sep=;\nprompt;response\na;b\n"c;d\ne;f\n')
    with pytest.raises(UserError, match=r"table.csv:5: .* of the row that begins in line 4; write quotes"):
        read_conversations(path)
    path.write_text("prompt;response\na;b;c\n")
    assert read_conversations(path).bad_rows[0].detail.endswith("quote cells with semicolons")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x04\x95pickle", "is a pickle of Python, .* pickles are never read"),
        (b"SQLite format 3\0...", "is a database of SQLite, .* -csv FILE"),
        (b"<!DOCTYPE html><html>", "is a web page, .* fetch the file itself"),
        (b"rows.jsonl".ljust(257, b"\0") + b"ustar\0", r"is a tar archive, .* extract it \(tar -xf\)"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_conversations(path)


@pytest.mark.parametrize("answered", ["completion", "response"])
def test_an_answer_that_its_row_calls_bad_is_not_trained(tmp_path: Path, answered: str) -> None:
    """KTO's rows: a prompt, an answer, and whether it is liked."""
    rows = [{"prompt": f"Hi {n}", answered: "Hello", "label": label} for n, label in enumerate((True, False))]
    read = read_conversations(write(tmp_path, *rows))
    assert [row.row for row in read.conversations] == [0]
    (bad,) = read.bad_rows
    assert bad.row == 1 and bad.reason == f"{answered} that is disliked" and "jq -c" in bad.detail
    # A class of 0 is no verdict, and who names the columns has said what they are.
    assert not read_conversations(write(tmp_path, rows[1] | {"label": 0})).bad_rows
    named = read_conversations(write(tmp_path, rows[1]), f"prompt=user,{answered}=assistant")
    assert [message.content for message in next(iter(named.conversations)).messages] == ["Hi 1", "Hello"]
