"""Fields of a source's row, of the type that a converter needs or refused."""

from typing import Any

from instruction_modelling.errors import RowRefused
from instruction_modelling.rows.json_lines import snippet


def as_object(row: Any) -> dict[str, Any]:
    """Return the row itself, if it is an object.

    Raises:
        RowRefused: it is not.
    """
    if not isinstance(row, dict):
        raise RowRefused(
            "not an object", f"the row is {snippet(row)}; it must be an object with named fields"
        )
    return row


def text_field(row: dict[str, Any], name: str) -> str:
    """Return the string in a field, which may be empty.

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
    """Return the string in a field; "" where the field is missing or null.

    Raises:
        RowRefused: the field is something else.
    """
    return "" if row.get(name) is None else text_field(row, name)


def list_field(row: dict[str, Any], name: str) -> list[Any]:
    """Return the list in a field.

    Raises:
        RowRefused: the field is missing, or not a list, or empty.
    """
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise RowRefused(f"no {name}", f"{name} is {snippet(value)}; it must be a list that is not empty")
    return value
