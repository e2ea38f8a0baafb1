"""Loss weights: every token of every row weighs what its kind and its message say, and nothing else."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import CHATS, Chat, assistant, chats, conversation, plain_row, system, texts, user
from chat_templates import rendering
from chat_tokenizers import Case, byte_level_with_bos, chatml, llama2, smollm2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_sequence import OneSequence, one_sequence
from oracle import KINDS, check_row, expected_weights, template_chat, tulu_chat

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import SpanKind
from instruction_modelling.rows.conversations import BadRow, read_conversations
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.tokens.weights import WeightPolicy, loss_weights

# Tokens of each kind, counted from bytes alone; without BOS and before any cut.
TOTALS = {
    "lima_data": {"template": 15284, "user": 62034, "assistant": 669771, "end": 1084},
    "alpagasus_3k_dolly": {"template": 41944, "user": 210390, "assistant": 313999, "end": 2996},
}
SETS = tuple(TOTALS)
SOME = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
IT, IM = WeightPolicy(), WeightPolicy(instruction=1.0)
# Every kind weighs something else.
TABLE = tuple((SpanKind(number), 0.125 * number) for number in range(9))


@functools.cache
def encoder(case: Case, choice: str = "auto") -> RowEncoder:
    """An encoder with a chat format."""
    return RowEncoder(case.tokenizer, load_chat_format(choice, case.tokenizer), 1 << 20)


def encode(case: Case, chat: Chat, choice: str = "auto") -> OneSequence:
    """One chat, encoded."""
    row = one_sequence(next(iter(encoder(case, choice).encode([conversation(chat)]))))
    assert isinstance(row, OneSequence), row
    return row


def raw_chats(path: Path) -> list[Chat]:
    """The messages of a file's rows, read without the library."""
    with path.open(encoding="utf-8") as handle:
        return [
            [{"role": m["role"], "content": m["content"]} for m in json.loads(line)["messages"]]
            for line in handle
        ]


def encoded_rows(case: Case, path: Path, choice: str) -> Iterator[OneSequence]:
    """The rows of a file; fails where one is refused."""
    for row in encoder(case, choice).encode(read_conversations(path).conversations):
        assert not isinstance(row, BadRow), row
        yield one_sequence(row)


def check_weights(
    row: OneSequence, message_weights: list[float], policies: Sequence[WeightPolicy] = ()
) -> None:
    """The weights of a row under a policy that tells the kinds apart, and under others, from the names of its
    kinds."""
    tables = WeightPolicy(instruction=0.3, response=0.7, template=0.1), WeightPolicy(0.3, table=TABLE)
    for policy in (*tables, *policies):
        weights = row.weights(policy)
        assert weights.dtype == np.float32
        wanted = expected_weights(row.kinds, row.messages, message_weights, policy)
        assert (np.abs(weights - wanted) <= 1e-6).all()


# -- every row of the real sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_real_row_in_the_tulu_format_with_llama2(shared_data: Path, name: str) -> None:
    case, path = llama2(shared_data), shared_data / "train" / f"{name}.jsonl"
    chats_of_file = raw_chats(path)
    rows = list(encoded_rows(case, path, "tulu"))
    assert len(rows) == len(chats_of_file) == {"lima_data": 1030, "alpagasus_3k_dolly": 2996}[name]
    totals: Counter[str] = Counter()
    for number, (row, chat) in enumerate(zip(rows, chats_of_file, strict=True)):
        check_row(row, tulu_chat(chat, "</s>"), case.bytes, bos=[1])
        check_weights(row, [1.0] * len(chat), (IT, IM) if number % 8 == 0 else ())
        if number % 8 == 0 and not row.tokens.control_text:
            assert row.tokens.ids.tolist() == case.tokenizer(row.rendered.text)["input_ids"]
        assert int((row.kinds == SpanKind.END).sum()) == sum(m["role"] == "assistant" for m in chat)
        totals.update(KINDS[kind] for kind in row.kinds[1:])
    assert dict(totals) == TOTALS[name]


@pytest.mark.parametrize("name", SETS)
def test_every_real_row_with_smollm2_and_its_own_template(shared_data: Path, name: str) -> None:
    case, path = smollm2(), shared_data / "train" / f"{name}.jsonl"

    def render(messages: Any, **settings: Any) -> str:
        return rendering(case, messages, **settings)

    chats_of_file = raw_chats(path)
    rows = list(encoded_rows(case, path, "auto"))
    assert len(rows) == len(chats_of_file)
    for number, (row, chat) in enumerate(zip(rows, chats_of_file, strict=True)):
        check_row(row, template_chat(render, chat, ("<|im_end|>",)), case.bytes)
        check_weights(row, [1.0] * len(chat), (IT, IM) if number % 8 == 0 else ())
        if number % 8 == 0 and not row.tokens.control_text:
            assert row.tokens.ids.tolist() == case.tokenizer.apply_chat_template(chat, return_dict=False)


# -- the rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [chatml, byte_level_with_bos])
@SOME
@given(data=st.data())
def test_every_weight_is_its_kinds_times_its_messages(make: Callable[[], Case], data: st.DataObject) -> None:
    case = make()
    chat = data.draw(chats(texts(("<|im_end|>", "</s>"))))
    number = st.floats(0, 4, width=32)
    weighted = [{**message, "weight": data.draw(number)} for message in chat]
    policy = WeightPolicy(
        instruction=data.draw(number), response=data.draw(number), template=data.draw(number)
    )
    row = encode(case, weighted)
    wanted = expected_weights(row.kinds, row.messages, [m["weight"] for m in weighted], policy)
    np.testing.assert_allclose(row.weights(policy), np.array(wanted, dtype=np.float32), rtol=1e-6)
    # Weights of messages change no token and no label.
    bare = encode(case, chat)
    assert bare.tokens.ids.tolist() == row.tokens.ids.tolist() and bare.kinds.tolist() == row.kinds.tolist()


def test_instruction_weight_0_is_it_and_1_is_im() -> None:
    row = encode(chatml(), [system("s"), user("u </s>"), assistant("a"), user("v"), assistant("")])
    names = [KINDS[kind] for kind in row.kinds]
    assert {"template", "system", "user", "user_end", "assistant", "end"} == set(names)
    assert row.weights(WeightPolicy(instruction=0.0)).tolist() == [
        float(n in ("assistant", "end")) for n in names
    ]
    assert row.weights(WeightPolicy(instruction=1.0)).tolist() == [
        float(n not in ("template", "user_end")) for n in names
    ]
    half = row.weights(WeightPolicy(instruction=0.5, template=0.25, table=((SpanKind.USER_END, 0.125),)))
    weights = {"template": 0.25, "system": 0.5, "user": 0.5, "user_end": 0.125}
    assert half.tolist() == [weights.get(n, 1.0) for n in names]


def test_by_kind_by_value() -> None:
    table = WeightPolicy(instruction=0.25, response=2.0, template=0.5).by_kind()
    assert dict(zip((kind.name for kind in SpanKind), table.tolist(), strict=True)) == {
        "TEMPLATE": 0.5,
        "SYSTEM": 0.25,
        "USER": 0.25,
        "ASSISTANT": 2.0,
        "END": 2.0,
        "TOOL": 0.0,
        "TOOLS": 0.5,
        "TOOL_CALLS": 2.0,
        "REASONING": 2.0,
        "TEXT": 1.0,
        "OPENING": 2.0,
        "USER_END": 0.0,
    }
    assert [kind.name.lower() for kind in SpanKind] == list(KINDS)


def test_a_messages_weight_reaches_its_end_token_and_no_other_message() -> None:
    row = encode(
        chatml(), [user("u", weight=0.5), assistant("a", weight=0.0), user("v"), assistant("b", weight=3.0)]
    )
    policy = WeightPolicy(instruction=1.0, table=((SpanKind.USER_END, 0.25),))
    by_place = {
        (KINDS[k], int(m)): float(w)
        for k, m, w in zip(row.kinds, row.messages, row.weights(policy), strict=True)
    }
    assert by_place == {
        ("template", -1): 0.0,
        ("user", 0): 0.5,
        ("user_end", 0): 0.125,
        ("assistant", 1): 0.0,
        ("end", 1): 0.0,
        ("user", 2): 1.0,
        ("user_end", 2): 0.25,
        ("assistant", 3): 3.0,
        ("end", 3): 3.0,
    }


def test_an_empty_response_trains_its_end_token_alone() -> None:
    for case in (chatml(), byte_level_with_bos()):
        row = encode(case, [user("u"), assistant("")])
        trained = row.tokens.ids[row.weights(IT) > 0]
        assert trained.tolist() == [case.tokenizer.eos_token_id]


def test_blocks_train_every_token_and_the_first_token_of_a_row_nothing() -> None:
    data: EncodedData = collect(
        encoder(byte_level_with_bos()).encode([conversation(chat, row=n) for n, chat in enumerate(CHATS)])
    )
    weights = WeightedData(data, data.weights(WeightPolicy(instruction=1.0, template=1.0))).weights
    firsts = data.offsets[:-1]
    assert not weights[firsts].any() and np.delete(weights, firsts).all()
    blocks = data.blocks(16)
    weights = WeightedData(blocks, blocks.weights(IT)).weights
    assert not weights[blocks.offsets[:-1]].any()
    assert np.delete(weights, blocks.offsets[:-1]).tolist() == [1.0] * (len(blocks.ids) - len(blocks))
    assert blocks.ids.tolist() == data.ids[: len(data.ids) // 16 * 16].tolist()


def test_released_masks_between_it_and_im() -> None:
    # bits: 1 IT alone, 2 IM alone, 3 both, 0 neither
    released, kinds, messages = (
        np.array([0, 1, 2, 3], dtype=np.uint8),
        np.zeros(4, dtype=np.int8),
        np.array([-1, 0, 1, 1]),
    )

    def weights(instruction: float) -> list[float]:
        policy = WeightPolicy(instruction=instruction, mask_style="released")
        return loss_weights(kinds, messages, [1.0, 2.0], policy, released).tolist()

    assert weights(0.0) == [0.0, 1.0, 0.0, 2.0]
    assert weights(1.0) == [0.0, 0.0, 2.0, 2.0]
    assert weights(0.25) == [0.0, 0.75, 0.5, 2.0]


def test_a_prompt_and_its_completion() -> None:
    row = one_sequence(next(iter(encoder(byte_level_with_bos()).encode([plain_row("12", "ab")]))))
    assert isinstance(row, OneSequence)
    text = [
        "".join(
            row.rendered.text[s:e]
            for s, e, w in zip(row.tokens.start, row.tokens.end, row.weights(policy), strict=True)
            if w
        )
        for policy in (IT, IM)
    ]
    assert text[0].lstrip() == "ab</s>" and text[1].replace(" ", "") == "12ab</s>"
