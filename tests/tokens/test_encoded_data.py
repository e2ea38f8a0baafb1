"""Files of encoded rows: the cache gives back what it was given, and never something else."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATS
from chat_tokenizers import CHATML, Case, byte_level, byte_level_with_bos, chatml
from step_samples import random_data

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.tokens.cache import cache_folder, encode_file
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.row_encoder import CACHE_LAYOUT, RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

ROWS: list[dict[str, Any]] = [
    *({"messages": chat} for chat in CHATS),
    {
        "messages": [
            {"role": "user", "content": "say </s> <|im_end|>"},
            {"role": "assistant", "content": "x", "weight": 0.5},
        ]
    },
    {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": "42"}]},
    {"messages": [{"role": "user", "content": "long " * 200}, {"role": "assistant", "content": "cut away"}]},
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of rows, and a cache of its own."""
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    return path


def test_a_cache_that_is_made_is_its_owners_alone(file: Path) -> None:
    """Token ids are the rows' texts for whoever has the tokenizer."""
    encode_file(read_conversations(file), make_encoder(byte_level_with_bos()))
    assert cache_folder().stat().st_mode & 0o777 == 0o700 and len(cached()) == 1


def make_encoder(case: Case, choice: str = "tulu", limit: int = 100, released: bool = False) -> RowEncoder:
    """An encoder."""
    return RowEncoder(case.tokenizer, load_chat_format(choice, case.tokenizer), limit, released)


def same(a: EncodedData, b: EncodedData) -> bool:
    """Whether two files' rows are equal in everything."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(EncodedData)]
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else x == y for x, y in pairs
    )


def cached() -> list[Path]:
    """The caches of files."""
    return sorted(cache_folder().glob("*.tokens"))


@pytest.mark.parametrize("released", [False, True])
def test_the_cache_gives_back_what_was_encoded(
    file: Path, released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, encoder = read_conversations(file), make_encoder(byte_level_with_bos(), released=released)
    first = encode_file(rows, encoder)
    assert len(cached()) == 1
    monkeypatch.setattr(encoder, "encode", lambda _: pytest.fail("encoded again"))
    second = encode_file(rows, encoder)
    assert same(first, second)
    assert (second.released is not None) == released
    assert np.array_equal(
        first.weights(WeightPolicy(instruction=0.5)), second.weights(WeightPolicy(instruction=0.5))
    )
    # What it holds is right in itself: one row is refused, one is cut, one spells control text.
    assert [bad.reason for bad in second.refused] == ["role 'tool' not in this format"]
    assert len(second) == len(ROWS) - 1
    assert second.counts.truncated_rows == second.counts.control_text_rows == 1
    assert second.lengths.max() == 100 and second.rows.tolist() == [
        n for n in range(len(ROWS)) if n != len(ROWS) - 2
    ]
    assert second.message_weights[-2] == [1.0, 0.5]
    # What it says of each row: here one sequence a row, and the last one cut.
    assert second.message_roles[-2] == ["user", "assistant"]
    assert second.datasets == ["rows"] * len(second)
    cut = second.tokens_cut.tolist()
    assert cut[:-1] == [0] * (len(second) - 1) and cut[-1] == second.counts.tokens_cut > 0


def test_what_decides_about_ids_decides_about_the_cache(file: Path, tmp_path: Path) -> None:
    bos = byte_level_with_bos()
    other_eos = byte_level(["<s>", "</s>"], bos=True, bos_token="<s>", eos_token="<s>")
    more = byte_level(["<s>", "</s>", "<x>"], bos=True, bos_token="<s>", eos_token="</s>")
    jinja = tmp_path / "mine.jinja"
    jinja.write_text(CHATML, encoding="utf-8")
    encoders = [
        make_encoder(bos),
        make_encoder(bos, limit=99),
        make_encoder(bos, released=True),
        make_encoder(other_eos),
        make_encoder(more),
        make_encoder(chatml()),
        make_encoder(chatml(), "tokenizer"),
        make_encoder(bos, str(jinja)),
    ]
    rows = read_conversations(file)
    for encoder in encoders:
        encode_file(rows, encoder)
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders) == len(cached())
    assert make_encoder(bos).fingerprint == encoders[0].fingerprint
    jinja.write_text(CHATML.replace("\\n", " "), encoding="utf-8")
    assert make_encoder(bos, str(jinja)).fingerprint != encoders[-1].fingerprint


def test_another_file_is_another_entry(file: Path) -> None:
    encoder = make_encoder(byte_level_with_bos())
    before = encode_file(read_conversations(file), encoder)
    file.write_text(file.read_text(encoding="utf-8").replace("hello", "hallo"), encoding="utf-8")
    after = encode_file(read_conversations(file), encoder)
    assert not np.array_equal(before.ids, after.ids) and len(cached()) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped", "missing"])
def test_a_damaged_cache_is_made_again(file: Path, damage: str) -> None:
    rows, encoder = read_conversations(file), make_encoder(byte_level_with_bos(), released=True)
    good = encode_file(rows, encoder)
    (folder,) = cached()
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 21, names
    for name in names:
        whole = (folder / name).read_bytes()
        middle = len(whole) // 2
        spoilt: dict[str, list[bytes | None]] = {
            "empty": [b""],
            "text": [b"not an array"],
            "cut": [whole[:n] for n in (1, middle, len(whole) - 1)],
            # A byte of the header or of the values.
            "flipped": [whole[:n] + bytes([whole[n] ^ 0x41]) + whole[n + 1 :] for n in (1, len(whole) - 1)],
            "missing": [None],
        }
        for content in spoilt[damage]:
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
            assert same(encode_file(rows, encoder), good), name
            assert (folder / name).read_bytes().strip() == whole.strip()
    assert [path.name for path in cache_folder().iterdir() if path.suffix != ".lock"] == [folder.name]


def test_a_cache_of_another_layout_is_never_read_and_said_to_be_stale(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither one of an older layout, nor one from before the layout was in its name."""
    rows, encoder = read_conversations(file), make_encoder(byte_level_with_bos())
    caplog.set_level("INFO")
    good = encode_file(rows, encoder)
    assert not caplog.messages
    (path,) = cached()
    older = path.with_name(path.name.replace(f".{CACHE_LAYOUT}.tokens", f".{CACHE_LAYOUT - 1}.npz"))
    assert older != path
    # Other rows, under the names that older caches of these would have.
    other = make_encoder(byte_level_with_bos(), limit=7)
    encode_file(rows, other)
    shutil.rmtree(path)
    shutil.rmtree(cached()[0])
    older.write_bytes(b"PK")
    oldest = path.with_name(path.name.partition(".")[0] + ".npz")
    oldest.write_bytes(b"PK")
    assert same(encode_file(rows, encoder), good) and path.exists()
    assert len(caplog.messages) == 1
    assert (
        f"caches of tokens in another form than today's (2, all but *.{CACHE_LAYOUT}.tokens) are not read"
        in (caplog.messages[0])
    )
    encode_file(rows, encoder)
    assert len(caplog.messages) == 1
    # With one of today's there, those of other rows are not spoken of again, and files of others never.
    (cache_folder() / "somebody.npz").write_bytes(b"")
    encode_file(rows, make_encoder(byte_level_with_bos(), limit=8))
    assert len(caplog.messages) == 1
    encode_file(rows, encoder, overwrite_cache=True)
    assert len(caplog.messages) == 2 and "(2, all but" in caplog.messages[1]


def test_overwriting_and_a_cache_that_cannot_be_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, encoder = read_conversations(file), make_encoder(byte_level_with_bos())
    good = encode_file(rows, encoder)
    before = cached()[0].stat().st_ino
    assert same(encode_file(rows, encoder, overwrite_cache=True), good)
    assert cached()[0].stat().st_ino != before
    # A file where the folder should be.
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(file))
    assert same(encode_file(rows, encoder), good)


def test_taking_rows_and_cutting_blocks(file: Path) -> None:
    data = encode_file(read_conversations(file), make_encoder(byte_level_with_bos(), released=True))
    some = data.take(np.array([3, 0]))
    for place, row in enumerate([3, 0]):
        for name in ("ids", "kinds", "messages", "positions", "released"):
            assert (
                getattr(some, name)[some.span(place)].tolist() == getattr(data, name)[data.span(row)].tolist()
            )
    for name in ("rows", "row_ids", "datasets", "message_roles", "message_weights", "tokens_cut"):
        assert list(getattr(some, name)) == [getattr(data, name)[3], getattr(data, name)[0]]
    assert (
        some.rows.tolist() == [data.rows[3], data.rows[0]]
        and len(data.take(np.array([], dtype=np.int64))) == 0
    )
    blocks = data.blocks(50)
    assert blocks.lengths.tolist() == [50] * (len(data.ids) // 50) and set(blocks.kinds.tolist()) == {
        SpanKind.TEXT
    }
    assert data.blocks(10**6).lengths.tolist() == [len(data.ids)]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("size", [7, 50, 10**6])
def test_blocks_that_keep_kinds_weigh_each_token_as_its_row_does(size: int, released: bool) -> None:
    draw = np.random.default_rng(size)
    data = random_data((5, 17, 9, 2, 23, 12, 7, 14))
    data = replace(data, datasets=[f"set {row // 3}" for row in range(len(data))])
    if released:
        data = replace(data, released=draw.integers(0, 4, len(data.ids)).astype(np.uint8))
    policy = WeightPolicy(0.37, 1.3, 0.05, "released" if released else "exact")
    blocks = data.blocks(size, keep_kinds=True)
    total = len(blocks.ids)
    assert total == min(len(data.ids), max(1, len(data.ids) // size) * size)
    assert (
        blocks.ids.tolist() == data.ids[:total].tolist()
        and blocks.kinds.tolist() == data.kinds[:total].tolist()
    )
    assert blocks.weights(policy).tolist() == data.weights(policy)[:total].tolist()
    for block in range(len(blocks)):
        span = blocks.span(block)
        of_rows = range(len(data))
        within = [
            row for row in of_rows if data.offsets[row] < span.stop and data.offsets[row + 1] > span.start
        ]
        assert blocks.message_roles[block] == [role for row in within for role in data.message_roles[row]]
        names = {data.datasets[row] for row in within}
        assert blocks.datasets[block] == (names.pop() if len(names) == 1 else "")
    assert len({weight for row in data.message_weights for weight in row}) > 2
