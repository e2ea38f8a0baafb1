"""Runs of src/finetune.py and src/compute_loss.py, in the test's process or by a launcher, and what they
leave behind."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from script_loader import run_script

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"


@dataclass
class Outcome:
    """How a script ended and what it said."""

    code: int
    out: str
    err: str


def run(script: str, *arguments: object) -> Outcome:
    """Runs src/`script`.py in this process, on one thread."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = run_script(patch, script, *arguments)
    finally:
        torch.set_num_threads(threads)
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
    return Outcome(code, out.getvalue(), err.getvalue())


def finetune(model: Path, train_file: Path, folder: Path, *arguments: object) -> Path:
    """A run of src/finetune.py that must succeed; its folder."""
    outcome = run(
        "finetune",
        "--model_name_or_path",
        model,
        "--train_file",
        train_file,
        "--output_dir",
        folder,
        *arguments,
    )
    assert outcome.code == 0, outcome.err
    return folder


def launch(command: Sequence[object], timeout: float = 150, **environment: str) -> Outcome:
    """A command in the repository's folder on the CPU, each process on one thread."""
    own = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **environment,
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=own, capture_output=True, text=True, timeout=timeout
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def descendants(process: int) -> list[int]:
    """The process ids of a process's children, their children, and so on."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def training_processes(launcher: int) -> dict[int, int]:
    """The process id of each rank under a launcher."""
    found = {}
    for process in descendants(launcher):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                if line.startswith(b"RANK="):
                    found[int(line.removeprefix(b"RANK="))] = process
    return found


def free_port() -> int:
    """A port no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def sample_rows(count: int, name: str = "brief_answers_train") -> list[dict[str, Any]]:
    """The first rows of a shipped sample file."""
    with (SAMPLE / f"{name}.jsonl").open(encoding="utf-8") as handle:
        return [json.loads(line) for line, _ in zip(handle, range(count), strict=False)]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    return [line["loss"] for line in metrics(folder) if "loss" in line]


def record(folder: Path) -> dict[str, Any]:
    """run.json."""
    return json.loads((folder / "run.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The saved model's weights."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def farthest(one: Path, other: Path) -> float:
    """The largest difference between two saved models' weights."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def same_bits(one: Path, other: Path) -> bool:
    """Whether two saved models are equal bit for bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
