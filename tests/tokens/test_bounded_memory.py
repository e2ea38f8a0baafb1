"""Memory does not grow with the rows: they are read again and never held, tokens go straight into files that
are mapped, and whatever is computed from either is what it is with all of it in memory."""

import json
import threading
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_tokenizers import byte_level_with_bos
from row_files import write
from step_samples import random_data
from test_encoded_data import same

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import locked
from instruction_modelling.rows import conversations as reading
from instruction_modelling.rows.conversations import ConversationFile, RowStream, read_conversations
from instruction_modelling.tokens import cache, encoded, large_arrays, row_encoder
from instruction_modelling.tokens.cache import cache_folder, encode_file
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.factors import TextFactors, with_factors
from instruction_modelling.tokens.idle_weights import idle_weights
from instruction_modelling.tokens.overlong import leave_out_overlong
from instruction_modelling.tokens.patterns import LossPattern
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weighted import totals_by_kind, weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy

LIMIT = 400
POLICY = WeightPolicy(instruction=0.3, response=0.8, template=0.1)
# Rows of one and several messages, one not to be read, one that the format refuses, one without a loss, and
# weights of every kind.
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer 1"}]},
    {"messages": [{"role": "user", "content": "ask", "weight": 0.5}, {"role": "assistant", "content": "a"}]},
    {"messages": "no list"},
    {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "42"}]},
    {
        "id": "ü",
        "dataset": "other",
        "messages": [
            {"role": "system", "content": "be", "weight": 1},
            {"role": "user", "content": "long " * 200},
            {"role": "assistant", "content": "cut"},
        ],
    },
    {"prompt": "plain", "completion": " text"},
    {
        "chat_template_kwargs": {"mood": 1},
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "answer", "loss_spans": [[0, 3, 0.25]]},
        ],
    },
    {"messages": [{"role": "user", "content": "nothing", "weight": 0}, {"role": "user", "content": "more"}]},
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))


def encoder(limit: int = LIMIT) -> RowEncoder:
    """Return an encoder of Tülu's format."""
    tokenizer = byte_level_with_bos().tokenizer
    return RowEncoder(tokenizer, load_chat_format("tulu", tokenizer), limit)


def streamed(path: Path, monkeypatch: pytest.MonkeyPatch) -> ConversationFile:
    """Return a file whose rows are not kept, however few."""
    monkeypatch.setattr(reading, "KEPT_CHARACTERS", 0)
    return read_conversations(path, keep=False)


def many(path: Path, rows: int) -> Path:
    """Write a file of so many rows."""
    with path.open("w", encoding="utf-8") as handle:
        for row in range(rows):
            answer = {"role": "assistant", "content": f"answer 1{' and more' * 300}"}
            given = {"id": f"made {row}", "messages": [ROWS[row % 2]["messages"][0], answer]}
            handle.write(json.dumps(given) + "\n")
    return path


def test_rows_that_are_read_again_are_the_rows_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, *ROWS)
    kept, stream = read_conversations(path), streamed(path, monkeypatch)
    assert isinstance(kept.conversations, list) and isinstance(stream.conversations, RowStream)
    assert stream.conversations._kept is None
    assert list(stream.conversations) == list(stream.conversations) == kept.conversations
    assert (
        stream.conversations[2] == kept.conversations[2]
        and stream.conversations[-1:] == kept.conversations[-1:]
    )
    assert replace(stream, conversations=[]) == replace(kept, conversations=[])
    assert stream.rows == kept.rows == len(ROWS) and len(kept.bad_rows) == 1
    assert stream.facts() == kept.facts()
    # By hand: which rows and messages say what.
    facts = stream.facts()
    assert dict(facts.variables) == {"mood": 1} and facts.plain.count == 1
    assert {role: of.count for role, of in facts.saying.items()} == {"user": 1, "system": 1, "assistant": 1}
    assert facts.weighing.count == 4 and facts.weighing.first == kept.conversations[1]
    assert idle_weights(stream, WeightPolicy()) == idle_weights(kept, WeightPolicy()) is not None


def test_a_small_file_is_read_once_and_a_larger_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many(tmp_path / "rows.jsonl", 10)
    file = read_conversations(path, keep=False)
    wanted = list(file.conversations)
    path.unlink()
    assert list(file.conversations) == wanted and len(wanted) == 10
    stream = streamed(many(path, 10), monkeypatch)
    path.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        list(stream.conversations)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many(tmp_path / "rows.jsonl", 10)
    file = streamed(path, monkeypatch)
    path.write_text(path.read_text(encoding="utf-8").replace("answer 1", "answer 2"), encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl: changed while it was read; start again"):
        encode_file(file, encoder())
    assert [entry.suffix for entry in cache_folder().iterdir()] == [".lock"]


def test_a_pipe_can_be_read_once_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(reading, "KEPT_CHARACTERS", 0)
    source, pipe = many(tmp_path / "rows.jsonl", 10), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(source.read_bytes()))
    writer.start()
    file = read_conversations(pipe, keep=False)
    writer.join()
    assert isinstance(file.conversations, list)
    assert [row.messages for row in file.conversations] == [
        row.messages for row in read_conversations(source).conversations
    ]


def test_tokens_in_mapped_files_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, *ROWS)
    kept = read_conversations(path)
    wanted = collect(encoder().encode(kept.conversations))
    monkeypatch.setattr(row_encoder, "CHARACTERS_AT_ONCE", 100)
    file = streamed(path, monkeypatch)
    data = encode_file(file, encoder())
    assert same(data, wanted) and data.factors is not None
    # Mapped, and for reading only.
    for name in ("ids", "kinds", "messages", "positions", "owned", "offsets", "rows", "factors"):
        array = getattr(data, name)
        assert isinstance(array.base, np.memmap) and not array.flags.writeable, name
    assert [bad.reason for bad in data.refused] == ["role 'tool' not in this format"]
    assert data.row_ids == ["data_0", "data_1", "ü", "data_5", "data_6", "data_7"]
    assert data.datasets == ["data", "data", "other", "data", "data", "data"]
    assert data.row_ids[-1] == "data_7" and data.row_ids[1:3] == ["data_1", "ü"]
    # What needs the rows again reads them again.
    factors = TextFactors("last", (LossPattern("answer", 0.5),))
    weighted = [
        weigh_rows(with_factors(of[0], of[1].conversations, factors)[0], POLICY, "example", "nonzero")
        for of in ((data, file), (wanted, kept))
    ]
    assert weighted[0][0].sha256() == weighted[1][0].sha256() and weighted[0][1] == weighted[1][1]
    dropped = [leave_out_overlong(*of, "drop", LIMIT) for of in ((data, file), (wanted, kept))]
    assert same(dropped[0][0], dropped[1][0]) and dropped[0][1] == dropped[1][1] != []


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_what_is_computed_in_parts_and_on_the_disk_is_what_it_is_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_data((5, 17, 0, 2, 23, 12, 7, 14))
    data = replace(data, factors=np.linspace(0, 2, len(data.ids), dtype=np.float32))
    indices = np.array([6, 0, 1, 2, 5, 4])
    wanted = data.weights(POLICY), data.take(indices), *weigh_rows(data, POLICY, "square", "response")
    monkeypatch.setattr(large_arrays, "LARGE", 0)
    monkeypatch.setattr(encoded, "_TOKENS_AT_ONCE", at_once)
    chunks = list(data.chunks())
    assert [row for rows in chunks for row in rows] == list(range(len(data))) and len(chunks) > 1
    assert all(len(rows) == 1 or data.lengths_of(rows).sum() <= at_once for rows in chunks)
    weights, taken, (weighted, dropped) = (
        data.weights(POLICY),
        data.take(indices),
        weigh_rows(data, POLICY, "square", "response"),
    )
    assert isinstance(weights.base, np.memmap) and isinstance(taken.ids.base, np.memmap)
    assert np.array_equal(weights, wanted[0]) and same(taken, wanted[1])
    # Brute force: the rows one by one.
    assert taken.ids.tolist() == [int(id_) for row in indices for id_ in data.ids[data.span(row)]]
    assert taken.row_ids == [f"row {row}" for row in indices]
    assert taken.take(np.array([1, 3])).row_ids == ["row 0", "row 2"]
    assert weighted.sha256() == wanted[2].sha256() and dropped == wanted[3]
    shares, others = totals_by_kind(weighted), totals_by_kind(wanted[2])
    assert shares.keys() == others.keys()
    for kind, of_kind in shares.items():
        assert of_kind == {**others[kind], "loss_share": pytest.approx(others[kind]["loss_share"], rel=1e-12)}
    # Files without a name.
    assert list(cache_folder().iterdir()) == []


def test_large_arrays_are_in_memory_where_the_disk_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_arrays, "LARGE", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "file"))
    array = large_arrays.copy_of(np.arange(5))
    assert array.base is None and array.tolist() == [0, 1, 2, 3, 4]


def peak(file: Path, monkeypatch: pytest.MonkeyPatch, keep: bool) -> int:
    """Return the most bytes that Python and numpy hold while a file is read, encoded and weighed."""
    ours = encoder()
    tracemalloc.start()
    try:
        read = read_conversations(file) if keep else streamed(file, monkeypatch)
        data = (
            collect(ours.encode(read.conversations))
            if keep
            else encode_file(read, ours, overwrite_cache=True)
        )
        weigh_rows(data, POLICY, "example", "nonzero")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_some_bytes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that holds everything shows what the bound is worth."""
    monkeypatch.setattr(row_encoder, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(large_arrays, "LARGE", 2**12)
    monkeypatch.setattr(encoded, "_TOKENS_AT_ONCE", 2**10)
    few, more = many(tmp_path / "few.jsonl", 40), many(tmp_path / "more.jsonl", 240)
    peak(few, monkeypatch, keep=False)
    grown = {
        keep: (peak(more, monkeypatch, keep) - peak(few, monkeypatch, keep)) / 200 for keep in (True, False)
    }
    assert grown[True] > 2500 and grown[False] < 500, grown


def test_a_second_process_waits_and_takes_what_the_first_one_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_conversations(many(tmp_path / "rows.jsonl", 20))
    caplog.set_level("INFO")
    wanted = encode_file(file, encoder())
    (folder,) = cache_folder().glob("*.tokens")
    aside = folder.rename(tmp_path / "aside")
    found: list[Any] = []
    second = encoder()
    monkeypatch.setattr(second, "encode", lambda _: pytest.fail("encoded again"))
    said = threading.Event()
    monkeypatch.setattr(cache, "_say_that_another_encodes", said.set)
    with locked(folder.with_suffix(".lock")):
        thread = threading.Thread(target=lambda: found.append(encode_file(file, second)))
        thread.start()
        assert said.wait(20)
        aside.rename(folder)
    thread.join()
    assert same(found[0], wanted)


def test_what_a_killed_process_left_of_a_cache_goes(tmp_path: Path) -> None:
    file = read_conversations(many(tmp_path / "rows.jsonl", 20))
    encode_file(file, encoder())
    (folder,) = cache_folder().glob("*.tokens")
    left = folder.with_name(f".{folder.name}.abc")
    folder.rename(left)
    encode_file(file, encoder())
    assert folder.is_dir() and not left.exists()


def test_values_of_rows_compare_as_lists(tmp_path: Path) -> None:
    data = encode_file(read_conversations(many(tmp_path / "rows.jsonl", 3)), encoder())
    values: Sequence[Any] = data.message_weights
    assert values == [[1.0, 1.0], [0.5, 1.0], [1.0, 1.0]] and values != [[1.0, 1.0]] and values != 3
    with pytest.raises(IndexError):
        values[3]
