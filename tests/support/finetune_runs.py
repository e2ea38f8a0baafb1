"""A tiny model, rows and runs of src/finetune.py on them, which several test files share."""

import math
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import SAMPLE, finetune, sample_rows, write_rows

ROWS = 20
ARGUMENTS = (
    "--learning_rate",
    1e-3,
    "--per_device_train_batch_size",
    4,
    "--gradient_accumulation_steps",
    2,
    "--num_train_epochs",
    2,
)
STEPS = 2 * math.ceil(ROWS / 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, and `rows.jsonl` of the shipped sample."""
    folder = tmp_path_factory.mktemp("finetune")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    return folder


def tune(place: Path, folder: Path, *arguments: object, rows: str = "rows.jsonl") -> Path:
    """A run of the module's model and rows."""
    return finetune(place / "model", place / rows, folder, *ARGUMENTS, *arguments)


@pytest.fixture(scope="module")
def it(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Instruction Tuning with a held-out file."""
    return tune(
        place, tmp_path_factory.mktemp("runs") / "it", "--eval_file", SAMPLE / "brief_answers_test.jsonl"
    )
