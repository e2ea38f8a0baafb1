"""Runs on several machines: two agents on this one's loopback, a run stopped from outside, and Slurm where it
is installed."""

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import (
    ROOT,
    Outcome,
    finetune,
    free_port,
    launch,
    losses,
    record,
    run,
    sample_rows,
    training_processes,
    write_rows,
)

SCRIPT = ROOT / "scripts" / "launch_multi_node.sh"
ARM = ("--learning_rate", 1e-3, "--use_lm_loss", "--packing")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machines")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(19))
    return folder


def dry(**environment: str) -> Outcome:
    return launch(
        ["bash", SCRIPT, "--output_dir", "out", "--train_file", "my rows.jsonl"],
        60,
        DRY_RUN="1",
        **environment,
    )


def test_the_command_of_each_machine() -> None:
    outcome = dry(NNODES="3", HEAD_ADDR="node1", NODE_RANK="2", GPUS_PER_NODE="8", HEAD_PORT="1234")
    watch, words = shlex.split(outcome.out)[:4], shlex.split(outcome.out)[4:]
    assert watch[1:] == ["-m", "instruction_modelling.processes.launcher", "60"]
    assert outcome.code == 0 and Path(words[0]).name == "accelerate"
    flags = dict(itertools.pairwise(words))
    assert (flags["--num_machines"], flags["--machine_rank"], flags["--num_processes"]) == ("3", "2", "24")
    assert (flags["--main_process_ip"], flags["--main_process_port"], flags["--rdzv_backend"]) == (
        "node1",
        "1234",
        "c10d",
    )
    assert flags["--deepspeed_multinode_launcher"] == "standard" and flags["--train_file"] == "my rows.jsonl"
    assert words[-2:] == ["--resume_from_checkpoint", "latest"]
    plain = shlex.split(dry(NNODES="2", HEAD_ADDR="node1", GPUS_PER_NODE="4", SHARDING="none").out)[4:]
    flags = dict(itertools.pairwise(plain))
    assert (
        Path(plain[0]).name == "torchrun"
        and flags["--nproc_per_node"] == "4"
        and flags["--rdzv_endpoint"] == "node1:29500"
    )
    assert "fsdp_configs/fsdp2.yaml" in dry(NNODES="2", HEAD_ADDR="node1", SHARDING="fsdp").out


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HEAD_ADDR": "a"}, "NNODES is not set"),
        ({"NNODES": "2"}, "HEAD_ADDR is not set"),
        ({"NNODES": "two", "HEAD_ADDR": "a"}, "NNODES is two: it must be a number"),
        ({"NNODES": "2", "HEAD_ADDR": "a", "NODE_RANK": "2"}, "with 2 machines it is 0 to 1"),
        ({"NNODES": "2", "HEAD_ADDR": "a", "SHARDING": "x"}, "deepspeed, fsdp or none"),
    ],
)
def test_what_is_missing_is_said(environment: dict[str, str], said: str) -> None:
    outcome = dry(**environment)
    assert outcome.code == 2 and said in outcome.err


def machines(place: Path, folder: Path, sharding: str, *arguments: object) -> list["subprocess.Popen[str]"]:
    """Two machines' parts, both here."""
    port = free_port()
    environment = {
        **os.environ,
        "NNODES": "2",
        "HEAD_ADDR": "127.0.0.1",
        "HEAD_PORT": str(port),
        "GPUS_PER_NODE": "1",
        "MIXED_PRECISION": "no",
        "SHARDING": sharding,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        "bash",
        SCRIPT,
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        folder,
        "--per_device_train_batch_size",
        4,
        *ARM,
        *arguments,
    ]
    processes = []
    for rank in (0, 1):
        processes.append(
            subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                stderr=subprocess.STDOUT,
                env={**environment, "NODE_RANK": str(rank)},
            )
        )
        # Here the second would take the head's port where it is faster, and accelerate refuse the first.
        wait_for_port(port, processes)
    return processes


def wait_for_port(port: int, processes: list["subprocess.Popen[str]"]) -> None:
    deadline = time.monotonic() + 100
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), [
            process.communicate()[0][-3000:] for process in processes
        ]
        time.sleep(0.1)


def check_machines(place: Path, folder: Path, sharding: str) -> None:
    ends = [process.communicate(timeout=200)[0] for process in machines(place, folder, sharding)]
    assert (folder / "model.safetensors").exists(), ends[0][-3000:]
    alone = finetune(place / "model", place / "rows.jsonl", folder / "alone", *ARM)
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-5) and len(losses(alone)) == 6
    assert "(2 processes)" in (folder / "train.log").read_text()


@pytest.mark.slow
def test_two_machines_are_one_process(place: Path, tmp_path: Path) -> None:
    check_machines(place, tmp_path / "run", "none")


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["deepspeed", "fsdp"])
def test_two_machines_that_share_the_weights_are_one_process(
    place: Path, tmp_path: Path, sharding: str
) -> None:
    check_machines(place, tmp_path / "run", sharding)


def wait_for_steps(folder: Path, processes: list["subprocess.Popen[str]"], steps: int = 1) -> None:
    deadline = time.monotonic() + 150
    while not (folder / "metrics.jsonl").exists() or len(losses(folder)) < steps:
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), [
            process.communicate()[0][-3000:] for process in processes
        ]
        time.sleep(0.02)


@pytest.mark.slow
def test_after_a_machines_process_dies_the_same_commands_go_on(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("--num_train_epochs", 20, "--checkpointing_steps", 5, "--save_total_limit", 2)
    processes = machines(place, folder, "none", *more)
    wait_for_steps(folder, processes, 12)
    os.kill(next(iter(training_processes(processes[1].pid).values())), signal.SIGKILL)
    for process in processes:
        process.communicate(timeout=120)
    assert all(process.returncode for process in processes) and record(folder)["finished"] is False
    for process in machines(place, folder, "none", *more):
        process.communicate(timeout=120)
    assert "resuming from" in (folder / "train.log").read_text()
    alone = finetune(
        place / "model", place / "rows.jsonl", tmp_path / "alone", *ARM, "--num_train_epochs", 20
    )
    assert losses(folder) == pytest.approx(losses(alone), rel=1e-3) and len(losses(folder)) == 60


def test_a_run_is_stopped_by_its_folder(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arm = (*ARM, "--num_train_epochs", 40)
    command = [
        sys.executable,
        "src/finetune.py",
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        folder,
        *arm,
    ]
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for_steps(folder, [process])
    nobody = run("stop_run", "--output_dir", tmp_path / "other")
    assert nobody.code == 2 and "no process on this machine trains into" in nobody.err
    asked = run("stop_run", "--output_dir", folder)
    assert asked.code == 0 and str(process.pid) in asked.out
    process.communicate(timeout=60)
    stopped = record(folder)["stopped"]
    # That such a run goes on as if nothing had happened is shown in tests/processes.
    assert process.returncode == 75 and stopped["signal"] == "SIGUSR1"
    assert (folder / f"step_{stopped['step']}" / "checkpoint.json").exists()


@pytest.mark.parametrize("name", ["finetune", "sweep_array"])
def test_the_batch_scripts_are_shell_and_ask_to_be_requeued(name: str) -> None:
    path = ROOT / "scripts" / "slurm" / f"{name}.sbatch"
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    settings = {line.split()[1] for line in path.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@300"} <= settings
