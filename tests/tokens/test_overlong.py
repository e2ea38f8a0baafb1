"""Rows longer than the maximum length: cut, left out, or an error that names them."""

from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import byte_level_with_bos
from row_files import write
from template_toys import installed_templates, toy_tokenizer

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import ConversationFile, read_conversations
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.overlong import OVERLONG, leave_out_overlong
from instruction_modelling.tokens.row_encoder import RowEncoder


def row(name: str, length: int, **more: Any) -> dict[str, Any]:
    """A row whose answer has so many letters."""
    answer = {"role": "assistant", "content": "x" * length, **more}
    return {"id": name, "messages": [{"role": "user", "content": "q"}, answer]}


ROWS = [row("a", 5), row("b", 400), row("c", 6), row("d", 900), row("e", 500)]


def encoded(
    tmp_path: Path, limit: int, rows: list[dict[str, Any]] = ROWS
) -> tuple[ConversationFile, EncodedData]:
    tokenizer = byte_level_with_bos().tokenizer
    file = read_conversations(write(tmp_path, *rows))
    encoder = RowEncoder(tokenizer, load_chat_format("tulu", tokenizer), limit)
    return file, collect(encoder.encode(file.conversations))


def test_cutting_changes_nothing(tmp_path: Path) -> None:
    file, data = encoded(tmp_path, 60)
    kept, left_out = leave_out_overlong(data, file, "cut", 60)
    assert kept is data and left_out == []
    # Where no row is too long, the choice is of no consequence.
    file, data = encoded(tmp_path, 5_000)
    for choice in ("drop", "error"):
        assert leave_out_overlong(data, file, choice, 5_000) == (data, [])  # type: ignore[arg-type]


def test_a_row_of_just_the_length_is_kept(tmp_path: Path) -> None:
    _, whole = encoded(tmp_path, 5_000)
    longest = int(whole.lengths.max())
    file, data = encoded(tmp_path, longest)
    assert leave_out_overlong(data, file, "drop", longest)[1] == []
    file, data = encoded(tmp_path, longest - 1)
    kept, left_out = leave_out_overlong(data, file, "drop", longest - 1)
    assert [bad.id for bad in left_out] == ["d"] and len(kept) == len(ROWS) - 1


def test_dropping_leaves_rows_out_with_their_lengths(tmp_path: Path) -> None:
    _, whole = encoded(tmp_path, 5_000)
    lengths = dict(zip(whole.row_ids, whole.lengths.tolist(), strict=True))
    file, data = encoded(tmp_path, 60)
    assert data.counts.truncated_rows == 3
    kept, left_out = leave_out_overlong(data, file, "drop", 60)
    assert kept.row_ids == ["a", "c"] and kept.rows.tolist() == [0, 2]
    assert kept.counts.truncated_rows == kept.counts.tokens_cut == 0 and not kept.tokens_cut.any()
    for name in ("a", "c"):
        at, before = kept.row_ids.index(name), whole.row_ids.index(name)
        assert kept.ids[kept.span(at)].tolist() == whole.ids[whole.span(before)].tolist()
    assert [(bad.id, bad.row, bad.line, bad.reason, bad.detail) for bad in left_out] == [
        (name, row, row + 1, OVERLONG, f"{lengths[name]} tokens, where --max_seq_length is 60")
        for name, row in (("b", 1), ("d", 3), ("e", 4))
    ]


def test_an_error_names_how_many_and_the_longest(tmp_path: Path) -> None:
    _, whole = encoded(tmp_path, 5_000)
    length = dict(zip(whole.row_ids, whole.lengths.tolist(), strict=True))
    file, data = encoded(tmp_path, 60)
    with pytest.raises(UserError) as raised:
        leave_out_overlong(data, file, "error", 60)
    said = str(raised.value)
    assert "3 of 5 rows are longer than --max_seq_length 60" in said and "--overlong drop" in said
    places = [
        f"line 4 ({length['d']} tokens)",
        f"line 5 ({length['e']} tokens)",
        f"line 2 ({length['b']} tokens)",
    ]
    positions = [said.index(place.removeprefix("line ")) for place in places]
    assert positions == sorted(positions)
    with pytest.raises(UserError, match="leaves none"):
        leave_out_overlong(data.take(data.rows[[1, 3]]), file, "drop", 60)


def test_a_row_is_too_long_if_one_of_its_sequences_is(tmp_path: Path) -> None:
    template = installed_templates()["qwen3.jinja"]
    tokenizer = toy_tokenizer(template)
    thought, answer = "t" * 300, {"role": "assistant", "content": "yes"}
    messages = [
        {"role": "user", "content": "one"},
        answer | {"reasoning_content": thought},
        {"role": "user", "content": "two"},
        answer,
    ]
    file = read_conversations(write(tmp_path, {"messages": messages}, row("short", 3)))
    uncut = collect(
        RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 5_000).encode(file.conversations)
    )
    first, second = uncut.sequence_lengths[:2].tolist()
    assert first > second > 20 and len(uncut.sequences_of(0)) == 2
    limit = second + 1
    data = collect(
        RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), limit).encode(file.conversations)
    )
    kept, (left_out,) = leave_out_overlong(data, file, "drop", limit)
    assert kept.row_ids == ["short"]
    assert left_out.row == 0 and left_out.detail.startswith(f"{first} tokens")
