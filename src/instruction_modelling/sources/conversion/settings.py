"""What a format's converter is given beside the row, and what it gives back."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.rows.json_lines import snippet
from instruction_modelling.sources.conversion.split import token_counter
from instruction_modelling.sources.conversion.templates import PromptTemplates, plain

Messages = list[dict[str, str]]


class Chat(NamedTuple):
    """One row to write; `dataset` and `id` where the source says them itself."""

    messages: Messages
    dataset: str | None = None
    id: str | None = None


class LeftOut(NamedTuple):
    """Rows that a setting (a limit, the best replies only) leaves out on purpose."""

    reason: str
    rows: int


Draft = Chat | LeftOut | RowRefused


@dataclass
class Settings:
    """How rows are converted, the random numbers that takes, and what was noticed on the way."""

    rng: random.Random
    """Every random choice; one number is taken for each row that a template could wrap, also where none does,
    so that the same rows are drawn with and without templates."""
    templates: PromptTemplates | None = None
    """Words around instructions (default: none)."""
    best_replies: int | None = None
    """OASST: at most so many replies to a message, those of highest quality (default: all)."""
    zero_shot: int = 60
    """Super-NaturalInstructions: instances of a task that stand alone."""
    few_shot: int = 20
    """Super-NaturalInstructions: instances of a task that follow solved examples."""
    examples: int = 2
    """Super-NaturalInstructions: solved examples before a few-shot instance."""
    max_tokens: int | None = None
    """ShareGPT: longest piece of a conversation, in tokens (default: conversations are not split)."""
    token_counts: Callable[[list[str]], list[int]] | None = None
    """ShareGPT: the number of tokens of each text, with the tokens that a tokenizer puts around it."""
    released_split: bool = False
    """ShareGPT: lose the last turns of a conversation where the published splitter does."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was changed in rows that were kept, and how often."""
    seen_ids: set[str] = field(default_factory=set)
    """Ids taken over from the source."""

    def split_at(self, max_tokens: int, tokenizer: Any) -> None:
        """Has conversations split, with the token counts of a transformers tokenizer.

        Raises:
            UserError: there is no tokenizer.
        """
        if tokenizer is None:
            raise UserError(
                f"conversations are split at {max_tokens} tokens with a tokenizer, and none is given "
                "(--tokenizer_name)"
            )
        self.max_tokens, self.token_counts = max_tokens, token_counter(tokenizer)

    def chat(self, instruction: str, context: str, output: str) -> Chat:
        """A row from an instruction, its input (may be empty) and the output, white space around each taken
        off.

        Raises:
            RowRefused: neither instruction nor input has a word. An empty output is kept: its end token is
            trained.
        """
        instruction, context, output = instruction.strip(), context.strip(), output.strip()
        if not instruction and not context:
            raise RowRefused("no instruction", "the instruction and the input are empty")
        if self.templates is None:
            self.rng.random()
            return exchange(plain(instruction, context), output)
        return exchange(*self.templates.draw(self.rng, bool(context)).fill(instruction, context, output))


def exchange(user: str, assistant: str) -> Chat:
    """A row of one question and one answer."""
    return Chat([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}])


def fields(row: Any) -> dict[str, Any]:
    """The row itself, if it is an object."""
    if not isinstance(row, dict):
        raise RowRefused(
            "not an object", f"the row is {snippet(row)}; it must be an object with named fields"
        )
    return row


def text(row: dict[str, Any], name: str) -> str:
    """The string in a field, which may be empty.

    Raises:
        RowRefused: the field is missing, null or not a string.
    """
    value = row.get(name)
    if type(value) is not str:
        if value is None:
            raise RowRefused(
                f"no {name}", f"the row's fields are {snippet(sorted(row))}; {name} is missing or null"
            )
        raise RowRefused(f"{name} is not a string", f"{name} is {snippet(value)}")
    return value


def optional_text(row: dict[str, Any], name: str) -> str:
    """The string in a field; "" where the field is missing or null."""
    return "" if row.get(name) is None else text(row, name)


def items(row: dict[str, Any], name: str) -> list[Any]:
    """The list in a field.

    Raises:
        RowRefused: the field is missing, or not a list, or empty.
    """
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise RowRefused(f"no {name}", f"{name} is {snippet(value)}; it must be a list that is not empty")
    return value
