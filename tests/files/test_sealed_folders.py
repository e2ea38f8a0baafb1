"""Generated folders: whole or not there, and nothing of the user's is ever replaced."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.files.sealed import MANIFEST, sealed_folder, sealed_source


def make(folder: Path, text: str = "weights", source: str = "a test") -> None:
    with sealed_folder(folder, source) as aside:
        (aside / "model.bin").write_text(text)
        (aside / "config.json").write_text("{}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_whole_and_its_manifest_is_one_sha256sum_reads(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    make(folder)
    assert names(folder) == [MANIFEST, "config.json", "model.bin"]
    assert names(folder.parent) == ["m"]
    assert sealed_source(folder) == "a test"
    checked = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=folder, capture_output=True, text=True)
    assert checked.stdout == "config.json: OK\nmodel.bin: OK\n"


def test_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        make(tmp_path / "m")
    finally:
        os.umask(umask)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()} == {0o644}


@pytest.mark.parametrize(
    "damage", ["changed", "missing", "no manifest", "empty manifest", "nonsense manifest", "nothing"]
)
def test_a_damaged_folder_is_not_sealed(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "m"
    make(folder)
    if damage == "changed":
        (folder / "model.bin").write_text("weightS")
    elif damage == "missing":
        (folder / "model.bin").unlink()
    elif damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "nothing":
        folder = tmp_path / "absent"
    else:
        (folder / MANIFEST).write_text("" if damage == "empty manifest" else "# a test\nmodel.bin\n")
    assert sealed_source(folder) is None


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sealed_folder(tmp_path / "m", "a test") as aside:
        (aside / "model.bin").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []


def test_an_unchanged_generated_folder_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "m", "one", "first")
    make(tmp_path / "m", "two", "second")
    assert (tmp_path / "m" / "model.bin").read_text() == "two"
    assert sealed_source(tmp_path / "m") == "second"
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_folder_that_cannot_be_replaced_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The first rename takes the old folder out of the way, the second gives the new one its name."""
    make(tmp_path / "m", "one", "first")
    real, calls = os.rename, []

    def rename(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        real(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(UserError, match="Permission denied; what was there before is untouched"):
            make(tmp_path / "m", "two", "second")
    assert names(tmp_path) == ["m"]
    assert (tmp_path / "m" / "model.bin").read_text() == "one"
    assert sealed_source(tmp_path / "m") == "first"


def test_an_old_folder_that_cannot_be_given_back_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "m", "one", "first")
    real, calls = os.rename, []

    def rename(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        real(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(UserError, match=r"is now in .*/\.m\.\S+: rename it to m$"):
            make(tmp_path / "m", "two", "second")
    (kept,) = tmp_path.iterdir()
    assert sealed_source(kept) == "first" and (kept / "model.bin").read_text() == "one"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    make(tmp_path / "m")
    assert sealed_source(tmp_path / "m") == "a test"


@pytest.mark.parametrize(
    "mine", ["changed model.bin", "one more file", "one more folder", "another folder", "a file"]
)
def test_what_the_user_put_there_stays(tmp_path: Path, mine: str) -> None:
    folder = tmp_path / "m"
    if mine == "a file":
        folder.write_text("mine")
    elif mine == "another folder":
        folder.mkdir()
        (folder / "notes").write_text("mine")
    else:
        make(folder)
        if mine == "one more folder":
            (folder / "run").mkdir()
        else:
            (folder / ("model.bin" if mine.startswith("changed") else "notes")).write_text("mine")
    before = {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=r"--output_dir"):
        make(folder, "other")
    assert {path: path.is_file() and path.read_text() for path in tmp_path.rglob("*")} == before


def test_files_that_appear_meanwhile_stay(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with pytest.raises(UserError, match="left alone"), sealed_folder(folder, "a test") as aside:
        (aside / "model.bin").write_text("weights")
        folder.mkdir()
        (folder / "notes").write_text("mine")
    assert names(tmp_path) == ["m"] and names(folder) == ["notes"]


def test_the_same_folder_made_twice_at_once_is_no_error(tmp_path: Path) -> None:
    with sealed_folder(tmp_path / "m", "a test") as aside:
        (aside / "model.bin").write_text("weights")
        (aside / "config.json").write_text("{}")
        make(tmp_path / "m")
    assert sealed_source(tmp_path / "m") == "a test" and names(tmp_path) == ["m"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made.*--output_dir"):
        make(tmp_path / "file" / "m")
