"""Files that are whole or not there, whatever happens while they are written."""

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import finetune, run, same_bits, sample_rows, write_rows

from instruction_modelling.files import durable


def test_a_file_is_what_was_given_and_its_hash_is_that(tmp_path: Path) -> None:
    parts: list[bytes | memoryview] = [b"one", memoryview(bytearray(b"two")), os.urandom(100_000)]
    whole = b"".join(bytes(part) for part in parts)
    assert durable.write_file(tmp_path / "file", parts) == {
        "bytes": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    assert (tmp_path / "file").read_bytes() == whole
    assert durable.file_sha256(tmp_path / "file") == hashlib.sha256(whole).hexdigest()
    with pytest.raises(FileExistsError):
        durable.write_file(tmp_path / "file", [b"other"])
    assert (tmp_path / "file").read_bytes() == whole


@pytest.mark.parametrize("sizes", [(3, 2**20 - 1, 5, 2**20, 2**20 + 7, 1, 2), (2**21,), (0, 9, 0), ()])
def test_parts_of_any_size_are_written_in_order_and_compared_byte_by_byte(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    parts = [os.urandom(size) for size in sizes]
    whole, path = b"".join(parts), tmp_path / "file"
    assert durable.write_file(path, parts)["sha256"] == hashlib.sha256(whole).hexdigest()
    assert path.read_bytes() == whole
    assert durable.holds(path, parts)
    for place in {0, len(whole) // 2, len(whole) - 1} if whole else ():
        other = bytearray(whole)
        other[place] ^= 1
        path.write_bytes(other)
        assert not durable.holds(path, parts)
    for other_size in (whole + b"x", whole[:-1]):
        path.write_bytes(other_size)
        assert durable.holds(path, parts) == (other_size == whole)


def test_a_system_that_writes_a_little_at_a_time_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
    durable.write_file(tmp_path / "file", [b"x" * 100, b"y" * 3])
    durable.append_line(tmp_path / "lines", "a line of more than seven bytes")
    durable.append_line(tmp_path / "lines", "another")
    assert (tmp_path / "file").read_bytes() == b"x" * 100 + b"y" * 3
    assert (tmp_path / "lines").read_text() == "a line of more than seven bytes\nanother\n"


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
def test_a_replacement_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    (tmp_path / "file").write_text("before")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, full)
        with pytest.raises(OSError, match="No space left"), durable.replacing(tmp_path / "file") as handle:
            handle.write(b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (
        tmp_path / "file"
    ).read_text() == "before"
    with durable.replacing(tmp_path / "file") as handle:
        handle.write(b"after")
    assert (tmp_path / "file").read_text() == "after"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of more than 300,000 bytes can be written, as on a full disk; the tiny model's weights take
    more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_too_small_for_the_model_is_said_and_the_run_goes_on_from_its_checkpoint(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    arm = ("--use_lora", "--lora_rank", 2, "--checkpointing_steps", 1)
    whole = finetune(tmp_path / "model", rows, tmp_path / "whole", *arm)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.getfixturevalue("small_files")
    outcome = run(
        "finetune",
        "--model_name_or_path",
        tmp_path / "model",
        "--train_file",
        rows,
        "--output_dir",
        tmp_path / "run",
        *arm,
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (
        outcome.code == 2 and "the model could not be saved" in outcome.err and "Traceback" not in outcome.err
    )
    folder = tmp_path / "run"
    assert not (folder / "model.safetensors").exists() and not (folder / ".saving-model").exists()
    assert json.loads((folder / "run.json").read_text())["finished"] is False
    assert same_bits(
        finetune(tmp_path / "model", rows, folder, *arm, "--resume_from_checkpoint", "latest"), whole
    )


def test_a_disk_too_small_for_a_checkpoint_is_said_with_what_it_takes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    request.getfixturevalue("small_files")
    outcome = run(
        "finetune",
        "--model_name_or_path",
        tmp_path / "model",
        "--train_file",
        rows,
        "--output_dir",
        tmp_path / "run",
        "--checkpointing_steps",
        1,
    )
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert (
        "step_1 could not be written: File too large. It takes " in outcome.err
        and "are free there" in outcome.err
    )
    assert not list((tmp_path / "run").glob("*step_*"))
