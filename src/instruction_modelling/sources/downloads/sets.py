"""Fetch the files of sets side by side, unpack them, and say what is there."""

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.errors import UserError
from instruction_modelling.nearest import did_you_mean
from instruction_modelling.sources.downloads.published import PublishedSet, RawFile

if TYPE_CHECKING:
    from instruction_modelling.sources.downloads.download import Fetched


@dataclass
class ListOptions:
    """Listing."""

    list: bool = False
    """Print every set, or those named: rows, size, licence, address; and do nothing else."""


@dataclass
class DownloadOptions:
    """Downloads."""

    data_dir: str = "data"
    """Folder that everything goes below."""
    parallel: int = 4
    """Files fetched at a time."""
    tries: int = 8
    """Attempts in a row that bring nothing before a file is given up."""
    timeout: float = 60.0
    """Seconds without a byte after which an attempt has failed."""
    update_lock: bool = False
    """Take files that differ from what the lock file recorded, and record them anew."""

    def download_problems(self, names: Iterable[str], catalogue: Collection[str]) -> list[str]:
        """Return every problem of these options, in words, and of names of sets that the catalogue lacks."""
        there_are = f"; there are {', '.join(catalogue)}"
        problems = [
            f"{name}: no such set{did_you_mean(name, catalogue) or there_are} (--list tells more)"
            for name in names
            if name not in catalogue
        ]
        return problems + [
            f"--{name} {getattr(self, name)} must be above 0"
            for name in ("parallel", "tries", "timeout")
            if getattr(self, name) <= 0
        ]


def until_interrupted(prepare: Callable[[], int]) -> int:
    """Return the exit code of a preparation; 130 where Ctrl-C stops it."""
    try:
        return prepare()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def fetch_sets(sets: Sequence[PublishedSet], options: DownloadOptions) -> dict[str, str]:
    """Fetch and unpack every file of the sets; return what went wrong, by the set's name."""
    from instruction_modelling.sources.downloads.download import Download, FetchSettings
    from instruction_modelling.sources.downloads.fetch import fetch_all
    from instruction_modelling.sources.downloads.known_hashes import KnownHashes
    from instruction_modelling.sources.downloads.transfer_progress import TransferProgress, messages_between

    data_dir = Path(options.data_dir)
    # Sets may share a file, which is then fetched once.
    files: dict[Download, RawFile] = {}
    sets_of: dict[Download, list[PublishedSet]] = {}
    for published in sets:
        for file, path in zip(published.files, published.paths(data_dir), strict=True):
            download = Download(file.url, path, file.sha256, file.size, published.access)
            files.setdefault(download, file)
            sets_of.setdefault(download, []).append(published)
    settings = FetchSettings(
        tries=options.tries,
        timeout=options.timeout,
        parallel=options.parallel,
        update_lock=options.update_lock,
    )
    progress = TransferProgress()
    with messages_between(progress):
        fetched, failed = fetch_all(
            list(files), KnownHashes(data_dir / "downloads.lock.json"), settings, progress.received
        )
    problems: dict[str, str] = {}
    for download, error in failed.items():
        for published in sets_of[download]:
            problems.setdefault(published.name, f"{error}{_alternative(published)}")
    for result in fetched:
        file = files[result.download]
        print_fetched(result, file)
        if problem := _unpacking_problem(result, file):
            problems.update(
                dict.fromkeys((published.name for published in sets_of[result.download]), problem)
            )
    return problems


def _alternative(published: PublishedSet) -> str:
    if not published.instead:
        return ""
    return f" (or take {published.instead}, the rows as the paper's authors processed them)"


def _unpacking_problem(fetched: "Fetched", file: RawFile) -> str | None:
    """Unpack an archive; return what went wrong."""
    from instruction_modelling.sources.downloads.archives import take_out

    if not file.members:
        return None
    path = fetched.download.path
    try:
        take_out(path, fetched.sha256, path.parent, file.members, file.flat)
    except UserError as error:
        return str(error)
    return None


def print_fetched(fetched: "Fetched", file: RawFile) -> None:
    """Print one line for a file, and one more where it is not what its host once showed."""
    how, path = "was there" if fetched.was_there else "fetched", fetched.download.path
    print(f"{how}: {path} ({fetched.bytes / 1e6:,.1f} MB, sha256 {fetched.sha256[:12]}...)", flush=True)
    if file.published not in (None, fetched.sha256):
        print(
            f"note: {path} is not the file that was published there before (sha256 {file.published}): rows "
            "may differ from those of published work",
            flush=True,
        )


def print_states(rows: Sequence[tuple[str, str, str, str]]) -> int:
    """Print a line a set (name, ready or failed, rows, where it is or what went wrong); return the exit
    code."""
    width = max(len(name) for name, *_ in rows)
    print(f"\n{'set':{width}}  {'state':6}  {'rows':>9}  where")
    for name, state, count, where in rows:
        print(f"{name:{width}}  {state:6}  {count:>9}  {where}")
    failed = [name for name, state, *_ in rows if state == "failed"]
    if failed:
        print(
            f"{len(failed)} of {len(rows)} sets are not there: {', '.join(failed)}. The same command goes on "
            "from here"
        )
    return 2 if failed else 0


def print_sets(sets: Sequence[PublishedSet]) -> None:
    """Print the sets with their rows, size, licence and addresses."""
    lines = []
    for published in sets:
        size = published.size()
        lines.append(
            (
                published.name,
                f"{published.rows:,}" if published.rows else "-",
                f"{size / 1e6:,.1f} MB" if size else "-",
                published.licence + (", on consent" if published.access else ""),
                [file.url for file in published.files] or ["made of " + ", ".join(published.parts)],
            )
        )
    width, licence_width = max(len(line[0]) for line in lines), max(len(line[3]) for line in lines)
    print(f"{'set':{width}}  {'rows':>8}  {'size':>10}  {'licence':{licence_width}}  address")
    for name, rows, shown, licence, addresses in lines:
        print(f"{name:{width}}  {rows:>8}  {shown:>10}  {licence:{licence_width}}  {addresses[0]}")
        for address in addresses[1:]:
            print(" " * (width + licence_width + 26) + address)
