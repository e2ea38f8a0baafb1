"""Options are dataclasses: a field is a flag, and the docstring line under it says what the flag given does.

A bool field is False by default and its flag makes it True; one that is True by default gets the flag
--no_NAME, and the line under it says what that one does.

A list field with the metadata `positional` (what a value is called) is given without a flag, before the
others; it may be left out where it has a default. A field with the metadata `without_value` has that value
where its flag is given alone. The metadata `also` names further flags of the field, such as another
program's.

`--help`, the table in the docs and the options saved with a run are all made from the dataclass, so they
cannot drift apart. A script may stand on several dataclasses; each base is a titled group in `--help`.
"""

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from instruction_modelling.errors import UserError

T = TypeVar("T")


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
    if get_origin(hint) is Literal:
        keywords["choices"] = get_args(hint)
    elif get_origin(hint) is list:
        keywords.update(nargs="+", type=get_args(hint)[0], metavar=get_args(hint)[0].__name__.upper())
    else:
        keywords.update(type=hint, metavar=hint.__name__.upper())
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


def make_parser(cls: type, description: str | None = None) -> argparse.ArgumentParser:
    """Return an argparse parser with one flag per field of the dataclass `cls`."""
    text = description or sys.modules["__main__"].__doc__ or ""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    docs, hints = field_docs(cls), get_type_hints(cls)
    for title, fields in option_groups(cls):
        group = parser.add_argument_group(title)
        for field in fields:
            _add_flag(group, field, hints[field.name], docs.get(field.name, ""))
    return parser


def parse_options(cls: type[T], argv: Sequence[str] | None = None, description: str | None = None) -> T:
    """Return the dataclass `cls` filled from the command line; its `check()`, if it has one, runs last. Its
    attribute `given`, where the class has one, names the options that stand on the command line.

    Raises:
        UserError: every problem that `check()` found, in one message.
    """
    parser = make_parser(cls, description)
    options = cls(**vars(parser.parse_args(argv)))
    if hasattr(cls, "given"):
        # Read again without defaults, what is left was given, with its default's value or another.
        for action in parser._actions:
            action.default = argparse.SUPPRESS
        vars(options)["given"] = frozenset(vars(parser.parse_args(argv)))
    problems = options.check() if hasattr(options, "check") else []
    if problems:
        raise UserError(
            "the options do not fit together:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )
    return options


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
