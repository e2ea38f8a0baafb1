"""What is taken out of a zip file: chosen members, whole or not at all, and never outside the folder."""

import fcntl
import fnmatch
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from instruction_modelling.durable_files import replace_file
from instruction_modelling.errors import UserError


def take_out(archive: Path, sha256: str, folder: Path, members: Sequence[str], flat: bool) -> int:
    """Takes the members that match one of the patterns out of a zip file; what was taken out of the same file before stays.

    Args:
        sha256: the archive's, by which it is known again.
        folder: where members go: `flat`, into it; else below it, without the one folder at the archive's top.

    Returns:
        how many members were taken out; 0 where they were there.

    Raises:
        UserError: the archive is damaged, has no such members, or names a path outside the folder.
    """
    done = folder / f".{archive.name}.taken_out.json"
    try:
        with archive.open("rb") as handle, zipfile.ZipFile(handle) as file:
            # One process at a time.
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_taken_out(done, sha256):
                return 0
            chosen = _chosen(archive, file, members, flat)
            _unpack(file, chosen, folder / f".{archive.name}.part", folder)
            replace_file(done, json.dumps({"sha256": sha256, "files": list(chosen)}) + "\n")
            return len(chosen)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}. Remove it and run this again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from error


def _chosen(archive: Path, file: zipfile.ZipFile, members: Sequence[str], flat: bool) -> dict[str, zipfile.ZipInfo]:
    """The members to take out, by where they go below the folder."""
    chosen: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        # Archives made on a Mac hold a `._NAME` beside each file.
        hidden = PurePosixPath(info.filename).name.startswith(".")
        if not info.is_dir() and not hidden and any(fnmatch.fnmatch(info.filename, pattern) for pattern in members):
            name = _target(archive, info.filename, flat)
            if name in chosen:
                raise UserError(f"{archive}: two of its members would both be {name}")
            chosen[name] = info
    if not chosen:
        raise UserError(f"{archive}: has nothing like {' or '.join(members)}: it is not the archive that was expected")
    return chosen


def _unpack(file: zipfile.ZipFile, chosen: dict[str, zipfile.ZipInfo], aside: Path, folder: Path) -> None:
    """All members, or, where one cannot be unpacked, none."""
    # A process that was killed may have left some.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, info in chosen.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            with file.open(info) as source, (aside / name).open("xb") as target:
                shutil.copyfileobj(source, target, 2**20)
        for name in chosen:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _is_taken_out(done: Path, sha256: str) -> bool:
    with suppress(OSError, ValueError, KeyError):
        record = json.loads(done.read_text(encoding="utf-8"))
        return record["sha256"] == sha256 and all((done.parent / name).is_file() for name in record["files"])
    return False


def _target(archive: Path, member: str, flat: bool) -> str:
    parts = PurePosixPath(member).parts
    if member.startswith("/") or ".." in parts or "\\" in member:
        raise UserError(f"{archive}: its member {member!r} would be written outside the folder: the archive is not to be trusted")
    return parts[-1] if flat else str(PurePosixPath(*parts[1:]))
