"""The keys by which other trainers' files say what a message's loss weighs, all read as one weight."""

import math
from collections.abc import Mapping
from typing import Any

from instruction_modelling.rows.json_lines import RowRefused, snippet
from instruction_modelling.rows.values import Fields

_NUMBERS = ("weight", "loss_weight", "loss_scale")
# Whether a true value means that the message is trained.
_FLAGS = {"loss": True, "train": True, "training": True, "trainable": True, "masked": False}
LOSS_KEYS = (*_NUMBERS, *_FLAGS)
ROW_LOSS_KEYS = _NUMBERS


def message_weight(fields: Fields, where: str) -> float:
    """Return the weight of a message: the product of all its loss keys, 1 where it has none.

    `weight`, `loss_weight` and `loss_scale` are numbers; `loss` is a number or true or false; `train`,
    `training`, `trainable` and `masked` are true or false (or 1 or 0).

    Raises:
        RowRefused: a value is none of these, or one key trains the message and another does not.
    """
    given = {key: fields[key] for key in LOSS_KEYS if key in fields}
    return _product(given, where) if given else 1.0


def row_weight(fields: Fields) -> float:
    """Return the number that multiplies the weights of all messages of a row: of `weight`, `loss_weight` and
    `loss_scale`, and of the flags of a message, true or false, or 1 or 0 (but for `loss`: a number in such a
    column is a loss that somebody measured).

    Raises:
        RowRefused: it is not a number, or not finite, or below 0; or one key trains the row and another not.
    """
    names = [name for name in _FLAGS if _is_flag(name, fields.peek(name))]
    return _product({key: fields[key] for key in (*ROW_LOSS_KEYS, *names) if key in fields}, "the row")


def _is_flag(name: str, value: Any) -> bool:
    return isinstance(value, bool) or (name != "loss" and isinstance(value, int | float) and value in (0, 1))


def times(weight: float, factor: float, where: str) -> float:
    """Return the product of two weights.

    Raises:
        RowRefused: it is too large for a number.
    """
    if not math.isfinite(weight * factor):
        raise RowRefused("bad weight", f"{where}: {weight} times {factor} is no finite number")
    return weight * factor


def _product(given: Mapping[str, Any], where: str) -> float:
    weights = {key: _weight(key, value, where) for key, value in given.items()}
    if any(weights.values()) and not all(weights.values()):
        shown = ", ".join(f'"{key}": {snippet(given[key])}' for key in given)
        detail = f"{where} has {shown}: trained by one, not by another; keep one of them"
        raise RowRefused("contradictory loss weights", detail)
    product = 1.0
    for weight in weights.values():
        product = times(product, weight, where)
    return product


def _weight(key: str, value: Any, where: str) -> float:
    if key in _FLAGS and isinstance(value, bool):
        return float(value == _FLAGS[key])
    try:
        # In Python a bool is a number, and a string can be made one; in a file neither is a weight.
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if key in _NUMBERS or key == "loss":
        if math.isfinite(number) and number >= 0:
            return number
        asked = "a finite number >= 0" if key in _NUMBERS else "true, false or a finite number >= 0"
    else:
        if number in (0, 1):
            return float(bool(number) == _FLAGS[key])
        asked = "true or false"
    raise RowRefused("bad weight", f"{where}: {key} is {snippet(value)}; it must be {asked}")
