"""Options in a file, for `--config FILE`: YAML whose keys are names of options, or the run.json of a former
run.

A number, true and null are what YAML 1.2 takes for them: `2e-5` is a number, and `no` is a word.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from instruction_modelling.errors import UserError
from instruction_modelling.nearest import did_you_mean, nearest_path

# What a record of a run is told by: the options stand under this key.
RECORD_KEY = "options"
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class OptionKind:
    """What one option takes."""

    kind: type
    """str, int, float or bool; of each member, if it is a list."""
    choices: tuple[str, ...] = ()
    is_list: bool = False
    may_be_none: bool = False
    mapping: str | None = None
    """How a mapping is written as the text that the option takes: `json` or `pairs` (a=1,b=2)."""
    without_value: Any = None
    """What `true` stands for, where the flag may be given without a value."""

    def expected(self) -> str:
        """Return what it takes, in words."""
        one = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.kind]
        one = f"one of {', '.join(self.choices)}" if self.choices else one
        if self.mapping:
            one += " or a mapping"
        return f"a list, each {one}" if self.is_list else one


@dataclass(frozen=True)
class ConfigFile:
    """The options that a file gives."""

    values: dict[str, Any]
    """By name; None where the file says null."""
    given: frozenset[str] | None
    """Those that someone chose; None where a record does not say."""
    summary: str
    """A line of what was taken and what was not."""


@dataclass
class _Entry:
    """A value of a file, the letters it was written with, and its line."""

    value: Any
    text: str
    line: int | None = None


class _Loader(yaml.SafeLoader):
    """YAML's plain values alone, as YAML 1.2 reads them."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", "[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
# YAML 1.1's own reading of these takes 010 for 8, and 1:30 for 90.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
_Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(re.sub(r"\.(?=[inIN])", "", node.value))
)


def read_config(
    path: str,
    settings: Mapping[str, OptionKind],
    as_asked: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> ConfigFile:
    """Return the options that a file gives, each checked by its setting.

    Args:
        settings: every option by name.
        as_asked: what of a record's `options` was asked for; the rest was decided by these.

    Raises:
        UserError: the file cannot be read or is no mapping; and, all in one, keys that are no options or
            stand twice, and values of the wrong type, each with its line.
    """
    text = _text(path)
    entries = _record(text)
    if entries is not None:
        return _of_record(path, entries, settings, as_asked)
    found, problems = _entries(path, text)
    values: dict[str, Any] = {}
    for name, entry in found.items():
        where = f"{path}, line {entry.line}: {name}"
        if name not in settings:
            problems.append(f"{where}: no such option{did_you_mean(name, settings)}")
            continue
        try:
            values[name] = _taken(settings[name], entry)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    _refuse(sorted(problems, key=lambda problem: int(problem.removeprefix(f"{path}, line ").split(":")[0])))
    return ConfigFile(values, frozenset(values), f"{path}: {_counted(len(values))}")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        meant = nearest_path(path)
        if meant is not None and meant.is_dir():
            # A run's folder stands for what the run was told.
            meant = meant / "run.json" if (meant / "run.json").is_file() else None
        words = f"; did you mean {meant}?" if meant else ""
        raise UserError(f"--config {path}: {error.strerror}{words}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path}: no text in UTF-8 ({error})") from None


def _counted(number: int) -> str:
    return f"{number} option{'' if number == 1 else 's'}"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError(
            "--config: nothing was started\n" + "\n".join(f"  - {problem}" for problem in problems)
        )


# -- records ----------------------------------------------------------------------------------------------


def _record(text: str) -> dict[str, Any] | None:
    """Return the record of a run that a file holds; None where it holds something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get(RECORD_KEY), dict) else None


def _of_record(
    path: str,
    record: Mapping[str, Any],
    settings: Mapping[str, OptionKind],
    as_asked: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> ConfigFile:
    recorded = record[RECORD_KEY]
    asked = as_asked(record) if as_asked else recorded
    values, problems, given = {}, [], record.get("options_given")
    for name in (name for name in asked if name in settings):
        try:
            values[name] = _taken(settings[name], _entry_of(asked[name]))
        except ValueError as error:
            problems.append(f"{path}: {RECORD_KEY}.{name}: {error}")
    _refuse(problems)
    chosen = frozenset(values) & set(map(str, given)) if isinstance(given, list) else None
    strange = [name for name in asked if name not in settings]
    summary = f"{path}: {_counted(len(values))} of a former run"
    if strange:
        summary += f"; left out, for there are none of these names here: {', '.join(strange)}"
    return ConfigFile(values, chosen, summary)


def _entry_of(value: Any) -> _Entry:
    inner = [_entry_of(member) for member in value] if isinstance(value, list) else value
    return _Entry(inner, str(value))


# -- YAML -------------------------------------------------------------------------------------------------


def _entries(path: str, text: str) -> tuple[dict[str, _Entry], list[str]]:
    """Return the top-level entries of a YAML text, and what is wrong with its keys."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems = [f"{path}, line {line}: {key}: stands twice" for key, line in _repeated(node, [])]
        if node is None:
            return {}, []
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"--config {path}: its lines are NAME: VALUE, NAME being an option's")
        entries: dict[str, _Entry] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "(a list or a mapping)"
            entries.setdefault(name, _entry(loader, value, key.start_mark.line + 1))
        return entries, problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"--config {path}{where}: no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {path}: no YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"--config {path}: lists within lists, or a list within itself, too deep") from None


def _entry(loader: _Loader, node: yaml.Node, line: int) -> _Entry:
    if isinstance(node, yaml.SequenceNode):
        return _Entry([_entry(loader, member, line) for member in node.value], "", line)
    value = loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
    return _Entry(value, node.value if isinstance(node, yaml.ScalarNode) else str(value), line)


def _repeated(node: yaml.Node | None, above: list[yaml.Node]) -> Iterator[tuple[str, int]]:
    """Yield the keys that stand twice in one mapping, at any depth, with their lines from 1."""
    if node is None or any(node is outer for outer in above):
        return
    inner = [*above, node]
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield name, key.start_mark.line + 1
            seen.add(name)
            yield from _repeated(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for member in node.value:
            yield from _repeated(member, inner)


# -- values -----------------------------------------------------------------------------------------------


def _taken(setting: OptionKind, entry: _Entry) -> Any:
    """Return the value that an option takes from an entry.

    Raises:
        ValueError: it does not take it; the message says what it takes.
    """
    value = entry.value
    if value is None and setting.may_be_none:
        return None
    if setting.is_list:
        members = value if isinstance(value, list) else [entry]
        return [_one(setting, member) for member in members]
    return _one(setting, entry)


def _one(setting: OptionKind, entry: _Entry) -> Any:
    value, text = entry.value, entry.text
    if value is True and setting.without_value is not None:
        return setting.without_value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, dict) and setting.mapping == "json":
        return json.dumps(value)
    if isinstance(value, dict) and setting.mapping == "pairs":
        return ",".join(f"{key}={number}" for key, number in value.items())
    fits = {
        bool: isinstance(value, bool) or (isinstance(value, str) and value.lower() in _WORDS),
        int: isinstance(value, int) and is_number,
        float: is_number,
        str: isinstance(value, str) or is_number,
    }[setting.kind]
    if not fits or (setting.choices and text not in setting.choices):
        shown = "nothing" if value is None else "a list" if isinstance(value, list) else text
        meant = did_you_mean(text, setting.choices) if setting.choices else ""
        raise ValueError(f"{setting.expected()} is expected, not {shown}{meant}")
    if setting.kind is bool:
        return value if isinstance(value, bool) else _WORDS[value.lower()]
    return text if setting.kind is str else setting.kind(value)
