"""Some of the kills and faults of crash_test.py; scripts/crash_test.sh does them all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import free_port, launch, sample_rows, write_rows


def crash(folder: Path, *arguments: object) -> list[dict[str, object]]:
    command = [sys.executable, Path(__file__).with_name("crash_test.py"), "--output_dir", folder, *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = json.loads((folder / "crash.json").read_text())
    assert all(line["identical"] and not line["problems"] for line in lines)
    assert len((folder / "crash.md").read_text().splitlines()) == 2 + len(lines)
    return lines


def test_killed_and_failing_runs_end_as_the_undisturbed_one(tmp_path: Path) -> None:
    lines = crash(tmp_path, "--launchers", "one", "--faults", 4, "--kills", 2)
    assert [(line["case"], line["faults"]) for line in lines] == [
        ("AdamW, 1 process", 4),
        ("LoRA with dropout, 1 process", 4),
    ]
    # Each fault takes two starts, and each kill one more than the start that ends the run.
    assert all(int(str(line["starts"])) >= 8 for line in lines)


LAUNCHERS = {
    "plain": "torchrun --nproc_per_node 2 --master_port {port}",
    "ZeRO-3": "accelerate launch --use_deepspeed --deepspeed_config_file "
    "ds_configs/stage3_no_offloading_accelerate.conf "
    "--num_machines 1 --num_processes 2 --mixed_precision no --main_process_port {port}",
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ZeRO-3", "plain"])
def test_a_disk_that_fails_one_of_two_processes_is_said_on_both(tmp_path: Path, launcher: str) -> None:
    """At every operation of a checkpoint and of the model; the checkpoint before stays, and the next save is
    whole."""
    model, rows = make_tiny_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    outcome = launch(
        [
            *LAUNCHERS[launcher].format(port=free_port()).split(),
            "tests/crash/failing_saves.py",
            model,
            rows,
            tmp_path / "run",
        ],
        280,
    )
    assert outcome.code == 0, outcome.err[-3000:]
    found = json.loads((tmp_path / "run.json").read_text())
    assert {name: each["problems"] for name, each in found.items()} == {"checkpoint": [], "model": []}
    first, second = found["checkpoint"]["operations"]
    assert {"mkdir", "open", "write", "fsync", "rename"} <= set(first)
    # A header, then the tensors.
    assert second == ["open", "write", "write", "fsync"]
    assert {"fsync", "replace"} <= set(found["model"]["operations"][0]) and found["model"]["operations"][
        1
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["two", "zero3"])
def test_launched_runs_that_are_killed_end_as_the_undisturbed_one(tmp_path: Path, launcher: str) -> None:
    lines = crash(tmp_path, "--launchers", launcher, "--faults", 0, "--kills", 2, "--seed", 3)
    assert len(lines) == 2
