"""Which files and folders that options name are not there, asked before anything is loaded, so that one
message has them all.

A field of an options class says by its metadata `input` what it names: `rows` (a file, a folder, a mixture or
a data set of the hub, or a list of them), `model` (a folder or a name of the hub) or `checkpoint`; or, as
`output`, a folder that will be written to."""

import dataclasses
import errno
import os
import stat
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


def problems_of_training(options: Any) -> list[str]:
    """Return `missing_inputs` of a training, and whether its model would be written over what it begins
    with."""
    folder = os.path.realpath(options.output_dir)
    replaced = [
        f"--output_dir {options.output_dir}: is the folder of --{name} too, whose files would be replaced; "
        "choose another"
        for name in ("model_name_or_path", "tokenizer_name", "config_name")
        if (given := getattr(options, name)) and os.path.isdir(given) and os.path.realpath(given) == folder
    ]
    return missing_inputs(options) + replaced


def _of_rows(options: Any, names: list[str]) -> Iterator[str]:
    for name in names:
        given = file_in(getattr(options, "data_dir", None), name)
        try:
            files = row_files([given]).names
        except UserError:
            # A mixture's, which the options' own check says.
            continue
        # A mixture's files are not on the command line, where one would look for them.
        of = "" if str(given) in map(str, files) else f"{name} names "
        yield from (of + problem for problem in map(why_no_rows, files) if problem)


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


def _of_outputs(options: Any, names: list[str]) -> Iterator[str]:
    # One that nobody chose may belong to a script that does not write to it.
    if "output_dir" not in getattr(options, "given", {"output_dir"}):
        return
    for name in names:
        if why := _why_not_written(Path(name)):
            yield f"{name if len(name) < 300 else name[:100] + '...'}: cannot be made: {why}"


def _why_not_written(folder: Path) -> str | None:
    """Return why a folder cannot be made or written to, as far as a look tells; None where it can."""
    for path in (folder, *folder.absolute().parents):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            if path.is_symlink():
                return f"{path} is a link that leads to nothing"
            continue
        except OSError as error:
            return error.strerror
        if not is_folder:
            return f"{path} is a file"
        return None if os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    return None


_PROBLEMS = {"rows": _of_rows, "model": _of_models, "checkpoint": _of_checkpoints, "output": _of_outputs}
