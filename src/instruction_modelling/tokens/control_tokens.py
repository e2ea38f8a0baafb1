"""The control tokens of one chat format, and tokenizer engines that know none of them.

A text whose data spells a control token (`</s>` in a user's message) must not be given to the tokenizer as it
is: it would read the data's text as the token. Instead each control token that the format wrote is replaced
by a placeholder, and the text is encoded by a copy of the engine that knows the placeholders but no control
token, not even as a piece of its vocabulary: the format's control tokens stay tokens, the data's text stays
text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# A placeholder is a run of the first character, longer than any run of it in the text, and a character of the
# private-use planes that numbers the control token.
PLACEHOLDER_CHARACTER, FIRST_NUMBER = "\U0010fffd", 0xF0000


class ControlTokens:
    """The control tokens of one chat format: the tokenizer's special tokens, and the added tokens that the
    format writes itself."""

    def __init__(self, state: str, added: Mapping[int, "AddedToken"], written: Sequence[str]):
        """Take the engine's state as JSON, the tokenizer's added tokens by id, and the texts of those that
        the format writes."""
        self._state, self._added = state, added
        self.id_of_text = {
            token.content: id_
            for id_, token in added.items()
            if token.content.strip() and (token.special or token.content in written)
        }
        # By id; the last place stands for every id beyond.
        self._is_control = np.zeros(max(self.id_of_text.values(), default=-1) + 2, dtype=bool)
        self._is_control[list(self.id_of_text.values())] = True
        self._numbers = {text: chr(FIRST_NUMBER + number) for number, text in enumerate(self.id_of_text)}
        alternatives = "|".join(re.escape(text) for text in sorted(self.id_of_text, key=len, reverse=True))
        self._pattern = re.compile(alternatives) if self.id_of_text else None
        self._engines: dict[int, tuple[Tokenizer, dict[int | None, int]]] = {}

    def among(self, ids: np.ndarray) -> np.ndarray:
        """Return bool[n]: which of the ids, int64[n], are control tokens'."""
        return self._is_control[np.minimum(ids, len(self._is_control) - 1)]

    def ranges_in(self, text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
        """Return the character ranges at which text[start:end] spells control tokens."""
        if self._pattern is None:
            return []
        stop = len(text) if end is None else end
        return [match.span() for match in self._pattern.finditer(text, start, stop)]

    def placeholder(self, text: str, run_length: int) -> str:
        """Return what is written in place of a control token."""
        return PLACEHOLDER_CHARACTER * run_length + self._numbers[text]

    def engine(self, run_length: int) -> tuple["Tokenizer", dict[int | None, int]]:
        """Return an engine that knows placeholders in place of control tokens, and the tokenizer's id for the
        engine's id of each added token; it is made when it is first needed."""
        if run_length not in self._engines:
            from tokenizers import AddedToken, Tokenizer

            state = orjson.loads(self._state)
            _remove_tokens(state, self.id_of_text, run_length)
            engine = Tokenizer.from_str(orjson.dumps(state).decode())
            flags = {text: self._added[id_] for text, id_ in self.id_of_text.items()}
            engine.add_tokens(
                [
                    AddedToken(
                        self.placeholder(text, run_length),
                        lstrip=token.lstrip,
                        rstrip=token.rstrip,
                        normalized=False,
                        special=False,
                    )
                    for text, token in flags.items()
                ]
            )
            tokenizers_id = {engine.token_to_id(token.content): id_ for id_, token in self._added.items()}
            for text, id_ in self.id_of_text.items():
                tokenizers_id[engine.token_to_id(self.placeholder(text, run_length))] = id_
            self._engines[run_length] = engine, tokenizers_id
        return self._engines[run_length]


def longest_run(text: str) -> int:
    """Return the length of the text's longest run of the placeholder's character."""
    return max((len(match[0]) for match in re.finditer(f"{PLACEHOLDER_CHARACTER}+", text)), default=0)


def _remove_tokens(state: dict[str, Any], texts: Iterable[str], run_length: int) -> None:
    """Take tokens out of an engine's added tokens and out of its vocabulary, there by giving the piece a name
    that no text has, so that every other piece keeps its id."""
    removed = set(texts)
    new_name = {
        text: f"{PLACEHOLDER_CHARACTER * run_length}-{number}" for number, text in enumerate(sorted(removed))
    }
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in removed]
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new_name.get(piece, piece): id_ for piece, id_ in model["vocab"].items()}
    else:
        model["vocab"] = [[new_name.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in removed:
        model["unk_token"] = new_name[model["unk_token"]]
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [
            [left, right]
            for left, right in pairs
            if not removed.intersection(
                (left, right, left + (right.removeprefix(prefix) if prefix else right))
            )
        ]
