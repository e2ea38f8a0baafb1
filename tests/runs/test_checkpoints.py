"""Interrupted runs: that a continuation is the uninterrupted run bit for bit, or is refused with the
reason."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from script_loader import load_script
from tiny import make_tiny_model
from training_runs import (
    ROOT,
    SAMPLE,
    Outcome,
    finetune,
    losses,
    metrics,
    record,
    run,
    same_bits,
    sample_rows,
    write_rows,
)

from instruction_modelling.errors import UserError
from instruction_modelling.files.durable import file_sha256
from instruction_modelling.runs import checkpoint_folders, checkpoints
from instruction_modelling.runs.folder import METRICS

ROWS, STEPS = 20, 6
ARGUMENTS = (
    "--learning_rate",
    1e-3,
    "--per_device_train_batch_size",
    4,
    "--gradient_accumulation_steps",
    2,
    "--num_train_epochs",
    2,
    "--checkpointing_steps",
    2,
)
RESUME = ("--resume_from_checkpoint", "latest")
ARMS: dict[str, tuple[object, ...]] = {
    "IM with NEFTune, packed": ("--use_lm_loss", "--neftune_alpha", 5, "--packing"),
    "LoRA with dropout and NEFTune, packed": (
        "--use_lora",
        "--lora_rank",
        4,
        "--lora_dropout",
        0.1,
        "--neftune_alpha",
        5,
        "--packing",
    ),
    "padded SGD with KL": ("--optimizer", "sgd", "--learning_rate", 0.05, "--apply_kl_div_loss"),
    "LoRA with dropout and KL": ("--use_lora", "--lora_rank", 4, "--apply_kl_div_loss"),
}


STATE = "state-000-0000.safetensors"


def seal(folder: Path, state: dict[str, Any]) -> None:
    """Makes a checkpoint of a folder's files."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in folder.iterdir()
    }
    checkpoint_folders.seal(folder, state, files)


class Killed(BaseException):
    """Stands in for the power cut."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Path:
    return finetune(place / "model", place / "rows.jsonl", folder, *ARGUMENTS, *arguments)


def attempt(place: Path, folder: Path, *arguments: object, rows: str = "rows.jsonl") -> Outcome:
    return run(
        "finetune",
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / rows,
        "--output_dir",
        folder,
        *ARGUMENTS,
        *arguments,
    )


def interrupt(place: Path, folder: Path, after: int, *arguments: object, inside: str = "train_step") -> None:
    """A run that is cut off in the step that follows `after` steps."""
    script: Any = load_script("finetune")
    real, calls = getattr(script, inside), 0

    def dying(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return real(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, inside, dying)
        with pytest.raises(Killed):
            attempt(place, folder, *arguments)


@pytest.fixture(scope="module")
def stopped(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run cut off in its sixth step, with checkpoints of two and of four."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    interrupt(place, folder, 5)
    return folder


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(place, tmp_path_factory.mktemp("whole"))


# -- the same run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())
def test_a_continued_run_is_the_uninterrupted_one(
    place: Path, tmp_path: Path, arm: tuple[object, ...]
) -> None:
    one = tune(place, tmp_path / "one", *arm)
    interrupt(place, tmp_path / "two", 3, *arm)
    assert not (tmp_path / "two" / "model.safetensors").exists()
    assert record(tmp_path / "two")["finished"] is False
    torch.manual_seed(77)
    two = tune(place, tmp_path / "two", *arm, *RESUME)
    assert same_bits(one, two)
    assert losses(one) == losses(two)
    assert [line["grad_norm"] for line in metrics(one)] == [line["grad_norm"] for line in metrics(two)]
    assert "resuming from" in (two / "train.log").read_text()
    assert record(two)["finished"] is True


def test_interrupted_twice_and_at_once_after_a_checkpoint(place: Path, whole: Path, tmp_path: Path) -> None:
    interrupt(place, tmp_path, 2)
    interrupt(place, tmp_path, 3, *RESUME)
    assert same_bits(tune(place, tmp_path, *RESUME), whole)


def test_a_process_killed_by_the_system(place: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a run of another process, resumed in this one."""
    command = [
        sys.executable,
        ROOT / "src" / "finetune.py",
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        tmp_path / "run",
        *ARGUMENTS,
    ]
    # The process stops itself, at the moment its second checkpoint has its name, as hard as it can be
    # stopped.
    patch = (
        "import os, runpy, signal, sys\nfrom instruction_modelling.runs import checkpoint_folders\nreal = "
        "checkpoint_folders.prune\n"
        "def prune(folder, *more):\n    real(folder, *more)\n    if (folder / 'step_4').exists():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint_folders.prune = prune\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], "
        "run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", patch, *map(str, command[1:])],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(losses(tmp_path / "run")) == 4
    with (tmp_path / "run" / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 5, "lo')
    run_folder = tune(place, tmp_path / "run", *RESUME)
    assert same_bits(run_folder, whole)
    assert losses(run_folder) == losses(whole)


def test_a_save_cut_off_halfway_is_never_picked_up(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.seal

    def dying(aside: Path, state: dict[str, Any], files: dict[str, Any]) -> None:
        if state["step"] == 4:
            raise Killed
        real(aside, state, files)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "seal", dying)
        with pytest.raises(Killed):
            attempt(place, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*step_*")) == [".step_4.saving", "step_2"]
    folder = tune(place, tmp_path, *RESUME)
    assert f"resuming from {tmp_path / 'step_2'}" in (folder / "train.log").read_text()
    assert same_bits(folder, whole)
    assert sorted(path.name for path in tmp_path.glob("*step_*")) == ["step_2", "step_4", "step_6"]


def test_a_named_checkpoint_and_metrics_cut_back_to_it(place: Path, whole: Path, copy: Path) -> None:
    assert len(losses(copy)) == 5
    outcome = attempt(place, copy, "--resume_from_checkpoint", copy / "step_2")
    assert outcome.code == 0, outcome.err
    assert [line["step"] for line in metrics(copy)] == list(range(1, STEPS + 1))
    assert losses(copy) == losses(whole)
    assert same_bits(copy, whole)


def test_going_back_and_being_killed_loses_no_metrics(place: Path, whole: Path, copy: Path) -> None:
    """The later checkpoints of before are still there when the run goes on from an earlier one and stops at
    once."""
    before = sorted(path.name for path in copy.glob("step_*"))
    assert before == ["step_2", "step_4"]
    with pytest.MonkeyPatch.context() as patch:

        def dying(*arguments: object) -> None:
            raise Killed

        patch.setattr(checkpoints, "save_checkpoint", dying)
        with pytest.raises(Killed):
            attempt(place, copy, "--resume_from_checkpoint", copy / "step_2")
    assert len(losses(copy)) == 4
    (copy / "metrics.jsonl").write_text("")
    folder = tune(place, copy, *RESUME)
    assert f"resuming from {copy / 'step_4'}" in (folder / "train.log").read_text()
    assert losses(folder) == losses(whole) and same_bits(folder, whole)


def test_a_model_is_for_all_who_may_read_the_users_files(whole: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in whole.iterdir() if path.is_file()}
    assert modes["model.safetensors"] == modes["train.log"]


def test_evaluations_are_cut_back_with_the_steps(place: Path, tmp_path: Path) -> None:
    measured = ("--eval_file", SAMPLE / "brief_answers_test.jsonl", "--eval_steps", 1)
    one = tune(place, tmp_path / "one", *measured)
    interrupt(place, tmp_path / "two", 3, *measured)
    two = tune(place, tmp_path / "two", *measured, *RESUME)
    timing = {"seconds", "tokens_per_second"}
    strip = [
        [{name: value for name, value in line.items() if name not in timing} for line in metrics(each)]
        for each in (one, two)
    ]
    assert strip[0] == strip[1]


def test_a_finished_run_resumed_does_nothing_more(place: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    folder = tune(place, tmp_path / "run", *RESUME)
    assert same_bits(folder, whole) and losses(folder) == losses(whole)


def test_latest_without_a_checkpoint_starts_from_the_beginning(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tune(place, tmp_path, *RESUME)
    assert same_bits(folder, whole)
    assert "starting from the beginning" in (folder / "train.log").read_text()


# -- another run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--seed", 1), "seed: 0 then, 1 now"),
        (("--use_lm_loss",), "use_lm_loss: False then, True now"),
        (("--instruction_loss_weight", 0.5), "instruction_loss_weight: None then, 0.5 now"),
        (("--loss_normalization", "token"), "loss_normalization: 'example' then, 'token' now"),
        (("--learning_rate", 1e-4), "learning_rate: 0.001 then, 0.0001 now"),
        (("--num_train_epochs", 3), "num_train_epochs: 2 then, 3 now"),
        (("--neftune_alpha", 5), "neftune_alpha: None then, 5.0 now"),
        (("--gradient_accumulation_steps", 1), "examples a step: 8 then, 4 now"),
        (("--max_seq_length", 1000), "max_seq_length: 2048 then, 1000 now"),
        (("--chat_format", "tulu"), "chat_format: 'auto' then, 'tulu' now"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(
    place: Path, stopped: Path, tmp_path: Path, arguments: tuple[object, ...], name: str
) -> None:
    before = (stopped / "metrics.jsonl").read_bytes()
    outcome = attempt(place, tmp_path, *arguments, "--resume_from_checkpoint", stopped / "step_4")
    assert outcome.code == 2 and name in outcome.err and "Traceback" not in outcome.err
    # Nothing else differs but what follows from it.
    assert outcome.err.count(" then, ") == 1 + outcome.err.count("tokens and weights sha256")
    assert ("tokens and weights sha256" in outcome.err) == ("loss_weight" in name or "use_lm_loss" in name)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_other_data_is_refused(place: Path, copy: Path) -> None:
    write_rows(place / "other.jsonl", sample_rows(ROWS, "long_answers_train"))
    outcome = attempt(place, copy, *RESUME, rows="other.jsonl")
    assert outcome.code == 2 and "data sha256" in outcome.err


def test_a_changed_template_is_refused(place: Path, tmp_path: Path) -> None:
    """Same file name, other contents."""
    template = tmp_path / "format.jinja"
    text = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    )
    template.write_text(text)
    interrupt(place, tmp_path / "run", 3, "--chat_format", template)
    template.write_text(text.replace("[{{", "<{{"))
    outcome = attempt(place, tmp_path / "run", "--chat_format", template, *RESUME)
    assert outcome.code == 2 and "tokens and weights sha256" in outcome.err
    template.write_text(text)
    assert attempt(place, tmp_path / "run", "--chat_format", template, *RESUME).code == 0


@pytest.mark.parametrize("arm", [(), ("--use_lora", "--lora_rank", 4)], ids=["all weights", "LoRA"])
def test_a_model_may_move_but_not_change(place: Path, tmp_path: Path, arm: tuple[object, ...]) -> None:
    """Another model's weights in the same folder, then in another one; then the same model elsewhere."""
    shutil.copytree(place / "model", tmp_path / "model")
    interrupt(place, tmp_path / "run", 3, *arm, "--model_name_or_path", tmp_path / "model")
    make_tiny_model(tmp_path / "model", seed=1)
    outcome = attempt(place, tmp_path / "run", *arm, "--model_name_or_path", tmp_path / "model", *RESUME)
    assert (
        outcome.code == 2
        and outcome.err.count(" then, ") == 1
        and "model before tuning sha256" in outcome.err
    )
    assert attempt(place, tmp_path / "run", *arm, *RESUME).code == 0


def test_the_precision_is_the_runs_whether_the_script_or_the_launcher_says_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as launcher:
        launcher.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        interrupt(place, tmp_path, 3)
    outcome = attempt(place, tmp_path, *RESUME)
    assert (
        outcome.code == 2
        and "mixed precision: 'bf16' then, 'no' now" in outcome.err
        and outcome.err.count(" then, ") == 1
    )
    assert attempt(place, tmp_path, "--mixed_precision", "bf16", *RESUME).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--packing",),
        ("--packing", "--max_tokens_per_device", 3000),
        ("--padding_side", "left"),
        ("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1),
        ("--logging_steps", 1, "--save_total_limit", 1),
        ("--checkpointing_steps", "epoch"),
    ],
    ids=str,
)
def test_what_does_not_decide_the_run_may_change(
    place: Path, whole: Path, copy: Path, arguments: tuple[object, ...]
) -> None:
    folder = tune(place, copy, *arguments, *RESUME)
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-4)


def test_with_dropout_the_layout_decides_too(place: Path, tmp_path: Path) -> None:
    lora = ("--use_lora", "--lora_rank", 4)
    interrupt(place, tmp_path, 3, *lora)
    outcome = attempt(place, tmp_path, *lora, "--packing", *RESUME)
    assert outcome.code == 2 and "packing: False then, True now" in outcome.err
    assert attempt(place, tmp_path, *lora, *RESUME).code == 0


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
    for name in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="not a whole checkpoint"):
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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The run's log handlers belong to streams that are gone by the next test."""
    import logging

    yield
    logging.getLogger("instruction_modelling").handlers.clear()
