"""What is taken out of a zip file: chosen members, whole or not at all, and never outside the folder."""

import fnmatch
import json
import os
import shutil
import zipfile
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
    with suppress(OSError, ValueError, KeyError):
        record = json.loads(done.read_text(encoding="utf-8"))
        if record["sha256"] == sha256 and all((folder / name).is_file() for name in record["files"]):
            return 0
    aside = folder / f".{archive.name}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(archive) as file:
            chosen = [info for info in file.infolist() if not info.is_dir() and any(
                fnmatch.fnmatch(info.filename, pattern) for pattern in members)]
            if not chosen:
                raise UserError(f"{archive}: has nothing like {' or '.join(members)}: it is not the archive that was expected")
            names = [_target(archive, info.filename, flat) for info in chosen]
            if len(set(names)) < len(names):
                twice = min(name for name in names if names.count(name) > 1)
                raise UserError(f"{archive}: two of its members would both be {twice}")
            for info, name in zip(chosen, names, strict=True):
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, (aside / name).open("xb") as target:
                    shutil.copyfileobj(source, target, 2**20)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside / name, folder / name)
        replace_file(done, json.dumps({"sha256": sha256, "files": names}) + "\n")
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise UserError(f"{archive}: cannot be unpacked: {error}. Remove it and run this again") from error
    except OSError as error:
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return len(chosen)


def _target(archive: Path, member: str, flat: bool) -> str:
    parts = PurePosixPath(member).parts
    if member.startswith("/") or ".." in parts or "\\" in member:
        raise UserError(f"{archive}: its member {member!r} would be written outside the folder: the archive is not to be trusted")
    return parts[-1] if flat else str(PurePosixPath(*parts[1:]))
