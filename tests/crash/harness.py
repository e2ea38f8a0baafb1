"""Runs of src/finetune.py that are killed and restarted, and whether they end as an undisturbed run does."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from faulty import Fault
from tiny import make_tiny_model
from training_runs import ROOT, free_port, metrics, record, sample_rows, write_rows

from instruction_modelling import checkpoints
from instruction_modelling.errors import UserError

HERE = Path(__file__).resolve().parent
SCRIPT = "src/finetune.py"
RESUME = ("--resume_from_checkpoint", "latest")
# What differs between two computations of one run.
TIMES = ("seconds", "tokens_per_second")
RUN_FILES = ("run.json", "train.log", "metrics.jsonl")
# A run that takes longer hangs.
TIMEOUT = 180.0
KILLED = (-signal.SIGKILL, -signal.SIGALRM, -signal.SIGXFSZ)
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
         "CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make_place(folder: Path, rows: int = 12) -> Path:
    """A model and rows."""
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(rows))
    return folder


def arguments(place: Path, run: Path, *more: object) -> list[str]:
    """A run on the place's model and rows, as the command line has it."""
    return [str(part) for part in ("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl", "--output_dir",
                                   run, "--learning_rate", 1e-3, "--logging_steps", 1, *more)]


@dataclass
class Ended:
    """How an attempt at a run ended: its exit code (or minus a signal), the seconds it took, and what it said."""

    code: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """Whether it ended as a killed process does (SIGKILL, the alarm of a delayed kill, or the limit on a file), or as a
        launcher one of whose workers did."""
        return self.code in KILLED or any(int(code) in KILLED for code in re.findall(r"exitcode *: (-\d+)", self.said))


# -- launching --------------------------------------------------------------------------------------------


class Warm:
    """Runs in forked copies of a process that has the libraries loaded. A context; one run at a time."""

    def __enter__(self) -> "Warm":
        # Its errors are those of its start; a run's output goes to the run's own file.
        self._process = subprocess.Popen([sys.executable, str(HERE / "warm.py")], cwd=ROOT, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env={**os.environ, **QUIET})
        self._answer(TIMEOUT)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=TIMEOUT)
        self._process.stdout.close()

    def run(self, given: Sequence[str], cache: Path, fault: Fault | None = None, kill_after: float | None = None,
            listed: Path | None = None) -> Ended:
        """src/finetune.py once, killed `kill_after` seconds after its start or where the fault says.

        Args:
            cache: where encoded files are kept; its operations count too.
            listed: gets a line for each operation.
        """
        output = Path(f"{cache}.output")
        output.write_bytes(b"")
        request = {"script": SCRIPT, "arguments": list(given), "output": str(output), "kill_after": kill_after,
                   "timeout": TIMEOUT, "fault": asdict(fault) if fault else None, "list": str(listed) if listed else None,
                   "environment": {"INSTRUCTION_MODELLING_CACHE": str(cache)}}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._answer(TIMEOUT + 30))
        return Ended(answer["code"], answer["seconds"], output.read_text(errors="replace"))

    def _answer(self, timeout: float) -> str:
        """The next line that is an answer; libraries print lines of their own while they are loaded."""
        assert self._process.stdout
        while True:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                self._process.kill()
                raise TimeoutError("the warm process does not answer")
            line = self._process.stdout.readline().decode()
            assert line, "the warm process has ended; its reason is above"
            if line.strip() == "ready" or line.startswith("{"):
                return line


LAUNCHERS: dict[str, str] = {
    "1": sys.executable,
    "2": f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 --master_port {{port}}",
    "zero3": f"{sys.executable} -m accelerate.commands.launch --use_deepspeed --deepspeed_config_file "
             "ds_configs/stage3_no_offloading_accelerate.conf --num_machines 1 --num_processes 2 --mixed_precision no "
             "--main_process_port {port}"}


@dataclass(frozen=True)
class Kill:
    """A launched run is killed `after` so many seconds (counted from the making of its folder), or where the fault says.

    Args:
        rank: the worker that is killed, the launcher then ends the others; None for the whole tree of processes.
    """

    after: float | None = None
    fault: Fault | None = None
    rank: int | None = None


def launch_and_kill(launcher: str, given: Sequence[str], cache: Path, kill: Kill | None = None) -> Ended:
    """src/finetune.py once in fresh processes of a launcher."""
    command = LAUNCHERS[launcher].format(port=free_port()).split()
    if kill and kill.fault:
        command += [str(HERE / "faulty.py"), "--at", str(kill.fault.at), "--how", kill.fault.how, "--delay",
                    str(kill.fault.delay), "--rank", str(kill.rank or 0)]
    run = Path(given[list(given).index("--output_dir") + 1])
    output, before = Path(f"{cache}.output"), time.time_ns()
    begin = time.monotonic()
    with output.open("wb") as said:
        process = subprocess.Popen([*command, SCRIPT, *given], cwd=ROOT, stdout=said, stderr=said, start_new_session=True,
                                   env={**os.environ, **QUIET, "INSTRUCTION_MODELLING_CACHE": str(cache)})
        try:
            if kill and kill.after is not None and _wait_for_begin(process, run, before):
                _wait(process, kill.after)
                if process.poll() is None:
                    kill_tree(process.pid, kill.rank)
            code = process.wait(timeout=TIMEOUT)
        finally:
            kill_tree(process.pid, None)
            process.wait(timeout=TIMEOUT)
    return Ended(code, time.monotonic() - begin, output.read_text(errors="replace"))


def _wait_for_begin(process: subprocess.Popen, run: Path, before: int) -> bool:
    """Until the run has touched its log; False if it ends first."""
    while process.poll() is None:
        log = run / "train.log"
        if log.exists() and log.stat().st_mtime_ns > before:
            return True
        time.sleep(0.005)
    return False


def _wait(process: subprocess.Popen, seconds: float) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(min(0.005, max(0.0, end - time.monotonic())))


def kill_tree(root: int, rank: int | None) -> None:
    """SIGKILL to a process and all that descend from it, or to the worker of that rank alone.

    Launchers put each worker in a session of its own, so that a signal to one group does not reach the others.
    """
    found = descendants(root)
    if rank is not None:
        found = [process for process in found if _rank(process) == str(rank)]
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def descendants(root: int) -> list[int]:
    """A process and its descendants, as long as none of those between has ended; parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _rank(process: int) -> str | None:
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((entry.removeprefix(b"RANK=").decode() for entry in variables if entry.startswith(b"RANK=")), None)


# -- until it is done -------------------------------------------------------------------------------------


@dataclass
class Restarted:
    """A run that was killed again and again until it was done.

    Args:
        kills: how often it was killed, and of these `writing` in the middle of changing its folder.
        skipped: what it said of checkpoints that it would not resume from.
        differing: in what it ended otherwise than the undisturbed run; nothing where all is well.
    """

    kills: int
    writing: int
    restarts: int
    skipped: list[str]
    differing: list[str]


def until_done(attempt: Callable[[Sequence[str], Any], Ended], next_kill: Callable[[int], Any], given: Sequence[str],
               undisturbed: Path) -> Restarted:
    """Starts a run, kills it, goes on with the latest checkpoint, and so on.

    Args:
        attempt: makes one attempt with these arguments and that kill.
        next_kill: the kill of the n-th attempt, from 0 on; None to let it finish.
    """
    run = Path(given[list(given).index("--output_dir") + 1])
    kills = writing = restarts = 0
    while True:
        kill = next_kill(restarts)
        ended = attempt([*given, *(RESUME if restarts else ())], kill)
        if ended.code == 0:
            break
        if kill is None or not ended.killed:
            return Restarted(kills, writing, restarts, skipped(run), [f"exit code {ended.code}: {ended.said[-2000:]}"])
        kills += 1
        writing += getattr(kill, "fault", None) is not None or bool(leftovers(run))
        restarts += 1
    return Restarted(kills, writing, restarts, skipped(run), differences(run, undisturbed))


def skipped(run: Path) -> list[str]:
    """What the run said of checkpoints that it would not resume from."""
    log = run / "train.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.split("skipping a checkpoint: ", 1)[1] for line in lines if "skipping a checkpoint: " in line]


def leftovers(run: Path) -> list[str]:
    """Names in the run folder of what is still being written."""
    return sorted(path.name for path in run.glob(".*"))


# -- comparing --------------------------------------------------------------------------------------------


def differences(run: Path, undisturbed: Path) -> list[str]:
    """In what a finished run is not, bit for bit, the undisturbed one: its model and every file that goes with it,
    every step's metrics, and the newest checkpoint's weights and optimiser state."""
    found = [f"left behind: {name}" for name in leftovers(run)]
    names, right_names = _names(run), _names(undisturbed)
    found += [f"{name}: only in one of the two" for name in sorted(names ^ right_names)]
    for name in sorted(names & right_names):
        if (run / name).is_file() and name not in RUN_FILES and (run / name).read_bytes() != (undisturbed / name).read_bytes():
            found.append(f"{name} is another")
    if found:
        return found
    lines, right_lines = _steps(run), _steps(undisturbed)
    if lines != right_lines:
        found.append(f"metrics.jsonl: steps {[line['step'] for line in lines]}, losses {[line['loss'] for line in lines]}; "
                     f"undisturbed {[line['loss'] for line in right_lines]}")
    own = record(run)
    if not own["finished"] or "stopped" in own:
        found.append("run.json does not say that it finished")
    return found + _differing_state(newest(run), newest(undisturbed))


def _names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir() if not path.name.startswith(".")}


def _steps(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in metrics(run)]


def newest(run: Path) -> Path | None:
    """The whole checkpoint with the most steps."""
    return checkpoints.find_checkpoint("latest", run)


def _differing_state(one: Path | None, other: Path | None) -> list[str]:
    if one is None or other is None:
        return [] if one == other else [f"newest checkpoint: {one}, undisturbed {other}"]
    manifests = [{name: value for name, value in checkpoints.read_manifest(folder).items() if name != "files"}
                 for folder in (one, other)]
    if manifests[0] != manifests[1]:
        return [f"{one.name}: its manifest is another"]
    state, right = _state(one), _state(other)
    if state.keys() != right.keys():
        return [f"{one.name}: has other entries than {other.name}"]
    return [f"{one.name}: {name} is another" for name in sorted(state)
            if state[name].dtype != right[name].dtype or not torch.equal(state[name], right[name])]


def _state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def broken_checkpoints(run: Path) -> list[str]:
    """What is wrong with the checkpoints that can be seen in a run folder."""
    found = []
    for folder in run.glob("*/"):
        if folder.name.startswith(checkpoints.PREFIXES):
            try:
                checkpoints.check_contents(folder)
            except UserError as error:
                found.append(str(error))
    return found
