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


def check_owner(results: Path, field: str, made: Mapping[str, Any]) -> None:
    """Check that a file of results, if it is there, is of these answers or of an earlier version of them.

    Args:
        results: results.json of a folder.
        field: its field that says how the answers were made.
        made: how these were: the `file` they are in, or the `model`, and their `sha256`.

    Raises:
        UserError: it is of other answers, which would be written over.
    """
    before = (read_stamp(results) or {}).get(field)
    if not isinstance(before, Mapping) or before.get("sha256") == made.get("sha256"):
        return
    if _source(before) != _source(made):
        raise UserError(
            f"{results} holds the results of other answers ({_source(before)}); put these "
            f"({_source(made)}) into a folder of their own with --save_dir"
        )
    logger.info(
        "%s: the answers of %s are no longer those that were judged; judging anew", results, _source(made)
    )


def _source(made: Mapping[str, Any]) -> str:
    """Return where answers come from, in words that are the same from every working directory."""
    if made.get("file") is not None:
        return str(Path(str(made["file"])).resolve())
    return str(made.get("model"))
