"""A sequence that begins as the one before it has the tokens that it has by itself."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import conversation
from chat_tokenizers import CORPUS, Case, byte_level, llama2, mistral, smollm2, trained_sentencepiece
from long_chats import exchanges, talk
from template_toys import installed_templates, toy_tokenizer
from todays_chats import assistant, user
from tokenizers import AddedToken

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.chat.spans import Rendered
from instruction_modelling.tokens.encoded_rows import EncodedRow
from instruction_modelling.tokens.encoder import TextEncoder
from instruction_modelling.tokens.row_encoder import RowEncoder


def swallowing(**flags: bool) -> Case:
    """A tokenizer whose end token takes whitespace beside it, or is looked for in another way."""
    end = AddedToken("<|end|>", special=True, **{"normalized": False, **flags})
    return byte_level(["<s>", "<|a|>", end], ["<t>"], eos_token="<|end|>", bos_token="<s>")


CASES: dict[str, Callable[[Path], Case]] = {
    "smollm2": lambda _: smollm2(),
    "llama2": llama2,
    "mistral section": lambda _: mistral("mistral_instruct_tokenizer_240323.model.v3", "section"),
    "mistral first": lambda _: mistral("mistral_instruct_tokenizer_240323.model.v3", "first"),
    "unigram section": lambda _: trained_sentencepiece("unigram", "section"),
    "unigram first": lambda _: trained_sentencepiece("unigram", "first"),
    "bpe section": lambda _: trained_sentencepiece("bpe", "section"),
    "plain ends": lambda _: swallowing(),
    "lstrip": lambda _: swallowing(lstrip=True),
    "rstrip": lambda _: swallowing(rstrip=True),
    "single word": lambda _: swallowing(single_word=True),
    "normalised": lambda _: swallowing(normalized=True),
}


def sequences(control: list[str]) -> list[Rendered]:
    """The sequences of rows whose texts begin alike: each goes on a little further, in another way."""
    first, last = control[0], control[-1]
    texts, made = [], []
    for row in range(4):
        history = first if row % 2 else ""
        for part in range(6):
            words = CORPUS[(row + part) % 4][: 40 + 7 * part]
            asked = f"{first}user \n{words} {last} \n {first}  bot{' ' * (part % 3)}"
            texts.append((f"{history}{asked}<t>é東 京 {part}{last}{' ' * part}x", part))
            history += f"{asked}answer{part}{last}" if part % 2 else f"{asked} {last}\n"
    for text, part in texts:
        made.append(Rendered(text, (), (), False, tuple(control), part=part))
    return made


def assert_equal(found: Any, expected: Any) -> None:
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        assert np.array_equal(ours, theirs) and np.asarray(ours).dtype == np.asarray(theirs).dtype, field.name


@pytest.mark.parametrize("name", CASES)
def test_tokens_do_not_depend_on_the_sequence_before(name: str, shared_data: Path) -> None:
    case = CASES[name](shared_data)
    control = [token for token in case.tokenizer.all_special_tokens if token != "<unk>"]
    texts, encoder = sequences(control), TextEncoder(case.tokenizer)
    for found, text in zip(encoder.encode(texts), texts, strict=True):
        (alone,) = encoder.encode([text])
        assert_equal(found, alone)


@pytest.mark.parametrize("name", ["smollm2", "plain ends", "rstrip"])
def test_what_is_known_is_not_encoded_again(name: str, shared_data: Path) -> None:
    case = CASES[name](shared_data)
    texts = sequences([str(case.tokenizer.bos_token or case.tokenizer.eos_token), "<|end|>"])
    if name == "smollm2":
        texts = sequences(["<|im_start|>", "<|im_end|>"])
    encoder, given = TextEncoder(case.tokenizer), list[str]()

    class Engine:
        def encode_batch(self, batch: list[str], **settings: Any) -> Any:
            given.extend(batch)
            return engine.encode_batch(batch, **settings)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(engine, attribute)

    engine, encoder._engine = encoder._engine, Engine()  # type: ignore[assignment]
    encoder.encode(texts)
    assert sum(map(len, given)) < sum(len(text.text) for text in texts) * 0.75


def test_text_that_spells_a_control_token_is_text_in_each_sequence() -> None:
    template = installed_templates().get("qwen3.jinja")
    if template is None:
        pytest.skip("the installed trl has no qwen3.jinja")
    tokenizer = toy_tokenizer(template)
    encoder = RowEncoder(tokenizer, load_chat_format("tokenizer", tokenizer), 1 << 20)
    rows = [exchanges(12), talk(12)]
    messages = [user("A <|im_end|> there?"), assistant("Yes.", reasoning_content="Hm.")]
    more = [m for k in range(12) for m in (user(f"And {k}?"), assistant("No.", reasoning_content=f"{k}"))]
    rows += [conversation([*messages, *more]), conversation([*more, *messages, *more])]
    for row in rows:
        (encoded,) = encoder.encode([row])
        assert isinstance(encoded, EncodedRow) and len(encoded.sequences) > 8
        for sequence in encoded.sequences:
            (alone,) = encoder.text_encoder.encode([sequence.rendered])
            assert_equal(sequence.tokens, alone)
            assert sequence.tokens.control_text == ("A <|im_end|>" in sequence.rendered.text)
