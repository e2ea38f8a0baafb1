"""Fetch files from the network: resumed where they were cut, checked, and under their name only when they are
whole.

A file comes as NAME.part beside where it will be, with NAME.part.json saying what it is a part of, and is
renamed once its size, its hash where that is known, and its first and last bytes are what they should be.
Whatever is interrupted (by a signal, a power cut, a full disk) goes on from there. What was fetched is
recorded by address in a `KnownHashes`, so that a file that has changed at its source is noticed."""

import errno
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.sources.downloads.contents import wrong_content
from instruction_modelling.sources.downloads.download import (
    Download,
    DownloadFailed,
    Fetched,
    FetchSettings,
    OnBytes,
)
from instruction_modelling.sources.downloads.known_hashes import KnownHashes
from instruction_modelling.sources.downloads.partial import exclusive_part
from instruction_modelling.sources.downloads.transfer import Transfer

logger = logging.getLogger(__name__)


def fetch_all(
    downloads: Sequence[Download],
    lock: KnownHashes,
    settings: FetchSettings | None = None,
    on_bytes: OnBytes | None = None,
) -> tuple[list[Fetched], dict[Download, UserError]]:
    """Fetch files, several at a time; one that fails does not stop the others.

    Args:
        lock: what was fetched before; what is fetched now is added.
        on_bytes: hears of every piece that comes.

    Returns:
        the files that are on the disk, in the order asked for, and what went wrong with each of the others.
    """
    settings = settings or FetchSettings()
    done: dict[Download, Fetched] = {}
    failed: dict[Download, UserError] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, settings.parallel)) as pool:
        tasks = {
            pool.submit(fetch_file, download, lock, settings, on_bytes, stop): download
            for download in downloads
        }
        try:
            for task in as_completed(tasks):
                try:
                    done[tasks[task]] = task.result()
                except UserError as error:
                    failed[tasks[task]] = error
                    logger.info("%s", error)
        except BaseException:
            # Ctrl-C: without this the pool would wait until every file has come.
            stop.set()
            for task in tasks:
                task.cancel()
            raise
    return [done[download] for download in downloads if download in done], failed


def fetch_file(
    download: Download,
    lock: KnownHashes,
    settings: FetchSettings | None = None,
    on_bytes: OnBytes | None = None,
    stop: threading.Event | None = None,
) -> Fetched:
    """Fetch one file, or find it on the disk, whole and as recorded.

    Args:
        stop: ends the transfer once it is set.

    Raises:
        DownloadFailed: it cannot be had, is not what it should be, or there is no room for it.
        UserError: the lock file, or what the environment says of mirrors and the token, cannot be used.
    """
    settings = settings or FetchSettings()
    expected = download.sha256 or (None if settings.update_lock else lock.sha256(download.url))
    present = _present(download, expected, lock, settings)
    if present:
        return present
    # The library's lines at each request show whole addresses, which may hold passwords and signatures.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        download.path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_part(download.path, stop) as part:
            if part is None:
                raise DownloadFailed(f"{download.url}: stopped")
            # Another process may have fetched it while this one waited.
            present = _present(download, expected, lock, settings)
            if present:
                return present
            digest, size = Transfer(download, expected, part, settings, on_bytes, stop).run()
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


def _present(
    download: Download, expected: str | None, lock: KnownHashes, settings: FetchSettings
) -> Fetched | None:
    """Return the file, if it is on the disk and has the `expected` sha256, if any."""
    path = download.path
    if not path.is_file() or (settings.update_lock and download.sha256 is None):
        return None
    size = path.stat().st_size
    if download.size not in (None, size) or (expected is None and wrong_content(path)):
        return None
    digest = file_sha256(path)
    if expected not in (None, digest):
        logger.info(
            "%s is not the file that was recorded for %s (sha256 %s..., not %s...): fetching it again",
            path,
            download.url,
            digest[:12],
            expected[:12] if expected else "",
        )
        return None
    lock.record(download.url, digest, size)
    return Fetched(download, digest, size, was_there=True)
