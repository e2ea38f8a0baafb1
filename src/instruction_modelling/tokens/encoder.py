"""Rendered text to token ids with character offsets, in which only the chat format writes control tokens.

A text whose data spells no control token is encoded whole, as it is. In any other, the data's text must not
become a control token: `control_tokens` says how."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from instruction_modelling.chat.formats import bos_ids
from instruction_modelling.chat.spans import Rendered
from instruction_modelling.cpu import old_objects_left_alone
from instruction_modelling.errors import UserError
from instruction_modelling.tokens.control_tokens import ControlTokens, longest_run
from instruction_modelling.tokens.shared_starts import Dividers, any_overlap, starts_of, tokens_before
from instruction_modelling.tokens.word_memory import Encoded, WordMemory

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """The tokens of one rendered text; the arrays have one length n."""

    ids: np.ndarray
    """int32[n]"""
    start: np.ndarray
    """int32[n], the offset of each token's first character in the text (a BOS that the tokenizer adds has
    0)."""
    end: np.ndarray
    """int32[n], the offset behind its last character (0 for an added BOS)."""
    is_control: np.ndarray
    """bool[n], whether the chat format or the tokenizer wrote the token as a control token."""
    control_text: bool
    """Whether the data spells a control token."""


def without_swallowed_space(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the characters [start, end) of a control token without the whitespace around it that it
    swallowed (as added tokens with `lstrip` or `rstrip` do)."""
    token = text[start:end]
    return start + len(token) - len(token.lstrip()), end - len(token) + len(token.rstrip())


def _offsets(encoding: "Encoding", text: str) -> np.ndarray:
    """Return int64[n, 2]: the character range of each token in the text.

    Unigram engines give every byte of a run of unknown characters the range of the whole run: such bytes get
    that of their own character."""
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    repeated = (offsets[1:] == offsets[:-1]).all(axis=1) & (offsets[1:, 1] - offsets[1:, 0] > 1)
    stop = 0
    for first in np.flatnonzero(repeated).tolist():
        if first < stop:
            continue
        start, end = offsets[first].tolist()
        stop = first + 1
        while stop < len(offsets) and (offsets[stop] == offsets[first]).all():
            stop += 1
        if encoding.tokens[first:stop] == [f"<0x{byte:02X}>" for byte in text[start:end].encode()]:
            character = np.array([index for index in range(start, end) for _ in text[index].encode()])
            offsets[first:stop] = np.stack([character, character + 1], axis=1)
    return offsets


def _untrimmed_state(backend: "Tokenizer") -> dict[str, Any]:
    """Return the tokenizer's engine as JSON, with offsets that cover whitespace, without truncation and
    padding."""
    state: dict[str, Any] = orjson.loads(backend.to_str())
    state["truncation"] = state["padding"] = None

    def stop_trimming(node: Any) -> None:
        if isinstance(node, dict):
            if "trim_offsets" in node:
                node["trim_offsets"] = False
            for value in node.values():
                stop_trimming(value)
        elif isinstance(node, list):
            for value in node:
                stop_trimming(value)

    stop_trimming(state.get("pre_tokenizer"))
    stop_trimming(state.get("post_processor"))
    return state


class TextEncoder:
    """Encodes rendered texts with one tokenizer.

    Raises:
        UserError: the tokenizer has no fast engine, hence no character offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"the tokenizer ({type(tokenizer).__name__}) gives no character offsets, from which the "
                "loss weights are derived; use one with a tokenizer.json (a fast tokenizer)"
            )
        self.bos = bos_ids(tokenizer)
        with old_objects_left_alone():
            state = _untrimmed_state(backend)
            self._state = orjson.dumps(state).decode()
        self._added = tokenizer.added_tokens_decoder
        model = state["model"]
        # What an unknown character becomes is not a control token, though it has the id of one.
        self._unknown_id = (
            model["unk_id"] if "unk_id" in model else backend.token_to_id(model.get("unk_token") or "")
        )
        self._formats: dict[tuple[str, ...], ControlTokens] = {}
        self._dividers = Dividers(state["added_tokens"])
        self._cuts: bool | None = None

    def fingerprint(self) -> str:
        """Return a digest of everything about the tokenizer that decides about ids and offsets."""
        return hashlib.sha256(orjson.dumps([self._state, self.bos])).hexdigest()

    @cached_property
    def _engine(self) -> "Tokenizer":
        """The tokenizer with offsets that cover whitespace; where a cache has the tokens, nobody needs it."""
        from tokenizers import Tokenizer

        engine = Tokenizer.from_str(self._state)
        engine.encode_special_tokens = False
        return engine

    @cached_property
    def _words(self) -> WordMemory | None:
        with old_objects_left_alone():
            return WordMemory.of(self._engine, orjson.loads(self._state))

    def encode(self, rendered: Sequence[Rendered], control_text_is_text: bool = True) -> list[Tokens]:
        """Return the tokens of each text; most are encoded in one call, in parallel.

        Args:
            control_text_is_text: False reads control tokens that the data spells as control tokens, as the
                released code does.
        """
        starts = starts_of(rendered, self._control, self._dividers)
        given = [
            text.text[start.cut :]
            for text, start in zip(rendered, starts, strict=True)
            if not (start.spells and control_text_is_text)
        ]
        encodings = iter(self._encode(given))
        out: list[Tokens] = []
        as_they_are = False
        for text, start in zip(rendered, starts, strict=True):
            tokens = None
            if not (start.spells and control_text_is_text):
                tokens = self._whole(next(encodings), text, start.cut, start.spells)
                # The vocabulary itself may spell a control token in what the data wrote, after normalisation
                # say.
                if control_text_is_text and self._data_has_control_token(tokens, text):
                    tokens = None
                elif start.cut:
                    tokens = self._behind(out[-1], tokens, text, start.cut) if as_they_are else None
                    if tokens is None:
                        tokens = self._whole(self._encode([text.text])[0], text, 0, start.spells)
                        if control_text_is_text and self._data_has_control_token(tokens, text):
                            tokens = None
            as_they_are = tokens is not None
            out.append(tokens or self._encode_with_placeholders(text))
        return out

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the ids and offsets of each text."""
        known = self._words.encode(texts) if self._words else [None] * len(texts)
        left = [text for text, found in zip(texts, known, strict=True) if found is None]
        given = self._engine.encode_batch(left, add_special_tokens=False) if left else []
        rest = (
            (np.array(encoding.ids, dtype=np.int64), _offsets(encoding, text))
            for encoding, text in zip(given, left, strict=True)
        )
        return [next(rest) if found is None else found for found in known]

    def _behind(self, before: Tokens, tokens: Tokens, rendered: Rendered, cut: int) -> Tokens | None:
        """Return the tokens of a text that begins as the one before it up to `cut`, from where on its own
        tokens are `tokens`; None where the tokenizer does not cut there."""
        number = tokens_before(before.start, before.end, before.is_control, cut)
        if number is None or self._cuts is False:
            return None
        joined = Tokens(
            np.concatenate([before.ids[:number], tokens.ids]),
            np.concatenate([before.start[:number], tokens.start]),
            np.concatenate([before.end[:number], tokens.end]),
            np.concatenate([before.is_control[:number], tokens.is_control]),
            tokens.control_text,
        )
        if self._cuts is None:
            # The rule is held against the tokenizer once.
            whole = self._whole(self._encode([rendered.text])[0], rendered, 0, tokens.control_text)
            names = ("ids", "start", "end", "is_control")
            same = (np.array_equal(getattr(whole, name), getattr(joined, name)) for name in names)
            self._cuts = all(same)
            return whole
        return joined

    def _control(self, rendered: Rendered) -> ControlTokens:
        written = rendered.control_tokens
        if written not in self._formats:
            self._formats[written] = ControlTokens(self._state, self._added, written)
        return self._formats[written]

    def _data_has_control_token(self, tokens: Tokens, rendered: Rendered) -> bool:
        """Return whether a control token was made of what the data wrote."""
        written = tokens.is_control & (tokens.end > tokens.start)
        places = zip(tokens.start[written].tolist(), tokens.end[written].tolist(), strict=True)
        ranges = [without_swallowed_space(rendered.text, start, end) for start, end in places]
        return any_overlap(ranges, rendered.data_ranges)

    def _whole(self, encoded: Encoded, rendered: Rendered, cut: int, control_text: bool) -> Tokens:
        """Return the tokens of a text from the character `cut` on."""
        control = self._control(rendered)
        ids, offsets = encoded[0], encoded[1] + cut
        is_control = control.among(ids)
        for i in np.flatnonzero(is_control & (ids == self._unknown_id)):
            start, end = without_swallowed_space(rendered.text, *offsets[i])
            is_control[i] = control.id_of_text.get(rendered.text[start:end]) == self._unknown_id
        return self._tokens(ids, offsets, is_control, rendered, control_text)

    def _encode_with_placeholders(self, rendered: Rendered) -> Tokens:
        """Return the tokens of a text in which only what the format itself wrote becomes a control token."""
        text, control = rendered.text, self._control(rendered)
        # The format's text is searched stretch by stretch, so that a match that begins in the data cannot
        # hide one of the format's.
        matches: list[tuple[int, int]] = []
        cursor = 0
        for start, end in [*sorted(rendered.data_ranges), (len(text), len(text))]:
            matches += control.ranges_in(text, cursor, start)
            cursor = max(cursor, end)
        run_length = longest_run(text) + 1
        parts: list[str] = []
        # For each character of the text with placeholders, the offset in the rendered text that it comes
        # from.
        sources: list[int] = []
        cursor = 0
        for start, end in matches:
            placeholder = control.placeholder(text[start:end], run_length)
            parts += [text[cursor:start], placeholder]
            sources += [*range(cursor, start), *[start] * len(placeholder)]
            cursor = end
        parts.append(text[cursor:])
        sources += range(cursor, len(text) + 1)
        engine, tokenizers_id = control.engine(run_length)
        replaced = "".join(parts)
        encoding = engine.encode(replaced, add_special_tokens=False)
        ids = np.array([tokenizers_id.get(id_, id_) for id_ in encoding.ids], dtype=np.int64)
        offsets = _offsets(encoding, replaced)
        source, end_of_match = np.array(sources, dtype=np.int64), dict(matches)
        starts, last = source[offsets[:, 0]], source[np.maximum(offsets[:, 1] - 1, 0)]
        ends = np.array([end_of_match.get(index, index + 1) for index in last.tolist()], dtype=np.int64)
        ends = np.where(offsets[:, 1] > offsets[:, 0], ends, starts)
        is_control = control.among(ids) & (ids != self._unknown_id)
        return self._tokens(ids, np.stack([starts, ends], axis=1), is_control, rendered, True)

    def _tokens(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        is_control: np.ndarray,
        rendered: Rendered,
        control_text: bool,
    ) -> Tokens:
        """Return the tokens, behind the BOS that the tokenizer adds."""
        bos = np.array(self.bos if rendered.needs_bos else [], dtype=np.int64)
        zeros = np.zeros(len(bos), dtype=np.int64)
        return Tokens(
            ids=np.concatenate([bos, ids]).astype(np.int32),
            start=np.concatenate([zeros, offsets[:, 0]]).astype(np.int32),
            end=np.concatenate([zeros, offsets[:, 1]]).astype(np.int32),
            is_control=np.concatenate([np.ones(len(bos), dtype=bool), is_control]),
            control_text=control_text,
        )
