"""Encoded files, kept between runs: the key is the file, the tokenizer, the chat format and the length.

A cache is a folder of arrays, one file each, that are mapped into memory where they are read: the processes
of a machine share them, and the system takes the pages back when it needs the memory. It is written row by
row, and is there whole or not at all (`files.sealed`)."""

import hashlib
import logging
import re
import shutil
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import locked
from instruction_modelling.files.sealed import sealed_folder, sealed_source
from instruction_modelling.progress import counting
from instruction_modelling.rows.conversations import ConversationFile
from instruction_modelling.tokens.collector import Collector, collect, mapped
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.large_arrays import cache_folder
from instruction_modelling.tokens.row_encoder import CACHE_LAYOUT, RowEncoder

__all__ = ["cache_folder", "encode_file"]

logger = logging.getLogger(__name__)
# The key, and the layout, which older ones had within the key; up to layout 6 it was one file.
_CACHE_NAME = re.compile(r"[0-9a-f]{64}(\.\d+)?\.(npz|tokens)")
_SOURCE = "tokens of rows, made by the training scripts; may be deleted"


def encode_file(file: ConversationFile, encoder: RowEncoder, overwrite_cache: bool = False) -> EncodedData:
    """Return the file's rows encoded, from the cache where it has them; else they are put into it.

    Raises:
        UserError: rows that are read anew are not what they were.
    """
    encoder.note_unread_variables(file)
    # The rows' data sets, where they name none, and their made-up ids.
    names = " ".join(f"{m.name}:{m.first_row}" for m in file.members) or file.path.stem
    key = hashlib.sha256(
        f"{file.sha256} {file.reading} {names} {file.rows} {encoder.fingerprint}".encode()
    ).hexdigest()
    folder = cache_folder() / f"{key}.{CACHE_LAYOUT}.tokens"
    if folder.exists() and not overwrite_cache:
        if (data := _read(folder)) is not None:
            return data
    else:
        _say_what_is_stale(folder)
    try:
        with locked(_made(folder.with_suffix(".lock")), on_wait=_say_that_another_encodes):
            # Another process may have written it meanwhile.
            data = _read(folder) if not overwrite_cache else None
            if data is None:
                _write(file, encoder, folder)
                data = _read(folder)
    except (OSError, UserError) as error:
        # A read-only or full cache costs memory now and time on the next run, nothing else. Where the rows
        # are to blame, they say so again below.
        reason = error.__cause__ or error
        logger.info("no cache of tokens could be written, so all rows are held in memory (%s)", reason)
        data = None
    return data or collect(encoder.encode(counting(file.conversations, "rows rendered")))


def _made(path: Path) -> Path:
    """Return a path whose folder is there; one that is made is its owner's alone, for tokens can be read as
    text again."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _say_that_another_encodes() -> None:
    logger.info("waiting for another process, which tokenises the same rows")


def _write(file: ConversationFile, encoder: RowEncoder, folder: Path) -> None:
    """Encode the rows into the cache, whose lock is held.

    Raises:
        OSError, UserError: it cannot be written, or the rows cannot be read again.
    """
    # A damaged one, or one that is to be made anew, and what processes left that were killed.
    for path in (folder, *folder.parent.glob(f".{folder.name}.*")):
        if path.exists():
            path.unlink() if path.is_file() else shutil.rmtree(path)
    with sealed_folder(folder, _SOURCE) as unfinished:
        collector = Collector(unfinished)
        for item in encoder.encode(counting(file.conversations, "rows rendered")):
            collector.add(item)
        collector.write()


def _read(folder: Path) -> EncodedData | None:
    """Return what a cache holds; None where it is not there or was damaged."""
    if sealed_source(folder) != _SOURCE:
        return None
    try:
        return mapped(folder)
    except Exception:
        # Whole, as its sums say, and yet not to be read: written by other versions of the libraries, say.
        return None


def _say_what_is_stale(path: Path) -> None:
    """Log which caches of another layout lie beside the one that is about to be made: where there is none of
    today's yet, or where one of them is of the same rows."""
    ours = [other for other in path.parent.glob("*") if _CACHE_NAME.fullmatch(other.name)]
    stale = [other for other in ours if other.suffixes[-2:] != path.suffixes[-2:]]
    key = path.name.partition(".")[0]
    if stale and (len(stale) == len(ours) or any(other.name.startswith(key) for other in stale)):
        logger.info(
            "%s: caches of tokens in another form than today's (%d, all but *.%d.tokens) are not read: rows "
            "are tokenised anew; those caches may be deleted",
            path.parent,
            len(stale),
            CACHE_LAYOUT,
        )
