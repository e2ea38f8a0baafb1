"""How a program of this project is called: the words of commands that are printed, so that each runs as it
is."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# The folder that holds the library: src/ of a checkout, or where it was installed.
LIBRARY_FOLDER = Path(__file__).resolve().parents[1]
# Where the scripts are: beside the library, or installed as a package of their own.
SCRIPTS = LIBRARY_FOLDER
if not (SCRIPTS / "finetune.py").is_file():
    SCRIPTS = LIBRARY_FOLDER / "instruction_modelling_scripts"
# What the command `im` says of itself: it stands before the script that it runs.
_within: list[str] = []


def set_program(words: Sequence[str]) -> None:
    """Say that this process was started by these words, the program's own arguments left out."""
    _within[:] = words


def this_program() -> list[str]:
    """Return the words that start this program again, without its arguments."""
    if _within:
        return list(_within)
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and sys.argv[0] == getattr(main, "__file__", None):
        return [shortest(sys.executable), "-m", spec.name.removesuffix(".__main__")]
    return [shortest(sys.executable), shortest(sys.argv[0])]


def this_command(arguments: Sequence[object] | None = None) -> str:
    """Return this program's command with its arguments, or others, as a shell reads it."""
    return shlex.join([*this_program(), *map(str, sys.argv[1:] if arguments is None else arguments)])


def command(script: str, *arguments: object) -> str:
    """Return the command of the script src/`script`.py by this Python, as a shell reads it."""
    start = [shortest(sys.executable), shortest(SCRIPTS / f"{script}.py")]
    return shlex.join([*start, *map(str, arguments)])


def module_command(module: str, *arguments: object) -> str:
    """Return the command of a module (`python -m`) by this Python, as a shell reads it."""
    return shlex.join([shortest(sys.executable), "-m", module, *map(str, arguments)])


def shortest(path: str | Path) -> str:
    """Return a path as it is, or from the working folder where it lies within that."""
    try:
        return str(Path(os.path.abspath(path)).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
