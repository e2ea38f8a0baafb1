"""Transfer one file to its NAME.part, over as many attempts as it takes."""

import logging
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from instruction_modelling.sources.downloads.addresses import (
    TOKEN_VARIABLE,
    WrongAddress,
    asked_address,
    host_and_port,
    may_carry,
    mirror_variable,
    next_address,
    token_for,
)
from instruction_modelling.sources.downloads.contents import CUT_SHORT, wrong_content
from instruction_modelling.sources.downloads.download import Download, DownloadFailed, FetchSettings, OnBytes
from instruction_modelling.sources.downloads.headers import asked_pause, byte_count, strong_etag, total_size
from instruction_modelling.sources.downloads.partial import PartialFile

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 10


class _TryAgain(Exception):
    """What went wrong may pass: a cut connection, a busy server.

    `after`: seconds that the server asks to wait.
    """

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


class Transfer:
    """One file on its way to NAME.part.

    Args:
        expected: sha256 of the file; None where it is not known.
        part: what has come of it, held by this process alone.
        on_bytes: hears of every piece that comes.
        stop: ends the transfer once it is set.

    Raises:
        UserError: what the environment says of mirrors and the token cannot be used.
    """

    def __init__(  # noqa: PLR0913 (each is a thing of its own, and the one caller has them all)
        self,
        download: Download,
        expected: str | None,
        part: PartialFile,
        settings: FetchSettings,
        on_bytes: OnBytes | None,
        stop: threading.Event | None,
    ):
        self._download, self._expected, self._part = download, expected, part
        self._settings, self._on_bytes, self._stop = settings, on_bytes or (lambda *_: None), stop
        self._asked = asked_address(download.url, settings.environment)
        self._token = token_for(download.url, settings.environment) if download.access else None
        self._size_announced = False
        # Whether what has come was put together from several responses.
        self._resumed = False
        # Whether the server says that nothing is missing.
        self._complete = False

    def run(self) -> tuple[str, int]:
        """Return the hex digest and the size in bytes of the whole file, which is then in NAME.part.

        Raises:
            DownloadFailed: it cannot be had.
        """
        import httpx

        failures, most = 0, self._part.size
        if most:
            logger.info("%s: going on from %.1f MB", self._download.path.name, most / 1e6)
        with self._client() as client:
            while True:
                try:
                    self._attempt(client)
                    return self._checked()
                except (httpx.RequestError, _TryAgain) as error:
                    # A server that sends the beginning for ever would never be given up if any byte counted:
                    # only more than ever came before starts the count of failures anew.
                    failures = 0 if self._part.size > most else failures + 1
                    most = max(most, self._part.size)
                    self._wait(self._pause(failures, error))
                except httpx.InvalidURL:
                    raise self._failed("it leads to what is not an address") from None

    def _client(self) -> "httpx.Client":
        import httpx

        try:
            return httpx.Client(timeout=self._settings.timeout, follow_redirects=False, trust_env=True)
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            # A proxy's address may hold a password, and is not shown.
            raise DownloadFailed(
                f"{self._download.url}: no connection can be made with the certificates and proxies that the "
                "environment names (SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, ALL_PROXY): "
                f"{type(error).__name__}"
            ) from None

    def _pause(self, failures: int, error: Exception) -> float:
        """Return the seconds to wait before the next attempt; raise where there is to be none."""
        settings, what = self._settings, str(error) or type(error).__name__
        asked = error.after if isinstance(error, _TryAgain) else None
        if "CERTIFICATE_VERIFY_FAILED" in what:
            raise self._failed(
                f"{what}. Where a proxy has a certificate of its own, SSL_CERT_FILE names the file of it"
            )
        if failures >= settings.tries or (asked or 0) > settings.longest_asked:
            raise self._failed(
                f"{what}{f' (asked to wait {asked:.0f} s)' if asked else ''}; given up after {failures} "
                f"attempts that brought nothing. The same command goes on from what has come "
                f"({self._part.size:,} bytes)"
            )
        pause = min(settings.longest_pause, settings.pause * 2 ** max(0, failures - 1))
        pause = max(pause * random.uniform(0.5, 1), asked or 0)
        logger.info("%s: %s; trying again in %.1f s", self._download.path.name, what, pause)
        return pause

    def _wait(self, seconds: float) -> None:
        if self._stop is None:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise self._failed("stopped")

    def _failed(self, why: str) -> DownloadFailed:
        mirrored = self._asked != self._download.url
        through = f" (through its mirror {host_and_port(self._asked)})" if mirrored else ""
        return DownloadFailed(f"{self._download.url}{through}: {why}")

    def _attempt(self, client: "httpx.Client") -> None:
        """Ask for what is missing and append it."""
        note = self._resumable_note()
        headers = {"Accept-Encoding": "identity", "User-Agent": "instruction-modelling"}
        if note:
            headers["Range"] = f"bytes={self._part.size}-"
            if validator := _validator(note):
                headers["If-Range"] = validator
        with self._response(client, headers) as response:
            # Of a body that is packed for the way, lengths and ranges say nothing of the file's bytes.
            packed = response.headers.get("Content-Encoding", "identity") != "identity"
            self._complete = not self._body_follows(response, note, packed)
            if not self._complete:
                self._append_body(response, packed)

    def _resumable_note(self) -> dict[str, object]:
        """Return what is known of the file whose beginning has come; empty where the whole is to be asked
        for."""
        if not self._part.size:
            return {}
        note = self._part.note
        known = _validator(note) or self._expected
        if known and note.get("url") == self._download.url and not note.get("packed"):
            return note
        # Nothing tells whether the rest would be of the same file.
        self._part.restart()
        return {}

    def _append_body(self, response: "httpx.Response", packed: bool) -> None:
        total = None if packed else total_size(response, self._part.size)
        self._check_room(total)
        self._part.note = {
            "url": self._download.url,
            "etag": strong_etag(response),
            "packed": packed,
            "size": total,
            "last_modified": response.headers.get("Last-Modified", ""),
        }
        for piece in response.iter_bytes():
            if self._stop is not None and self._stop.is_set():
                raise self._failed("stopped")
            self._part.append(piece)
            self._on_bytes(len(piece), None)
        self._complete = total is not None
        if total is not None and self._part.size < total:
            raise _TryAgain(f"cut after {self._part.size:,} of {total:,} bytes")

    def _body_follows(self, response: "httpx.Response", note: dict[str, object], packed: bool) -> bool:
        """Return whether the response's body is to be appended to what has come; False where nothing is
        missing.

        Args:
            note: of what the rest was asked for; empty where the whole was asked for.
        """
        status, position = response.status_code, self._part.size
        content_range = response.headers.get("Content-Range", "")
        if status == 206 and note:
            if packed or not _is_rest(response, note, position):
                self._part.restart()
                raise _TryAgain("the server sent what is not the rest of the same file")
            self._resumed = True
            return True
        if status == 416 and note:
            if content_range.rpartition("/")[2] == str(position):
                return False
            self._part.restart()
            raise _TryAgain("the file has become shorter at its source")
        if status == 200:
            if position:
                logger.info(
                    "%s: from the beginning (the file has changed, or its server cannot send parts)",
                    self._download.path.name,
                )
                self._part.restart()
            return True
        self._refuse(response)

    def _refuse(self, response: "httpx.Response") -> NoReturn:
        """Raise what an answer without the file means."""
        status = response.status_code
        if status in TRY_AGAIN:
            raise _TryAgain(f"the server answers {status} {response.reason_phrase}", asked_pause(response))
        page = self._download.access
        if status in (401, 403) and page:
            raise self._failed(
                f"the server answers {status}: this set is given to those who ask. "
                + (
                    f"{TOKEN_VARIABLE} is not accepted, or its account has no access yet: open {page} in a "
                    "browser, logged in, and accept its terms"
                    if self._token
                    else f"Open {page} in a browser, logged in, accept its terms, make a token with the "
                    f"right to read, and set {TOKEN_VARIABLE} in the environment to it"
                )
            )
        raise self._failed(
            f"the server answers {status} {response.reason_phrase}: the file has moved or is not public; "
            f"{mirror_variable(urlsplit(self._download.url).hostname or '')} names another place to ask"
        )

    @contextmanager
    def _response(self, client: "httpx.Client", headers: dict[str, str]) -> Iterator["httpx.Response"]:
        """Yield the response to a request, after redirects; the token goes to its own host alone."""
        url = self._asked
        for _ in range(MOST_REDIRECTS):
            carries = self._token is not None and may_carry(self._asked, url)
            sent = {**headers, "Authorization": f"Bearer {self._token}"} if carries else headers
            with client.stream("GET", url, headers=sent) as response:
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                location = response.headers.get("Location", "")
            try:
                url = next_address(url, location, self._settings.environment)
            except WrongAddress as error:
                raise self._failed(str(error)) from None
        raise self._failed(f"it leads from address to address, more than {MOST_REDIRECTS} times")

    def _check_room(self, total: int | None) -> None:
        """Raise, before anything is written, where the size is wrong or there is no room."""
        missing = total - self._part.size if total is not None else None
        if missing is not None:
            if self._download.size not in (None, total):
                raise self._failed(
                    f"the server has {total:,} bytes, and the file has {self._download.size:,}: it has "
                    "changed"
                )
            folder = self._download.path.parent
            free = shutil.disk_usage(folder).free
            if free < missing:
                raise self._failed(
                    f"{missing / 1e6:,.0f} MB are missing, and {folder} has room for {free / 1e6:,.0f} MB: "
                    "make room or choose another folder"
                )
        if not self._size_announced:
            self._size_announced = True
            self._on_bytes(0, missing)

    def _checked(self) -> tuple[str, int]:
        """Return the digest and size of what has come; raise where it is not the file."""
        download, size, digest = self._download, self._part.size, self._part.sha256()
        wrong = wrong_content(self._part.path, download.path.name)
        if download.size not in (None, size):
            wrong = f"it has {size:,} bytes, not {download.size:,}"
        elif self._expected not in (None, digest):
            wrong = wrong or f"its sha256 is {digest}, not {self._expected}"
        if not wrong:
            return digest, size
        if not self._complete and (wrong == CUT_SHORT or size < (download.size or 0)):
            # Where the server says no length, a cut looks like an end.
            raise _TryAgain(f"after {size:,} bytes {wrong}")
        self._part.restart()
        if self._resumed:
            self._resumed = False
            raise _TryAgain(f"put together from parts, {wrong}")
        known_beforehand = download.sha256 or download.size
        raise self._failed(
            f"what came is not the file: {wrong}. Nothing of it is kept. "
            + (
                "Another copy may be right: name a mirror"
                if known_beforehand or not self._expected
                else "If its owners have changed it and you want the change, give --update_lock"
            )
        )


def _validator(note: dict[str, object]) -> str:
    """Return what If-Range asks with, so that the rest comes of the same file or not at all; empty where the
    server said nothing to know the file by."""
    return str(note.get("etag") or note.get("last_modified") or "")


def _is_rest(response: "httpx.Response", note: dict[str, object], position: int) -> bool:
    """Return whether a partial response begins at `position` (bytes) of the file that the note is of."""
    begin, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return (
        begin.partition("-")[0] == str(position)
        and (byte_count(total) is None or note.get("size") in (None, byte_count(total)))
        and (not strong_etag(response) or note.get("etag") in ("", strong_etag(response)))
    )
