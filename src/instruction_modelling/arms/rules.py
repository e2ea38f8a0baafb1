"""What an arm may have beside flags: which rows it trains on, what is done to them, and where it stops.

[my-arm]
flags = []
select = { ratio_at_least = 1.0, rows = 64 }
data_transform = "unrelated-text-beside"
stop_at = { quantity = "kl", of = "IM", every = 5 }
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from instruction_modelling.errors import UserError

Transform = Literal[
    "permuted-instruction-beside",
    "other-instructions-beside",
    "unrelated-text-beside",
    "unrelated-text-alone",
]
Quantity = Literal["kl", "loss"]
TRANSFORMS: tuple[str, ...] = get_args(Transform)
# The one that needs rows which are neither trained nor tested on.
OF_ROWS_KEPT_OUT = "other-instructions-beside"


@dataclass(frozen=True)
class Selection:
    """Which training rows an arm has: those within bounds of the length ratio (instruction / output words of
    a row, as src/select_data.py counts them), of these those nearest to a ratio or the first ones."""

    ratio: float | None = None
    """Of the rows within the bounds, the `rows` nearest to it, as src/select_data.py chooses them."""
    ratio_at_least: float | None = None
    ratio_below: float | None = None
    rows: int | None = None
    """How many; without a `ratio` the first ones in the file."""

    def problem(self) -> str | None:
        """Return what is wrong with it, in words; None where nothing is."""
        if self == Selection():
            return "give one of ratio, ratio_at_least, ratio_below and rows"
        if self.ratio is not None and self.rows is None:
            return "ratio: say with rows how many of the nearest ones to take"
        low, high = self.ratio_at_least, self.ratio_below
        if low is not None and high is not None and low >= high:
            return f"ratio_at_least {low:g} is not below ratio_below {high:g}, so no row is selected"
        return None


@dataclass(frozen=True)
class StopAt:
    """An arm is trained for as many steps as it takes to be as far as another one at its end."""

    quantity: Quantity
    """kl: KL(tuned || untuned), the mean over validation rows of that of their response tokens; loss: the
    mean response loss of the training rows."""
    of: str
    """The arm that is measured first."""
    every: int | None = None
    """Steps between measurements of the trial run (default: a twentieth of the run)."""

    def problem(self) -> str | None:
        """Return what is wrong with it, in words; None where nothing is."""
        return None


@dataclass(frozen=True)
class ArmRules:
    """What an arm has beside flags."""

    select: Selection | None = None
    data_transform: Transform | None = None
    stop_at: StopAt | None = None

    @property
    def change_rows(self) -> bool:
        """Return whether the arm trains on rows of its own."""
        return self.select is not None or self.data_transform is not None

    def as_dict(self) -> dict[str, Any]:
        """Return what is set, as an arm's file has it."""
        return {
            key: {name: one for name, one in value.items() if one is not None}
            if isinstance(value, dict)
            else value
            for key, value in asdict(self).items()
            if value is not None
        }


RULES = ("select", "data_transform", "stop_at")


def read_rules(entry: Mapping[str, Any]) -> ArmRules:
    """Return the rules among the keys of an arm's table.

    Raises:
        UserError: a key or a value is not one that it may have.
    """
    transform = entry.get("data_transform")
    if transform is not None and (not isinstance(transform, str) or transform not in TRANSFORMS):
        raise UserError(f"data_transform {transform!r}: {unknown(str(transform), TRANSFORMS)}")
    select = _table(Selection, "select", entry.get("select"), _SELECT)
    return ArmRules(select, transform, _table(StopAt, "stop_at", entry.get("stop_at"), _STOP_AT))  # type: ignore[arg-type]


def unknown(name: str, known: Iterable[str]) -> str:
    """Return, in words, what a name is not one of, and which it may stand for."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"not one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_Values = Mapping[str, tuple[Callable[[Any], bool], str]]
_NUMBER: tuple[Callable[[Any], bool], str] = (_is_number, "a number above 0")
_COUNT: tuple[Callable[[Any], bool], str] = (_is_count, "a whole number above 0")
_SELECT: _Values = {"ratio": _NUMBER, "ratio_at_least": _NUMBER, "ratio_below": _NUMBER, "rows": _COUNT}
_STOP_AT: _Values = {
    "quantity": (lambda value: value in get_args(Quantity), "kl or loss"),
    "of": (_is_name, "the name of an arm"),
    "every": _COUNT,
}


def _table(made: type[Any], key: str, given: Any, values: _Values) -> Any:
    """Return a rule of these values; None where it is not given."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise UserError(f"{key} is a table, such as {key} = {_EXAMPLES[key]}")
    for name, value in given.items():
        if name not in values:
            raise UserError(f"{key}: {name}: {unknown(name, values)}")
        holds, words = values[name]
        if not holds(value):
            raise UserError(f"{key}: {name} = {value!r}: it is {words}")
    if missing := [name for name in ("quantity", "of") if name in values and name not in given]:
        raise UserError(f"{key} lacks {' and '.join(missing)}: write {key} = {_EXAMPLES[key]}")
    rule = made(**given)
    if problem := rule.problem():
        raise UserError(f"{key}: {problem}")
    return rule


_EXAMPLES = {"select": "{ ratio_at_least = 1.0, rows = 64 }", "stop_at": '{ quantity = "kl", of = "IM" }'}
