"""Ids and offsets that are put together from words are the tokenizer's own."""

import random
from collections.abc import Callable
from functools import cache

import pytest
from chat_tokenizers import CORPUS, smollm2
from template_toys import toy_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from instruction_modelling.tokens.word_memory import WordMemory

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")


@cache
def trained(pattern: str | None, digits: bool = False) -> Tokenizer:
    engine = Tokenizer(models.BPE())
    steps: list[pre_tokenizers.PreTokenizer] = []
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator(CORPUS, trainer)
    engine.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|im_"])
    return engine


def real() -> Tokenizer:
    return smollm2().tokenizer.backend_tokenizer


ENGINES: dict[str, Callable[[], Tokenizer]] = {
    "smollm2": real,
    "gpt2": lambda: trained(None),
    "digits": lambda: trained(None, digits=True),
    "llama3": lambda: trained(LLAMA3),
    "qwen": lambda: trained(QWEN),
    "toy": lambda: toy_tokenizer("<|im_start|><|im_end|>").backend_tokenizer,
}
TEXTS = [
    *CORPUS[:4],
    "",
    " ",
    "\n\n  x\t\ty  1 22 333 4444  5 a1b2  ",
    "It's we'll I'D 'S 'ſ ''s '' 's's",
    "<|im_start|>user\nA<|im_end|>\n<|im_start|> b <|im_ <|im_x <|im_end|><|im_end|>\r\n\r\n!!\n\n?",
    "e\u0301 ①②½ Ⅷ १२ ٣ 東京1 🙂🙂 👩\u200d🔬 \u00a0\u2003 \u0085\x1c\x1d\x0b\u180e\u200b\ufeff",
    "İı ß ﬁ 𝔘𝔫 \U000f0001\U0010fffd \ue000 \ud7ff",
]


def scrambled(seed: int) -> str:
    """Characters of every class in any order, rare ones too."""
    draw = random.Random(seed)
    common = " \n\t\r'sSdDlLtTvVeEmMaZ19.!<|>_-éß東١½"
    codes = (draw.randrange(0x110000) for _ in range(400))
    rare = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    return "".join(draw.choice(rare) if draw.random() < 0.2 else draw.choice(common) for _ in range(800))


@pytest.mark.parametrize("name", ENGINES)
def test_every_text_is_encoded_as_the_tokenizer_does_it(name: str) -> None:
    engine = ENGINES[name]()
    memory = WordMemory.of(engine)
    assert memory is not None
    texts = [*TEXTS, *(scrambled(seed) for seed in range(60))]
    for _ in range(2):
        for text, found in zip(texts, memory.encode(texts), strict=True):
            encoding = engine.encode(text, add_special_tokens=False)
            if found is not None:
                assert found[0].tolist() == encoding.ids
                assert list(map(tuple, found[1].tolist())) == encoding.offsets
    # A text with a character of which two editions of Unicode think differently is left to the tokenizer.
    assert all(found is not None for found in memory.encode(TEXTS[:7]))
    assert sum(found is not None for found in memory.encode(texts)) > 15


def odd_engines() -> dict[str, Tokenizer]:
    def changed(change: Callable[[Tokenizer], object]) -> Tokenizer:
        engine = Tokenizer.from_str(trained(None).to_str())
        change(engine)
        return engine

    def token(**flags: bool) -> Tokenizer:
        return changed(lambda engine: engine.add_special_tokens([AddedToken("<|x|>", **flags)]))

    return {
        "normaliser": changed(lambda engine: setattr(engine, "normalizer", normalizers.NFC())),
        "prefix": changed(lambda e: setattr(e, "pre_tokenizer", pre_tokenizers.ByteLevel())),
        "words": changed(lambda e: setattr(e, "pre_tokenizer", pre_tokenizers.Whitespace())),
        "dropout": changed(lambda e: setattr(e.model, "dropout", 0.1)),
        "lstrip": token(lstrip=True, normalized=False),
        "rstrip": token(rstrip=True, normalized=False),
        "single word": token(single_word=True, normalized=False),
        "normalised": token(normalized=True),
    }


@pytest.mark.parametrize("name", odd_engines())
def test_tokenizers_of_other_kinds_encode_by_themselves(name: str) -> None:
    assert WordMemory.of(odd_engines()[name]) is None


def test_a_rule_that_splits_otherwise_is_never_used() -> None:
    engine = trained(None)
    memory = WordMemory.of(engine)
    assert memory is not None
    # As if the tokenizer kept whitespace in one piece, which no single character shows.
    memory._find = lambda text, *ends: [text[slice(*ends)]] if ends else trained_words(engine, text)  # type: ignore[assignment]
    assert memory.encode(["The quick brown fox", "jumps over"]) == [None, None]
    assert memory.encode(["again"]) == [None]


def trained_words(engine: Tokenizer, text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in engine.pre_tokenizer.pre_tokenize_str(text)]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instruction_modelling.tokens.word_memory._MOST_WORDS", 40)
    engine = trained(None)
    memory = WordMemory.of(engine)
    assert memory is not None
    for round_ in range(6):
        texts = [f"word{chr(97 + round_)}{chr(97 + k)} and {CORPUS[k % 4]}" for k in range(8)]
        for text in texts:
            (found,) = memory.encode([text])
            assert found is not None and found[0].tolist() == engine.encode(text).ids
        assert len(memory._number_of) <= 60


def test_a_rule_that_looks_back_is_left_to_the_tokenizer_also_after_the_texts_that_are_checked() -> None:
    engine = trained(r"(?<=q)z+|[^z]+|z")
    memory = WordMemory.of(engine)
    assert memory is not None
    for _ in range(5):
        assert memory.encode(["plain"])[0] is not None
    # By itself zz is two words, behind q it is one.
    assert memory.encode(["qzz"]) == [None] and memory.encode(["plain"]) == [None]
