"""How rows are converted, as asked for; and a conversion under way."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from instruction_modelling.errors import RowRefused, UserError
from instruction_modelling.sources.conversion.drafts import Chat, exchange
from instruction_modelling.sources.conversion.templates import PromptTemplates, plain_prompt


@dataclass(frozen=True)
class ConversionOptions:
    """What is asked of a conversion."""

    seed: int = 42
    """Of everything that is drawn."""
    templates: PromptTemplates | None = None
    """Words around instructions (default: none)."""
    limit: int | None = None
    """Most rows from each file, drawn at random; 0 for all (default: the format's)."""
    best_replies: int | None = None
    """OASST: at most so many replies to a message, those of highest quality (default: all)."""
    max_tokens: int | None = None
    """ShareGPT: longest piece of a conversation, in tokens; 0 for whole conversations (default: the format's,
    or whole ones from files that have `_split_` in their names)."""
    tokenizer: Any = None
    """A transformers tokenizer, to split conversations."""
    released_split: bool = False
    """ShareGPT: lose the last turns of a conversation where the published splitter does."""

    def record(self, tokenizer_name: str | None) -> dict[str, Any]:
        """Return the options as the card beside the output keeps them, by which it is known again."""
        templates = self.templates
        return {
            "seed": self.seed,
            "limit": self.limit,
            "best_replies": self.best_replies,
            "max_tokens": self.max_tokens,
            "released_split": self.released_split,
            "templates": templates and templates.source,
            "templates_sha256": templates and templates.sha256,
            "tokenizer": tokenizer_name,
        }

    def tokenizer_name(self) -> str | None:
        """Return what the tokenizer says it was loaded from."""
        return getattr(self.tokenizer, "name_or_path", None)


@dataclass
class Conversion:
    """One conversion under way, which the parts of a mixture share.

    Raises:
        UserError: conversations are to be split, and there is no tokenizer.
    """

    options: ConversionOptions
    """Without open defaults: no limit and no split where theirs are None or 0."""
    rng: random.Random
    """Every random choice; one number is taken for each row that a template could wrap, also where none does,
    so that the same rows are drawn with and without templates."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was changed in rows that were kept, and how often."""
    seen_ids: set[str] = field(default_factory=set)
    """Ids taken over from the source."""

    def __post_init__(self) -> None:
        if self.options.max_tokens and self.options.tokenizer is None:
            raise UserError(
                f"conversations are split at {self.options.max_tokens} tokens with a tokenizer, and none is "
                "given (--tokenizer_name)"
            )

    def chat(self, instruction: str, context: str, output: str) -> Chat:
        """Return a row from an instruction, its input (may be empty) and the output, white space around each
        taken off.

        Raises:
            RowRefused: neither instruction nor input has a word. An empty output is kept: its end token is
            trained.
        """
        instruction, context, output = instruction.strip(), context.strip(), output.strip()
        if not instruction and not context:
            raise RowRefused("no instruction", "the instruction and the input are empty")
        if self.options.templates is None:
            self.rng.random()
            return exchange(plain_prompt(instruction, context), output)
        template = self.options.templates.draw(self.rng, bool(context))
        return exchange(*template.fill(instruction, context, output))
