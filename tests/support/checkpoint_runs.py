"""Runs of src/finetune.py with checkpoints, cut off and whole, which the tests of checkpoints share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from script_loader import load_script
from tiny import make_tiny_model
from training_runs import Outcome, finetune, run, sample_rows, write_rows

from instruction_modelling.files.durable import file_sha256
from instruction_modelling.runs import checkpoint_folders

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
    "Muon, after warm-up and before its end": (
        *("--optimizer", "muon", "--lr_scheduler_type", "warmup_stable_decay", "--decay_ratio", 0.5),
        *("--min_lr_ratio", 0.1, "--packing"),
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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The run's log handlers belong to streams that are gone by the next test."""
    import logging

    yield
    logging.getLogger("instruction_modelling").handlers.clear()
