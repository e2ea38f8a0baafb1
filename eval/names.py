"""Names that answers bring along, as names of files and folders; and whose results a folder holds."""

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import read_stamp

logger = logging.getLogger("eval")

# Longer names are cut: a file system takes 255 bytes, and endings are put behind them.
LONGEST_NAME = 120
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f:*?"<>|]')


def folder_name(name: str, otherwise: str = "model") -> str:
    """Return a name that is one part of a path, whatever the model is called.

    The parts of a path are joined (`/ckpt/it` becomes `ckpt_it`), `.` and `..` are left out; one that is too
    long keeps its beginning and a hash. An empty one becomes `otherwise`."""
    parts = [part.strip(" ") for part in re.split(r"[/\\]", name)]
    whole = _NOT_IN_NAMES.sub("_", "_".join(part for part in parts if part.strip("."))).strip().lstrip(".")
    encoded = whole.encode("utf-8", "replace")
    if len(encoded) > LONGEST_NAME:
        ending = hashlib.sha256(encoded).hexdigest()[:8]
        whole = f"{encoded[: LONGEST_NAME - 9].decode('utf-8', 'ignore')}_{ending}"
    return whole or otherwise


def check_owner(folder: Path, pattern: str, field: str, made: Mapping[str, Any]) -> None:
    """Check that the results in a folder are of these answers, or of an earlier version of them.

    Args:
        folder: of everything about a model.
        pattern: the files of results within it, as a glob.
        field: their field that says how the answers were made.
        made: how these were: the `file` they are in, or the `model`, and their `sha256`.

    Raises:
        UserError: they are of other answers, which would be written over or taken for the same model's.
    """
    for path in sorted(folder.glob(pattern)):
        before = (read_stamp(path) or {}).get(field)
        if isinstance(before, Mapping) and not _same(before, made):
            raise UserError(
                f"{path} holds the results of other answers ({_source(before)}); put these "
                f"({_source(made)}) into a folder of their own with --save_dir"
            )


def own_folder(folder: Path, pattern: str, field: str, made: Mapping[str, Any]) -> Path:
    """Return the folder, or where it holds the results of other answers one beside it (NAME-2, NAME-3, ...)
    that does not; see `check_owner`."""
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            check_owner(candidate, pattern, field, made)
        except UserError as taken:
            logger.info("%s: these go to %s-%d", taken.args[0].split("; put")[0], folder, number + 1)
            number += 1
        else:
            return candidate


def _same(before: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Return whether answers are the same, or of the same file or model."""
    return any(
        before.get(name) is not None and before.get(name) == made.get(name)
        for name in ("sha256", "model_identity")
    ) or _source(before) == _source(made)


def _source(made: Mapping[str, Any]) -> str:
    """Return where answers come from, in words that are the same from every working directory."""
    if made.get("file") is not None:
        return str(Path(str(made["file"])).resolve())
    return str(made.get("model"))
