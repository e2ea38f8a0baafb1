"""A published set: where its files are, what they hold, on which terms."""

from dataclasses import dataclass
from pathlib import Path

HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class RawFile:
    """A file to fetch, and what is to be taken out of it."""

    url: str
    path: str
    """Where it goes, below the set's folder."""
    sha256: str | None = None
    size: int | None = None
    listed: int | None = None
    """Bytes as its host lists them, rounded: shown, not checked."""
    published: str | None = None
    """The sha256 its host has shown. A branch may change, so a file with another one is taken and
    reported."""
    members: tuple[str, ...] = ()
    """Of a zip file: patterns of what is taken out (default: it is used as it is)."""
    flat: bool = False
    """Whether members go into the set's folder itself; else below it, without the archive's one top
    folder."""


@dataclass(frozen=True)
class PublishedSet:
    """A set of files that somebody published: a training set, or what a benchmark needs."""

    name: str
    files: tuple[RawFile, ...]
    rows: int | None
    licence: str
    source: str
    """A page about it."""
    folder: str
    """Of its files, below the data folder: `` for the processed ones, alpagasus/..., raw_train/..."""
    formats: tuple[str, ...] = ()
    """What its files are converted to: names of `conversion.formats.CONVERTERS`, or the mixture's own."""
    parts: tuple[str, ...] = ()
    """Of a mixture: the sets it is made of."""
    access: str | None = None
    """Where access is granted, if not everybody has it."""
    words: tuple[float, float] | None = None
    """Mean words of an instruction and of an output (the paper's Table 5)."""
    instead: str | None = None
    """Another set with nearly the same rows, for those without access."""

    def size(self) -> int | None:
        """Return the bytes to fetch, where known; of files that are not checked for their size, about."""
        sizes = [file.size or file.listed for file in self.files]
        return sum(size for size in sizes if size) if all(sizes) and sizes else None

    def paths(self, data_dir: Path) -> list[Path]:
        """Return where its files go below the data folder, in their order."""
        return [data_dir / self.folder / file.path for file in self.files]
