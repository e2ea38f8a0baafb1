"""What is taken out of a zip or tar file: chosen members, whole or not at all, and never outside the
folder."""

import fcntl
import fnmatch
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import replace_file

Members = dict[str, Callable[[], IO[bytes]]]
"""How each member of an archive that is a file is opened."""


def take_out(archive: Path, sha256: str, folder: Path, members: Sequence[str], flat: bool) -> int:
    """Takes the members that match one of the patterns out of a zip or tar file; what was taken out of the
    same file before stays.

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
        with archive.open("rb") as handle, _opened(handle) as there:
            # One process at a time.
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_taken_out(done, sha256):
                return 0
            chosen = _chosen(archive, there, members, flat)
            _unpack(chosen, folder / f".{archive.name}.part", folder)
            replace_file(done, json.dumps({"sha256": sha256, "files": list(chosen)}) + "\n")
            return len(chosen)
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}. Remove it and run this again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from error


@contextmanager
def _opened(handle: BinaryIO) -> Iterator[Members]:
    """The members of a zip file, or of a tar file, packed or not, which has other first bytes."""
    if zipfile.is_zipfile(handle):
        handle.seek(0)
        with zipfile.ZipFile(handle) as file:
            yield {info.filename: partial(file.open, info) for info in file.infolist() if not info.is_dir()}
        return
    handle.seek(0)
    with tarfile.open(fileobj=handle) as tar:
        # Links and devices are no files.
        yield {info.name: partial(_open_member, tar, info) for info in tar if info.isreg()}


def _open_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(info)
    assert source
    return source


def _chosen(archive: Path, there: Members, members: Sequence[str], flat: bool) -> Members:
    """The members to take out, by where they go below the folder."""
    chosen: Members = {}
    for member, opened in there.items():
        # Archives made on a Mac hold a `._NAME` beside each file.
        hidden = PurePosixPath(member).name.startswith(".")
        if not hidden and any(fnmatch.fnmatch(member, pattern) for pattern in members):
            name = _target(archive, member, flat)
            if name in chosen:
                raise UserError(f"{archive}: two of its members would both be {name}")
            chosen[name] = opened
    if not chosen:
        raise UserError(
            f"{archive}: has nothing like {' or '.join(members)}: it is not the archive that was expected"
        )
    return chosen


def _unpack(chosen: Members, aside: Path, folder: Path) -> None:
    """All members, or, where one cannot be unpacked, none."""
    # A process that was killed may have left some.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, opened in chosen.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, (aside / name).open("xb") as target:
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
        raise UserError(
            f"{archive}: its member {member!r} would be written outside the folder: the archive is not to be "
            "trusted"
        )
    return parts[-1] if flat else str(PurePosixPath(*parts[1:]))
