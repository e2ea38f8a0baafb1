"""A text beside a row: read, written and refused as the row's, and in documents no conversation sees."""

from pathlib import Path

import numpy as np
import pytest
from row_files import read_one, write
from tiny import make_tiny_tokenizer

from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import BadRow, Conversation, read_conversations
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.row_encoder import row_encoder

CHAT = [
    {"role": "user", "content": "Which river flows through Paris?"},
    {"role": "assistant", "content": "The Seine"},
]
TEXT = "Fruits are plums, pears and apples. </s> ends nothing here."


def encoded(row: Conversation, released: bool = False, length: int = 128) -> EncodedRow | BadRow:
    (item,) = row_encoder(make_tiny_tokenizer(), "tulu", length, released).encode([row])
    return item


@pytest.mark.parametrize("row", [{"messages": CHAT}, {"prompt": "Which river?", "completion": " The Seine"}])
def test_a_row_keeps_its_text_when_it_is_written_again(tmp_path: Path, row: dict[str, object]) -> None:
    read = read_one(tmp_path, {**row, "text_beside": TEXT})
    assert read.text_beside == TEXT
    again = read_one(tmp_path, clean_row(read))
    assert (again.text_beside, again.messages, again.plain) == (TEXT, read.messages, read.plain)
    assert "text_beside" not in clean_row(read_one(tmp_path, row))


@pytest.mark.parametrize("value", ["  ", 3, ["a"]])
def test_what_is_no_text_is_refused(tmp_path: Path, value: object) -> None:
    (bad,) = read_conversations(write(tmp_path, {"messages": CHAT, "text_beside": value})).bad_rows
    assert bad.reason == "bad text_beside" and "text_beside" in bad.detail


def test_a_document_has_a_token_for_each_of_the_instruction_and_begins_as_its_sequence(
    tmp_path: Path,
) -> None:
    row = encoded(read_one(tmp_path, {"messages": CHAT, "text_beside": TEXT}))
    assert isinstance(row, EncodedRow)
    chat, beside = row.sequences
    asked = int((chat.kinds == SpanKind.USER).sum())
    assert beside.kinds.tolist() == [SpanKind.TEMPLATE, *[SpanKind.TEXT] * asked]
    assert beside.tokens.ids[0] == chat.tokens.ids[0] and not beside.tokens_cut
    tokenizer = make_tiny_tokenizer()
    whole = tokenizer.encode(TEXT, add_special_tokens=False, split_special_tokens=True)
    assert beside.tokens.ids[1:].tolist() == np.resize(whole, asked).tolist()
    # The conversation's own messages belong to it alone.
    assert beside.rendered.is_beside and not chat.rendered.is_beside and beside.rendered.part == 1


def test_a_short_text_begins_again(tmp_path: Path) -> None:
    row = encoded(read_one(tmp_path, {"messages": CHAT, "text_beside": "ab"}))
    assert isinstance(row, EncodedRow)
    ids = row.sequences[1].tokens.ids[1:].tolist()
    assert len(ids) > 4 and ids == np.resize(ids[:2] if ids[0] != ids[1] else ids[:1], len(ids)).tolist()


def test_a_row_without_an_instruction_has_no_document(tmp_path: Path) -> None:
    row = encoded(read_one(tmp_path, {"prompt": "", "completion": " The Seine", "text_beside": TEXT}))
    assert isinstance(row, EncodedRow) and len(row.sequences) == 1


def test_a_row_that_is_cut_has_a_document_for_what_is_left(tmp_path: Path) -> None:
    row = encoded(read_one(tmp_path, {"messages": CHAT, "text_beside": TEXT}), length=8)
    assert isinstance(row, EncodedRow)
    chat, beside = row.sequences
    assert len(chat.kinds) == 8 and len(beside.kinds) == 1 + int((chat.kinds[1:] == SpanKind.USER).sum())


def test_the_released_masks_know_no_such_text(tmp_path: Path) -> None:
    bad = encoded(read_one(tmp_path, {"messages": CHAT, "text_beside": TEXT}), released=True)
    assert isinstance(bad, BadRow) and bad.reason == "text_beside under released masks"
    assert "--mask_style exact" in bad.detail
