"""The files of sets: fetched side by side, unpacked, and said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.errors import UserError
from instruction_modelling.sources.downloads.catalogue import DataSet, RawFile, path_of

if TYPE_CHECKING:
    from instruction_modelling.sources.downloads.fetch import Fetched


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

    def download_problems(self) -> list[str]:
        """Every problem of these options, in words."""
        return [
            f"--{name} {getattr(self, name)} must be above 0"
            for name in ("parallel", "tries", "timeout")
            if getattr(self, name) <= 0
        ]


def fetch_sets(sets: Sequence[DataSet], options: DownloadOptions) -> dict[str, str]:
    """Fetches and unpacks every file of the sets; what went wrong, by set."""
    from instruction_modelling.sources.downloads.archives import take_out
    from instruction_modelling.sources.downloads.fetch import Download, Settings, fetch_all
    from instruction_modelling.sources.downloads.lock import DownloadLock
    from instruction_modelling.sources.downloads.transfers import TransferProgress, messages_between

    data_dir = Path(options.data_dir)
    wanted: dict[Download, tuple[list[DataSet], RawFile]] = {}
    for one in sets:
        for file in one.files:
            download = Download(file.url, path_of(one, file, data_dir), file.sha256, file.size, one.access)
            wanted.setdefault(download, ([], file))[0].append(one)
    settings = Settings(
        tries=options.tries,
        timeout=options.timeout,
        parallel=options.parallel,
        update_lock=options.update_lock,
    )
    progress = TransferProgress()
    with messages_between(progress):
        fetched, failed = fetch_all(
            list(wanted), DownloadLock(data_dir / "downloads.lock.json"), settings, progress.received
        )
    problems: dict[str, str] = {}
    for download, error in failed.items():
        for one in wanted[download][0]:
            hint = (
                f" (or take {one.instead}, the rows as the paper's authors processed them)"
                if one.instead
                else ""
            )
            problems.setdefault(one.name, f"{error}{hint}")
    for there in fetched:
        owners, file = wanted[there.download]
        print_fetched(there, file)
        if file.members:
            try:
                take_out(
                    there.download.path, there.sha256, there.download.path.parent, file.members, file.flat
                )
            except UserError as error:
                problems.update(dict.fromkeys((one.name for one in owners), str(error)))
    return problems


def print_fetched(there: "Fetched", file: RawFile) -> None:
    """One line a file, and one more where it is not what its host once showed."""
    how = "was there" if there.was_there else "fetched"
    print(
        f"{how}: {there.download.path} ({there.bytes / 1e6:,.1f} MB, sha256 {there.sha256[:12]}...)",
        flush=True,
    )
    if file.published not in (None, there.sha256):
        print(
            f"note: {there.download.path} is not the file that was published there before (sha256 "
            f"{file.published}): rows "
            "may differ from those of published work",
            flush=True,
        )


def print_summary(rows: Sequence[tuple[str, str, str, str]]) -> int:
    """A line a set (name, ready or failed, rows, where it is or what went wrong); the exit code."""
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


def print_sets(sets: Sequence[DataSet]) -> None:
    """The sets with their rows, size, licence and addresses."""
    lines = []
    for one in sets:
        size = one.size()
        lines.append(
            (
                one.name,
                f"{one.rows:,}" if one.rows else "-",
                f"{size / 1e6:,.1f} MB" if size else "-",
                one.licence + (", on consent" if one.access else ""),
                [file.url for file in one.files] or ["made of " + ", ".join(one.parts)],
            )
        )
    width, wide = max(len(line[0]) for line in lines), max(len(line[3]) for line in lines)
    print(f"{'set':{width}}  {'rows':>8}  {'size':>10}  {'licence':{wide}}  address")
    for name, rows, shown, licence, addresses in lines:
        print(f"{name:{width}}  {rows:>8}  {shown:>10}  {licence:{wide}}  {addresses[0]}")
        for address in addresses[1:]:
            print(" " * (width + wide + 26) + address)
