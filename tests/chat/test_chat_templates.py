"""Under any template the text is its own, and every character of it belongs to whom it should."""

import pytest
from chat_samples import CHATS, alternating, assistant, texts, user
from chat_templates import (
    _PLAIN,
    FEW,
    PARTS_ONLY,
    REAL_TEMPLATES,
    WRITTEN,
    check_chat,
    encode,
    pieces,
    real,
    written,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("name", REAL_TEMPLATES)
def test_real_templates_text_ids_and_spans(name: str) -> None:
    case = real(name)
    taken = [check_chat(case, chat, REAL_TEMPLATES[name]) for chat in CHATS]
    assert sum(taken) >= 12


@pytest.mark.parametrize("name", PARTS_ONLY)
def test_templates_that_need_content_in_parts_are_given_it_in_parts(name: str) -> None:
    spans = pieces(encode(real(name), [user("hello"), assistant("there")]))
    texts = [(kind, text) for kind, _, text in spans if kind in ("user", "assistant")]
    assert texts == [("user", "hello"), ("assistant", "there")]


@pytest.mark.parametrize("name", REAL_TEMPLATES)
@FEW
@given(data=st.data())
def test_real_templates_with_control_text_in_contents(name: str, data: st.DataObject) -> None:
    case = real(name)
    control = [
        token.content for token in case.tokenizer.added_tokens_decoder.values() if token.content not in _PLAIN
    ]
    contents = texts(control).filter(lambda text: "think>" not in text)
    check_chat(case, data.draw(alternating(contents, system=True)), REAL_TEMPLATES[name])


CHATML_ONLY = [("chatml", "byte-level")]
ON_LLAMA = [
    (name, tokenizer)
    for name in ("llama2", "mistral_v3", "zephyr", "vicuna")
    for tokenizer in ("byte-level", "llama2", "first")
]
RANDOM = [("llama2", "section"), ("mistral_v3", "first"), *((name, "byte-level") for name in WRITTEN)]


@pytest.mark.parametrize(("name", "tokenizer"), ON_LLAMA + CHATML_ONLY)
def test_written_templates(name: str, tokenizer: str, request: pytest.FixtureRequest) -> None:
    shared = request.getfixturevalue("shared_data") if tokenizer == "llama2" else None
    case = written(name, tokenizer, shared)
    assert sum(check_chat(case, chat, WRITTEN[name][1]) for chat in CHATS) >= 16


@pytest.mark.parametrize(("name", "tokenizer"), RANDOM)
@FEW
@given(data=st.data())
def test_written_templates_with_control_text_in_contents(
    name: str, tokenizer: str, data: st.DataObject
) -> None:
    control = ["<s>", "</s>", "[INST]", "[/INST]", "<unk>", "<|im_end|>"]
    check_chat(
        written(name, tokenizer), data.draw(alternating(texts(control), system=True)), WRITTEN[name][1]
    )
