"""Rendered text to token ids with character offsets, in which only the chat format writes control tokens.

A text whose data spells no control token is encoded whole. In any other, each control token that the format
wrote is swapped for a stand-in character registered as an added token, and the rest is encoded with the
splitting of special tokens off: the format's control tokens stay, the data's text stays text.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.spans import Rendered

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """The tokens of one rendered text: `ids`, `start`, `end` are int32 arrays of one length; `start` and `end`
    are character offsets into the text (a BOS that the tokenizer adds has 0, 0). `control` is a bool array: tokens
    that the chat format or the tokenizer wrote as control tokens. `control_text`: the data spells a control token."""

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray
    control: np.ndarray
    control_text: bool


def bos_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The special tokens that the tokenizer puts in front of a text (Llama: BOS; OPT: `</s>`; GPT-2: none)."""
    encoded = tokenizer("a", add_special_tokens=True, return_special_tokens_mask=True)
    ids = []
    for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        if not special:
            break
        ids.append(int(token))
    # Some tokenizers leave their BOS out of the mask: what stands before the same text without it is the prefix.
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = list(encoded["input_ids"])
    if not ids and full != bare and full[-len(bare):] == bare:
        ids = full[: len(full) - len(bare)]
    return ids


def _untrimmed(backend: "Tokenizer") -> "Tokenizer":
    """A copy of the tokenizer's engine whose offsets cover whitespace and which neither truncates nor pads."""
    from tokenizers import Tokenizer

    state: dict[str, Any] = json.loads(backend.to_str())
    state["truncation"] = state["padding"] = None

    def mend(node: Any) -> None:
        if isinstance(node, dict):
            if "trim_offsets" in node:
                node["trim_offsets"] = False
            for value in node.values():
                mend(value)
        elif isinstance(node, list):
            for value in node:
                mend(value)

    mend(state.get("pre_tokenizer"))
    mend(state.get("post_processor"))
    return Tokenizer.from_str(json.dumps(state))


class TextEncoder:
    """Encodes rendered texts with one tokenizer.

    Raises:
        UserError: the tokenizer has no fast engine, hence no character offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        from tokenizers import AddedToken

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"the tokenizer ({type(tokenizer).__name__}) gives no character offsets, from which the "
                            "loss weights are derived; use one with a tokenizer.json (a fast tokenizer)")
        self.bos = bos_ids(tokenizer)
        self._whole = _untrimmed(backend)
        self._whole.encode_special_tokens = False
        self._parted = _untrimmed(backend)
        added = tokenizer.added_tokens_decoder
        special = {token.content: id_ for id_, token in added.items() if token.special and token.content}
        self._control_ids = np.array(sorted(special.values()), dtype=np.int64)
        self._special = special
        self._pattern = (re.compile("|".join(re.escape(t) for t in sorted(special, key=len, reverse=True)))
                         if special else None)
        self._stand_in = {}
        stand_ins = []
        for number, (text, id_) in enumerate(special.items()):
            character = chr(0xF0000 + number)
            token = added[id_]
            self._stand_in[text] = character
            stand_ins.append(AddedToken(character, single_word=False, lstrip=token.lstrip, rstrip=token.rstrip,
                                        normalized=False, special=False))
        self._parted.add_tokens(stand_ins)
        self._parted.encode_special_tokens = True
        self._back = {self._parted.token_to_id(self._stand_in[text]): id_ for text, id_ in special.items()}

    def fingerprint(self) -> str:
        """Everything about the tokenizer that decides about ids and offsets, hashed."""
        state = json.dumps([self._whole.to_str(), self._parted.to_str(), self.bos])
        return hashlib.sha256(state.encode()).hexdigest()

    def encode(self, rendered: Sequence[Rendered]) -> list[Tokens]:
        """The tokens of each text; encoded in one call, in parallel."""
        control_text = [self._spells_control(text) for text in rendered]
        whole = [r.text for r, hit in zip(rendered, control_text, strict=True) if not hit]
        encodings = iter(self._whole.encode_batch(whole, add_special_tokens=False) if whole else [])
        return [self._encode_parted(r) if hit else self._tokens(next(encodings), r, None)
                for r, hit in zip(rendered, control_text, strict=True)]

    def _spells_control(self, rendered: Rendered) -> bool:
        """Whether a control token's text overlaps what the data wrote."""
        if self._pattern is None:
            return False
        literal = rendered.literal
        return any(m.start() < end and start < m.end() for m in self._pattern.finditer(rendered.text)
                   for start, end in literal)

    def _encode_parted(self, rendered: Rendered) -> Tokens:
        text, literal = rendered.text, sorted(rendered.literal)
        assert self._pattern is not None
        if any(chr(0xF0000) <= c < chr(0xF0000 + len(self._special)) for c in text):
            raise UserError("a row holds both the text of a control token and private-use characters of plane 15, "
                            "which are needed to keep it text; remove one of them")
        # Only matches that lie wholly in the format's own text are control tokens; the format's text is searched
        # stretch by stretch, so that a match that begins in the data cannot hide one of the format's.
        matches, cursor = [], 0
        for start, end in [*literal, (len(text), len(text))]:
            matches += [(cursor + m.start(), cursor + m.end()) for m in self._pattern.finditer(text[cursor:start])]
            cursor = max(cursor, end)
        parts, places, at = [], [], 0
        for start, end in matches:
            parts += [text[at:start], self._stand_in[text[start:end]]]
            places += [*range(at, start), start]
            at = end
        parts.append(text[at:])
        places += [*range(at, len(text)), len(text)]
        encoding = self._parted.encode("".join(parts), add_special_tokens=False)
        return self._tokens(encoding, rendered, (np.array(places, dtype=np.int64), dict(matches)))

    def _tokens(self, encoding: "Encoding", rendered: Rendered,
                parted: tuple[np.ndarray, dict[int, int]] | None) -> Tokens:
        ids = np.array(encoding.ids, dtype=np.int64)
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        if parted is None:
            control = np.isin(ids, self._control_ids)
        else:
            places, ends = parted
            control = np.isin(ids, np.array(list(self._back), dtype=np.int64))
            last = places[np.maximum(offsets[:, 1] - 1, 0)]
            stop = np.array([ends.get(int(p), int(p) + 1) for p in last], dtype=np.int64)
            offsets = np.stack([places[offsets[:, 0]], np.where(offsets[:, 1] > offsets[:, 0], stop,
                                                                places[offsets[:, 0]])], axis=1)
            clash = np.isin(ids, self._control_ids)
            ids = np.array([self._back.get(int(i), int(i)) for i in ids], dtype=np.int64)
            if clash.any():
                ids, offsets, control = self._break_up(rendered.text, ids, offsets, control, clash)
        bos = self.bos if rendered.adds_bos else []
        zeros = np.zeros(len(bos), dtype=np.int64)
        return Tokens(ids=np.concatenate([np.array(bos, dtype=np.int64), ids]).astype(np.int32),
                      start=np.concatenate([zeros, offsets[:, 0]]).astype(np.int32),
                      end=np.concatenate([zeros, offsets[:, 1]]).astype(np.int32),
                      control=np.concatenate([zeros.astype(bool) | True, control]), control_text=parted is not None)

    def _break_up(self, text: str, ids: np.ndarray, offsets: np.ndarray, control: np.ndarray,
                  clash: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replaces each data token that the vocabulary itself maps to a control id by the tokens of its characters."""
        out: list[tuple[int, int, int, bool]] = []
        for i, (start, end) in enumerate(offsets.tolist()):
            if not clash[i]:
                out.append((int(ids[i]), start, end, bool(control[i])))
                continue
            for place in range(start, end):
                for piece in self._parted.encode(text[place], add_special_tokens=False).ids:
                    if piece in set(self._control_ids.tolist()):
                        raise UserError(f"the tokenizer writes the character {text[place]!r} with a control token")
                    out.append((piece, place, place + 1, False))
        table = np.array([(a, b, c) for a, b, c, _ in out], dtype=np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1:], np.array([d for *_, d in out], dtype=bool)

