"""Which files and folders that options name are not there, asked before anything is loaded, so that one
message has them all.

A field of an options class says by its metadata `input` what it names: `rows` (a file, a folder, a mixture or
a data set of the hub, or a list of them), `model` (a folder or a name of the hub) or `checkpoint`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.models.folders import require_folder
from instruction_modelling.nearest import nearest_path
from instruction_modelling.rows.files import file_in, why_no_rows
from instruction_modelling.rows.mixture import row_files


def missing_inputs(options: Any) -> list[str]:
    """Return, in words, what options name that is not there or is no input; an option without a value, or
    with an empty text (which `parse_options` refuses), is left alone."""
    problems = []
    for field in dataclasses.fields(options):
        kind = field.metadata.get("input")
        if kind:
            given = getattr(options, field.name)
            names = [
                name for name in (given if isinstance(given, list) else [given]) if name and name.strip()
            ]
            flag = field.metadata.get("positional") or f"--{field.name}"
            problems += [f"{flag} {problem}" for problem in _PROBLEMS[kind](options, names)]
    return problems


def _of_rows(options: Any, names: list[str]) -> Iterator[str]:
    for name in names:
        try:
            files = row_files([file_in(getattr(options, "data_dir", None), name)]).names
        except UserError:
            # A mixture's, which the options' own check says.
            continue
        yield from filter(None, map(why_no_rows, files))


def _of_models(options: Any, names: list[str]) -> Iterator[str]:
    for name in names:
        try:
            require_folder(name)
        except UserError as error:
            yield str(error)


def _of_checkpoints(options: Any, names: list[str]) -> Iterator[str]:
    for name in names:
        if name != "latest" and not Path(name).is_dir():
            meant = nearest_path(name)
            yield f"{name}: there is no such folder" + (f"; did you mean {meant}?" if meant else "")


_PROBLEMS = {"rows": _of_rows, "model": _of_models, "checkpoint": _of_checkpoints}
