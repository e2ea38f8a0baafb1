"""Files from the network: resumed where they were cut, checked, and under their name only when they are
whole.

A file comes as NAME.part beside where it will be, with NAME.part.json saying what it is a part of, and is
renamed once its size, its hash where that is known, and its first and last bytes are what they should be.
Whatever is interrupted (by a signal, a power cut, a full disk) goes on from there. What was fetched is
recorded by address in a `DownloadLock`, so that a file that has changed at its source is noticed."""

import errno
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.sources.downloads.addresses import (
    TOKEN_VARIABLE,
    WrongAddress,
    asked_at,
    may_carry,
    mirror_variable,
    next_address,
    place_of,
    token_for,
)
from instruction_modelling.sources.downloads.contents import CUT_SHORT, wrong_content
from instruction_modelling.sources.downloads.headers import asked_pause, number, strong_etag, total_size
from instruction_modelling.sources.downloads.lock import DownloadLock
from instruction_modelling.sources.downloads.partial import PartialFile, own_part

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
    """Of a file that not everybody may have: the page where access is granted. HF_TOKEN is sent for these
    alone."""


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
    """Seconds before the second attempt; doubled each time, up to `longest_pause`, and shortened at random by
    up to half."""
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
    """What went wrong may pass: a cut connection, a server that is busy; `after`: seconds the server asks to
    wait."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def fetch_all(
    downloads: Sequence[Download],
    lock: DownloadLock,
    settings: Settings | None = None,
    received: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Fetched], dict[Download, UserError]]:
    """Fetches files, several at a time; one that fails does not stop the others.

    Args:
        lock: what was fetched before; what is fetched now is added.
        received: called with (bytes that came, bytes of the file if this is its first call and the size is
            known).

    Returns:
        the files that are there, in the order asked for, and what went wrong with each of the others.
    """
    settings = settings or Settings()
    done: dict[Download, Fetched] = {}
    failed: dict[Download, UserError] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, settings.parallel)) as pool:
        tasks = {
            pool.submit(fetch, download, lock, settings, received, stop): download for download in downloads
        }
        try:
            for task in as_completed(tasks):
                try:
                    done[tasks[task]] = task.result()
                except UserError as error:
                    failed[tasks[task]] = error
                    logger.info("%s", error)
        except BaseException:
            stop.set()
            for task in tasks:
                task.cancel()
            raise
    return [done[download] for download in downloads if download in done], failed


def fetch(
    download: Download,
    lock: DownloadLock,
    settings: Settings | None = None,
    received: Callable[[int, int | None], None] | None = None,
    stop: threading.Event | None = None,
) -> Fetched:
    """Fetches one file, or finds it there, whole and as recorded.

    Raises:
        DownloadFailed: it cannot be had, is not what it should be, or there is no room for it.
        UserError: the lock file, or what the environment says of mirrors and the token, cannot be used.
    """
    settings = settings or Settings()
    wanted = download.sha256 or (None if settings.update_lock else lock.sha256(download.url))
    there = _found(download, wanted, lock, settings)
    if there:
        return there
    # The library's lines at each request show whole addresses, which may hold passwords and signatures.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        download.path.parent.mkdir(parents=True, exist_ok=True)
        with own_part(download.path, stop) as part:
            if part is None:
                raise DownloadFailed(f"{download.url}: stopped")
            there = _found(download, wanted, lock, settings)
            if there:
                return there
            with _client(download, settings) as client:
                transfer = _Transfer(
                    download, wanted, part, client, settings, received or (lambda *_: None), stop
                )
                digest, size = transfer.run()
            part.finish()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DownloadFailed(
            f"{download.url}: {download.path} cannot be written: {error.strerror or error}. "
            f"{'Make room or choose' if full else 'Choose'} another folder; what has come is kept, and the "
            "same command goes on from it"
        ) from error
    lock.record(download.url, digest, size)
    return Fetched(download, digest, size, was_there=False)


def _client(download: Download, settings: Settings) -> "httpx.Client":
    import httpx

    try:
        return httpx.Client(timeout=settings.timeout, follow_redirects=False, trust_env=True)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # A proxy's address may hold a password, and is not shown.
        raise DownloadFailed(
            f"{download.url}: no connection can be made with the certificates and proxies that the "
            "environment names (SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, ALL_PROXY): "
            f"{type(error).__name__}"
        ) from None


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
        logger.info(
            "%s is not the file that was recorded for %s (sha256 %s..., not %s...): fetching it again",
            path,
            download.url,
            digest[:12],
            wanted[:12] if wanted else "",
        )
        return None
    lock.record(download.url, digest, size)
    return Fetched(download, digest, size, was_there=True)


class _Transfer:
    """One file's way to NAME.part, over as many attempts as it takes."""

    def __init__(
        self,
        download: Download,
        wanted: str | None,
        part: PartialFile,
        client: "httpx.Client",
        settings: Settings,
        received: Callable[[int, int | None], None],
        stop: threading.Event | None,
    ):
        self.download, self.wanted, self.part, self.client = download, wanted, part, client
        self.settings, self.received, self.stop = settings, received, stop
        self.asked = asked_at(download.url, settings.environment)
        self.token = token_for(download.url, settings.environment) if download.access else None
        self.told = self.resumed = False
        self.whole = False
        """Whether the server says that nothing is missing."""

    def run(self) -> tuple[str, int]:
        """The hex digest and size of the whole file.

        Raises:
            DownloadFailed: it cannot be had.
        """
        import httpx

        attempt, most = 0, self.part.size
        if most:
            logger.info("%s: going on from %.1f MB", self.download.path.name, most / 1e6)
        while True:
            try:
                self._attempt()
                return self._checked()
            except (httpx.RequestError, _TryAgain) as error:
                # What came keeps the attempts from running out, unless as much had come before and was let go
                # of.
                attempt = 0 if self.part.size > most else attempt + 1
                most = max(most, self.part.size)
                self._wait(self._pause(attempt, error))
            except httpx.InvalidURL:
                raise self._failed("it leads to what is not an address") from None

    def _pause(self, attempt: int, error: Exception) -> float:
        """Seconds to wait before the next attempt; raises where there is to be none."""
        what = str(error) or type(error).__name__
        asked = error.after if isinstance(error, _TryAgain) else None
        if "CERTIFICATE_VERIFY_FAILED" in what:
            raise self._failed(
                f"{what}. Where a proxy has a certificate of its own, SSL_CERT_FILE names the file of it"
            )
        if attempt >= self.settings.tries or (asked or 0) > self.settings.longest_asked:
            raise self._failed(
                f"{what}{f' (asked to wait {asked:.0f} s)' if asked else ''}; given up after {attempt} "
                "attempts "
                f"that brought nothing. The same command goes on from what has come ({self.part.size:,} "
                "bytes)"
            )
        pause = min(
            self.settings.longest_pause, self.settings.pause * 2 ** max(0, attempt - 1)
        ) * random.uniform(0.5, 1)
        pause = max(pause, asked or 0)
        logger.info("%s: %s; trying again in %.1f s", self.download.path.name, what, pause)
        return pause

    def _wait(self, seconds: float) -> None:
        if self.stop is None:
            time.sleep(seconds)
        elif self.stop.wait(seconds):
            raise self._failed("stopped")

    def _failed(self, why: str) -> DownloadFailed:
        through = f" (through its mirror {place_of(self.asked)})" if self.asked != self.download.url else ""
        return DownloadFailed(f"{self.download.url}{through}: {why}")

    def _attempt(self) -> None:
        """Asks for what is missing and appends it."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "instruction-modelling"}
        position = self.part.size
        note = self.part.note if position else {}
        validator = str(note.get("etag") or note.get("last_modified") or "")
        if (
            position
            and (validator or self.wanted)
            and note.get("url") == self.download.url
            and not note.get("packed")
        ):
            headers["Range"] = f"bytes={position}-"
            if validator:
                headers["If-Range"] = validator
        elif position:
            # Nothing tells whether the rest would be of the same file.
            self.part.restart()
        with self._response(headers) as response:
            # Of a body that is packed for the way, lengths and ranges say nothing of the file's bytes.
            packed = response.headers.get("Content-Encoding", "identity") != "identity"
            self.whole = not self._follows(response, note if "Range" in headers else {}, packed)
            if self.whole:
                return
            position = self.part.size
            total = None if packed else total_size(response, position)
            self._expect(total)
            self.part.note = {
                "url": self.download.url,
                "etag": strong_etag(response),
                "packed": packed,
                "size": total,
                "last_modified": response.headers.get("Last-Modified", ""),
            }
            for piece in response.iter_bytes():
                if self.stop is not None and self.stop.is_set():
                    raise self._failed("stopped")
                self.part.append(piece)
                self.received(len(piece), None)
            self.whole = total is not None
            if total is not None and self.part.size < total:
                raise _TryAgain(f"cut after {self.part.size:,} of {total:,} bytes")

    def _follows(self, response: "httpx.Response", note: dict[str, object], packed: bool) -> bool:
        """Whether the response's body is to be appended to what has come; False where nothing is missing.

        Args:
            note: of what the rest was asked for; empty where the whole was asked for.
        """
        status, position = response.status_code, self.part.size
        about = response.headers.get("Content-Range", "")
        if status == 206 and note:
            begin, _, total = about.removeprefix("bytes ").partition("/")
            same = (
                begin.partition("-")[0] == str(position)
                and not packed
                and (number(total) is None or note.get("size") in (None, number(total)))
                and (not strong_etag(response) or note.get("etag") in ("", strong_etag(response)))
            )
            if not same:
                self.part.restart()
                raise _TryAgain("the server sent what is not the rest of the same file")
            self.resumed = True
            return True
        if status == 416 and note:
            if about.rpartition("/")[2] == str(position):
                return False
            self.part.restart()
            raise _TryAgain("the file has become shorter at its source")
        if status == 200:
            if position:
                logger.info(
                    "%s: from the beginning (the file has changed, or its server cannot send parts)",
                    self.download.path.name,
                )
                self.part.restart()
            return True
        raise self._refused(response)

    def _refused(self, response: "httpx.Response") -> Exception:
        status = response.status_code
        if status in TRY_AGAIN:
            return _TryAgain(f"the server answers {status} {response.reason_phrase}", asked_pause(response))
        page = self.download.access
        if status in (401, 403) and page:
            return self._failed(
                f"the server answers {status}: this set is given to those who ask. "
                + (
                    f"{TOKEN_VARIABLE} is not accepted, or its account has no access yet: open {page} in a "
                    "browser, logged in, "
                    "and accept its terms"
                    if self.token
                    else f"Open {page} in a browser, logged in, accept its terms, make a token with the "
                    f"right to read, and set {TOKEN_VARIABLE} in the environment to it"
                )
            )
        return self._failed(
            f"the server answers {status} {response.reason_phrase}: the file has moved or is not public; "
            f"{mirror_variable(urlsplit(self.download.url).hostname or '')} names another place to ask"
        )

    @contextmanager
    def _response(self, headers: dict[str, str]) -> Iterator["httpx.Response"]:
        """The response to a request, after redirects; the token goes to its own host alone."""
        url = self.asked
        for _ in range(MOST_REDIRECTS):
            carries = self.token is not None and may_carry(self.asked, url)
            own = {**headers, "Authorization": f"Bearer {self.token}"} if carries else headers
            with self.client.stream("GET", url, headers=own) as response:
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                location = response.headers.get("Location", "")
            try:
                url = next_address(url, location, self.settings.environment)
            except WrongAddress as error:
                raise self._failed(str(error)) from None
        raise self._failed(f"it leads from address to address, more than {MOST_REDIRECTS} times")

    def _expect(self, total: int | None) -> None:
        """Checks the size before anything is written; raises where it is wrong or there is no room."""
        missing = total - self.part.size if total is not None else None
        if missing is not None:
            if self.download.size not in (None, total):
                raise self._failed(
                    f"the server has {total:,} bytes, and the file has {self.download.size:,}: it has changed"
                )
            free = shutil.disk_usage(self.download.path.parent).free
            if free < missing:
                raise self._failed(
                    f"{missing / 1e6:,.0f} MB are missing, and {self.download.path.parent} has room for "
                    f"{free / 1e6:,.0f} MB: make room or choose another folder"
                )
        if not self.told:
            self.told = True
            self.received(0, missing)

    def _checked(self) -> tuple[str, int]:
        """The digest and size of what has come; raises where it is not the file."""
        size, digest = self.part.size, self.part.sha256()
        wrong = wrong_content(self.part.path, self.download.path.name)
        if self.download.size not in (None, size):
            wrong = f"it has {size:,} bytes, not {self.download.size:,}"
        elif self.wanted not in (None, digest):
            wrong = wrong or f"its sha256 is {digest}, not {self.wanted}"
        if not wrong:
            return digest, size
        if not self.whole and (wrong == CUT_SHORT or size < (self.download.size or 0)):
            # Where the server says no length, a cut looks like an end.
            raise _TryAgain(f"after {size:,} bytes {wrong}")
        self.part.restart()
        if self.resumed:
            self.resumed = False
            raise _TryAgain(f"put together from parts, {wrong}")
        known = self.download.sha256 or self.download.size
        raise self._failed(
            f"what came is not the file: {wrong}. Nothing of it is kept. "
            + (
                "Another copy may be right: name a mirror"
                if known or not self.wanted
                else "If its owners have changed it and you want the change, give --update_lock"
            )
        )
