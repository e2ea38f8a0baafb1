"""The sequences that a conversation is trained as: one where the template writes earlier turns as the model
wrote them, several where it rewrites them once more messages follow.

A turn is in place in R(j), the text of the messages through j, where the model, asked the turn's own prompt,
would have written just what stands there: P is a prefix of R, and R up to the turn's end a prefix of R(j).
A conversation's sequences are the fewest R(j) that hold each turn in place; a turn that is in place nowhere
is a sequence of its own, P and then S.

Every message is trained once: a sequence owns the messages after those of the sequence before it, and what
the template writes after that point; definitions of tools belong to the first. What is not owned is context:
the model reads it, and it has no loss and counts nowhere."""

import bisect
from dataclasses import dataclass

from instruction_modelling.chat.long_rows import SHORT, by_shape, turns_of_long_row
from instruction_modelling.chat.renderings import Renderings
from instruction_modelling.chat.turn_spans import Turn
from instruction_modelling.chat.turns import TurnFinder
from instruction_modelling.chat.whole_history import turns_in_whole
from instruction_modelling.chat.windows import open_windows


@dataclass(frozen=True)
class SequencePlan:
    """One sequence of a conversation, before its spans."""

    through: int
    """The 0-based index of the last message in it."""
    turns: tuple[Turn, ...]
    """The assistant's turns that it owns, in place."""
    first_owned: int
    """The index of the first message that it owns."""
    after_prompt: bool = False
    """P + S of its one turn, rather than R(through)."""
    before: Turn | None = None
    """The last turn of the sequence before it, as it was trained there."""

    @property
    def asked(self) -> str:
        """Return what P has in place of S, and so stands before S here, where its one turn takes that up."""
        return self.turns[0].asked if self.turns else ""


def plan_sequences(row: Renderings, finder: TurnFinder, whole: bool = False) -> list[SequencePlan]:
    """Return the sequences of a conversation, in order; `whole`: the text of all its messages alone.

    Raises:
        RowRefused: the template refuses the conversation, or a turn in it cannot be found.
    """
    messages = row.conversation.messages
    row.text(len(messages))
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    turns = turns_of_long_row(row, finder, answers)
    if turns is None:
        if len(answers) > SHORT:
            open_windows(row, by_shape(row, answers))
        turns = [finder.turn(row, index) for index in answers]
    if whole:
        return [SequencePlan(len(messages) - 1, turns_in_whole(row, finder, turns), 0)]
    candidates = sorted({*answers, len(messages) - 1})
    plans: list[SequencePlan] = []
    first_owned = 0
    while turns:
        first = turns[0]
        through, held = first.message, None
        if not first.rewrites_history and not first.asked:
            # No sequence holds a turn that is asked otherwise than it is written, or what comes behind it.
            alone = (turn.message for turn in turns[1:] if turn.rewrites_history or turn.asked)
            stop = bisect.bisect_left(candidates, next(alone, len(messages)))
            possible = reversed(candidates[bisect.bisect_left(candidates, first.message) : stop])
            through, held = next(
                ((j, held) for j in possible if (held := _held(row, turns, j))), (first.message, None)
            )
        after_prompt = held is None and not first.asked
        before = plans[-1].turns[-1] if plans else None
        plans.append(SequencePlan(through, tuple(held or [first]), first_owned, after_prompt, before))
        turns = turns[len(plans[-1].turns) :]
        first_owned = through + 1
    if first_owned < len(messages) or not plans:
        # Messages after the last turn that its sequence does not hold, or a conversation without an answer.
        before = plans[-1].turns[-1] if plans else None
        plans.append(SequencePlan(len(messages) - 1, (), first_owned, before=before))
    return plans


def _held(row: Renderings, turns: list[Turn], through: int) -> list[Turn] | None:
    """Return the turns up to message `through`, if R(through) holds every one of them in place."""
    text = row.text_or_none(through + 1)
    if text is None or not _in_place(turns[0], text, turns[0].message == through):
        return None
    held = [turn for turn in turns if turn.message <= through]
    if not all(_in_place(turn, text, turn.message == through) for turn in held):
        return None
    return held


def _in_place(turn: Turn, text: str, is_last: bool) -> bool:
    """Return whether a turn stands in a text as the model would write it."""
    if turn.rewrites_history or turn.asked or not text.startswith(turn.text[: turn.end]):
        return False
    return not turn.appended or is_last or text.startswith(turn.appended, turn.end)
