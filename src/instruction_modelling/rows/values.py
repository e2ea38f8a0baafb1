"""JSON values of a row, read faithfully or refused."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from instruction_modelling.rows.json_lines import RowRefused, decode_json, snippet

_JSON_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


_AS_ROWS = 'pandas writes rows by to_json(FILE, orient="records", lines=True)'


class Fields(Mapping[str, Any]):
    """The keys of a JSON object that are not null; it remembers which of them were read, so that what nobody
    reads can be named."""

    def __init__(self, given: Mapping[str, Any]):
        self._given = {key: value for key, value in given.items() if value is not None}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return self._given[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default; quicker than the inherited way."""
        self._read.add(key)
        return self._given.get(key, default)

    def peek(self, key: str) -> Any:
        """Return the value of a key, None without one; it does not count as read."""
        return self._given.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._given

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def unread(self) -> list[str]:
        """Return the keys whose value nobody asked for."""
        return [key for key in self._given if key not in self._read]


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    return _JSON_KINDS.get(type(value), f"of type {type(value).__name__}")


def text_of(value: Any, where: str, reason: str) -> str:
    """Return the value, which must be a string.

    Raises:
        RowRefused: it is of another type (for `reason`), or half of a surrogate pair is in it.
    """
    if not isinstance(value, str):
        of_pandas = f"; {_AS_ROWS}" if isinstance(value, dict) and "0" in value else ""
        detail = f"{where} is {kind_of(value)}, {snippet(value)}; it must be a string{of_pandas}"
        raise RowRefused(reason, detail)
    check_encodable(value, where, reason)
    return value


def check_encodable(value: Any, where: str, reason: str) -> None:
    """Refuse lone surrogates, which no tokenizer takes, and what JSON does not have: NaN, infinities, bytes.

    Raises:
        RowRefused: one of them is in the value.
    """
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowRefused(
            "lone surrogate",
            f"{where} has half of a surrogate pair (\\u{ord(error.object[error.start]):04x}) after "
            f"{snippet(error.object[max(0, error.start - 20) : error.start])}; write the whole character",
        ) from None
    except ValueError:
        detail = (
            f"{where} is {snippet(value)}, with NaN or an infinity, which JSON does not have; write a number"
        )
        raise RowRefused(reason, detail) from None
    except TypeError as error:
        detail = f"{where} is {snippet(value)}, which JSON cannot hold ({error}); write it as a string"
        raise RowRefused(reason, detail) from None


def parse_json(text: str, where: str, reason: str, remedy: str) -> Any:
    """Return the JSON value that a string is.

    Raises:
        RowRefused: it is not JSON (for `reason`, with the remedy), or reading it would lose data.
    """
    try:
        value = decode_json(text)
    except json.JSONDecodeError as error:
        detail = (
            f"{where} is a string that is not JSON ({error.msg} at its column {error.pos + 1}): "
            f"{snippet(text)}; {remedy}"
        )
        if text.lstrip(" [").startswith("{'"):
            detail += f"; this is how Python prints it, and pandas in CSV: {_AS_ROWS}"
        raise RowRefused(reason, detail) from None
    if isinstance(value, RowRefused):
        raise RowRefused(value.reason, f"{where}: {value.detail}")
    return value


def same_json(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same; the order of an object's keys says nothing, and true is
    not 1."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def without_null_keys(value: Any) -> Any:
    """Return a JSON value without the keys whose value is null, at any depth.

    A table with one schema for all rows (Arrow) gives every object the keys of all the others, as null;
    trained or shown to the model, they would be arguments that nobody wrote. Nulls in lists stay."""
    if isinstance(value, dict):
        return {key: without_null_keys(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [without_null_keys(inner) for inner in value]
    return value
