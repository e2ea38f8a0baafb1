"""Hostile files of rows: each row is read as it stands or refused by name, no file ends in a traceback."""

import bz2
import gzip
import json
import lzma
import os
import shlex
import socket
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hostile_inputs import lines_said, messages, not_as_root, rows_said
from pyarrow import parquet
from row_files import GOOD

from instruction_modelling.rows import files
from instruction_modelling.rows.conversations import read_conversations

G = json.dumps(GOOD).encode()
MANY = (G + b"\n") * 1000
ROW = G[:-1]


def chat(*messages: dict[str, Any], **columns: Any) -> bytes:
    return json.dumps({"messages": list(messages), **columns}).encode()


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def table(name: str = "t.parquet") -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist([GOOD] * 3), sink)
    return sink.getvalue().to_pybytes()


def spoiled(data: bytes, start: int, length: int = 30) -> bytes:
    return data[:start] + b"\xff" * length + data[start + length :]


# Name of the case to its bytes; a name may end in the file's own name.
BYTES: dict[str, bytes] = {
    "last line cut off": G + b"\n" + G[:30],
    "byte order mark": b"\xef\xbb\xbf" + G,
    "byte order mark twice": b"\xef\xbb\xbf\xef\xbb\xbf" + G + b"\n" + G,
    "CRLF": G + b"\r\n" + G + b"\r\n",
    "CR alone": G + b"\r" + G + b"\r",
    "NUL first": b"\0" + G,
    "NUL among the first lines": G + b"\n\0\0\n" + G,
    "NUL far behind": (G + b"\n") * 20 + b"\0\0\n" + G,
    "NUL in a string": (G + b"\n") * 20 + G.replace(b"Hello", b"He\0llo"),
    "NUL escaped": G.replace(b"Hello", b"He\\u0000llo"),
    "not UTF-8": G.replace(b"Hello", b"He\xffllo") + b"\n" + G,
    "Latin-1": "Grüße".encode("latin-1"),
    "UTF-16": G.decode().encode("utf-16"),
    "NaN as weight": ROW + b', "weight": NaN}',
    "infinity as weight": ROW + b', "weight": -Infinity}',
    "a number beyond floats": ROW + b', "weight": 1e999}',
    "an integer of 400 digits": ROW + b', "weight": ' + b"9" * 400 + b"}",
    "an integer of 5000 digits": ROW + b', "id": ' + b"9" * 5000 + b"}",
    "a negative weight": ROW + b', "weight": -1}',
    "NaN in a column that nothing reads": ROW + b', "score": NaN}',
    "NaN in arguments": chat(
        said("user", "a"),
        said("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": {"x": float("nan")}}}]),
    ),
    "nested beyond reading": ROW + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n" + G,
    "arguments nested deeply": chat(said("user", "a"))[:-2]
    + b', {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '
    + b'{"a":' * 950
    + b"1"
    + b"}" * 950
    + b"}}]}]}\n"
    + G,
    "white space only": b"  \n\n \n",
    "empty": b"",
    "byte order mark only": b"\xef\xbb\xbf",
    "an empty array": b"[]",
    "an array in an array": b"[[" + G + b"]]",
    "an array cut off": b"[" + G + b",\n" + G[:20],
    "an array and more": b"[" + G + b"]\n" + G,
    "an object without columns": b"{}\n",
    "rows of every wrong type": b'null\n1\ntrue\n"x"\n[1]\n{{\n',
    "a repeated key": b'{"messages": [], "messages": []}\n' + G,
    "a repeated key in a message": G.replace(b'"role": "user"', b'"role": "user", "role": "system"'),
    "ids repeated": (ROW + b', "id": "a"}\n') * 2,
    "an id of a wrong type": ROW + b', "id": {"a": 1}}\n',
    "schemas mixed": G
    + b'\n{"instruction":"a","output":"b"}\n{"prompt":"x","completion":"y"}\n{"text":"z"}\n',
    "messages of a wrong type": b'{"messages": 3}\n{"messages": {}}\n{"messages": [3]}\n{"messages": [[]]}\n',
    "contents of a wrong type": chat(said("user", 3), said("assistant", "b"))
    + b"\n"
    + chat(said("user", "a"), said("assistant", {"a": 1}))
    + b"\n"
    + chat(said("user", ["x"]), said("assistant", "b")),
    "a role with an invisible character": chat(said("user\u200b", "a"), said("assistant", "b")),
    "a role in another alphabet": chat(said("user", "a"), said("\u0430ssistant", "b")),
    "a role between spaces": chat(said(" User ", "a"), said("ASSISTANT", "b")),
    "a role that is no text": chat(said("user", "a"), {"role": 1, "content": "b"}),
    "no role": chat(said("user", "a"), {"content": "b"}),
    "half a surrogate pair": chat(said("user", "a\ud83d"), said("assistant", "b")),
    "right to left and invisible": chat(
        said("user", "\u202eabc\u200b\u200f"), said("assistant", "\u05e9\u200d")
    ),
    "line separators of Unicode": chat(said("user", "a\u2028b\x85c"), said("assistant", "d")),
    "nothing but empty texts": chat(said("user", ""), said("assistant", "")),
    "a web page": b"<!DOCTYPE html><html>404</html>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n",
    "Python's way to write": b"{'messages': [{'role': 'user', 'content': 'x'}]}\n",
    "YAML": b"- role: user\n  content: hi\n",
    "CSV named .jsonl": b"instruction,output\na,b\n",
    "JSON Lines named/x.csv": G + b"\n" + G,
    "JSON Lines named/x.parquet": G,
    "JSON Lines named/x.txt": G,
    "gzip named .jsonl": gzip.compress(G),
    "gzip cut off": gzip.compress(MANY)[:-20],
    "gzip with a wrong checksum": gzip.compress(G, mtime=0)[:-8] + b"\0" * 8,
    "gzip twice": gzip.compress(gzip.compress(G, mtime=0), mtime=0),
    "zstd cut off": pa.compress(MANY, codec="zstd", asbytes=True)[:-9],
    "zstd damaged": spoiled(pa.compress(MANY, codec="zstd", asbytes=True), 30, 3),
    "bzip2 cut off": bz2.compress(MANY)[:-9],
    "xz cut off": lzma.compress(MANY)[:-9],
    "Parquet named .jsonl": table(),
    "Parquet cut off": table()[:-10],
    "Parquet in gzip/t.parquet.gz": gzip.compress(table()),
    "a spreadsheet/t.xlsx": b"PK\x03\x04....",
    "CSV with a quote left open/q.csv": b'instruction,output\na,"b\n',
    "CSV with too many cells/c.csv": b"instruction,output\na,b,c\nd,e\n",
    "CSV with a column twice/d.csv": b"output,output\na,b\n",
    "CSV with NUL/n.csv": b"instruction,output\na\0,b\n",
    "CSV without rows/e.csv": b"instruction,output\n",
    "Question and Answer/q.csv": b"Question,Answer\na,b\n",
    "Prompt and Response/p.csv": b"Prompt,Response\na,b\n",
    "Instruction, Input and Output/i.csv": b"Instruction,Input,Output\na,b,c\n",
    "Instruction and Output": b'{"Instruction": "a", "Output": "b", "Extra": 1}\n',
    "columns with spaces/s.csv": b"My Question,Query ,Reply\na,b,c\n",
    "MESSAGES": G.replace(b"messages", b"MESSAGES"),
    "a column with a comma/c.csv": b'"Question,",Question,Answer\na,b,c\n',
}


def made(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / (name.partition("/")[2] or "data.jsonl")
        path.write_bytes(content)
        return path

    return make


def link(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.symlink(target, folder / "data.jsonl")
        return folder / "data.jsonl"

    return make


def folder_with(**files: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        inner = folder / "inner.jsonl"
        inner.mkdir()
        for name, content in files.items():
            (inner / f"{name}.jsonl").write_bytes(content)
        os.symlink(".", inner / "again")
        os.symlink("self.jsonl", inner / "self.jsonl")
        return inner

    return make


def pipe_with(content: bytes | None) -> Callable[[Path], Path]:
    """A named pipe that a thread writes to, or nobody does."""

    def make(folder: Path) -> Path:
        path = folder / "data.jsonl"
        os.mkfifo(path)
        if content is not None:
            threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
        return path

    return make


def socket_in(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made_here:
        # The name of a socket may have a hundred bytes.
        here = os.open(folder, os.O_RDONLY)
        made_here.bind(f"/proc/self/fd/{here}/data.jsonl")
        os.close(here)
    return folder / "data.jsonl"


def mistyped(folder: Path) -> Path:
    made("f", G)(folder)
    return folder / "data.jsnl"


def zip_of_xlsx(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "book.xlsx", "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<a>")
    return folder / "book.xlsx"


CASES: dict[str, Callable[[Path], Path]] = {
    **{name: made(name, content) for name, content in BYTES.items()},
    "a folder named as a file": folder_with(),
    "a folder with links to itself": folder_with(a=G),
    "a link to itself": link("data.jsonl"),
    "a link to nothing": link("nowhere.jsonl"),
    "no such file": lambda folder: folder / "absent.jsonl",
    "a file as a folder": lambda folder: made("f", G)(folder) / "x.jsonl",
    "a name that is too long": lambda folder: folder / ("x" * 300),
    "a name with NUL": lambda folder: folder / "a\0b.jsonl",
    "a name that is no UTF-8": lambda folder: Path("a\udcff.jsonl"),
    "a name that is nearly right": mistyped,
    "no name": lambda folder: Path(" "),
    "a device without bytes": lambda folder: Path("/dev/null"),
    "a device without end": lambda folder: Path("/dev/zero"),
    "a socket": socket_in,
    "a pipe": pipe_with(G + b"\n"),
    "a pipe that nobody writes to": pipe_with(None),
    "a pipe of Parquet": pipe_with(table()),
    "a file that cannot be read at its start": lambda folder: Path("/proc/self/mem"),
    "an address of the web": lambda folder: Path("https://example.com/x.jsonl"),
    "a damaged spreadsheet": zip_of_xlsx,
}
EXPECTED = messages("data files")


def test_every_message_has_its_case() -> None:
    assert set(CASES) == set(EXPECTED)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_read_as_it_stands_or_refused_in_these_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "a pipe that nobody writes to":
        monkeypatch.setattr(files, "_PIPE_SECONDS", 0.1)
    path = CASES[name](tmp_path)
    assert lines_said(lambda: rows_said(path), tmp_path) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in BYTES if ", give --columns" in str(EXPECTED.get(name))])
def test_the_columns_that_a_refusal_names_read_the_row(name: str, tmp_path: Path) -> None:
    path = CASES[name](tmp_path)
    advice = EXPECTED[name][1].partition(", give --columns ")[2]
    file = read_conversations(path, shlex.split(advice)[0])
    assert file.bad_rows == []
    assert [message.role for message in file.conversations[0].messages] == ["user", "assistant"]


def test_a_file_without_permission_is_said(tmp_path: Path) -> None:
    not_as_root(tmp_path)
    path = made("f", G)(tmp_path)
    path.chmod(0)
    assert lines_said(lambda: rows_said(path), tmp_path) == [
        "error: DIR/data.jsonl: cannot be read: Permission denied"
    ]


def test_a_line_of_fifty_megabytes_is_a_row_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(G.replace(b"Hello", b"a" * 50_000_000) + b"\n" + G + b"\n")
    file = read_conversations(path)
    assert [len(row.messages[1].content) for row in file.conversations] == [50_000_000, 5]
    assert file.bad_rows == []


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Texts that print oddly come through to the last code point."""
    texts = [
        "\u202eabc\u200b\u200f",
        "a\u2028b\x85c",
        "\0",
        "\ufeff",
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    ]
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(chat(said("user", text), said("assistant", text)) for text in texts))
    assert [row.messages[0].content for row in read_conversations(path).conversations] == texts


def test_a_file_that_vanishes_or_changes_between_two_readings_ends_in_a_message(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    long = G.replace(b"Hello", b"a" * 9_000_000)
    path.write_bytes(long + b"\n")
    rows = read_conversations(path, keep=False).conversations
    path.write_bytes(long + b"\n" + G)
    assert lines_said(lambda: [str(len(list(rows)))], tmp_path) == [
        "error: DIR/data.jsonl: changed while it was read; start again once nothing writes to it any more"
    ]
    path.unlink()
    assert lines_said(lambda: [str(len(list(rows)))], tmp_path) == [
        "error: DIR/data.jsonl: there is no such file; check the path (a data set of the hub is "
        "NAME:CONFIG:SPLIT)"
    ]
