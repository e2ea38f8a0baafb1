"""Take files out of a zip or tar file: chosen members, whole or not at all, and never outside the folder."""

import fnmatch
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import locked
from instruction_modelling.files.stamps import read_stamp
from instruction_modelling.files.whole import write_json

Members = dict[str, Callable[[], IO[bytes]]]
"""How each member of an archive that is a file is opened, by its name there or by where it goes."""


def take_out(archive: Path, sha256: str, folder: Path, members: Sequence[str], flat: bool) -> int:
    """Take the members that match one of the patterns out of a zip or tar file; what was taken out of the
    same file before stays.

    Args:
        sha256: the archive's, by which it is known again.
        folder: where members go: `flat`, into it; else below it, without the one folder at the archive's top.

    Returns:
        how many members were taken out; 0 where they were in the folder already.

    Raises:
        UserError: the archive is damaged, has no such members, or names a path outside the folder.
    """
    stamp = folder / f".{archive.name}.taken_out.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One process at a time, else two would unpack into the same folder of parts.
        with locked(folder), archive.open("rb") as handle, _members(handle) as available:
            if _is_taken_out(stamp, sha256):
                return 0
            chosen = _chosen(archive, available, members, flat)
            _unpack(chosen, folder / f".{archive.name}.part", folder)
            write_json(stamp, {"sha256": sha256, "files": list(chosen)})
            return len(chosen)
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}. Remove it and run this again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from error


@contextmanager
def _members(handle: BinaryIO) -> Iterator[Members]:
    """Yield the members of a zip file, or of a tar file, packed or not; which it is, its first bytes say."""
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


def _chosen(archive: Path, available: Members, patterns: Sequence[str], flat: bool) -> Members:
    """Return the members to take out, by where they go below the folder."""
    chosen: Members = {}
    for member, opener in available.items():
        # Archives made on a Mac hold a `._NAME` beside each file.
        hidden = PurePosixPath(member).name.startswith(".")
        if not hidden and any(fnmatch.fnmatch(member, pattern) for pattern in patterns):
            name = _target(archive, member, flat)
            if name in chosen:
                raise UserError(f"{archive}: two of its members would both be {name}")
            chosen[name] = opener
    if not chosen:
        raise UserError(
            f"{archive}: has nothing like {' or '.join(patterns)}: it is not the archive that was expected"
        )
    return chosen


def _unpack(chosen: Members, unpacked: Path, folder: Path) -> None:
    """Unpack all members into the folder `unpacked` and rename them into `folder`, or, where one is damaged,
    none."""
    # A process that was killed may have left some.
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        for name, opener in chosen.items():
            (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, (unpacked / name).open("xb") as target:
                shutil.copyfileobj(source, target, 2**20)
        for name in chosen:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(unpacked / name, folder / name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _is_taken_out(path: Path, sha256: str) -> bool:
    stamp = read_stamp(path)
    if stamp is None or stamp.get("sha256") != sha256 or not isinstance(stamp.get("files"), list):
        return False
    return all((path.parent / name).is_file() for name in stamp["files"])


def _target(archive: Path, member: str, flat: bool) -> str:
    parts = PurePosixPath(member).parts
    if member.startswith("/") or ".." in parts or "\\" in member:
        raise UserError(
            f"{archive}: its member {member!r} would be written outside the folder: the archive is not to be "
            "trusted"
        )
    return parts[-1] if flat else str(PurePosixPath(*parts[1:]))
