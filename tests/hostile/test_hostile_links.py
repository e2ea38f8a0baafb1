"""A link that leads to itself, wherever a path can be given, is a line with its name."""

from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import run, sample_rows, write_rows

PLACES = {
    "training file": ("finetune", "--model_name_or_path MODEL --train_file LOOP --output_dir OUT"),
    "two training files": ("finetune", "--model_name_or_path MODEL --train_file ROWS LOOP --output_dir OUT"),
    "evaluation file": (
        "finetune",
        "--model_name_or_path MODEL --train_file ROWS --eval_file LOOP --output_dir OUT",
    ),
    "run folder": ("finetune", "--model_name_or_path MODEL --train_file ROWS --output_dir LOOP"),
    "checkpoint": (
        "finetune",
        "--model_name_or_path MODEL --train_file ROWS --output_dir OUT --resume_from_checkpoint LOOP",
    ),
    "model": ("finetune", "--model_name_or_path LOOP --train_file ROWS --output_dir OUT"),
    "analysed file": ("analyze_data", "LOOP"),
    "inspected file": ("inspect_weights", "--train_file LOOP --tokenizer_name MODEL --html OUT"),
    "page": ("inspect_weights", "--train_file ROWS --tokenizer_name MODEL --html LOOP"),
    "reported run": ("report", "--runs LOOP --output_dir OUT"),
    "stopped run": ("stop_run", "--output_dir LOOP"),
    "exported checkpoint": ("export_checkpoint", "LOOP"),
    "scored file": ("compute_loss", "--model_name_or_path MODEL --eval_file LOOP --output_dir OUT"),
    "options": ("finetune", "--config LOOP"),
    "chatted with": ("chat", "LOOP --prompt x"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(4))
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.mark.parametrize("name", PLACES)
def test_a_link_to_itself_is_said(name: str, place: Path, tmp_path: Path) -> None:
    script, words = PLACES[name]
    paths = {
        "MODEL": place / "model",
        "ROWS": place / "rows.jsonl",
        "LOOP": place / "loop",
        "OUT": tmp_path / "out",
    }
    outcome = run(script, *(paths.get(word, word) for word in words.split()))
    said = [line for line in outcome.err.splitlines() if "error: " in line]
    assert outcome.code == 2, outcome.err
    assert "usage: " not in outcome.err and len(said) == 1 and "loop" in said[0], outcome.err
