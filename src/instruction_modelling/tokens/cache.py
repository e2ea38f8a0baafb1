"""Encoded files, kept between runs: the key is the file, the tokenizer, the chat format and the length."""

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import whole_file
from instruction_modelling.progress import counting
from instruction_modelling.rows.conversations import BadRow, ConversationFile
from instruction_modelling.tokens.encoded import EncodedData, collect
from instruction_modelling.tokens.encoded_rows import EncodingCounts
from instruction_modelling.tokens.row_encoder import CACHE_LAYOUT, RowEncoder

logger = logging.getLogger(__name__)
_ARRAYS = (
    *("ids", "kinds", "messages", "positions", "owned"),
    *("offsets", "sequence_offsets", "first_sequence", "rows", "tokens_cut"),
)
# The key, and the layout, which older ones had within the key.
_CACHE_NAME = re.compile(r"[0-9a-f]{64}(\.\d+)?\.npz")
_LISTS = ("row_ids", "datasets", "message_roles", "message_weights", "changed_messages")
# Arrays that not all data have.
_OPTIONAL_ARRAYS = ("released", "factors")


def cache_folder() -> Path:
    """Return where encoded files are kept: the folder INSTRUCTION_MODELLING_CACHE, else the user's cache
    folder."""
    given = os.environ.get("INSTRUCTION_MODELLING_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "instruction_modelling"


def encode_file(file: ConversationFile, encoder: RowEncoder, overwrite_cache: bool = False) -> EncodedData:
    """Return the file's rows encoded, from the cache where it has them; else they are put into it."""
    encoder.note_unread_variables(file)
    key = hashlib.sha256(
        f"{file.sha256} {file.reading} {file.path.stem} {file.rows} {encoder.fingerprint}".encode()
    ).hexdigest()
    path = cache_folder() / f"{key}.{CACHE_LAYOUT}.npz"
    if path.exists() and not overwrite_cache:
        try:
            return _load(path)
        except Exception:
            # A damaged cache, whatever its bytes make the readers of zip, array and JSON raise, is made
            # again.
            pass
    else:
        _say_what_is_stale(path)
    data = collect(encoder.encode(counting(file.conversations, "rows rendered")))
    # A read-only or full cache costs time on the next run, nothing else.
    with contextlib.suppress(UserError):
        _save(data, path)
    return data


def _say_what_is_stale(path: Path) -> None:
    """Log which caches of another layout lie beside the one that is about to be made: where there is none of
    today's yet, or where one of them is of the same rows."""
    ours = [other for other in path.parent.glob("*.npz") if _CACHE_NAME.fullmatch(other.name)]
    stale = [other for other in ours if other.suffixes[-2:] != path.suffixes[-2:]]
    key = path.name.partition(".")[0]
    if stale and (len(stale) == len(ours) or any(other.name.startswith(key) for other in stale)):
        logger.info(
            "%s: caches of tokens in another form than today's (%d, all but *.%d.npz) are not read: rows "
            "are tokenised anew; those caches may be deleted",
            path.parent,
            len(stale),
            CACHE_LAYOUT,
        )


def _save(data: EncodedData, path: Path) -> None:
    """Write the rows to an npz file: the flat arrays, and the rest as JSON.

    Raises:
        UserError: it cannot be written.
    """
    rest = {
        **{name: getattr(data, name) for name in _LISTS},
        "refused": [[b.row, b.line, b.id, b.reason, b.detail] for b in data.refused],
        "counts": asdict(data.counts),
    }
    arrays = {name: getattr(data, name) for name in _ARRAYS}
    arrays["rest"] = np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8)
    optional = {name: getattr(data, name) for name in _OPTIONAL_ARRAYS}
    arrays.update({name: array for name, array in optional.items() if array is not None})
    # What `numpy.savez` writes; it takes no handle that can only be written to.
    with whole_file(path) as handle, zipfile.ZipFile(handle, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(cast(BinaryIO, member), array, allow_pickle=False)


def _load(path: Path) -> EncodedData:
    with np.load(path, allow_pickle=False) as stored:
        rest = json.loads(stored["rest"].tobytes())
        arrays = {name: stored[name] for name in _ARRAYS}
        optional = {name: stored[name] for name in _OPTIONAL_ARRAYS if name in stored.files}
    return EncodedData(
        **arrays,
        **{name: rest[name] for name in _LISTS},
        **optional,
        refused=[BadRow(*bad) for bad in rest["refused"]],
        counts=EncodingCounts(**rest["counts"]),
    )
