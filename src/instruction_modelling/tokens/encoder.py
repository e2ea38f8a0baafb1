"""Rendered text to token ids with character offsets, in which only the chat format writes control tokens.

A text whose data spells no control token is encoded whole. In any other, each control token that the format
wrote is swapped for a stand-in, and the text is encoded by a copy of the tokenizer that knows the stand-ins
but no control token, not even as a piece of its vocabulary: the format's control tokens stay, the data's text
stays text."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.chat.formats import bos_ids
from instruction_modelling.chat.spans import Rendered
from instruction_modelling.errors import UserError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

# A stand-in is a run of the first, longer than any in the text, and a character that numbers the control
# token.
STAND_IN, STAND_IN_NUMBERS = "\U0010fffd", 0xF0000


@dataclass(frozen=True)
class Tokens:
    """The tokens of one rendered text: `ids`, `start`, `end` are int32 arrays of one length; `start` and
    `end` are character offsets into the text (a BOS that the tokenizer adds has 0, 0). `control` is a bool
    array: tokens that the chat format or the tokenizer wrote as control tokens. `control_text`: the data
    spells a control token."""

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray
    control: np.ndarray
    control_text: bool


def own_place(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters of a control token without the whitespace that it swallowed around it."""
    own = text[start:end]
    return start + len(own) - len(own.lstrip()), end - len(own) + len(own.rstrip())


def _offsets(encoding: "Encoding", text: str) -> np.ndarray:
    """int64[n, 2]: where each token lies in the text. Unigram engines give every byte of a run of unknown
    characters the place of the whole run: such bytes are put in their own characters."""
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    same = (offsets[1:] == offsets[:-1]).all(axis=1) & (offsets[1:, 1] - offsets[1:, 0] > 1)
    stop = 0
    for first in np.flatnonzero(same).tolist():
        if first < stop:
            continue
        start, end = offsets[first].tolist()
        stop = first + 1
        while stop < len(offsets) and (offsets[stop] == offsets[first]).all():
            stop += 1
        character = [place for place in range(start, end) for _ in text[place].encode()]
        if encoding.tokens[first:stop] == [f"<0x{byte:02X}>" for byte in text[start:end].encode()]:
            offsets[first:stop] = np.stack([character, np.array(character) + 1], axis=1)
    return offsets


def _untrimmed_state(backend: "Tokenizer") -> dict[str, Any]:
    """The tokenizer's engine as JSON, with offsets that cover whitespace, without truncation and padding."""
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
    return state


def _forget(state: dict[str, Any], texts: Iterable[str], run: int) -> None:
    """Take texts out of an engine's added tokens and, by a name for the piece that no text has, out of its
    vocabulary."""
    unknown = set(texts)
    renamed = {text: f"{STAND_IN * run}-{number}" for number, text in enumerate(sorted(unknown))}
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in unknown]
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed.get(piece, piece): id_ for piece, id_ in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in unknown:
        model["unk_token"] = renamed[model["unk_token"]]
    if "merges" in model:
        inner = model.get("continuing_subword_prefix") or ""
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [
            [a, b]
            for a, b in pairs
            if not unknown.intersection((a, b, a + (b.removeprefix(inner) if inner else b)))
        ]


class _ControlTokens:
    """The control tokens of one chat format, and engines that know none of them."""

    def __init__(self, state: str, added: Mapping[int, "AddedToken"], written: Sequence[str]):
        self._state, self._added = state, added
        self.tokens = {
            token.content: id_
            for id_, token in added.items()
            if token.content.strip() and (token.special or token.content in written)
        }
        self.ids = np.array(sorted(self.tokens.values()), dtype=np.int64)
        self._numbers = {text: chr(STAND_IN_NUMBERS + number) for number, text in enumerate(self.tokens)}
        alternatives = "|".join(re.escape(text) for text in sorted(self.tokens, key=len, reverse=True))
        self._pattern = re.compile(alternatives) if self.tokens else None
        self._engines: dict[int, tuple[Tokenizer, dict[int | None, int]]] = {}

    def find(self, text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
        """Where the text, or a stretch of it, spells control tokens."""
        if self._pattern is None:
            return []
        return [
            match.span() for match in self._pattern.finditer(text, start, len(text) if end is None else end)
        ]

    def stand_in(self, text: str, run: int) -> str:
        """What is written in place of a control token, with a run of this length."""
        return STAND_IN * run + self._numbers[text]

    def engine(self, run: int) -> tuple["Tokenizer", dict[int | None, int]]:
        """An engine that knows stand-ins in place of control tokens, and the id of the tokenizer that each of
        the engine's added tokens stands for; made when it is first needed."""
        if run not in self._engines:
            from tokenizers import AddedToken, Tokenizer

            state = json.loads(self._state)
            _forget(state, self.tokens, run)
            engine = Tokenizer.from_str(json.dumps(state))
            flags = {text: self._added[id_] for text, id_ in self.tokens.items()}
            engine.add_tokens(
                [
                    AddedToken(
                        self.stand_in(text, run),
                        lstrip=token.lstrip,
                        rstrip=token.rstrip,
                        normalized=False,
                        special=False,
                    )
                    for text, token in flags.items()
                ]
            )
            meant = {engine.token_to_id(token.content): id_ for id_, token in self._added.items()}
            meant |= {engine.token_to_id(self.stand_in(text, run)): id_ for text, id_ in self.tokens.items()}
            self._engines[run] = engine, meant
        return self._engines[run]


class TextEncoder:
    """Encodes rendered texts with one tokenizer.

    Raises:
        UserError: the tokenizer has no fast engine, hence no character offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(
                f"the tokenizer ({type(tokenizer).__name__}) gives no character offsets, from which the "
                "loss weights are derived; use one with a tokenizer.json (a fast tokenizer)"
            )
        self.bos = bos_ids(tokenizer)
        state = _untrimmed_state(backend)
        self._state = json.dumps(state)
        self._engine = Tokenizer.from_str(self._state)
        self._engine.encode_special_tokens = False
        self._added = tokenizer.added_tokens_decoder
        model = state["model"]
        # What an unknown character becomes is not a control token, though it has the id of one.
        self._unknown = (
            model["unk_id"] if "unk_id" in model else self._engine.token_to_id(model.get("unk_token") or "")
        )
        self._formats: dict[tuple[str, ...], _ControlTokens] = {}

    def fingerprint(self) -> str:
        """Everything about the tokenizer that decides about ids and offsets, hashed."""
        return hashlib.sha256(json.dumps([self._state, self.bos]).encode()).hexdigest()

    def encode(self, rendered: Sequence[Rendered], control_text_is_text: bool = True) -> list[Tokens]:
        """The tokens of each text; encoded in one call, in parallel.

        Args:
            control_text_is_text: False reads control tokens that the data spells as control tokens, as the
                released code does.
        """
        spelled = [self._spelled(text) for text in rendered]
        apart = [hit and control_text_is_text for hit in spelled]
        whole = [r.text for r, parted in zip(rendered, apart, strict=True) if not parted]
        encodings = iter(self._engine.encode_batch(whole, add_special_tokens=False) if whole else [])
        out = []
        for r, hit, parted in zip(rendered, spelled, apart, strict=True):
            if not parted:
                tokens = self._whole(next(encodings), r, hit)
                # The vocabulary itself may spell a control token in what the data wrote, after normalisation
                # say.
                parted = control_text_is_text and self._data_has_control(tokens, r)
            out.append(self._parted(r) if parted else tokens)
        return out

    def _control(self, rendered: Rendered) -> _ControlTokens:
        key = rendered.control_tokens
        if key not in self._formats:
            self._formats[key] = _ControlTokens(self._state, self._added, key)
        return self._formats[key]

    def _spelled(self, rendered: Rendered) -> bool:
        """Whether the text of a control token overlaps what the data wrote."""
        return any(
            first < end and start < last
            for first, last in self._control(rendered).find(rendered.text)
            for start, end in rendered.data_ranges
        )

    def _data_has_control(self, tokens: Tokens, rendered: Rendered) -> bool:
        places = [
            own_place(rendered.text, tokens.start[i], tokens.end[i])
            for i in np.flatnonzero(tokens.control & (tokens.end > tokens.start))
        ]
        return any(
            first < end and start < last for first, last in places for start, end in rendered.data_ranges
        )

    def _whole(self, encoding: "Encoding", rendered: Rendered, control_text: bool) -> Tokens:
        control = self._control(rendered)
        ids = np.array(encoding.ids, dtype=np.int64)
        offsets = _offsets(encoding, rendered.text)
        is_control = np.isin(ids, control.ids)
        for i in np.flatnonzero(is_control & (ids == self._unknown)):
            first, last = own_place(rendered.text, *offsets[i])
            is_control[i] = control.tokens.get(rendered.text[first:last]) == self._unknown
        return self._tokens(ids, offsets, is_control, rendered, control_text)

    def _parted(self, rendered: Rendered) -> Tokens:
        """Only what the format itself wrote as a control token becomes one: its text is searched stretch by
        stretch, so that a match that begins in the data cannot hide one of the format's."""
        text, control = rendered.text, self._control(rendered)
        matches, cursor = [], 0
        for start, end in [*sorted(rendered.data_ranges), (len(text), len(text))]:
            matches += control.find(text, cursor, start)
            cursor = max(cursor, end)
        run = max((len(found[0]) for found in re.finditer(f"{STAND_IN}+", text)), default=0) + 1
        parts: list[str] = []
        places: list[int] = []
        at = 0
        for start, end in matches:
            name = control.stand_in(text[start:end], run)
            parts += [text[at:start], name]
            places += [*range(at, start), *[start] * len(name)]
            at = end
        parts.append(text[at:])
        places += range(at, len(text) + 1)
        engine, meant = control.engine(run)
        parted = "".join(parts)
        encoding = engine.encode(parted, add_special_tokens=False)
        ids = np.array([meant.get(id_, id_) for id_ in encoding.ids], dtype=np.int64)
        offsets = _offsets(encoding, parted)
        place, stops = np.array(places, dtype=np.int64), dict(matches)
        start_at, last = place[offsets[:, 0]], place[np.maximum(offsets[:, 1] - 1, 0)]
        stop = np.array([stops.get(p, p + 1) for p in last.tolist()], dtype=np.int64)
        stop = np.where(offsets[:, 1] > offsets[:, 0], stop, start_at)
        is_control = np.isin(ids, control.ids) & (ids != self._unknown)
        return self._tokens(ids, np.stack([start_at, stop], axis=1), is_control, rendered, True)

    def _tokens(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        is_control: np.ndarray,
        rendered: Rendered,
        control_text: bool,
    ) -> Tokens:
        bos = np.array(self.bos if rendered.needs_bos else [], dtype=np.int64)
        zeros = np.zeros(len(bos), dtype=np.int64)
        return Tokens(
            ids=np.concatenate([bos, ids]).astype(np.int32),
            start=np.concatenate([zeros, offsets[:, 0]]).astype(np.int32),
            end=np.concatenate([zeros, offsets[:, 1]]).astype(np.int32),
            control=np.concatenate([np.ones(len(bos), dtype=bool), is_control]),
            control_text=control_text,
        )
