"""src/try_im.py with jobs that leave losses of a known gain, in place of the scripts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from row_files import write
from script_loader import run_script
from test_split import texts
from tiny import make_tiny_model

from instruction_modelling.comparison import jobs as comparison_jobs
from instruction_modelling.comparison import timing
from instruction_modelling.comparison.jobs import Job
from instruction_modelling.processes.signals import StopSignals

HOSTILE = "<script>alert(1)</script>"
# The mean gain of an arm over IT.
GAINS = {"IT": 0.0, "IM": 0.2, "reweighted-IT": 0.2, "IM-w0.1": 0.3, "base": -0.5}
Try = Callable[..., int]


class Jobs:
    """Stands for the scripts: every run leaves losses of its arm's gain."""

    def __init__(self) -> None:
        self.gains, self.noise, self.ran, self.rate = dict(GAINS), 0.01, list[str](), 1e6
        self.distances = dict[str, float]()
        """By arm, the KL divergence from the untuned model at the end."""
        self.trial = dict[str, list[dict[str, float]]]()
        """By arm, what its trial run measures after some steps."""
        self.trained = dict[str, list[str]]()
        """By job, the arguments of src/finetune.py."""
        self.failing = set[str]()
        """Jobs that fail."""
        self.lost = dict[str, set[int]]()
        """By arm, the rows that it has no loss of."""
        self.no_number = set[str]()
        """Arms whose first loss is no number."""

    def run(self, job: Job, stop: StopSignals, start: object = None) -> int:
        job.forget()
        self.ran.append(job.name)
        if job.name in self.failing:
            return 1
        for path in job.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        if job.script == "finetune":
            self.trained[job.name] = job.arguments
            arm = job.outputs[0].parent.name.partition("-seed")[0]
            if job.name.startswith("trial"):
                text = "".join(json.dumps(line) + "\n" for line in self.trial[arm])
                (job.outputs[0].parent / "metrics.jsonl").write_text(text)
        if job.script == "compute_loss":
            self.write_losses(job)
        if job.script == "generate":
            arm = job.outputs[0].parents[2].name.partition("-seed")[0]
            shown = {"instruction": HOSTILE, "reference": "yes", "response": f"{arm} says"}
            lines = [{"row": row, **shown} for row in range(40)]
            job.outputs[0].write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    def write_losses(self, job: Job) -> None:
        given = dict(zip(job.arguments[::2], job.arguments[1::2], strict=True))
        arm, _, seed = Path(given["--output_dir"]).parents[1].name.partition("-seed")
        count = len(Path(given["--eval_file"]).read_text().splitlines())
        hard = np.random.default_rng(7).normal(3, 1, count)
        noise = np.random.default_rng([int(seed or 99), len(arm), *arm.encode()]).normal(0, self.noise, count)
        lines: list[dict[str, Any]] = [
            {"row": row, "nll": {"response": nll}, "kl": {"response": self.distances.get(arm, 0.0)}}
            for row, nll in enumerate((hard - self.gains[arm] + noise).tolist())
            if row not in self.lost.get(arm, ())
        ]
        if arm in self.no_number:
            lines[0]["nll"]["response"] = float("nan")
        (job.outputs[0].parent / "losses.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs()
    monkeypatch.setattr(comparison_jobs, "run_job", made.run)
    monkeypatch.setattr(timing, "calibrate", lambda jobs, stop=None: made.rate)
    return made


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Try:
    rows = write(tmp_path, *({"prompt": user, "completion": answer} for user, answer in texts(130)))
    model = make_tiny_model(tmp_path)
    given = [rows, "--model", model, "--output_dir", tmp_path / "out", "--mixed_precision", "no"]
    return lambda *more: run_script(monkeypatch, "try_im", *given, *more)


def folder_of(tmp_path: Path, number: int = 0) -> Path:
    """The folder of the protocol that was begun as the first, or after so many others."""
    protocols = (tmp_path / "out").glob("*/protocol.json")
    return sorted(protocols, key=lambda path: path.stat().st_ctime_ns)[number].parent


def work_of(tmp_path: Path) -> Path:
    """The folder of the split and the runs, where all protocols share one."""
    (folder,) = (tmp_path / "out").glob("shared-*")
    return folder


def answer_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "answer.json").read_text())
