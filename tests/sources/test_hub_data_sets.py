"""Data sets of the hub become JSON Lines files that are whole or as they were."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from raw_samples import read_lines, write_lines

from instruction_modelling.errors import UserError
from instruction_modelling.sources.downloads.hub import fetch_dataset

ROWS = [{"prompt": f"Größe {number}?", "completion": f"{number} m"} for number in range(3)]


def test_a_data_set_is_written_once_and_again_only_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    loaded: list[Any] = []

    def load(*arguments: Any, **options: Any) -> datasets.Dataset:
        loaded.append((arguments, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    path = fetch_dataset("owner/name", "part")
    assert path.name == "owner_name_part.jsonl" and read_lines(path) == ROWS
    assert "Größe" in path.read_text(encoding="utf-8")
    assert fetch_dataset("owner/name", "part") == path and len(loaded) == 1
    fetch_dataset("owner/name", "part", again=True)
    assert loaded == [(("owner/name", "part"), {"split": "train"})] * 2


def test_what_cannot_be_written_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))

    class HalfWritten:
        def to_json(self, handle: Any, **options: Any) -> None:
            handle.write(b'{"prompt": "ha')
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(ROWS))
    path = fetch_dataset("name")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: HalfWritten())
    with pytest.raises(UserError, match=r"name\.jsonl could not be written: No space left on device"):
        fetch_dataset("name", again=True)
    assert read_lines(path) == ROWS and [entry.name for entry in path.parent.iterdir()] == ["name.jsonl"]


def test_a_data_set_that_cannot_be_loaded_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"--dataset_name no/such: cannot be loaded: .*save it as JSON Lines"):
        fetch_dataset("no/such")


def test_a_folder_of_files_is_read_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTION_MODELLING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    write_lines(tmp_path / "own" / "train.jsonl", ROWS)
    assert read_lines(fetch_dataset(str(tmp_path / "own"))) == ROWS
    write_lines(tmp_path / "own" / "train.jsonl", [*ROWS[:1], {"prompt": "new", "completion": json.dumps(1)}])
    assert len(read_lines(fetch_dataset(str(tmp_path / "own")))) == 2
