"""Measure what a training step takes beside other work, by how torch's threads wait and how many there are.

    python scripts/drills/busy.py [--model M] [--loops 0 1 2] [--steps 6] [--output_dir D]

For each number of busy loops (processes that never stop computing) and each way to wait, one run of
src/finetune.py into a folder of D; of its steps, the first left out, the median of seconds and of tokens a
second is printed as a row of a table. The machine's own load is printed beside it: what other people do
there counts too."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# GOMP_SPINCOUNT 300000 is what GNU's OpenMP does where nothing is said.
WAYS = {
    "2 threads that spin, OpenMP's own way": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    "2 threads that sleep, the project's": {"OMP_NUM_THREADS": "2"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Have so many processes compute meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def steps_of(model: str, folder: Path, steps: int, environment: dict[str, str]) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl of a run, without the first step's."""
    shutil.rmtree(folder, ignore_errors=True)
    own = {name: value for name, value in os.environ.items() if name not in WAITING}
    rows = ROOT / "data" / "sample" / "brief_answers_train.jsonl"
    command = [
        sys.executable,
        "src/finetune.py",
        "--model_name_or_path",
        model,
        "--train_file",
        rows,
        "--use_lm_loss",
    ]
    command += [
        "--output_dir",
        folder,
        "--packing",
        "--per_device_train_batch_size",
        4,
        "--max_train_steps",
        steps,
    ]
    subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**own, **environment, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=True,
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "seconds" in line][1:]


def main() -> None:
    """Measure every way beside every number of loops, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--loops", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output_dir", default=tempfile.gettempdir() + "/busy")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores; steps 2 to {given.steps}: median, least to most")
    print("| busy loops | threads | seconds a step | tokens/s | load before |\n|---|---|---|---|---|")
    for loops in given.loops:
        for way, environment in WAYS.items():
            before = os.getloadavg()[0]
            with busy(loops):
                lines = steps_of(given.model, Path(given.output_dir), given.steps, environment)
            seconds = [line["seconds"] for line in lines]
            speed = statistics.median(line["tokens_per_second"] for line in lines)
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            print(f"| {loops} | {way} | {spread} | {speed:.0f} | {before:.1f} |", flush=True)


if __name__ == "__main__":
    main()
