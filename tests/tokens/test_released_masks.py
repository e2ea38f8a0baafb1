"""The released code's label masks: hashes of what its own function gave, and a second way to the same
labels."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chat_samples import CHATS, Chat, assistant, chats, conversation, plain_row, system, texts, user
from chat_tokenizers import Case, byte_level, byte_level_with_bos, llama2, trained_sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_sequence import OneSequence, one_sequence
from oracle import released_chat_labels, released_plain_labels

from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.rows.conversations import Conversation, read_conversations
from instruction_modelling.tokens.released_masks import IM_BIT, IT_BIT
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import WeightPolicy

SOME = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
IT, IM = WeightPolicy(mask_style="released"), WeightPolicy(instruction=1.0, mask_style="released")


@functools.cache
def without_bos() -> Case:
    """A tokenizer without BOS, with which the released IM mask finds its texts anywhere."""
    return byte_level(["</s>"], name="no-bos", eos_token="</s>")


@functools.cache
def encoder(case: Case, limit: int) -> RowEncoder:
    """An encoder that gives the released masks, too."""
    return RowEncoder(case.tokenizer, TuluFormat(str(case.tokenizer.eos_token)), limit, released=True)


def encode(case: Case, row: Conversation, limit: int) -> OneSequence:
    """One row, encoded."""
    encoded = one_sequence(next(iter(encoder(case, limit).encode([row]))))
    assert isinstance(encoded, OneSequence), encoded
    return encoded


def labels(row: OneSequence, policy: WeightPolicy) -> list[int]:
    """The row's ids where they weigh something, -100 elsewhere; every weight is 0 or 1."""
    weights = row.weights(policy)
    assert set(weights.tolist()) <= {0.0, 1.0}
    return np.where(weights > 0, row.tokens.ids, -100).tolist()


def check_chat(case: Case, chat: Chat, limit: int) -> None:
    """Hold both masks of a chat against the second implementation."""
    row = encode(case, conversation(chat), limit)
    for policy, instruction_loss in ((IT, False), (IM, True)):
        ids, wanted = released_chat_labels(
            lambda text: case.tokenizer(text)["input_ids"], chat, "</s>", limit, instruction_loss
        )
        assert row.tokens.ids.tolist() == ids
        assert labels(row, policy) == wanted


# -- what the released function itself gave ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["lima_data", "alpagasus_3k_dolly"])
def test_the_labels_of_the_real_sets_have_the_released_hashes(shared_data: Path, name: str) -> None:
    wanted = json.loads((shared_data / "released_labels.json").read_text(encoding="utf-8"))
    file = read_conversations(shared_data / "train" / f"{name}.jsonl")
    rows = [one_sequence(row) for row in encoder(llama2(shared_data), 2048).encode(file.conversations)]
    for arm, policy, bit in (("IT", IT, IT_BIT), ("IM", IM, IM_BIT)):
        digest, masked, tokens, first = hashlib.sha256(), 0, 0, []
        for row in rows:
            assert isinstance(row, OneSequence) and row.released is not None
            of_bits = np.where(row.released & bit, row.tokens.ids, -100).tolist()
            assert of_bits == labels(row, policy)
            line = json.dumps(of_bits, separators=(",", ":")).encode()
            digest.update(line + b"\n")
            first.append(hashlib.sha256(line).hexdigest()[:12])
            masked += of_bits.count(-100)
            tokens += len(of_bits)
        stored = wanted[f"{name}:{arm}"]
        assert (len(rows), tokens, masked) == (stored["rows"], stored["tokens"], stored["masked"])
        assert first[:20] == stored["first_rows"] and digest.hexdigest() == stored["sha256"]


# -- the second implementation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        byte_level_with_bos,
        without_bos,
        lambda: trained_sentencepiece("bpe", "section"),
        lambda: trained_sentencepiece("unigram", "first"),
    ],
)
@SOME
@given(data=st.data())
def test_random_chats(make: Callable[[], Case], data: st.DataObject) -> None:
    control = (
        "</s>",
        "<s>",
        "wa\n",
        "<|user|>\n",
        "<|system|>\n",
        "<|assistant|>\n",
        "<s><|user|>\n",
        "<s>wa\n",
    )
    check_chat(make(), data.draw(chats(texts(control))), data.draw(st.sampled_from([5, 17, 40, 2048])))


@SOME
@given(chat=chats(texts(("</s>", "<s>wa\n", "<|user|>\n"))), limit=st.sampled_from([5, 17, 40, 2048]))
def test_random_chats_with_llama2(shared_data: Path, chat: Chat, limit: int) -> None:
    check_chat(llama2(shared_data), chat, limit)


@pytest.mark.parametrize("limit", [3, 8, 12, 20, 2048])
def test_awkward_chats_with_llama2(shared_data: Path, limit: int) -> None:
    for chat in [
        *CHATS,
        [assistant("first"), user("then"), assistant("last")],
        [user("a"), user("b"), assistant("c")],
        [system("s"), user("u")],
        [user("a"), assistant("b"), assistant("c")],
        [assistant("alone")],
    ]:
        check_chat(llama2(shared_data), chat, limit)


@pytest.mark.parametrize("make", [byte_level_with_bos, without_bos])
@SOME
@given(data=st.data())
def test_random_prompts_and_completions(make: Callable[[], Case], data: st.DataObject) -> None:
    case, limit = make(), data.draw(st.sampled_from([3, 17, 2048]))
    prompt = data.draw(texts(("</s>", "<|user|>\n")).filter(bool))
    completion = data.draw(texts(("</s>",)))
    row = encode(case, plain_row(prompt, completion), limit)
    for policy, instruction_loss in ((IT, False), (IM, True)):
        ids, wanted = released_plain_labels(
            lambda text: case.tokenizer(text)["input_ids"],
            (prompt, completion),
            "</s>",
            limit,
            instruction_loss,
        )
        assert row.tokens.ids.tolist() == ids and labels(row, policy) == wanted


# -- what the masks amount to -----------------------------------------------------------------------------


def test_im_masks_bos_and_the_first_header_alone(shared_data: Path) -> None:
    row = encode(
        llama2(shared_data), conversation([user("hi"), assistant("yo"), user("more"), assistant("ok")]), 2048
    )
    assert row.released is not None
    assert ((row.released & IM_BIT) > 0).tolist() == [False] * 7 + [True] * (len(row.released) - 7)
    assert row.tokens.ids[:7].tolist() == [1, 529, 29989, 1792, 29989, 29958, 13]


def test_it_trains_the_newline_after_an_end_that_is_not_the_last(shared_data: Path) -> None:
    row = encode(
        llama2(shared_data), conversation([user("hi"), assistant("yo"), user("more"), assistant("ok")]), 2048
    )
    assert row.released is not None
    trained = row.tokens.ids[(row.released & IT_BIT) > 0].tolist()
    tokens = llama2(shared_data).tokenizer.convert_ids_to_tokens(trained)
    # The tokenizer writes a space after its EOS token, which stands in front of the newline.
    assert tokens == ["yo", "</s>", "▁", "<0x0A>", "ok", "</s>"]


def test_control_text_is_read_as_the_released_code_reads_it(shared_data: Path) -> None:
    case = llama2(shared_data)
    row = encode(case, conversation([user("a</s>b"), assistant("c")]), 2048)
    assert row.tokens.ids.tolist() == case.tokenizer("<|user|>\na</s>b\n<|assistant|>\nc</s>")["input_ids"]
    assert row.tokens.control_text and row.tokens.ids.tolist().count(2) == 2


def test_message_weights_multiply_the_released_masks(shared_data: Path) -> None:
    chat = [user("hi", weight=0.5), assistant("yo", weight=0.0), user("more"), assistant("ok", weight=2.0)]
    row = encode(llama2(shared_data), conversation(chat), 2048)
    bare = encode(llama2(shared_data), conversation([{**message, "weight": 1.0} for message in chat]), 2048)
    for policy in (IT, IM):
        factor = np.array([{-1: 1.0, 0: 0.5, 1: 0.0, 2: 1.0, 3: 2.0}[int(m)] for m in row.messages])
        assert row.weights(policy).tolist() == (bare.weights(policy) * factor).tolist()
