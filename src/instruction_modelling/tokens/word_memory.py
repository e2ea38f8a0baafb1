"""Byte-level tokenizers, which split a text into words by a rule first, with each word encoded once.

Most of the time of a tokenizer goes into splitting texts and into words that it has met before. Here the
`regex` package splits by the tokenizer's own rule, and the tokenizer encodes each new word, from which its
ids and offsets in any text follow: a word's tokens depend on the word alone. The rule knows classes of
characters alone, and two engines of regular expressions may know other editions of Unicode: so each
character is tried in a few surroundings before a text with it is split here. The first texts are held
against the tokenizer."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import regex

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What ByteLevel splits by, unless a Split of its own comes before it.
_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same behind a Digits, which takes each digit out and leaves stretches that end there.
_BYTE_LEVEL_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
# Words kept; what is beyond them begins anew.
_MOST_WORDS = 1 << 18
# Texts that are held against the tokenizer.
_CHECKED = 4

Encoded = tuple[np.ndarray, np.ndarray]
"""int64[n], the ids, and int64[n, 2], the characters [start, end) of each token."""


def _rule(state: dict[str, Any]) -> str | None:
    """Return the rule by which a tokenizer splits a text into words; None where it is of another kind."""
    model, before = state["model"], state["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    kinds = [step.get("type") for step in steps]
    if model["type"] != "BPE" or model.get("dropout") or state["normalizer"] or kinds[-1:] != ["ByteLevel"]:
        return None
    if steps[-1]["add_prefix_space"]:
        return None
    by_itself = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_itself:
        return _BYTE_LEVEL
    if kinds == ["Digits", "ByteLevel"] and by_itself and steps[0]["individual_digits"]:
        return _BYTE_LEVEL_DIGITS
    if kinds == ["Split", "ByteLevel"] and not by_itself:
        split = steps[0]
        isolated = split["behavior"] == "Isolated" and not split["invert"]
        return split["pattern"].get("Regex") if isolated else None
    return None


class WordMemory:
    """Encodes texts by one tokenizer, each word once."""

    @classmethod
    def of(cls, engine: "Tokenizer", state: dict[str, Any] | None = None) -> "WordMemory | None":
        """Return the memory for a tokenizer, whose file's contents are `state` where they are known; None for
        one that does not split a text into words, or whose added tokens take in more than their own text."""
        state = state or json.loads(engine.to_str())
        rule = _rule(state)
        added = state["added_tokens"]
        odd = any(t["lstrip"] or t["rstrip"] or t["single_word"] or t["normalized"] for t in added)
        if rule is None or odd:
            return None
        try:
            return cls(engine, regex.compile(rule), [token["content"] for token in added])
        except regex.error:
            return None

    def __init__(self, engine: "Tokenizer", rule: "regex.Pattern[str]", added: Sequence[str]):
        self._engine, self._find = engine, rule.findall
        texts = sorted(added, key=len, reverse=True)
        self._added = regex.compile("|".join(map(regex.escape, texts)) or r"(?!)")
        self._alike_characters: set[str] = set()
        self._other_characters: set[str] = set()
        self._checked = 0
        self._alike = True
        self._forget()

    def _forget(self) -> None:
        self._number_of: dict[str, int] = {}
        self._first = self._count = self._length = np.zeros(0, dtype=np.int64)
        self._ids, self._places = np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> list[Encoded | None]:
        """Return the ids and offsets of each text; None for one that the tokenizer itself has to encode."""
        split = [self._words(text) if self._alike and self._knows(text) else None for text in texts]
        self._learn(set(chain.from_iterable(filter(None, split))))
        out = [None if words is None else self._tokens(words) for words in split]
        for text, found in zip(texts, out, strict=True):
            if found is None or self._checked >= _CHECKED:
                continue
            self._checked += 1
            encoding = self._engine.encode(text, add_special_tokens=False)
            ids, offsets = found
            self._alike = self._alike and ids.tolist() == encoding.ids
            self._alike = self._alike and list(map(tuple, offsets.tolist())) == encoding.offsets
        return out if self._alike else [None] * len(texts)

    def _words(self, text: str) -> list[str]:
        words: list[str] = []
        cursor = 0
        for found in self._added.finditer(text):
            words += self._find(text, cursor, found.start())
            words.append(found[0])
            cursor = found.end()
        return words + self._find(text, cursor)

    def _knows(self, text: str) -> bool:
        """Return whether each character of a text is of the same class here and in the tokenizer."""
        left = set(text) - self._alike_characters
        new = {character for character in left - self._other_characters if self._splits_alike(character)}
        self._alike_characters |= new
        self._other_characters |= left - new
        return left == new

    def _splits_alike(self, c: str) -> bool:
        text = f"a{c}a {c}b1{c}1 !{c}! {c}  {c}\n{c}\r\n {c}'{c}a'{c} {c}{c}?{c}\n\n{c} '{c}e'v{c}  "
        if self._added.search(text):
            return False
        try:
            pieces = self._engine.pre_tokenizer.pre_tokenize_str(text)
        except UnicodeEncodeError:
            return False
        return self._find(text) == [text[start:end] for _, (start, end) in pieces]

    def _learn(self, words: set[str]) -> None:
        """Encode the words that are not known."""
        if len(self._number_of) + len(words) > _MOST_WORDS:
            self._forget()
        new = sorted(words.difference(self._number_of))
        if not new:
            return
        # A rule that looks at what stands before a word would split the word alone otherwise.
        self._alike = all(self._find(word) == [word] or self._added.fullmatch(word) for word in new)
        encodings = self._engine.encode_batch(new, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        counts = np.array(list(map(len, ids)), dtype=np.int64)
        places = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
        start = len(self._number_of)
        self._number_of.update(zip(new, range(start, start + len(new)), strict=True))
        self._first = np.concatenate([self._first, len(self._ids) + np.cumsum(counts) - counts])
        self._count = np.concatenate([self._count, counts])
        self._length = np.concatenate([self._length, np.array(list(map(len, new)), dtype=np.int64)])
        self._ids = np.concatenate([self._ids, np.fromiter(chain.from_iterable(ids), dtype=np.int64)])
        flat = np.fromiter(places, dtype=np.int64, count=2 * int(counts.sum()))
        self._places = np.concatenate([self._places, flat.reshape(-1, 2)])

    def _tokens(self, words: list[str]) -> Encoded:
        """Return the tokens of a text that is made of these words."""
        numbers = np.fromiter(map(self._number_of.__getitem__, words), dtype=np.int64, count=len(words))
        counts, lengths = self._count[numbers], self._length[numbers]
        behind = np.cumsum(counts)
        total = int(behind[-1]) if len(behind) else 0
        which = np.repeat(self._first[numbers] - (behind - counts), counts) + np.arange(total)
        starts = np.repeat(np.cumsum(lengths) - lengths, counts)
        return self._ids[which], self._places[which] + starts[:, None]
