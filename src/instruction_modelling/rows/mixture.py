"""Several files of rows as one: their names, and the share of an epoch that each has.

They are named one after another, or in a small YAML file, the mixture:

    files:
      - a.jsonl
      - more/b.parquet
      - org/name:config:train
    proportions: [0.5, 0.3, 0.2]    # may be left out: then an epoch is all rows of all files

or with `files` as a mapping from name to proportion. A name is looked for beside the YAML file first, and
then as on a command line."""

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

SUFFIXES = (".yaml", ".yml")
KEYS = ("files", "proportions")
_LARGEST = 2**20


@dataclass(frozen=True)
class RowFiles:
    """Files (folders, data sets of the hub) whose rows are read one after another, as those of one file."""

    names: tuple[str, ...]
    path: Path
    """What messages call them together: the one file, the mixture, or the names of their data sets."""
    proportions: tuple[float, ...] | None = None
    """The share of an epoch's examples that each has, in sum 1; None where an epoch is all rows."""

    @property
    def set_names(self) -> tuple[str, ...]:
        """Return the data set that the rows of each file are of, where they say no other: the file's name,
        and as many of the folders above it as tell it from the others."""
        return tuple(_told_apart(self.names)) if len(self.names) > 1 else (self.path.stem,)


def is_mixture(name: str | Path) -> bool:
    """Return whether a name is that of a mixture's file."""
    return Path(name).suffix.lower() in SUFFIXES and not Path(name).is_dir()


def one_file(path: str | Path) -> RowFiles:
    """Return the one file, folder or data set of the hub of this name.

    Raises:
        UserError: it is a mixture, which only training takes.
    """
    if is_mixture(path):
        raise UserError(
            f"{path}: is a mixture of files, which src/finetune.py, src/inspect_weights.py, src/compare.py "
            "and src/try_im.py train on; here, name one file of rows"
        )
    return RowFiles((str(path),), Path(path))


def files_to_measure(flag: str, names: Sequence[str]) -> RowFiles:
    """Return the files of these names, given by `flag`, of which every row is measured once.

    Raises:
        UserError: one is a mixture, or is named twice.
    """
    if len(names) == 1:
        return one_file(names[0])
    for name in names:
        one_file(name)
    return _checked(flag, names, None, Path(" + ".join(_told_apart(names))))


def row_files(names: Sequence[str], proportions: Sequence[float] | None = None) -> RowFiles:
    """Return the files of these names, or of the mixture that the only name is of.

    Args:
        proportions: one for each file, in any unit.

    Raises:
        UserError: the mixture cannot be read; a file is named twice; or the proportions are not one number
            above 0 for each of several files.
    """
    if not any(map(is_mixture, names)):
        path = Path(names[0]) if len(names) == 1 else Path(" + ".join(_told_apart(names)))
        return _checked("--train_file", names, proportions, path)
    if len(names) > 1:
        raise UserError(
            "--train_file: a mixture stands alone; add the other files to it, or name its files here"
        )
    if proportions is not None:
        raise UserError(
            f"--proportions: {names[0]} is a mixture, whose proportions stand in it; leave them out"
        )
    return read_mixture(Path(names[0]))


def read_mixture(path: Path) -> RowFiles:
    """Return the files and proportions that a mixture's file names.

    Raises:
        UserError: it is absent, no YAML, or says something else.
    """
    read = _read_yaml(path)
    if not isinstance(read, dict) or not read.get("files"):
        raise UserError(f"{path}: a mixture has a list `files:` and, where it sets shares, `proportions:`")
    for key in read:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"{path}: {key!r} is no key of a mixture, which has {' and '.join(KEYS)}{meant}")
    files: Any = read["files"]
    proportions = read.get("proportions")
    if isinstance(files, dict):
        if proportions is not None:
            raise UserError(
                f"{path}: proportions stand behind each of the files or in `proportions:`, not in both"
            )
        files, proportions = list(files), list(files.values())
    if not isinstance(files, list) or not all(isinstance(name, str) and name for name in files):
        raise UserError(f"{path}: `files` has to be a list of names, one for each file")
    if any(map(is_mixture, files)):
        raise UserError(f"{path}: a mixture of mixtures is not read; name the files themselves")
    return _checked(str(path), [_beside(path, name) for name in files], proportions, path)


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise UserError(f"{path}: a mixture is a few lines of YAML, and this is {size:,} bytes")
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())[:300]}") from None


def _beside(mixture: Path, name: str) -> str:
    """Return where a file of a mixture is: beside it, or where its name says."""
    near = mixture.parent / name
    return str(near) if near.exists() or (mixture.parent / name.partition(":")[0]).is_dir() else name


def _checked(said: str, names: Sequence[str], proportions: Any, path: Path) -> RowFiles:
    """Return the files, their proportions as shares of 1.

    Raises:
        UserError: as `row_files`.
    """
    where = "--proportions" if said == "--train_file" else f"{said}: proportions"
    counts = Counter(str(Path(name).resolve()) for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(
            f"{said}: {Path(twice[0]).name} is named twice; leave one out (a larger share of the training is "
            "given by proportions)"
        )
    if proportions is None:
        return RowFiles(tuple(names), path)
    if len(names) < 2:
        raise UserError(f"{where}: shares are of several files, and there is one; leave them out")
    if not isinstance(proportions, list | tuple) or len(proportions) != len(names):
        count = len(proportions) if isinstance(proportions, list | tuple) else "no list of"
        raise UserError(f"{where}: {count} numbers for {len(names)} files; give one for each, in their order")
    for number in proportions:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not (is_number and math.isfinite(number) and number > 0):
            raise UserError(f"{where}: {number!r} is no share; give numbers above 0, or leave the file out")
    whole = math.fsum(proportions)
    return RowFiles(tuple(names), path, tuple(number / whole for number in proportions))


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return the stem of each name, with the folders above it that tell it from the others."""
    parts = [(*Path(name).parts[:-1], Path(name).stem) for name in names]
    depth = [1] * len(names)
    while True:
        shown = ["/".join(part[-deep:]) for part, deep in zip(parts, depth, strict=True)]
        counts = Counter(shown)
        alike = [i for i, name in enumerate(shown) if counts[name] > 1 and depth[i] < len(parts[i])]
        if not alike:
            break
        for index in alike:
            depth[index] += 1
    # a.json and a.jsonl beside each other, say.
    return [Path(name).name if counts[part] > 1 else part for name, part in zip(names, shown, strict=True)]
