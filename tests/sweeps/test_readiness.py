"""What a sweep says that it lacks: the commands that make its data, GPUs, models, consent."""

import sys
from pathlib import Path

import pytest

from instruction_modelling.called import SCRIPTS, shortest
from instruction_modelling.progress import duration
from instruction_modelling.sweeps import readiness
from instruction_modelling.sweeps.options import AllSweepOptions
from instruction_modelling.sweeps.readiness import data_commands, gpu_problem, model_problem
from instruction_modelling.sweeps.rows import make_rows
from instruction_modelling.sweeps.runner import RowResult, estimate_row, in_all, results_table

SAMPLE, SELECT = (
    f"{shortest(sys.executable)} {shortest(SCRIPTS / name)} --train_file "
    "data/processed/tulu_v2/tulu_v2_data.jsonl --output_dir data"
    for name in ("sample_data.py", "select_data.py")
)


@pytest.mark.parametrize(
    ("names", "commands"),
    [
        (
            ["lima_data", "tydiqa_adam_sim_trainp0.05_seed3_p0.05"],
            ["sh prepare_train_data.sh lima_data tydiqa"],
        ),
        (["processed/tulu_v2/tulu_v2_data"], ["sh prepare_train_data.sh tulu_v2"]),
        (
            ["tulu_dataset_01", "tulu_dataset_05"],
            ["sh prepare_train_data.sh tulu_v2", f"{SAMPLE} --how first --fraction 0.1 0.5"],
        ),
        (
            ["tulu_ratio_5_3000", "tulu_ratio_10_3000", "tulu_ratio_10_1000"],
            [
                "sh prepare_train_data.sh tulu_v2",
                f"{SELECT} --ratio 5 10 --rows 3000",
                f"{SELECT} --ratio 10 --rows 1000",
            ],
        ),
        (
            ["lima_data", "mine"],
            ["sh prepare_train_data.sh lima_data", "# data/mine.jsonl: there is no such file"],
        ),
        (
            ["lima", "alpagasus_3k_doly"],
            [
                "# data/lima.jsonl: there is no such file; did you mean lima_data?",
                "# data/alpagasus_3k_doly.jsonl: there is no such file; did you mean alpagasus_3k_dolly?",
            ],
        ),
    ],
)
def test_the_commands_that_make_the_data(
    names: list[str], commands: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [Path("data") / f"{name}.jsonl" for name in names]
    assert data_commands(files, Path("data")) == commands
    monkeypatch.chdir(tmp_path)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert data_commands(files, Path("data")) == []


def test_another_folder_with_a_space_and_a_mistyped_file(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    root.mkdir()
    (root / "chats.jsonl").touch()
    found = data_commands([root / "lima_data.jsonl", root / "chatz.jsonl"], root)
    assert found == [
        f"sh prepare_train_data.sh lima_data --data_dir '{root}'",
        f"# {root}/chatz.jsonl: there is no such file; did you mean {root}/chats.jsonl?",
    ]


def listed(folder: Path, count: int) -> None:
    """Put a stand-in for nvidia-smi that lists so many GPUs into a folder."""
    folder.mkdir(exist_ok=True)
    lines = "".join(f"echo 'GPU {number}: X (UUID: GPU-{number})'\n" for number in range(count))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "nvidia-smi").chmod(0o755)


def test_gpus_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_problem(0) == ""
    assert gpu_problem(2) == (
        "NUM_GPUS=2 (--num_gpus): this machine has no GPU; give NUM_GPUS=0, one process on the CPU"
    )
    listed(tmp_path, 2)
    assert gpu_problem(2) == ""
    assert gpu_problem(4) == "NUM_GPUS=4 (--num_gpus): this machine has 2 GPUs; give NUM_GPUS=2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_problem(2).startswith(
        "NUM_GPUS=2 (--num_gpus): this machine has 1 GPU that CUDA_VISIBLE_DEVICES"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert readiness.visible_gpus() == 0


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert "holds no config.json" in model_problem(str(tmp_path / "models" / "mine"))
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    assert model_problem(str(tmp_path / "models" / "mine")) == ""
    said = model_problem(str(tmp_path / "modles" / "mine"))
    assert said == f"{tmp_path}/modles/mine: there is no such folder; did you mean {tmp_path}/models/mine?"
    assert "consent" in model_problem("meta-llama/Llama-9-none") and model_problem("someone/open") == ""
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert model_problem("meta-llama/Llama-9-none") == ""


def test_all_rows_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    options = AllSweepOptions(
        "s", "facebook/opt-6.7b", "opt", ["lima_data", "mmlu_chat"], data_root="nowhere"
    )
    rows = make_rows(options, [])
    estimates = [estimate_row(options, row) for row in rows]
    # mmlu_chat is known by its file's name alone.
    assert estimates[0] and estimates[1] is None
    lines = in_all(options, rows)
    hours = estimates[0].hours
    assert lines[0] == (
        f"in all: 2 runs to do of 2, about {duration(3600 * hours)} ({2 * hours:.2g} GPU-hours); "
        "1 run of unknown length"
    )
    assert any("this machine has no GPU" in line for line in lines)
    assert "| 1:05 |" in results_table([RowResult(1, "f", "finished", hours=1.0834)])
    lora = make_rows(options, ["--use_lora", "--lora_rank", "8"])[0]
    found = estimate_row(options, lora)
    assert found and found.hours == pytest.approx(estimates[0].hours * 2 / 3)
    assert found.memory < estimates[0].memory / 3 and found.disk < estimates[0].disk / 10
