"""Arrays with a value for every token of a file, which may be larger than memory: beyond a size they lie in a
file without a name beside the caches of tokens, which the system pages in and out and frees by itself."""

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

# From this size in bytes on.
LARGE = 2**25


def cache_folder() -> Path:
    """Return where encoded files are kept: the folder INSTRUCTION_MODELLING_CACHE, else the user's cache
    folder."""
    given = os.environ.get("INSTRUCTION_MODELLING_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "instruction_modelling"


def new_array(length: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Return an array to be filled, in memory or, where it is large and the disk has room, in a file."""
    size = length * np.dtype(dtype).itemsize
    if size >= max(LARGE, 1):
        try:
            folder = cache_folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as handle:
                # Taken before it is written: a full disk under a mapped file would end the process (SIGBUS).
                os.posix_fallocate(handle.fileno(), 0, size)
                return np.asarray(np.memmap(handle, dtype, "r+", shape=(length,)))
        except OSError:
            # A disk that is full or read-only: memory it is, as for a small array.
            pass
    return np.empty(length, dtype=dtype)


def copy_of(array: np.ndarray) -> np.ndarray:
    """Return a copy that may be written to."""
    out = new_array(len(array), array.dtype)
    out[:] = array
    return out
