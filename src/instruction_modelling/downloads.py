"""Files from the network: resumed where they were cut, checked, and under their name only when they are whole.

A file comes as NAME.part beside where it will be, with NAME.part.json saying what it is a part of, and is renamed once its
size, its hash where that is known, and its first and last bytes are what they should be. Whatever is interrupted (by a
signal, a power cut, a full disk) goes on from there. What was fetched is recorded by address in a `DownloadLock`, so that a
file that has changed at its source is noticed.
"""

import email.utils
import fcntl
import json
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from instruction_modelling.download_lock import DownloadLock
from instruction_modelling.durable_files import file_sha256, rename, replace_file
from instruction_modelling.errors import UserError
from instruction_modelling.file_contents import wrong_content
from instruction_modelling.host_addresses import (
    TOKEN_VARIABLE,
    WrongAddress,
    asked_at,
    may_carry,
    mirror_variable,
    next_address,
    place_of,
    token_for,
)

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 10


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
    """Of a file that not everybody may have: the page where access is granted. HF_TOKEN is sent for these alone."""


@dataclass(frozen=True)
class Fetched:
    """A file that is there."""

    download: Download
    sha256: str
    bytes: int
    was_there: bool
    """Whether nothing had to be fetched."""


@dataclass
class Settings:
    """How files are fetched."""

    tries: int = 8
    """Attempts in a row that bring nothing before a file is given up."""
    timeout: float = 60.0
    """Seconds without a byte after which an attempt has failed."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled each time, up to `longest_pause`, and shortened at random by up to half."""
    longest_pause: float = 60.0
    longest_asked: float = 300.0
    """The longest pause a server may ask for (Retry-After); one that asks for more has failed."""
    parallel: int = 4
    """Files at a time."""
    update_lock: bool = False
    """Take files that differ from what the lock file recorded, and record them anew."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Where mirrors and the token are read."""


class DownloadFailed(UserError):
    """A file that could not be had, and why."""


class _TryAgain(Exception):
    """What went wrong may pass: a cut connection, a server that is busy; `after`: seconds the server asks to wait."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def fetch_all(downloads: Sequence[Download], lock: DownloadLock, settings: Settings | None = None,
              received: Callable[[int, int | None], None] | None = None) -> tuple[list[Fetched], dict[Download, UserError]]:
    """Fetches files, several at a time; one that fails does not stop the others.

    Args:
        lock: what was fetched before; what is fetched now is added.
        received: called with (bytes that came, bytes of the file if this is its first call and the size is known).

    Returns:
        the files that are there, in the order asked for, and what went wrong with each of the others.
    """
    settings = settings or Settings()
    done: dict[Download, Fetched] = {}
    failed: dict[Download, UserError] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, settings.parallel)) as pool:
        tasks = {pool.submit(fetch, download, lock, settings, received, stop): download for download in downloads}
        try:
            for task in as_completed(tasks):
                try:
                    done[tasks[task]] = task.result()
                except UserError as error:
                    failed[tasks[task]] = error
        except BaseException:
            stop.set()
            for task in tasks:
                task.cancel()
            raise
    return [done[download] for download in downloads if download in done], failed


def fetch(download: Download, lock: DownloadLock, settings: Settings | None = None,
          received: Callable[[int, int | None], None] | None = None, stop: threading.Event | None = None) -> Fetched:
    """Fetches one file, or finds it there, whole and as recorded.

    Raises:
        DownloadFailed: it cannot be had, is not what it should be, or there is no room for it.
    """
    settings = settings or Settings()
    wanted = download.sha256 or (None if settings.update_lock else lock.sha256(download.url))
    there = _found(download, wanted, lock, settings)
    if there:
        return there
    import httpx

    try:
        download.path.parent.mkdir(parents=True, exist_ok=True)
        with _own_part(download.path) as part:
            there = _found(download, wanted, lock, settings)
            if there:
                return there
            with httpx.Client(timeout=settings.timeout, follow_redirects=False, trust_env=True) as client:
                transfer = _Transfer(download, wanted, part, client, settings, received or (lambda *_: None), stop)
                digest, size = transfer.run()
            rename(_part(download.path), download.path)
            _note(download.path).unlink(missing_ok=True)
    except OSError as error:
        raise DownloadFailed(f"{download.url}: {download.path} cannot be written: {error.strerror or error}. Make room or "
                             "choose another folder; what has come is kept, and the same command goes on from it") from error
    lock.record(download.url, digest, size)
    return Fetched(download, digest, size, was_there=False)


def _found(download: Download, wanted: str | None, lock: DownloadLock, settings: Settings) -> Fetched | None:
    """The file, if it is there and right."""
    path = download.path
    if not path.is_file() or (settings.update_lock and download.sha256 is None):
        return None
    size = path.stat().st_size
    if download.size not in (None, size) or (wanted is None and wrong_content(path)):
        return None
    digest = file_sha256(path)
    if wanted not in (None, digest):
        logger.info("%s is not the file that was recorded for %s (sha256 %s..., not %s...): fetching it again", path,
                    download.url, digest[:12], wanted[:12] if wanted else "")
        return None
    lock.record(download.url, digest, size)
    return Fetched(download, digest, size, was_there=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".part.json")


@contextmanager
def _own_part(path: Path) -> Iterator[BinaryIO]:
    """NAME.part, open for appending, and this process's alone as long as the block; another that wants it waits."""
    while True:
        handle = _part(path).open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: another process is fetching it; waiting", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever had it may have finished and renamed it.
        with suppress(FileNotFoundError):
            if _part(path).stat().st_ino == os.fstat(handle.fileno()).st_ino:
                break
        handle.close()
    try:
        yield handle
    finally:
        handle.close()
        with suppress(OSError):
            if _part(path).stat().st_size == 0:
                _part(path).unlink()
                _note(path).unlink(missing_ok=True)


class _Transfer:
    """One file's way to NAME.part, over as many attempts as it takes."""

    def __init__(self, download: Download, wanted: str | None, part: BinaryIO, client: "httpx.Client", settings: Settings,
                 received: Callable[[int, int | None], None], stop: threading.Event | None):
        self.download, self.wanted, self.part, self.client = download, wanted, part, client
        self.settings, self.received, self.stop = settings, received, stop
        self.size: int | None = None
        self.told = False
        self.resumed = False

    def run(self) -> tuple[str, int]:
        """The hex digest and size of the whole file.

        Raises:
            DownloadFailed: it cannot be had.
        """
        import httpx

        attempt, begin = 0, self._position()
        if begin:
            logger.info("%s: going on from %.1f MB", self.download.path.name, begin / 1e6)
        while True:
            before = self._position()
            try:
                self._attempt()
                return self._checked()
            except (httpx.TransportError, _TryAgain) as error:
                # What came keeps the attempts from running out.
                attempt = 0 if self._position() > before else attempt + 1
                what = str(error) or type(error).__name__
                asked = error.after if isinstance(error, _TryAgain) else None
                if attempt >= self.settings.tries or (asked or 0) > self.settings.longest_asked:
                    raise self._failed(f"{what}{f' (asked to wait {asked:.0f} s)' if asked else ''}; given up after "
                                       f"{attempt} attempts that brought nothing. The same command goes on from what has "
                                       f"come ({self._position():,} bytes)") from error
                pause = min(self.settings.longest_pause, self.settings.pause * 2 ** max(0, attempt - 1))
                pause = asked if asked is not None else pause * random.uniform(0.5, 1)
                logger.info("%s: %s; trying again in %.1f s", self.download.path.name, what, pause)
                self._wait(pause)

    def _wait(self, seconds: float) -> None:
        if self.stop is None:
            time.sleep(seconds)
        elif self.stop.wait(seconds):
            raise self._failed("stopped")

    def _position(self) -> int:
        self.part.flush()
        return os.fstat(self.part.fileno()).st_size

    def _restart(self) -> None:
        self.part.truncate(0)
        _note(self.download.path).unlink(missing_ok=True)

    def _failed(self, why: str) -> DownloadFailed:
        asked = asked_at(self.download.url, self.settings.environment)
        through = f" (through its mirror {urlsplit(asked).netloc})" if asked != self.download.url else ""
        return DownloadFailed(f"{self.download.url}{through}: {why}")

    def _attempt(self) -> None:
        """Asks for what is missing and appends it."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "instruction-modelling"}
        position = self._position()
        note = self._read_note() if position else {}
        validator = note.get("etag") or note.get("last_modified")
        if position and (validator or self.wanted) and note.get("url") == self.download.url:
            headers["Range"] = f"bytes={position}-"
            if validator:
                headers["If-Range"] = validator
        elif position:
            # Nothing tells whether the rest would be of the same file.
            self._restart()
            position = 0
        with self._response(headers) as response:
            position = self._follow_up(response, position, "Range" in headers)
            if position < 0:
                return
            length = response.headers.get("Content-Length")
            # Of a body that is packed for the way, the length says nothing of the file's.
            packed = response.headers.get("Content-Encoding", "identity") != "identity"
            total = position + int(length) if length and length.isdigit() and not packed else None
            self._expect(total)
            etag = response.headers.get("ETag", "")
            # A weak validator does not promise equal bytes.
            self._write_note({"url": self.download.url, "etag": "" if etag.startswith("W/") else etag,
                              "last_modified": response.headers.get("Last-Modified", ""), "size": total})
            for piece in response.iter_bytes():
                if self.stop is not None and self.stop.is_set():
                    raise self._failed("stopped")
                self.part.write(piece)
                self.received(len(piece), None)
            if total is not None and self._position() < total:
                raise _TryAgain(f"cut after {self._position():,} of {total:,} bytes")

    def _follow_up(self, response: "httpx.Response", position: int, asked_for_rest: bool) -> int:
        """Where in the file the response's body begins; -1 where nothing is missing."""
        status = response.status_code
        if status == 206 and asked_for_rest:
            unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
            start = rest.partition("-")[0]
            if unit != "bytes" or not start.isdigit() or int(start) != position:
                self._restart()
                raise _TryAgain("the server sent another part of the file than was asked for")
            self.resumed = True
            return position
        if status == 416 and asked_for_rest:
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(position):
                return -1
            self._restart()
            raise _TryAgain("the file has become shorter at its source")
        if status == 200:
            if position:
                logger.info("%s: from the beginning (the file has changed, or its server cannot send parts)",
                            self.download.path.name)
                self._restart()
            return 0
        raise self._refused(response)

    def _refused(self, response: "httpx.Response") -> Exception:
        status = response.status_code
        if status in TRY_AGAIN:
            return _TryAgain(f"the server answers {status} {response.reason_phrase}", _asked_pause(response))
        page = self.download.access
        if status in (401, 403) and page:
            has = self.settings.environment.get(TOKEN_VARIABLE)
            return self._failed(
                f"the server answers {status}: this set is given to those who ask. "
                + (f"The account of {TOKEN_VARIABLE} has no access yet: open {page} in a browser, logged in, and accept its "
                   "terms" if has else f"Open {page} in a browser, logged in, accept its terms, make a token with the right to "
                                       f"read, and set {TOKEN_VARIABLE} in the environment to it"))
        return self._failed(f"the server answers {status} {response.reason_phrase}: the file has moved or is not public; "
                            f"{mirror_variable(urlsplit(self.download.url).hostname or '')} names another place to ask")

    @contextmanager
    def _response(self, headers: dict[str, str]) -> Iterator["httpx.Response"]:
        """The response to a request, after redirects; the token goes to its own host alone."""
        environment = self.settings.environment
        url = asked_at(self.download.url, environment)
        token = environment.get(TOKEN_VARIABLE) if self.download.access and _is_host(self.download.url) else None
        origin = _origin(url)
        for _ in range(MOST_REDIRECTS):
            own = {**headers, "Authorization": f"Bearer {token}"} if token and _origin(url) == origin and _may_carry(url) else headers
            with self.client.stream("GET", url, headers=own) as response:
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                target = urljoin(url, response.headers.get("Location", ""))
            scheme, host = urlsplit(target).scheme, urlsplit(target).hostname or ""
            if scheme not in ("http", "https") or not host:
                raise self._failed(f"it leads to {scheme or 'no'} address")
            if scheme == "http" and urlsplit(url).scheme == "https" and host not in LOOPBACK:
                raise self._failed(f"it leads from https to http://{host}, where anyone on the way could change the file")
            url = asked_at(target, environment)
        raise self._failed(f"it leads from address to address, more than {MOST_REDIRECTS} times")

    def _expect(self, total: int | None) -> None:
        """Checks the size before anything is written; raises where it is wrong or there is no room."""
        if total is not None and self.download.size not in (None, total):
            raise self._failed(f"the server has {total:,} bytes, and the file has {self.download.size:,}: it has changed")
        if total is not None:
            free = shutil.disk_usage(self.download.path.parent).free
            missing = total - self._position()
            if free < missing:
                raise self._failed(f"{missing / 1e6:,.0f} MB are missing, and {self.download.path.parent} has room for "
                                   f"{free / 1e6:,.0f} MB: make room or choose another folder")
        if not self.told:
            self.told = True
            self.received(0, total - self._position() if total is not None else None)

    def _checked(self) -> tuple[str, int]:
        """The digest and size of what has come; raises where it is not the file."""
        self.part.flush()
        os.fsync(self.part.fileno())
        part = _part(self.download.path)
        size, digest = self._position(), file_sha256(part)
        wrong = wrong_content(part, self.download.path.name)
        if self.download.size not in (None, size):
            wrong = f"it has {size:,} bytes, not {self.download.size:,}"
        elif self.wanted not in (None, digest):
            wrong = wrong or f"its sha256 is {digest}, not {self.wanted}"
        if not wrong:
            return digest, size
        self._restart()
        if self.resumed:
            self.resumed = False
            raise _TryAgain(f"put together from parts, {wrong}")
        known = self.download.sha256 or self.download.size
        raise self._failed(f"what came is not the file: {wrong}. Nothing of it is kept. "
                           + ("Another copy may be right: name a mirror" if known or not self.wanted else
                              "If its owners have changed it and you want the change, give --update_lock"))

    def _read_note(self) -> dict[str, str]:
        with suppress(OSError, ValueError):
            note = json.loads(_note(self.download.path).read_text(encoding="utf-8"))
            return note if isinstance(note, dict) else {}
        return {}

    def _write_note(self, note: dict[str, object]) -> None:
        if self._read_note() != note:
            replace_file(_note(self.download.path), json.dumps(note) + "\n")


def _asked_pause(response: "httpx.Response") -> float | None:
    """The seconds that a server asks to be left alone."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    with suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
