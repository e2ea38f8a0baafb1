"""What multiplies a token's weight beside its kind and its message's weight: its turn, and its place in its
message's text.

    weight = kind x message x turn (--train_turns) x loss_spans of the data x patterns (--loss_patterns)

None of it is part of what is encoded, apart from `loss_spans`, which belong to the rows as a message's weight
does: another pattern never tokenises again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from instruction_modelling.rows.conversations import Conversation
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.encoded_rows import token_factors
from instruction_modelling.tokens.large_arrays import new_array
from instruction_modelling.tokens.patterns import LossPattern, PatternMatches, PatternSearch

TrainTurns = Literal["all", "first", "last"]


@dataclass(frozen=True)
class TextFactors:
    """Which of the assistant's turns are trained, and what patterns weigh."""

    train_turns: TrainTurns = "all"
    patterns: tuple[LossPattern, ...] = ()


NO_FACTORS = TextFactors()


def trained_turns(roles: Sequence[str], turns: TrainTurns) -> list[bool]:
    """Return whether each message keeps its weight; those that are not the assistant's always do.

    `last`: the assistant's messages after the last user's message, all of a tool loop. `first`: those up to
    the user's second turn, where messages of the user that follow one another are one turn."""
    if turns == "all":
        return [True] * len(roles)
    users = [index for index, role in enumerate(roles) if role == "user"]
    if turns == "last":
        start, stop = (users[-1] if users else 0), len(roles)
    else:
        later = [index for index in users[1:] if roles[index - 1] != "user"]
        start, stop = 0, (later[0] if later else len(roles))
    return [role != "assistant" or start <= index < stop for index, role in enumerate(roles)]


def with_factors(
    data: EncodedData, conversations: Iterable[Conversation], factors: TextFactors
) -> tuple[EncodedData, list[PatternMatches]]:
    """Return the rows with their turns' and their patterns' factors, and what each pattern matched.

    Args:
        conversations: the rows as they were read, among them all of `data`.

    Raises:
        UserError: a pattern takes too long.
    """
    if factors.train_turns != "all":
        data = replace(
            data,
            message_weights=[
                [
                    weight * kept
                    for weight, kept in zip(weights, trained_turns(roles, factors.train_turns), strict=True)
                ]
                for weights, roles in zip(data.message_weights, data.message_roles, strict=True)
            ],
        )
    if not factors.patterns:
        return data, []
    index_of = {row: index for index, row in enumerate(data.rows.tolist())}
    search = PatternSearch(factors.patterns)
    out = new_array(len(data.ids), np.float32)
    out[:] = 1 if data.factors is None else data.factors
    for row in conversations:
        if (index := index_of.get(row.row)) is None:
            continue
        span = data.span(index)
        stretches = search.stretches(row, data.changed_messages[index])
        if stretches:
            out[span] *= token_factors(row, stretches, data.messages[span], data.positions[span])
    return replace(data, factors=out), search.found


def pattern_line(found: Iterable[PatternMatches]) -> str:
    """Return what the patterns matched, in one line."""
    return "; ".join(
        f"{one.regex!r} x {one.weight:g}: {_matches(one)} in {one.rows} {'row' if one.rows == 1 else 'rows'}"
        for one in found
    )


def _matches(one: PatternMatches) -> str:
    return f"{one.matches} {'match' if one.matches == 1 else 'matches'}"


def pattern_warnings(found: Iterable[PatternMatches]) -> list[str]:
    """Return which patterns match nothing, and which match text that may not be weighed."""
    out = []
    for one in found:
        if not one.matches:
            out.append(f"--loss_patterns: {one.regex!r} matches nothing that an assistant says in these rows")
        if one.not_to_the_letter:
            out.append(
                f"--loss_patterns: {one.not_to_the_letter} of {_matches(one)} of "
                f"{one.regex!r} are in messages whose text the chat format writes otherwise than the file "
                "has it; what it changes keeps its weight"
            )
    return out
