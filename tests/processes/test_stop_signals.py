"""Runs that are told to stop: they save, end with their code, and go on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from tiny import make_tiny_model
from training_runs import (
    ROOT,
    finetune,
    free_port,
    losses,
    record,
    run,
    same_bits,
    sample_rows,
    training_processes,
    write_rows,
)

from instruction_modelling.processes import find_processes
from instruction_modelling.processes.signals import (
    EXIT_STOPPED,
    LAUNCHER_GONE,
    SIGNALS,
    StopSignals,
    exit_code,
)
from instruction_modelling.runs import folder as run_folder
from instruction_modelling.runs import lock as run_lock

ARM = (
    "--learning_rate",
    1e-3,
    "--neftune_alpha",
    5,
    "--use_lora",
    "--lora_rank",
    4,
    "--packing",
    "--num_train_epochs",
    12,
)
RESUME = ("--resume_from_checkpoint", "latest")
STEPS = 36


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(19))
    return folder


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(place / "model", place / "rows.jsonl", tmp_path_factory.mktemp("whole"), *ARM)


def command(place: Path, folder: Path, batch_size: int, *arguments: object) -> list[str]:
    return [
        str(part)
        for part in (
            ROOT / "src" / "finetune.py",
            "--model_name_or_path",
            place / "model",
            "--train_file",
            place / "rows.jsonl",
            "--output_dir",
            folder,
            "--per_device_train_batch_size",
            batch_size,
            *ARM,
            *arguments,
        )
    ]


def began(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Waits for the first step."""
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def start(arguments: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def check_stopped(folder: Path, name: str) -> int:
    """The steps that a stopped run had done, each of them in its metrics, and a checkpoint of the last."""
    stopped = record(folder)["stopped"]
    done = int(stopped["step"])
    assert stopped["signal"] == name and record(folder)["finished"] is False
    assert (folder / f"step_{done}" / "checkpoint.json").is_file() and len(losses(folder)) == done < STEPS
    assert not (folder / "model.safetensors").exists()
    return done


def test_the_signal_of_a_scheduler_stops_after_the_step_and_the_run_goes_on(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start([sys.executable, *command(place, folder, 8)])
    began(process, folder)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED == 75 and "Traceback" not in err
    assert (
        "SIGTERM: ending after this step, with a checkpoint" in out
        and "go on with --resume_from_checkpoint latest" in out
    )
    check_stopped(folder, "SIGTERM")
    again = finetune(place / "model", place / "rows.jsonl", folder, *ARM, *RESUME)
    assert same_bits(again, whole) and losses(again) == losses(whole)
    assert "stopped" not in record(again) and record(again)["finished"] is True


def test_a_second_signal_ends_at_once(place: Path, tmp_path: Path) -> None:
    """A process that sends itself both within one step leaves no checkpoint and no word of having stopped."""
    patch = (
        "import os, runpy, signal, sys\n"
        "from instruction_modelling.training.loss_model import LossModel\nreal = LossModel.forward\n"
        "def twice(*arguments, **named):\n    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), "
        "signal.SIGUSR1)\n"
        "    return real(*arguments, **named)\nLossModel.forward = twice\nsys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    process = start([sys.executable, "-c", patch, *command(place, tmp_path / "run", 8)])
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGUSR1
    assert "stopped" not in record(tmp_path / "run") and not list((tmp_path / "run").glob("step_*"))


def test_a_signal_to_one_of_two_processes_stops_both(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    torchrun = [
        str(Path(sys.executable).parent / "torchrun"),
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
    ]
    process = start([*torchrun, *command(place, folder, 4)], ACCELERATE_USE_CPU="true")
    began(process, folder)
    # The second of them: it is not the one that writes.
    os.kill(training_processes(process.pid)[1], signal.SIGUSR1)
    _, err = process.communicate(timeout=90)
    assert process.returncode != 0
    done = check_stopped(folder, "SIGUSR1")
    assert json.loads((folder / f"step_{done}" / "checkpoint.json").read_text())["step"] == done
    assert f"exitcode  : {EXIT_STOPPED}" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_launcher_reaches_the_run(
    place: Path, whole: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    torchrun = [
        str(Path(sys.executable).parent / "torchrun"),
        "--nproc_per_node",
        "1",
        "--master_port",
        str(free_port()),
    ]
    process = start([*torchrun, *command(place, folder, 8)], ACCELERATE_USE_CPU="true")
    began(process, folder)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=90)
    assert process.returncode != 0
    check_stopped(folder, name)
    assert same_bits(finetune(place / "model", place / "rows.jsonl", folder, *ARM, *RESUME), whole)


def accelerate(place: Path, folder: Path) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """A run that has begun under a launcher of one process: the launcher and the run's own process."""
    process = start(
        [
            str(Path(sys.executable).parent / "accelerate"),
            "launch",
            "--cpu",
            "--num_processes",
            "1",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            *command(place, folder, 8),
        ]
    )
    began(process, folder)
    return process, psutil.Process(find_processes.training_processes(folder)[0])


@pytest.mark.slow
def test_the_processes_of_a_killed_launcher_save_and_end_too(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    """Nobody is left to write beside the run that goes on in their place."""
    folder = tmp_path / "run"
    process, worker = accelerate(place, folder)
    assert worker.pid != process.pid
    process.kill()
    # Started at once, the next run waits for the folder, and then goes on.
    again = finetune(place / "model", place / "rows.jsonl", folder, *ARM, *RESUME)
    # Its checkpoint was whole before the next run began; libraries may take a while to let it go.
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert same_bits(again, whole) and losses(again) == losses(whole)
    assert "SIGUSR2: ending after this step" in (folder / "train.log").read_text()
    process.communicate(timeout=10)


@pytest.mark.slow
def test_a_signal_to_launcher_and_workers_alike_saves(place: Path, tmp_path: Path) -> None:
    """The launcher may die first or last: its end is no second signal."""
    folder = tmp_path / "run"
    process, worker = accelerate(place, folder)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    worker.wait(timeout=60)
    check_stopped(folder, "SIGTERM")


def test_the_end_of_the_launcher_is_a_first_signal_but_never_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for order in (
        (LAUNCHER_GONE, signal.SIGTERM),
        (signal.SIGTERM, LAUNCHER_GONE),
        (signal.SIGTERM, LAUNCHER_GONE, LAUNCHER_GONE),
    ):
        with StopSignals() as stop:
            for number in order:
                os.kill(os.getpid(), number)
            assert stop.received == signal.SIGTERM and not ended
            os.kill(os.getpid(), signal.SIGINT)
            assert ended.pop() == 128 + signal.SIGINT


def test_a_second_run_into_a_folder_waits_and_is_then_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    process = start([sys.executable, *command(place, folder, 8)])
    try:
        began(process, folder)
        process.send_signal(signal.SIGSTOP)
        before = (folder / "metrics.jsonl").read_bytes()
        monkeypatch.setattr(run_folder, "held", partial(run_lock.held, patience=0.3))
        outcome = run("finetune", *command(place, folder, 8)[1:])
        assert (
            outcome.code == 2
            and f"another run (process {process.pid}) is writing to this folder" in outcome.err
        )
        assert "stop_run.py" in outcome.err and (folder / "metrics.jsonl").read_bytes() == before
    finally:
        process.kill()
        process.communicate(timeout=10)
    # The lock goes with the process, so the folder of a killed run is free.
    with run_lock.held(folder, patience=5):
        pass


def test_told_to_stop_before_the_first_step_there_is_nothing_to_save(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = StopSignals.__enter__

    def told(stop: StopSignals) -> StopSignals:
        enter(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        return stop

    monkeypatch.setattr(StopSignals, "__enter__", told)
    outcome = run("finetune", *command(place, tmp_path / "run", 8)[1:])
    assert outcome.code == EXIT_STOPPED
    assert record(tmp_path / "run")["stopped"] == {"signal": "SIGTERM", "step": 0}
    assert not list((tmp_path / "run").glob("step_*"))


def test_a_launcher_that_restarts_what_fails_is_not_told_of_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for restarts, code in ((None, 75), ("0", 75), ("3", 0)):
        monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS", raising=False)
        if restarts:
            monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
        assert exit_code() == code


def test_the_signals_are_given_back(place: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The run's log handlers belong to streams that are gone by the next test."""
    import logging

    yield
    logging.getLogger("instruction_modelling").handlers.clear()
