"""Folders that a script generates: written under a hidden name, sealed with a manifest, then given their
name.

Such a folder is there whole or not at all, and nothing but an unchanged generated folder is ever replaced.
The manifest is what `sha256sum -c MANIFEST.sha256` reads; its first line, a comment, says what the folder was
made from."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable

MANIFEST = "MANIFEST.sha256"


def sealed_source(folder: Path) -> str | None:
    """Return what `folder` was made from, where every file of its manifest is there and unchanged; None for
    any other folder."""
    try:
        source, *entries = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
        listed = [entry.split("  ", 1) for entry in entries]
        if not listed or any(durable.file_sha256(folder / name) != digest for digest, name in listed):
            return None
    except (OSError, ValueError):
        return None
    return source.removeprefix("# ")


@contextmanager
def sealed_folder(folder: Path, source: str) -> Iterator[Path]:
    """Give a folder to write files in; at the end of the block it is sealed and becomes `folder`.

    Args:
        folder: where the files go. It may be absent, empty, or an unchanged generated folder, which
            is replaced.
        source: what the files are made from, in one line.

    Raises:
        UserError: `folder` holds something else, or cannot be written. What was there before is untouched.
    """
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; choose another --output_dir") from error
    try:
        yield unfinished
        _seal(unfinished, source)
        _put_in_place(unfinished, folder)
    except OSError as error:
        raise UserError(
            f"{folder} could not be written: {error.strerror or error}; what was there before is "
            "untouched, and nothing else was left behind"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is there and is not a folder: move it, or choose another --output_dir")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if sealed_source(folder) is None:
        raise UserError(
            f"{folder} is there and is not what this script wrote (its files do not match a {MANIFEST} in "
            "it), so it is left alone: move or delete it, or choose another --output_dir"
        )
    listed = {
        line.split("  ", 1)[-1] for line in (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    }
    others = sorted(p.name for p in folder.iterdir() if p.name not in listed | {MANIFEST})
    if others:
        raise UserError(
            f"{folder} also holds {', '.join(others[:5])}, which this script did not write, so it is left "
            "alone: move those files, or choose another --output_dir"
        )


def _seal(folder: Path, source: str) -> None:
    """Write the manifest, and give folder and files the permissions that any file of the user's has."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    entries = [f"{durable.file_sha256(path)}  {path.name}" for path in paths]
    (folder / MANIFEST).write_text("\n".join([f"# {source}", *entries]) + "\n", encoding="utf-8")
    durable.give_usual_permissions(folder)


def _put_in_place(unfinished: Path, folder: Path) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        unfinished.rename(folder)
        return
    _check_replaceable(folder)
    if (unfinished / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes():
        return
    replaced = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        folder.rename(replaced)
        unfinished.rename(folder)
    except BaseException:
        if not folder.exists():
            _give_back(replaced, folder)
        raise
    finally:
        # Where it could not be given back, the old folder is all there is.
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def _give_back(replaced: Path, folder: Path) -> None:
    try:
        replaced.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} could not be written: {error.strerror or error}; what was there before is now in "
            f"{replaced}: rename it to {folder.name}"
        ) from error
