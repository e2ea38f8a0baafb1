"""The tokenizers the tests of chats and weights use: real ones where their files are there, and ones trained
here."""

import functools
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oracle import TokenBytes
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% "
    "endif %}"
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and 12 more of them: why? because!",
    "def add(a, b):\n    return a + b\n",
    "Über die Brücke nach Zürich — 東京 と 大阪、 naïve café",
    "system user assistant <|user|>\n<|assistant|>\n end of the turn [INST] hello [/INST] </s> <s>",
] * 8


@dataclass(frozen=True)
class Case:
    """A tokenizer, and what is known of it beforehand."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    bytes: TokenBytes

    @property
    def special_ids(self) -> set[int]:
        """The ids of its special tokens."""
        return self.bytes.special


def case(name: str, tokenizer: PreTrainedTokenizerBase, style: str, spaces: str = "") -> Case:
    """A tokenizer with the bytes of its tokens, read from its tables."""
    backend = tokenizer.backend_tokenizer
    added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
    special = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    return Case(
        name, tokenizer, TokenBytes(backend.get_vocab(with_added_tokens=False), added, special, style, spaces)
    )


@functools.cache
def smollm2() -> Case:
    """SmolLM2's tokenizer with its own chat template; the test is skipped where it is absent."""
    folder = ROOT / "models" / "SmolLM2-135M-Instruct"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("no tokenizer in models/SmolLM2-135M-Instruct; src/fetch_model.py gets it")
    return case("smollm2", AutoTokenizer.from_pretrained(folder), "byte-level")


@functools.cache
def llama2(shared_data: Path) -> Case:
    """Llama-2's tokenizer."""
    return case(
        "llama2",
        AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama2"),
        "sentencepiece",
        "section",
    )


def _sentencepiece_case(name: str, model: Path, kind: str, scheme: str) -> Case:
    """A sentencepiece model of a kind ("unigram", "bpe") as a fast tokenizer. `scheme` "section": the space
    in front is put before every section between control tokens (a normalizer, as Llama-2's file has it);
    "first": only at the start of the text."""
    import sentencepiece

    spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
    numbers = range(spm.get_piece_size())
    pieces = [(spm.id_to_piece(number), spm.get_score(number)) for number in numbers]
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    if kind == "unigram":
        backend = Tokenizer(models.Unigram(pieces, unk_id=spm.unk_id(), byte_fallback=True))
    else:
        # Every way to put a piece together from two others, the best-scored piece first.
        merges = sorted(
            (
                (-score, vocabulary[piece[:cut]], vocabulary[piece[cut:]], piece[:cut], piece[cut:])
                for piece, score in pieces
                for cut in range(1, len(piece))
                if piece[:cut] in vocabulary and piece[cut:] in vocabulary
            )
        )
        backend = Tokenizer(
            models.BPE(
                vocabulary,
                [(a, b) for *_, a, b in merges],
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=True,
            )
        )
    if scheme == "section":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = [
        spm.id_to_piece(number) for number in numbers if spm.is_control(number) or spm.is_unknown(number)
    ]
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in control])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", spm.bos_id())]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return case(name, tokenizer, "sentencepiece", scheme)


@functools.cache
def mistral(file: str, scheme: str) -> Case:
    """One of the sentencepiece models that mistral-common carries; the test is skipped where it is absent."""
    found = importlib.util.find_spec("mistral_common")
    if found is None or found.origin is None:
        pytest.skip("mistral-common, whose tokenizer files this reads, is not installed")
    return _sentencepiece_case(
        f"mistral-{file}-{scheme}", Path(found.origin).parent / "data" / file, "bpe", scheme
    )


@functools.cache
def trained_sentencepiece(kind: str, scheme: str) -> Case:
    """A small sentencepiece model (`kind` "unigram" or "bpe") trained here."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "m"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter("\n".join(CORPUS).split("\n")),
            model_prefix=str(prefix),
            model_type=kind,
            vocab_size=420,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            character_coverage=1.0,
            minloglevel=2,
        )
        return _sentencepiece_case(f"{kind}-{scheme}", prefix.with_suffix(".model"), kind, scheme)


@functools.cache
def _byte_level_state() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    return backend.to_str()


def byte_level(
    special: Sequence[str | AddedToken],
    plain: Sequence[str] = (),
    name: str = "byte-level",
    bos: bool = False,
    **settings: Any,
) -> Case:
    """A byte-level BPE tokenizer trained here, with these special tokens and these added ones that are not
    special; `bos`: it puts its BOS token in front."""
    backend = Tokenizer.from_str(_byte_level_state())
    backend.add_special_tokens(
        [
            token if isinstance(token, AddedToken) else AddedToken(token, normalized=False, special=True)
            for token in special
        ]
    )
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in plain])
    if bos:
        number = backend.token_to_id(settings["bos_token"])
        backend.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=True),
                processors.TemplateProcessing(
                    single=f"{settings['bos_token']} $A", special_tokens=[(settings["bos_token"], number)]
                ),
            ]
        )
    return case(name, PreTrainedTokenizerFast(tokenizer_object=backend, **settings), "byte-level")


@functools.cache
def chatml() -> Case:
    """The trained byte-level tokenizer with a ChatML template."""
    return byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        name="chatml",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


@functools.cache
def byte_level_with_bos() -> Case:
    """The trained byte-level tokenizer with BOS in front and no template."""
    return byte_level(["<s>", "</s>"], name="byte-level-bos", bos=True, bos_token="<s>", eos_token="</s>")
