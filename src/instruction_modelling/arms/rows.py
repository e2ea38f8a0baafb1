"""The rows that an arm trains on, where these are rows of its own: selected, and then transformed.

A text beside a row is trained in a document of its own with as many tokens, and the same coefficients, as
the row's instruction has under Instruction Modelling (`tokens.beside`): so such an arm, with no loss on
instructions, is IT whose responses count as little as under IM, and another text in place of the instruction.
What IM does beyond that, it does by the instruction itself, where it stands."""

import pydoc_data.topics
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from instruction_modelling.arms.rules import OF_ROWS_KEPT_OUT, ArmRules, Selection
from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import write_json_lines
from instruction_modelling.rows.clean import clean_row
from instruction_modelling.rows.conversations import Conversation, read_conversations
from instruction_modelling.rows.messages import Message
from instruction_modelling.rows.scripts import set_apart

# Characters of a text beside a row, as a multiple of its instruction's: tokens of other texts are longer, and
# a text that ends too early begins again.
_TIMES = 2
_WORDS = re.compile(r"\S+")


def write_arm_rows(
    rules: ArmRules, train: Path, output: Path, seed: int, kept_out: Sequence[Conversation] = ()
) -> None:
    """Write the rows that an arm with these rules trains on.

    Args:
        train: the rows that arms without rules of their own train on.
        output: JSON Lines.
        seed: what is drawn follows from it, and from the rows.
        kept_out: rows that no arm trains on with this seed, nor is tested on.

    Raises:
        UserError: nothing is selected, or fewer rows than asked for; there are no rows kept out, and the
            transformation needs some.
    """
    rows: Sequence[Conversation] = list(read_conversations(train).conversations)
    if rules.select is not None:
        rows = [rows[number] for number in selected(rules.select, train, seed)]
    if rules.data_transform is not None:
        if rules.data_transform == OF_ROWS_KEPT_OUT and not kept_out:
            raise UserError(
                f"data_transform {OF_ROWS_KEPT_OUT}: no rows are kept out of training; give fewer "
                "--train_rows"
            )
        rows = _TRANSFORMS[rules.data_transform](rows, kept_out, random.Random(seed))
    write_json_lines(output, map(clean_row, rows))


def selected(select: Selection, train: Path, seed: int) -> list[int]:
    """Return the numbers of the rows of a file that are selected, those nearest to a ratio first, else in
    order; words are counted and the nearest are chosen as src/select_data.py does.

    Raises:
        UserError: none is, or fewer than asked for.
    """
    import numpy as np

    from instruction_modelling.sources.conversion.subsets import index_rows, nearest_row_ratio

    index = index_rows(train)
    order = np.arange(len(index))
    if select.ratio is not None:
        order = nearest_row_ratio(index, select.ratio, seed)
    ratios = index.row_ratios(order)
    # A row without an answer has no ratio, and is within no bounds.
    kept = np.ones(len(order), dtype=bool)
    if select.ratio_at_least is not None:
        kept &= ratios >= select.ratio_at_least
    if select.ratio_below is not None:
        kept &= ratios < select.ratio_below
    rows = order[kept]
    if len(rows) < (select.rows or 1):
        spread = (
            f"{np.nanmin(ratios):.2f} to {np.nanmax(ratios):.2f}" if np.isfinite(ratios).any() else "none"
        )
        raise UserError(
            f"select leaves {len(rows):,} of {len(index):,} rows of {train}, whose length ratios are "
            f"{spread}; {select.rows or 1:,} are needed"
        )
    return rows[: select.rows].tolist()


def instruction_of(row: Conversation) -> str:
    """Return what a row asks: its system and user texts, one under another."""
    return "\n\n".join(
        message.content for message in row.messages if message.role in ("system", "user") and message.content
    )


def permuted_words(text: str, draw: random.Random) -> str:
    """Return a text with its words in random order and the white space between them where it was."""
    text = set_apart(text)
    words = _WORDS.findall(text)
    draw.shuffle(words)
    left = iter(words)
    return _WORDS.sub(lambda _: next(left), text)


@cache
def unrelated_text() -> str:
    """Return a text that has nothing to do with anyone's rows and is there wherever Python is: the topics of
    its own help, in the order of their names."""
    return "\n\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))


def _stretch(characters: int, draw: random.Random) -> str:
    """Return a stretch of the unrelated text that begins at some line."""
    text = unrelated_text()
    start = text.find("\n", draw.randrange(len(text))) + 1
    return (text + text)[start : start + characters].strip() or text[:characters]


def _beside(row: Conversation, text: str) -> Conversation:
    return replace(row, text_beside=text) if text.strip() else row


def _permuted(
    rows: Sequence[Conversation], kept_out: Sequence[Conversation], draw: random.Random
) -> list[Conversation]:
    found = []
    for row in rows:
        asked = instruction_of(row)
        # Words in another order may be fewer tokens: then another order of them follows.
        found.append(_beside(row, "\n\n".join(permuted_words(asked, draw) for _ in range(_TIMES))))
    return found


def _instructions_of_others(
    rows: Sequence[Conversation], kept_out: Sequence[Conversation], draw: random.Random
) -> list[Conversation]:
    texts = [text for text in map(instruction_of, kept_out) if text.strip()]
    draw.shuffle(texts)
    found, taken = [], 0
    for row in rows:
        wanted, parts = _TIMES * len(instruction_of(row)), list[str]()
        while texts and sum(map(len, parts)) < wanted:
            parts.append(texts[taken % len(texts)])
            taken += 1
        found.append(_beside(row, "\n\n".join(parts)))
    return found


def _unrelated(
    rows: Sequence[Conversation], kept_out: Sequence[Conversation], draw: random.Random
) -> list[Conversation]:
    return [_beside(row, _stretch(_TIMES * len(instruction_of(row)), draw)) for row in rows]


def _unrelated_alone(
    rows: Sequence[Conversation], kept_out: Sequence[Conversation], draw: random.Random
) -> list[Conversation]:
    # As long as the row, so as many steps of about as many tokens; a plain row, so no chat format.
    found = []
    for row in rows:
        text = _stretch(max(1, sum(len(message.text) for message in row.messages)), draw)
        messages = (Message("user", ""), Message("assistant", text))
        found.append(Conversation(row.row, row.line, row.id, row.dataset, messages, plain=True))
    return found


_Transformation = Callable[
    [Sequence[Conversation], Sequence[Conversation], random.Random], list[Conversation]
]
_TRANSFORMS: dict[str, _Transformation] = {
    "permuted-instruction-beside": _permuted,
    OF_ROWS_KEPT_OUT: _instructions_of_others,
    "unrelated-text-beside": _unrelated,
    "unrelated-text-alone": _unrelated_alone,
}
