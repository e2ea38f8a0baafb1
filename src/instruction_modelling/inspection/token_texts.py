"""The tokens of a sequence as a reader sees them."""

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.inspection.inspection import short_weights
from instruction_modelling.tokens.encoded_rows import EncodedSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The kind that is shown of a token which an earlier sequence of the row trains.
CONTEXT = "context"
# Joiners that emoji and many scripts need.
KEPT_FORMAT = "\u200c\u200d"


@dataclass(frozen=True)
class TokenText:
    """One token as it is shown."""

    text: str
    """The characters it adds to the text; "" where the token before already showed them."""
    name: str
    """Its name in the vocabulary."""
    id: int
    kind: str
    weight: float


def token_texts(
    sequence: EncodedSequence, weights: np.ndarray, tokenizer: "PreTrainedTokenizerBase"
) -> list[TokenText]:
    """Return a sequence's tokens in order; their texts end to end are its text, as far as it is kept, after
    the BOS that the tokenizer adds. The kind of a token that it does not own is `context`."""
    ids = sequence.tokens.ids.tolist()
    out, cursor = [], 0
    columns = (
        ids,
        tokenizer.convert_ids_to_tokens(ids),
        sequence.tokens.end.tolist(),
        sequence.kinds.tolist(),
        sequence.owned.tolist(),
        short_weights(weights),
    )
    for number, (id_, name, end, kind, owned, weight) in enumerate(zip(*columns, strict=True)):
        text = sequence.rendered.text[cursor:end]
        if end == 0 and sequence.tokens.is_control[number]:
            text = name
        cursor = max(cursor, end)
        out.append(TokenText(text, name, id_, KIND_NAMES[kind] if owned else CONTEXT, weight))
    return out


def visible(text: str) -> str:
    """Return the text with a sign for each character that a reader would not see, or that would change the
    page: a line break becomes ⏎ and a line break, another control or formatting character its picture or
    number."""
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    if character == "\n":
        return "⏎\n"
    category = unicodedata.category(character)
    if category == "Cc" and ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    if category in ("Cc", "Zl", "Zp") or (category == "Cf" and character not in KEPT_FORMAT):
        return f"⟨U+{ord(character):04X}⟩"
    return character
