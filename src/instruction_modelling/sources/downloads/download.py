"""What a download is: its address and path, how files are fetched, and what comes of it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.errors import UserError

OnBytes = Callable[[int, int | None], None]
"""Called with (bytes that came, bytes still to come of a file whose size has just become known, else
None)."""


@dataclass(frozen=True)
class Download:
    """A file to fetch."""

    url: str
    """Its original address, whatever mirror is asked."""
    path: Path
    """Where it goes."""
    sha256: str | None = None
    """Hex digest, where it is known beforehand."""
    size: int | None = None
    """Bytes, where known beforehand."""
    access: str | None = None
    """Of a file that not everybody may have: the page where access is granted. HF_TOKEN is sent for these
    alone."""


@dataclass(frozen=True)
class Fetched:
    """A file that is on the disk, whole."""

    download: Download
    sha256: str
    bytes: int
    was_there: bool
    """Whether nothing had to be fetched."""


@dataclass
class FetchSettings:
    """How files are fetched."""

    tries: int = 8
    """Attempts in a row that bring nothing before a file is given up."""
    timeout: float = 60.0
    """Seconds without a byte after which an attempt has failed."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled each time, up to `longest_pause`, and shortened at random by
    up to half."""
    longest_pause: float = 60.0
    longest_asked: float = 300.0
    """The longest pause in seconds that a server may ask for (Retry-After); one that asks for more has
    failed."""
    parallel: int = 4
    """Files at a time."""
    update_lock: bool = False
    """Take files that differ from what the lock file recorded, and record them anew."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Where mirrors and the token are read."""


class DownloadFailed(UserError):
    """A file that could not be had, and why."""
