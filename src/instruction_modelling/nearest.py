"""The name that was probably meant."""

import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name closest to a mistyped one; None where none is close.

    Case, and - for _, count for nothing; a name that begins with the word is close, if it is the only one.
    """
    known = {_plain(name): name for name in names}
    plain = _plain(word)
    if plain in known:
        return known[plain]
    begun = [name for key, name in known.items() if len(plain) > 2 and key.startswith(plain)]
    if len(begun) == 1:
        return begun[0]
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.65)
    return known[close[0]] if close else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return `; did you mean NAME?`, or nothing where no name is close."""
    name = nearest(word, names)
    return f"; did you mean {name}?" if name else ""


def nearest_path(path: str | Path) -> Path | None:
    """Return the file or folder that a path with one mistyped part probably means; None where there is
    none."""
    parts, found = Path(path).parts, Path()
    for number, part in enumerate(parts):
        if (found / part).exists():
            found /= part
            continue
        try:
            name = nearest(part, [entry.name for entry in found.iterdir()])
        except OSError:
            return None
        meant = found / name / Path(*parts[number + 1 :]) if name else None
        return meant if meant and meant.exists() else None
    return found


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_")
