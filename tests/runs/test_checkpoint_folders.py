"""Checkpoints that are damaged or not whole are never resumed from, and only the newest are kept."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
from checkpoint_runs import RESUME, STATE, attempt, seal, tune
from training_runs import same_bits

from instruction_modelling.errors import UserError
from instruction_modelling.runs import checkpoint_folders, checkpoints
from instruction_modelling.runs.folder import METRICS

# The fixtures of this module.
place, stopped, copy, whole, quiet = (
    checkpoint_runs.place,
    checkpoint_runs.stopped,
    checkpoint_runs.copy,
    checkpoint_runs.whole,
    checkpoint_runs.quiet,
)


# -- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["short state", "no state", "no manifest", "nonsense manifest"])
def test_a_damaged_checkpoint_is_skipped_with_the_reason(
    place: Path, whole: Path, copy: Path, damage: str
) -> None:
    newest = copy / "step_4"
    if damage == "short state":
        (newest / STATE).write_bytes((newest / STATE).read_bytes()[:-5])
    elif damage == "no state":
        (newest / STATE).unlink()
    elif damage == "no manifest":
        (newest / checkpoint_folders.MANIFEST).unlink()
    else:
        (newest / checkpoint_folders.MANIFEST).write_text("[1")
    outcome = attempt(place, copy, "--resume_from_checkpoint", newest)
    assert outcome.code == 2 and "step_4" in outcome.err and "Traceback" not in outcome.err
    folder = tune(place, copy, *RESUME)
    log = (folder / "train.log").read_text()
    assert "skipping a checkpoint" in log and str(newest) in log
    assert f"resuming from {copy / 'step_2'}" in log
    assert same_bits(folder, whole)


def test_weights_that_changed_within_their_size_are_noticed(place: Path, copy: Path) -> None:
    """A flipped bit keeps the file's size."""
    path = copy / "step_4" / STATE
    bytes_ = bytearray(path.read_bytes())
    bytes_[-100] ^= 0x40
    path.write_bytes(bytes_)
    outcome = attempt(place, copy, "--resume_from_checkpoint", copy / "step_4")
    assert outcome.code == 2 and STATE in outcome.err


@pytest.mark.parametrize("change", ["shape", "name", "dtype"])
def test_the_checkpoint_of_another_model_is_refused(
    place: Path, copy: Path, tmp_path: Path, change: str
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / change
    shutil.copytree(copy / "step_4", folder)
    stored = load_file(folder / STATE)
    first = min(name for name in stored if name.startswith("weight/"))
    weight = stored.pop(first)
    if change == "name":
        stored["weight/other"] = weight
    else:
        stored[first] = weight[..., :1].contiguous() if change == "shape" else weight.double()
    save_file(stored, folder / STATE)
    manifest = json.loads((folder / checkpoint_folders.MANIFEST).read_text())
    (folder / checkpoint_folders.MANIFEST).unlink()
    seal(folder, {name: manifest[name] for name in manifest if name != "files"})
    outcome = attempt(place, tmp_path / "run", "--resume_from_checkpoint", folder)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert {"shape": "has shape", "name": "not this model's", "dtype": "is stored as F64"}[
        change
    ] in outcome.err


def test_a_full_disk_leaves_the_checkpoint_before(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.seal

    def full(aside: Path, state: dict[str, Any], files: dict[str, Any]) -> None:
        if state["step"] == 4:
            raise OSError(28, "No space left on device")
        real(aside, state, files)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "seal", full)
        outcome = attempt(place, tmp_path)
    assert outcome.code == 2 and "step_4 could not be written: No space left on device" in outcome.err
    assert same_bits(tune(place, tmp_path, *RESUME), whole)


# -- which are kept ----------------------------------------------------------------------------------------


def test_checkpoints_every_epoch(place: Path, whole: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, "--checkpointing_steps", "epoch")
    assert sorted(path.name for path in folder.glob("*/")) == ["epoch_1", "epoch_2"]
    assert [checkpoint_folders.read_manifest(folder / f"epoch_{i}")["step"] for i in (1, 2)] == [3, 6]
    assert same_bits(folder, whole)


def test_save_total_limit_keeps_the_latest(place: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, "--checkpointing_steps", 1, "--save_total_limit", 2)
    assert sorted(path.name for path in folder.glob("*/")) == ["step_5", "step_6"]


def make(folder: Path, step: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "data").write_text("x" * step)
    seal(folder, {"step": step, "fingerprint": {}})
    return folder


def test_the_newest_is_the_one_with_most_steps(tmp_path: Path) -> None:
    """By number, not by name or time: step_10 is later than step_9."""
    make(tmp_path / "step_10", 10)
    make(tmp_path / "epoch_1", 7)
    time.sleep(0.01)
    make(tmp_path / "step_9", 9)
    make(tmp_path / ".step_11.saving", 11)
    make(tmp_path / "step_12", 12)
    (tmp_path / "step_12" / "data").unlink()
    assert checkpoint_folders.find_checkpoint("latest", tmp_path) == tmp_path / "step_10"
    checkpoint_folders.prune(tmp_path, None)
    assert len(list(tmp_path.glob("step_*"))) == 3
    (tmp_path / "step_12" / checkpoint_folders.MANIFEST).unlink()
    checkpoint_folders.prune(tmp_path, 1)
    assert (
        (tmp_path / "step_10").exists()
        and not (tmp_path / "step_9").exists()
        and not (tmp_path / "epoch_1").exists()
    )


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    absent = "step_9: there is no such folder; a run's checkpoints are RUN/step_N"
    for name, said in ((tmp_path / "step_9", absent), (tmp_path, "not a whole checkpoint")):
        with pytest.raises(UserError, match=said):
            checkpoint_folders.find_checkpoint(str(name), tmp_path)
    assert checkpoint_folders.find_checkpoint("latest", tmp_path) is None


def test_nothing_in_a_checkpoint_is_unpickled(stopped: Path) -> None:
    from safetensors.torch import load_file

    assert {path.name for path in (stopped / "step_4").iterdir()} == {
        checkpoint_folders.MANIFEST,
        METRICS,
        STATE,
    }
    assert {name.split("/")[0] for name in load_file(stopped / "step_4" / STATE)} == {
        "weight",
        "exp_avg",
        "exp_avg_sq",
        "step",
    }
