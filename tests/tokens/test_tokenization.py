"""Tokenising rendered chats: only the chat writes control tokens, and every token's place is right."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import Chat, assistant, chats, conversation, plain_row, texts, user
from chat_templates import rendering
from chat_tokenizers import (
    CHATML,
    Case,
    byte_level,
    byte_level_with_bos,
    chatml,
    llama2,
    mistral,
    smollm2,
    trained_sentencepiece,
)
from chat_tokenizers import case as make_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_sequence import OneSequence, one_sequence
from oracle import KINDS, check_row, template_chat, tulu_chat
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from instruction_modelling.chat.formats import bos_ids, load_chat_format
from instruction_modelling.chat.spans import Rendered, Span, SpanKind
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import BadRow, Conversation
from instruction_modelling.tokens.encoder import TextEncoder
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weights import span_kinds

SOME = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
TULU_CONTROL = ("<s>", "</s>", "<unk>", "<|assistant|>\n", "</s>\n<|user|>\n")


@functools.cache
def encoder(case: Case, choice: str = "auto") -> RowEncoder:
    """An encoder with a chat format."""
    return RowEncoder(case.tokenizer, load_chat_format(choice, case.tokenizer), 1 << 20)


def encode(case: Case, row: Conversation | Chat, choice: str = "auto") -> OneSequence:
    """One row, encoded."""
    encoded = next(
        iter(encoder(case, choice).encode([row if isinstance(row, Conversation) else conversation(row)]))
    )
    assert not isinstance(encoded, BadRow), encoded
    return one_sequence(encoded)


def content_ids(row: OneSequence, message: int) -> list[int]:
    """The ids of one message's content."""
    kinds = [SpanKind.SYSTEM, SpanKind.USER, SpanKind.ASSISTANT]
    return row.tokens.ids[(row.messages == message) & np.isin(row.kinds, kinds)].tolist()


def sentencepiece_cases() -> list[tuple[str, str, str]]:
    """Where the tokenizers come from, by name: model file or kind, scheme."""
    return [
        ("trained", "unigram", "section"),
        ("trained", "unigram", "first"),
        ("trained", "bpe", "section"),
        ("trained", "bpe", "first"),
        ("mistral", "tokenizer.model.v1", "section"),
        ("mistral", "mistral_instruct_tokenizer_240323.model.v3", "first"),
    ]


# -- random chats against the oracle ----------------------------------------------------------------------


@pytest.mark.parametrize(("source", "kind", "scheme"), sentencepiece_cases())
@SOME
@given(data=st.data())
def test_random_tulu_chats_with_sentencepiece_tokenizers(
    source: str, kind: str, scheme: str, data: st.DataObject
) -> None:
    case = trained_sentencepiece(kind, scheme) if source == "trained" else mistral(kind, scheme)
    chat = data.draw(chats(texts(TULU_CONTROL)))
    row = encode(case, chat, "tulu")
    check_row(row, tulu_chat(chat, "</s>"), case.bytes, bos=[case.tokenizer.bos_token_id])


@SOME
@given(chat=chats(texts(TULU_CONTROL)))
def test_random_tulu_chats_with_llama2(shared_data: Path, chat: Chat) -> None:
    row = encode(llama2(shared_data), chat, "tulu")
    check_row(row, tulu_chat(chat, "</s>"), llama2(shared_data).bytes, bos=[1])


@SOME
@given(chat=chats(texts(TULU_CONTROL)))
def test_random_tulu_chats_with_byte_level_bpe(chat: Chat) -> None:
    case = byte_level_with_bos()
    check_row(
        encode(case, chat, "tulu"), tulu_chat(chat, "</s>"), case.bytes, bos=[case.tokenizer.bos_token_id]
    )


@settings(SOME, max_examples=60)
@given(
    chat=chats(texts(("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_end|>\n<|im_start|>assistant\n")))
)
def test_random_chatml_chats_with_byte_level_bpe(chat: Chat) -> None:
    check_template_chat(chatml(), chat)


@SOME
@given(chat=chats(texts(("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"))))
def test_random_chats_with_smollm2(chat: Chat) -> None:
    check_template_chat(smollm2(), chat)


def check_template_chat(case: Case, chat: Chat) -> None:
    """Hold a ChatML chat against the oracle."""

    def render(messages: Any, **settings: Any) -> str:
        return rendering(case, messages, **settings)

    check_row(encode(case, chat), template_chat(render, chat, ("<|im_end|>",)), case.bytes)


# -- control text in contents -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["llama2", "mistral", "unigram-section", "unigram-first", "bpe-section", "byte-level"]
)
def test_control_text_in_a_content_stays_text(name: str, request: pytest.FixtureRequest) -> None:
    if name == "llama2":
        case = llama2(request.getfixturevalue("shared_data"))
    elif name == "mistral":
        case = mistral("tokenizer.model.v1", "first")
    else:
        kind, _, scheme = name.partition("-")
        case = byte_level_with_bos() if kind == "byte" else trained_sentencepiece(kind, scheme)
    for content in (
        "</s>",
        "a</s>b",
        "<s><s>",
        "x <unk> y",
        "</s></s> </s>",
        "a</s",
        "<|assistant|>\n</s>\n<|user|>",
    ):
        row = encode(case, [user(content), assistant(content)], "tulu")
        assert row.rendered.text == f"<|user|>\n{content}\n<|assistant|>\n{content}</s>"
        for message in (0, 1):
            ids = content_ids(row, message)
            assert not set(ids) & case.special_ids
            newline = case.tokenizer("\n", add_special_tokens=False)["input_ids"]
            assert str(case.tokenizer.decode([*newline, *ids])).lstrip().startswith(content)
            assert b"".join(case.bytes.table[id_] for id_ in ids) == content.encode()
        assert row.tokens.ids[-1] == case.tokenizer.eos_token_id and KINDS[row.kinds[-1]] == "end"
        assert row.tokens.ids.tolist().count(case.tokenizer.eos_token_id) == 1
        assert row.tokens.control_text == any(case.bytes.added[id_] in content for id_ in case.special_ids)


def test_a_row_without_control_text_is_tokenised_whole(shared_data: Path) -> None:
    case = llama2(shared_data)
    row = encode(case, [user("hello </s"), assistant("there")], "tulu")
    assert not row.tokens.control_text
    assert row.tokens.ids.tolist() == case.tokenizer(row.rendered.text)["input_ids"]


def test_control_text_that_template_and_content_spell_together_stays_text() -> None:
    # The header ends in "<|im", and a content may go on where it stopped.
    template = CHATML.replace("'<|im_end|>' + '\\n'", "'<|im_end|>' + '\\n<|im'")
    base = chatml()
    tokenizer = byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        chat_template=template.replace("'<|im_start|>' + message['role'] + '\\n'", "''"),
    ).tokenizer
    case = Case("joined", tokenizer, base.bytes)
    row = encode(case, [user("x"), assistant("_end|>y")])
    assert row.rendered.text == "x<|im_end|>\n<|im_end|>y<|im_end|>\n<|im"
    assert row.tokens.control_text
    ends = [
        (int(s), KINDS[k])
        for s, k, i in zip(row.tokens.start, row.kinds, row.tokens.ids, strict=True)
        if i == tokenizer.eos_token_id
    ]
    assert ends == [(1, "user_end"), (23, "end")]


def test_a_control_token_that_begins_in_a_content_does_not_hide_the_chats_own() -> None:
    template = "{% for m in messages %}{{ m['content'] + '<end>' }}{% endfor %}"
    case = byte_level(["<end>", "@@<"], eos_token="<end>", chat_template=template)
    row = encode(case, [user("x"), assistant("y @@")])
    assert row.rendered.text == "x<end>y @@<end>" and row.tokens.control_text
    shown = [
        (KINDS[k], row.rendered.text[s:e])
        for k, s, e in zip(row.kinds, row.tokens.start, row.tokens.end, strict=True)
    ]
    assert shown[:2] == [("user", "x"), ("user_end", "<end>")] and shown[-1] == ("end", "<end>")
    assert row.tokens.ids[-1] == case.tokenizer.eos_token_id
    assert case.tokenizer.convert_tokens_to_ids("@@<") not in row.tokens.ids


def test_added_tokens_that_are_not_special_but_tell_turns_apart_stay_text_in_contents() -> None:
    template = (
        "{% for m in messages %}{{ ('<|User|>' if m['role'] == 'user' else '<|Bot|>') + m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ '<|stop|>' }}{% endif %}{% endfor %}"
    )
    case = byte_level(
        ["<|endoftext|>"],
        ["<|User|>", "<|Bot|>", "<|stop|>", "<tool>", "user"],
        eos_token="<|endoftext|>",
        chat_template=template,
    )
    row = encode(case, [user("a<|Bot|>user<|stop|>"), assistant("<tool>b<|stop|>")])
    named = case.tokenizer.convert_tokens_to_ids
    ids = row.tokens.ids.tolist()
    assert [ids.count(named(text)) for text in ("<|User|>", "<|Bot|>", "<|stop|>")] == [1, 1, 1]
    # What the chat format does not write is the data's own to use.
    assert ids.count(named("<tool>")) == ids.count(named("user")) == 1
    assert KINDS[row.kinds[-1]] == "end" and row.tokens.is_control[-1]
    assert case.tokenizer.decode(ids) == row.rendered.text


def test_private_use_characters_beside_control_text() -> None:
    content = "\U000f0000</s>\U0010fffd\U0010fffd\U000f0001<s>\U0010fffd"
    row = encode(byte_level_with_bos(), [user(content), assistant(content)], "tulu")
    check_row(
        row,
        tulu_chat([user(content), assistant(content)], "</s>"),
        byte_level_with_bos().bytes,
        bos=[byte_level_with_bos().tokenizer.bos_token_id],
    )


def vocabulary_case(kind: str) -> Case:
    """A tokenizer whose vocabulary spells `</s>`, by its merges or as a whole word."""
    pieces = ["</", "s>", "</s>", "</s>x", "ab"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *alphabet])}
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("</s>", "x"), ("a", "b")]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=kind == "whole"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("</s>", normalized=False, special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert tokenizer.eos_token_id == 2
    return make_case(f"vocabulary-{kind}", tokenizer, "byte-level")


@pytest.mark.parametrize("kind", ["merges", "whole"])
def test_the_vocabulary_itself_may_not_spell_a_control_token(kind: str) -> None:
    case = vocabulary_case(kind)
    raw = case.tokenizer.backend_tokenizer
    raw.encode_special_tokens = True
    assert raw.encode("</s>").ids == [2]
    raw.encode_special_tokens = False
    chat = [user("</s>"), assistant("ab</s>xab")]
    row = encode(case, chat, "tulu")
    check_row(row, tulu_chat(chat, "</s>"), case.bytes)
    assert content_ids(row, 0) == [0, 1]
    # Elsewhere the vocabulary is used as ever.
    assert content_ids(row, 1)[0] == content_ids(row, 1)[-1] == 4


def test_normalisation_may_not_make_a_control_token_of_a_content() -> None:
    base = trained_sentencepiece("unigram", "section")
    state = Tokenizer.from_str(base.tokenizer.backend_tokenizer.to_str())
    state.normalizer = normalizers.Sequence([normalizers.NFKC(), base.tokenizer.backend_tokenizer.normalizer])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=state, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    wide = "＜/s＞"
    assert tokenizer.eos_token_id in tokenizer(f"a{wide}b", add_special_tokens=False)["input_ids"]
    row = encode(Case("nfkc", tokenizer, base.bytes), [user(f"a{wide}b"), assistant("c")], "tulu")
    ids = row.tokens.ids.tolist()
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert "</s>" in tokenizer.decode(content_ids(row, 0))


def test_unknown_characters_are_content_though_their_token_is_special() -> None:
    pieces = {"<unk>": 0, "<s>": 1, "</s>": 2, **{c: 3 + n for n, c in enumerate("<|>abusertinys\n")}}
    backend = Tokenizer(
        models.BPE({c: n for n, c in enumerate(dict.fromkeys(pieces))}, [], unk_token="<unk>")
    )
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in ("<unk>", "<s>", "</s>")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    case = Case("unknown", tokenizer, chatml().bytes)
    plain = encode(case, [user("a★b"), assistant("★")], "tulu")
    assert not plain.tokens.control_text
    spelled = encode(case, [user("a★b</s>"), assistant("★")], "tulu")
    for row in (plain, spelled):
        unknown = row.tokens.ids == 0
        assert [KINDS[k] for k in row.kinds[unknown]].count("user") >= 1
        assert KINDS[row.kinds[unknown][-1]] == "assistant" and not row.tokens.is_control[unknown].any()
        assert row.tokens.ids.tolist().count(2) == 1


# -- places -----------------------------------------------------------------------------------------------


def test_a_token_across_two_spans_takes_the_kind_of_its_last_character() -> None:
    vocabulary = {
        piece: number
        for number, piece in enumerate(["ax", "xb", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    backend = Tokenizer(models.BPE(vocabulary, [("a", "x"), ("x", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text_encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    for text, spans, kinds, straddling in [
        ("ax", [Span(0, 1, SpanKind.USER, 0)], ["template"], 1),
        ("ax", [Span(1, 2, SpanKind.ASSISTANT, 1)], ["assistant"], 1),
        ("xb-", [Span(0, 2, SpanKind.USER, 0)], ["user", "template"], 0),
        (
            "xbax",
            [Span(0, 1, SpanKind.USER, 0), Span(1, 3, SpanKind.ASSISTANT, 1)],
            ["assistant", "template"],
            2,
        ),
    ]:
        rendered = Rendered(text, tuple(spans), (), needs_bos=False)
        found, messages, count = span_kinds(text_encoder.encode([rendered])[0], rendered)
        assert [KINDS[kind] for kind in found] == kinds and count == straddling
        assert [int(m) >= 0 for m in messages] == [kind != "template" for kind in kinds]


@pytest.mark.parametrize("spells", ["", "<|end|>"])
@pytest.mark.parametrize("special", [True, False])
def test_control_tokens_that_swallow_whitespace_keep_their_own_kind(special: bool, spells: str) -> None:
    # As in Phi-3's tokenizer: whitespace after `<|end|>` (here also before `<|stop|>`) becomes part of the
    # token.
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + "
        "('<|stop|>' if m['role'] == 'assistant' else '<|end|>') + '\\n' }}{% endfor %}"
    )
    tokens = [
        AddedToken(
            text, lstrip=text == "<|stop|>", rstrip=text != "<|stop|>", normalized=False, special=special
        )
        for text in ("<|user|>", "<|assistant|>", "<|end|>", "<|stop|>")
    ]
    case = byte_level(["<|endoftext|>"], [], eos_token="<|endoftext|>", chat_template=template)
    case.tokenizer.backend_tokenizer.add_tokens(tokens)
    row = encode(case, [user(f" q{spells}"), assistant("a ")])
    named = case.tokenizer.convert_tokens_to_ids
    text = row.rendered.text
    assert text == f"<|user|>\n q{spells}<|end|>\n<|assistant|>\na <|stop|>\n"
    shown = [
        (int(i), KINDS[k], text[s:e])
        for i, k, s, e in zip(row.tokens.ids, row.kinds, row.tokens.start, row.tokens.end, strict=True)
    ]
    assert shown[0] == (named("<|user|>"), "template", "<|user|>\n ")
    assert (named("<|end|>"), "user_end", "<|end|>\n") in shown
    # This template has no generation prompt: the model is to write its own header.
    assert (named("<|assistant|>"), "opening", "<|assistant|>\n") in shown
    assert (named("<|stop|>"), "end", " <|stop|>") in shown
    assert "".join(part for _, kind, part in shown if kind == "user") == f"q{spells}"
    assert "".join(part for _, kind, part in shown if kind == "assistant") == "a"
    assert [part for *_, part in shown].count("<|end|>\n") == 1 and row.tokens.control_text == bool(spells)


@pytest.mark.parametrize("make", [chatml, byte_level_with_bos, lambda: trained_sentencepiece("bpe", "first")])
def test_offsets_cover_the_text_without_holes(make: object) -> None:
    case: Case = make()  # type: ignore[operator]
    row = encode(case, [user("  two  spaces\t"), assistant("naïve 👩‍👩‍👧\n\n x ")], "tulu")
    covered = np.zeros(len(row.rendered.text), dtype=bool)
    for start, end in zip(row.tokens.start, row.tokens.end, strict=True):
        covered[start:end] = True
    assert covered.all()
    assert (np.diff(row.tokens.start) >= 0).all() and row.tokens.ids.dtype == np.int32


# -- BOS --------------------------------------------------------------------------------------------------


def test_bos_ids_of_tokenizers() -> None:
    assert bos_ids(chatml().tokenizer) == []
    assert bos_ids(byte_level_with_bos().tokenizer) == [byte_level_with_bos().tokenizer.bos_token_id]
    both = byte_level(["<s>", "</s>", "[gMASK]"], bos_token="<s>", eos_token="</s>").tokenizer
    number = both.convert_tokens_to_ids
    both.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <s> $A </s>",
        special_tokens=[(text, number(text)) for text in ("[gMASK]", "<s>", "</s>")],
    )
    assert bos_ids(both) == [number("[gMASK]"), number("<s>")]


def test_bos_stands_once_and_counts_in_the_length() -> None:
    case = byte_level_with_bos()
    bos = case.tokenizer.bos_token_id
    template = "{{ bos_token }}" + CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")
    with_own = byte_level(
        ["<s>", "</s>"], bos=True, bos_token="<s>", eos_token="</s>", chat_template=template
    )
    chat = [user("hello"), assistant("there")]
    for row in (
        encode(case, chat, "tulu"),
        encode(case, plain_row("hello", "there"), "tulu"),
        encode(with_own, plain_row("hello", "there")),
    ):
        assert row.tokens.ids[0] == bos and row.tokens.ids.tolist().count(bos) == 1
        assert (row.tokens.start[0], row.tokens.end[0], KINDS[row.kinds[0]], row.messages[0]) == (
            0,
            0,
            "template",
            -1,
        )
    own = encode(with_own, chat)
    assert own.tokens.ids.tolist() == with_own.tokenizer.apply_chat_template(chat, return_dict=False)
    assert own.tokens.ids[0] == bos
    # ChatML as its models have it writes no BOS; the tokenizer adds none to a rendered chat either.
    none = byte_level(
        ["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        bos=True,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHATML,
    )
    assert none.tokenizer.bos_token_id not in encode(none, chat).tokens.ids
    length = len(encode(case, chat, "tulu").tokens.ids)
    cut = RowEncoder(case.tokenizer, load_chat_format("tulu", case.tokenizer), length - 1)
    short = one_sequence(next(iter(cut.encode([conversation(chat)]))))
    assert (
        isinstance(short, OneSequence)
        and short.tokens_cut == 1
        and len(short.tokens.ids) == len(short.kinds) == length - 1
    )


def test_a_prompt_and_its_completion(shared_data: Path) -> None:
    case = llama2(shared_data)
    row = encode(case, plain_row("Q: 1+1?", "2 </s> done"), "tulu")
    assert row.rendered.text == "Q: 1+1? 2 </s> done</s>"
    assert row.tokens.ids[0] == 1 and row.tokens.ids[-1] == 2 and row.tokens.ids.tolist().count(2) == 1
    assert [KINDS[k] for k in row.kinds[[0, 1, -1]]] == ["template", "user", "end"]
    clean = encode(case, plain_row("Q: 1+1?", "2"), "tulu")
    assert clean.tokens.ids.tolist() == case.tokenizer("Q: 1+1? 2</s>")["input_ids"]
    # "▁2" begins with the joining space and ends in the completion.
    assert [KINDS[k] for k in clean.kinds[-2:]] == ["assistant", "end"]


# -- the encoder itself -----------------------------------------------------------------------------------


def test_the_fingerprint_tells_tokenizers_apart() -> None:
    cases = [
        chatml(),
        byte_level_with_bos(),
        byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>"]),
        trained_sentencepiece("bpe", "first"),
        trained_sentencepiece("bpe", "section"),
    ]
    prints = [TextEncoder(case.tokenizer).fingerprint() for case in cases]
    assert len(set(prints)) == len(prints)
    assert TextEncoder(chatml().tokenizer).fingerprint() == prints[0]


def test_a_tokenizer_without_offsets_is_refused_by_name() -> None:
    class Slow:
        """A tokenizer without a fast engine."""

    with pytest.raises(UserError, match=r"Slow.*tokenizer\.json"):
        TextEncoder(Slow())  # type: ignore[arg-type]


def test_the_tokenizer_itself_is_left_as_it_was() -> None:
    tokenizer = chatml().tokenizer
    before = tokenizer.backend_tokenizer.to_str()
    encode(chatml(), [user("<|im_end|>"), assistant("x")])
    assert tokenizer.backend_tokenizer.to_str() == before
    assert not tokenizer.backend_tokenizer.encode_special_tokens
