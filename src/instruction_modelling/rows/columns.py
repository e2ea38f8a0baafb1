"""Columns by other names: `--columns question=user,answer=assistant`."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.rows.json_lines import RowRefused
from instruction_modelling.rows.messages import CALL_ROLES, ROLE_NAMES, ROLES

KNOWN_COLUMNS = (
    *("messages", "conversations", "conversation", "prompt", "completion", "response", "question"),
    *(
        "instruction",
        "input",
        "context",
        "output",
        "history",
        "system",
        "system_prompt",
        "tools",
        "functions",
    ),
    *("chat_template_kwargs", "weight", "loss_weight", "id", "dataset"),
)
# What people call the columns of a prompt and of its answer, beside the names of roles.
_ASKED = ("question", "prompt", "instruction", "query", "input", "request", "problem", "q")
_ANSWERED = (
    *("answer", "response", "output", "completion", "reply", "solution", "target", "a"),
    # Of a preference set, the answer that is liked.
    *("chosen", "preferred", "accepted"),
)


@dataclass(frozen=True)
class ColumnNames:
    """What the columns of a file are; nothing where they have their own names."""

    text: str = ""
    """As it was given."""
    by_role: tuple[tuple[str, str], ...] = ()
    """(column, role) for each column that is a message, a system prompt first, else in the order given."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Column to the known column it stands for."""

    def apply(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its columns under the names that are known.

        Raises:
            RowRefused: the row has a column of that name already.
        """
        if not self.renamed:
            return row
        # A column may stand for one whose own name stands for another: two that are exchanged.
        kept = {name: value for name, value in row.items() if name not in self.renamed}
        for column, known in self.renamed.items():
            if row.get(column) is None:
                continue
            if kept.get(known) is not None:
                detail = f'the row has "{known}" too, which --columns reads from "{column}"; keep one of them'
                raise RowRefused("ambiguous columns", detail)
            kept[known] = row[column]
        return kept

    def check(self, seen: Collection[str], path: object) -> None:
        """Refuse a column that no row has.

        Raises:
            UserError: there is one; the message names the nearest that there is.
        """
        for column in [*(column for column, _ in self.by_role), *self.renamed]:
            if column not in seen:
                raise UserError(
                    f"{path}: --columns: no row has a column {column!r}{_nearest(column, sorted(seen))}"
                )


def parse_columns(text: str | None) -> ColumnNames:
    """Return what `COLUMN=ROLE` and `COLUMN=KNOWN_COLUMN`, with commas between them, say.

    Raises:
        UserError: a part is not of this form, a role or known column does not exist, or one is named twice.
    """
    if not text:
        return ColumnNames()
    by_role: list[tuple[str, str]] = []
    renamed: dict[str, str] = {}
    for part in text.split(","):
        column, equals, target = (piece.strip() for piece in part.rpartition("="))
        if not (equals and column and target):
            raise UserError(
                f"--columns {text}: {part!r} is not of the form COLUMN=ROLE or COLUMN=KNOWN_COLUMN"
            )
        role = ROLE_NAMES.get(target.lower())
        if role and target.lower() not in CALL_ROLES:
            by_role.append((column, role))
        elif target in KNOWN_COLUMNS and target not in renamed.values():
            renamed[column] = target
        elif target in KNOWN_COLUMNS:
            raise UserError(f"--columns {text}: two columns for {target!r}")
        else:
            known = list(dict.fromkeys([*ROLES, *KNOWN_COLUMNS]))
            raise UserError(
                f"--columns {text}: {target!r} is no role and no known column{_nearest(target, known)}"
            )
    columns = [column for column, _ in by_role] + list(renamed)
    if text.count(",") + 1 > len(set(columns)):
        raise UserError(f"--columns {text}: a column is named twice")
    return ColumnNames(text, tuple(sorted(by_role, key=lambda pair: pair[1] != "system")), renamed)


def meant_columns(names: Collection[str]) -> str | None:
    """Return what to give --columns for a row whose columns have other names or other case; None where these
    say nothing."""
    plain = {name.lower(): name for name in names if takes_name(name)}
    if len({name.lower() for name in names}) < len(names):
        return None
    known = {plain[name]: name for name in KNOWN_COLUMNS if name in plain}
    has_list = not {"messages", "conversations", "conversation"}.isdisjoint(plain)
    has_input = "instruction" in plain and not {"input", "context"}.isdisjoint(plain)
    if has_list or (has_input and not {"output", "response"}.isdisjoint(plain)):
        said = {name: to for name, to in known.items() if name != to}
    else:
        said = {}
        for role, of_role in (("system", ("system_prompt",)), ("user", _ASKED), ("assistant", _ANSWERED)):
            words = [*of_role, *(word for word, its_role in ROLE_NAMES.items() if its_role == role)]
            found = next((plain[word] for word in words if word in plain and word not in CALL_ROLES), None)
            if found is None and role != "system":
                return None
            said |= {found: role} if found else {}
    return ",".join(f"{name}={to}" for name, to in said.items()) or None


def takes_name(name: str) -> bool:
    """Return whether --columns can name a column, for it parts its pairs at commas and takes no space around
    a name for a part of it."""
    return "," not in name and name == name.strip()


def column_problems(text: str | None) -> list[str]:
    """Return what is wrong with the option --columns, in words."""
    try:
        parse_columns(text)
    except UserError as error:
        return [str(error)]
    return []


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known[:30])}"
