"""What is asked of all rows of a file at once, gathered as they are read, so that none is kept for it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instruction_modelling.rows.conversations import Conversation


@dataclass
class Tally:
    """How often something occurs, and the first row where it does."""

    count: int = 0
    first: "Conversation | None" = None

    def add(self, row: "Conversation") -> None:
        """Count one more."""
        self.count += 1
        self.first = self.first or row


@dataclass
class RowFacts:
    """What a file's usable rows have, whatever they say."""

    variables: Counter[str] = field(default_factory=Counter)
    """Of each variable of `chat_template_kwargs`, the rows that give it."""
    plain: Tally = field(default_factory=Tally)
    """Rows that are a prompt and its completion."""
    weighing: Tally = field(default_factory=Tally)
    """Rows that say what one of their messages weighs, or a stretch of it."""
    saying: dict[str, Tally] = field(default_factory=dict)
    """Of each role, its messages that say what they weigh."""

    @classmethod
    def of(cls, rows: Iterable["Conversation"]) -> "RowFacts":
        """Return the facts of these rows."""
        facts = cls()
        for row in rows:
            facts.add(row)
        return facts

    def add(self, row: "Conversation") -> None:
        """Take in one row."""
        self.variables.update(row.template_variables.keys())
        if row.plain:
            self.plain.add(row)
        weighs = False
        for message in row.messages:
            weighs = weighs or message.says_weight or message.weight != 1 or bool(message.loss_spans)
            if message.says_weight:
                self.saying.setdefault(message.role, Tally()).add(row)
        if weighs:
            self.weighing.add(row)
