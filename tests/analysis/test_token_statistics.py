"""What a file is in tokens: cuts, fill and shares of the loss, against counts made row by row."""

from pathlib import Path

import numpy as np
import pytest
from chat_samples import CHATS, assistant, conversation, user
from chat_tokenizers import byte_level, llama2

from instruction_modelling.analysis.tokens import (
    UNCUT,
    TokenSettings,
    cut,
    loss_shares,
    token_statistics,
    truncation,
)
from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.tokens.cache import encode_file
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.training.packing_fill import packing_fill
from instruction_modelling.training.plan import pack


def encoder(length: int) -> RowEncoder:
    """Rows in the paper's format, by a small tokenizer."""
    tokenizer = byte_level(
        ["</s>", "<s>"], name="small", eos_token="</s>", bos_token="<s>", bos=True
    ).tokenizer
    return RowEncoder(tokenizer, TuluFormat("</s>"), length)


def encoded(chats: list[list[dict[str, str]]], length: int = UNCUT) -> EncodedData:
    """The chats as training has them."""
    return collect(encoder(length).encode([conversation(chat, row=row) for row, chat in enumerate(chats)]))


@pytest.mark.parametrize("length", [1, 7, 23, 60, 10_000])
def test_a_cut_file_is_the_file_encoded_at_that_length(length: int) -> None:
    whole, short = cut(encoded(CHATS), length), encoded(CHATS, length)
    for name in ("ids", "kinds", "messages", "owned", "offsets", "sequence_offsets", "rows"):
        assert np.array_equal(getattr(whole, name), getattr(short, name)), name


@pytest.mark.parametrize("length", [8, 25, 40])
def test_what_a_length_cuts_is_counted_row_by_row(length: int) -> None:
    data = encoded(CHATS)
    expected = dict.fromkeys(
        (
            "rows_cut",
            "tokens_lost",
            "responses_cut",
            "response_tokens_lost",
            "responses_lost",
            "last_response_lost",
        ),
        0,
    )
    for index in range(len(data)):
        at = data.span(index)
        tokens = list(zip(data.kinds[at].tolist(), data.messages[at].tolist(), strict=True))
        response = [message for kind, message in tokens if kind in RESPONSE_KINDS]
        kept = [message for kind, message in tokens[:length] if kind in RESPONSE_KINDS]
        lost = max(0, len(data.kinds[at]) - length)
        expected["rows_cut"] += lost > 0
        expected["tokens_lost"] += lost
        expected["responses_cut"] += len(kept) < len(response)
        expected["response_tokens_lost"] += len(response) - len(kept)
        expected["responses_lost"] += bool(response) and not kept
        expected["last_response_lost"] += bool(response) and response[-1] not in kept
    found = truncation(data, length)
    assert {key: found[key] for key in expected} == expected
    assert expected["last_response_lost"] > 0


def test_the_shares_of_the_loss_are_those_worked_out_by_hand() -> None:
    data = encoded([[user("aaaa bb"), assistant("x")], [user("c"), assistant("x y z, x y z, x y z")]])
    counts = [
        {kind: int((data.kinds[data.span(row)] == kind).sum()) for kind in SpanKind} for row in range(2)
    ]
    user_, answer, end = SpanKind.USER, SpanKind.ASSISTANT, SpanKind.END
    shares = loss_shares(data)
    # IM by example: each row's user tokens over its tokens with a loss, averaged over the rows.
    by_example = np.mean([row[user_] / (row[user_] + row[answer] + row[end]) for row in counts])
    by_token = (counts[0][user_] + counts[1][user_]) / sum(
        row[kind] for row in counts for kind in (user_, answer, end)
    )
    assert shares["IM"]["example"]["user"] == pytest.approx(by_example, rel=1e-6)
    assert shares["IM"]["token"]["user"] == pytest.approx(by_token, rel=1e-6)
    assert shares["IT"]["token"]["end"] == pytest.approx(
        2 / sum(row[kind] for row in counts for kind in (answer, end)), rel=1e-6
    )
    for arm in shares.values():
        for kinds in arm.values():
            assert sum(share for kind, share in kinds.items() if kind != "response") == pytest.approx(
                1.0, rel=1e-6
            )
            assert kinds["response"] == pytest.approx(kinds["assistant"] + kinds["end"])
            assert kinds["template"] == 0.0
    assert (
        shares["IT"]["example"]["response"] == pytest.approx(1.0) and shares["IT"]["example"]["user"] == 0.0
    )


def test_the_fill_is_that_of_the_micro_batches() -> None:
    lengths = np.array([10, 1, 9, 5, 5, 2, 8, 10])
    fill = packing_fill(lengths, 8, 10, 2)
    # 50 tokens fit five packed micro-batches of 10; pairs of similar length: 10+10, 9+8, 5+5, 2+1.
    assert (fill.steps, fill.packed_micro_batches, fill.packed) == (1, 5, 1.0)
    assert fill.padded_by_length == 50 / (20 + 18 + 10 + 4)
    assert fill.padded_as_they_come <= fill.padded_by_length
    assert (
        packing_fill(lengths, 1, 10, 2).packed_micro_batches
        == sum(len(pack([int(n)], 10)) for n in lengths)
        == 8
    )


def test_real_rows_have_the_known_tokens(shared_data: Path) -> None:
    path = shared_data / "train" / "alpagasus_3k_dolly.jsonl"
    real = RowEncoder(llama2(shared_data).tokenizer, TuluFormat("</s>"), UNCUT)
    settings = TokenSettings(real, max_seq_length=2048, batch_sizes=[128], capacity=2048, padded_size=8)
    found = token_statistics(encode_file(read_conversations(path), real), settings)
    # Published counts of content tokens a row; the ends of a text tokenised alone may differ by a token.
    assert found["instruction"]["mean"] == pytest.approx(70.06, abs=0.5)
    assert found["output"]["mean"] == pytest.approx(104.54, abs=0.6)
    assert found["truncation"]["rows_cut"] == 7
    assert found["total"]["tokens"] == sum(kind["tokens"] for kind in found["by_kind"].values())
    assert found["by_kind"]["end"]["tokens"] == 2996
    # 0.575 of the pooled content tokens are the answers'; here their end tokens count too, and 2,048 tokens
    # cut.
    assert found["loss_shares"]["IM"]["token"]["response"] == pytest.approx(0.60, abs=0.03)
