"""Options are dataclasses: a field is a flag, and the docstring line under it says what the flag given does.

A bool field is False by default and its flag makes it True; one that is True by default gets the flag
--no_NAME, and the line under it says what that one does.

A list field with the metadata `positional` (what a value is called) is given without a flag, before the
others; it may be left out where it has a default. A field with the metadata `without_value` has that value
where its flag is given alone. The metadata `also` names further flags of the field, such as another
program's. A text option takes no empty text, unless its default is one or its metadata has `may_be_empty`.

`--config FILE` gives options too (`config_files`): a flag wins over the file, whose keys are the names of the
fields. There, a text option with the metadata `mapping` may be a mapping, written as `json` or `pairs`.

`--help`, the table in the docs and the options saved with a run are all made from the dataclass, so they
cannot drift apart. A script may stand on several dataclasses; each base is a titled group in `--help`.
"""

import argparse
import ast
import dataclasses
import functools
import inspect
import math
import os
import re
import shlex
import sys
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from instruction_modelling.called import this_program
from instruction_modelling.errors import UserError
from instruction_modelling.nearest import did_you_mean, nearest

if TYPE_CHECKING:
    # YAML is read where a file is given, and is not in the sandbox.
    from instruction_modelling.config_files import ConfigFile, OptionKind

T = TypeVar("T")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring line under each field of a dataclass, its bases' included: field name to text."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                docs[field.target.id] = " ".join(str(doc.value.value).split())
    return docs


def option_groups(cls: type) -> list[tuple[str, list[dataclasses.Field]]]:
    """Return the fields of an options class by the base that declares them, in `--help` order: (title,
    fields)."""
    groups = []
    for base in [b for b in reversed(cls.__mro__[:-1]) if dataclasses.is_dataclass(b)]:
        # A field that a later base declares again belongs to that one.
        declared = [
            field
            for field in dataclasses.fields(cls)
            if field.name in inspect.get_annotations(base) and _declaring(cls, field.name) is base
        ]
        if declared:
            groups.append(((base.__doc__ or base.__name__).strip().splitlines()[0].rstrip("."), declared))
    return groups


def _declaring(cls: type, name: str) -> type:
    """Return the class whose declaration of a field counts: the first in the method resolution order."""
    return next(base for base in cls.__mro__ if name in inspect.get_annotations(base))


def _without_none(hint: Any) -> Any:
    """Return `X` for `X | None`, else the hint as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else str
    return hint


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a whole number is expected") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a number is expected") from None


# What argparse says of a value behind a flag that has none, and what is said in its place.
_OF_A_FLAG = re.compile("(.*): ignored explicit argument (.*)")
_YES_OR_NO = ("true", "false", "yes", "no", "on", "off", "1", "0")
_ALONE = r"\1: takes no value, so leave out \2; the flag alone says yes, and without it the answer is no"
# What reads a value, by the kind of option.
_READERS: dict[Any, Callable[[str], Any]] = {int: _whole, float: _number}


class _MorePairs(argparse.Action):
    """`NAME=VALUE` pairs with commas between them: a flag that is given again adds to them, for the first
    ones would be lost without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: Any = None
    ) -> None:
        """Set the pairs, behind those of the same flag before."""
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def _add_flag(group: Any, field: dataclasses.Field, hint: Any, doc: str) -> None:
    hint = _without_none(hint)
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default = None if required else field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    shown = "" if default is None or isinstance(default, bool) or default == [] else f" (default: {default})"
    keywords: dict[str, Any] = {
        "dest": field.name,
        "default": default,
        "help": (doc + shown).replace("%", "%%"),
    }
    if hint is bool:
        name = f"--no_{field.name}" if default else f"--{field.name}"
        group.add_argument(name, action="store_false" if default else "store_true", **keywords)
        return
    kind = get_args(hint)[0] if get_origin(hint) is list else hint
    if get_origin(hint) is Literal:
        keywords["choices"] = get_args(hint)
    else:
        keywords.update(type=_READERS.get(kind, kind), metavar=kind.__name__.upper())
    if get_origin(hint) is list:
        keywords.update(nargs="+")
    if field.metadata.get("mapping") == "pairs":
        keywords.update(action=_MorePairs)
    if "without_value" in field.metadata:
        keywords.update(nargs="?", const=field.metadata["without_value"])
    if field.metadata.get("positional"):
        del keywords["dest"]
        if required:
            del keywords["default"]
        else:
            keywords["nargs"] = "*"
        group.add_argument(field.name, **{**keywords, "metavar": field.metadata["positional"]})
        return
    names = [f"--{name}" for name in (field.name, *field.metadata.get("also", ()))]
    group.add_argument(*names, required=required, **keywords)


class _Parser(argparse.ArgumentParser):
    """argparse's parser, with two lines about itself where a command is wrong, not thirty."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.needed: set[str] = set()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            words = f"{value}: one of {', '.join(choices)} is expected{did_you_mean(str(value), choices)}"
            raise argparse.ArgumentError(action, words)

    def error(self, message: str) -> NoReturn:
        """Print how the program is called and what is wrong, and exit with 2."""
        words = _OF_A_FLAG.sub(_ALONE, message.removeprefix("argument "))
        text = f"{self.format_usage()}every option: {self.prog} --help\nerror: {words}\n"
        self.exit(2, text)


def make_parser(cls: type, description: str | None = None) -> _Parser:
    """Return an argparse parser with one flag per field of the dataclass `cls`, and --config."""
    text = description or sys.modules["__main__"].__doc__ or ""
    parser = _Parser(
        prog=shlex.join(this_program()).replace("%", "%%"),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="Options from a YAML file of NAME: VALUE, or from a run's run.json."
    )
    docs, hints = field_docs(cls), get_type_hints(cls)
    usage = []
    for title, fields in option_groups(cls):
        group = parser.add_argument_group(title)
        for field in fields:
            _add_flag(group, field, hints[field.name], docs.get(field.name, ""))
            action = parser._actions[-1]
            if action.required:
                parser.needed.add(action.dest)
                usage.append(" ".join([*action.option_strings[:1], str(action.metavar)]))
    parser.usage = " ".join(["%(prog)s", *usage, "[options]"])
    return parser


def parse_options(
    cls: type[T],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    also_check: Callable[[T], list[str]] | None = None,
) -> T:
    """Return the dataclass `cls` filled from the command line and the file of `--config`; its `check()`, if
    it has one, runs last. Its attribute `given`, where the class has one, names the options that stand in
    either.

    Args:
        also_check: returns more problems of the options, in words, such as files that are not there.

    Raises:
        UserError: every problem that `check()` and `also_check` found, in one message; or, in another, those
            of the file.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser, file = make_parser(cls, description), None
    values, unknown = _read(parser, words)
    if path := values.pop("config", None):
        from instruction_modelling.config_files import read_config

        file = read_config(path, settings_of(cls), getattr(cls, "as_asked", None))
        # Only where a file may have set an option is there something for a flag to take back.
        _add_opposites(parser, cls)
        values, unknown = _read(parser, words)
        del values["config"]
    options_in_all = {**(file.values if file else {}), **values}
    if problem := _wrong_words(parser, words, unknown, options_in_all):
        parser.error(problem)
    if file and os.environ.get("RANK", "0") == "0":
        print(f"options of {file.summary}", file=sys.stderr)
    options = cls(**options_in_all)
    if hasattr(cls, "given"):
        vars(options)["given"] = frozenset(values) | _given(cls, file)
    problems = _empty_texts(cls, options_in_all) + (options.check() if hasattr(options, "check") else [])
    problems += _beyond_numbers(options_in_all, problems)
    others = also_check(options) if also_check else []
    if len(others) == 1 and not problems:
        raise UserError(others[0])
    if problems or others:
        title = "the options do not fit together:" if problems else "the options name what cannot be used:"
        raise UserError("\n  - ".join([title, *problems, *others]))
    return options


def _empty_texts(cls: type, values: Mapping[str, Any]) -> list[str]:
    """Return, in words, which options have an empty text as their value: the path of the folder at hand, or
    what a variable of a shell held that nobody set.

    Raises:
        UserError: a text has a NUL character, with which looking for a file fails.
    """
    problems = []
    for field in dataclasses.fields(cls):
        value = values.get(field.name)
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        name = field.metadata.get("positional") or f"--{field.name}"
        if any("\0" in text for text in texts):
            raise UserError(f"{name}: a NUL character stands in the text behind it, which no file's name has")
        may_be_empty = field.default == "" or field.metadata.get("may_be_empty")
        if not may_be_empty and not all(text.strip() for text in texts):
            problems.append(f"{name}: an empty text stands behind it; give a value, or leave it out")
    return problems


def _beyond_numbers(values: Mapping[str, Any], problems: Sequence[str]) -> list[str]:
    """Return, in words, which options have a number that nothing counts or computes with: no finite one, or a
    whole one of more than 63 bits; those that a problem names already are left out."""
    found = []
    for name, value in values.items():
        for number in value if isinstance(value, list) else [value]:
            is_beyond = isinstance(number, float) and not math.isfinite(number)
            is_beyond |= isinstance(number, int) and abs(number) >= 2**63
            if is_beyond and not any(problem.startswith(f"--{name} ") for problem in problems):
                found.append(f"--{name} {number}: a number between -2^63 and 2^63 is expected")
    return found


def _given(cls: type, file: "ConfigFile | None") -> frozenset[str]:
    """Return the options that someone chose in a file; all but the defaults where it does not say."""
    if file is None:
        return frozenset()
    if file.given is not None:
        return file.given
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return frozenset(name for name, value in file.values.items() if value != defaults[name])


def settings_of(cls: type) -> dict[str, "OptionKind"]:
    """Return what each option of a dataclass takes in a file, by its name."""
    from instruction_modelling.config_files import OptionKind

    settings, hints = {}, get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = _without_none(hints[field.name])
        is_list = get_origin(hint) is list
        kind = get_args(hint)[0] if is_list else hint
        choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
        settings[field.name] = OptionKind(
            str if choices else kind,
            choices,
            is_list,
            hint is not hints[field.name],
            field.metadata.get("mapping"),
            field.metadata.get("without_value"),
        )
    return settings


def _read(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what stands on a command line, and the words that no option takes."""
    for action in parser._actions:
        # What is missing may stand in a file.
        action.default, action.required = argparse.SUPPRESS, False
    found, unknown = parser.parse_known_args(words)
    values = vars(found)
    rest = next((action.dest for action in parser._actions if action.nargs == "*"), None)
    if rest and rest not in values and unknown and not any(word.startswith("-") for word in unknown):
        # argparse ends a list that may be empty at the first flag.
        values[rest], unknown = unknown, []
    return values, unknown


def _add_opposites(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add to each flag without a value the one that takes it back."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if _without_none(hints[field.name]) is bool:
            name = f"--{field.name}" if field.default else f"--no_{field.name}"
            kind = "store_true" if field.default else "store_false"
            parser.add_argument(name, action=kind, dest=field.name, help=argparse.SUPPRESS)


def _wrong_words(
    parser: "_Parser", words: Sequence[str], unknown: Sequence[str], values: Mapping[str, Any]
) -> str:
    """Return what is wrong with the words of a command line: those that no option takes (`unknown`), and what
    is not given at all."""
    alone = {flag for action in parser._actions if action.nargs == 0 for flag in action.option_strings}
    behind = {word: flag for flag, word in pairwise(words) if flag in alone and word.lower() in _YES_OR_NO}
    flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
    problems, meant = [], set()
    for before, word in zip(["", *unknown], unknown, strict=False):
        name = word.split("=", 1)[0]
        if word.startswith("-"):
            meant.add(nearest(name, flags))
            problems.append(f"{name}: no such option{did_you_mean(name, flags)}")
        elif word in behind:
            problems.append(_OF_A_FLAG.sub(_ALONE, f"{behind[word]}: ignored explicit argument {word!r}"))
        elif not before.startswith("-"):
            problems.append(f"{word}: belongs to no option{_file_of(word, flags, values)}")
    needed = [
        str(next(iter(action.option_strings), action.metavar))
        for action in parser._actions
        if action.dest in parser.needed and action.dest not in values
    ]
    if needed := [name for name in needed if name not in meant]:
        problems.append(f"missing: {', '.join(needed)}")
    return "\n       ".join(problems)


def _file_of(word: str, flags: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return which flag a file that stands alone was probably meant for, as a question; "" where none is
    left to give."""
    free = [flag for flag in ("--train_file", "--eval_file") if flag in flags and flag[2:] not in values]
    return f"; did you mean {free[0]} {shlex.quote(word)}?" if free and os.path.exists(word) else ""


def long_names(argv: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Return the arguments with short names of flags written out.

    Args:
        names: flag to flag, such as {"--model": "--model_name_or_path"}.
    """
    return [
        "=".join([names.get(name, name), *value]) for name, *value in (word.split("=", 1) for word in argv)
    ]


def options_table(cls: type) -> str:
    """Return the options of a script as a Markdown table, for the docs."""
    docs, hints = field_docs(cls), get_type_hints(cls)
    lines = []
    for title, fields in option_groups(cls):
        lines += [f"### {title}", "", "| flag | default | what it does |", "|---|---|---|"]
        for field in fields:
            hint = _without_none(hints[field.name])
            name = f"--no_{field.name}" if field.default is True else f"--{field.name}"
            if field.metadata.get("positional"):
                name = f"{field.metadata['positional']}..."
            if get_origin(hint) is Literal:
                name += " {" + ",".join(map(str, get_args(hint))) + "}"
            default = "required" if field.default is dataclasses.MISSING else field.default
            plain = isinstance(default, str | int | float) and not isinstance(default, bool)
            shown = f"`{default}`" if plain else ""
            doc = docs.get(field.name, "").replace("|", "\\|")
            lines.append(f"| `{name}` | {shown} | {doc} |")
        lines.append("")
    return "\n".join(lines)
