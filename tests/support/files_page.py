"""The tables of docs/files.md beside what is written: every field is on the page, and no other."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "files.md"
# A placeholder in a documented field stands for one name that the data, not the code, decides.
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")


def documented(heading: str) -> dict[str, bool]:
    """Return each field of the tables under a heading, and whether it is only there `if` something holds.

    `.name` in a list of fields stands in the place of the last part of the field before it.
    """
    section = PAGE.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n#{2,3} ", section)[0]
    fields: dict[str, bool] = {}
    for cells in re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE):
        before = ""
        for name in re.findall(r"`([^`]+)`", cells[0]):
            full = before.rpartition(".")[0] + name if name.startswith(".") else name
            fields[full], before = "*if*" in cells[1], full
    return fields


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every field of a JSON value that holds no further fields; a list of objects is
    `name[]`."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def pattern(field: str) -> re.Pattern[str]:
    """Return what matches a documented field; a placeholder matches a name that may hold dots and spaces."""
    return re.compile(PLACEHOLDER.sub("NAME", re.escape(field)).replace("NAME", ".+"))


def headings() -> list[str]:
    """Return the headings of the page that have a table of fields."""
    found = re.findall(r"^#{2,3} .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [heading for heading in found if documented(heading)]


def check_page(heading: str, records: Iterable[Any]) -> None:
    """Fail where the records have a field that the page does not name under a heading, or lack one that it
    names."""
    fields = documented(heading)
    found = {path: value for record in records for path, value in leaves(record)}
    # Nothing within: what stands for a group of fields where it was not measured, or has no members.
    empty = {path for path, value in found.items() if value in (None, {}, [])}

    def stands_for(field: str, path: str) -> bool:
        parents = ["".join(field[: dot.start()]) for dot in re.finditer(r"\.", field)]
        within = pattern(field).fullmatch(path) or pattern(f"{field}.").match(path)
        return bool(within) or (path in empty and any(pattern(parent).fullmatch(path) for parent in parents))

    undocumented = sorted(path for path in found if not any(stands_for(field, path) for field in fields))
    assert not undocumented, f"written and not on the page: {undocumented}"
    required = [field for field, conditional in fields.items() if not conditional]
    absent = [field for field in required if not any(stands_for(field, path) for path in found)]
    assert not absent, f"on the page and not written: {absent}"
