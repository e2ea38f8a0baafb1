"""Runs that are killed, or whose disk fails, and started again until they are done; and whether that shows.

A case is a training command on the tiny model. On one process its runs are forked from this process, which
has imported everything and computed nothing; on two they are launched as a user would."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import Faults

ROOT = Path(__file__).resolve().parents[2]
# What a continued run may differ in.
TIMING = ("seconds", "tokens_per_second")
FULL = ("--neftune_alpha", "5", "--packing", "--use_lm_loss")
LORA = (*FULL, "--use_lora", "--lora_rank", "4", "--lora_dropout", "0.1")
RESUME = ("--resume_from_checkpoint", "latest")
LAST = "step_6"


@dataclass
class Case:
    """A training run, how it is launched, and what has been done to it."""

    name: str
    launcher: str
    arm: tuple[str, ...]
    place: Path
    seconds: float = 0.0
    """From the first step to the end, undisturbed."""
    kills: int = 0
    faults: int = 0
    within_saves: int = 0
    starts: int = 0
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Path:
        """The folder of the undisturbed run."""
        return self.place / f"{self.name.replace(' ', '_')}-whole"

    def arguments(self, folder: Path) -> list[str]:
        """Those of src/finetune.py: six steps, a checkpoint after each, three of them kept."""
        own = [
            "--model_name_or_path",
            self.place / "model",
            "--train_file",
            self.place / "rows.jsonl",
            "--output_dir",
            folder,
            "--learning_rate",
            "1e-3",
            "--checkpointing_steps",
            "1",
            "--save_total_limit",
            "3",
            "--per_device_train_batch_size",
            "8" if self.launcher == "one" else "4",
            *self.arm,
            *RESUME,
        ]
        return [str(part) for part in own]


def make_place(folder: Path) -> Path:
    """A folder with the tiny model and 19 rows."""
    from tiny import make_tiny_model
    from training_runs import sample_rows, write_rows

    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(19))
    return folder


# -- one process ------------------------------------------------------------------------------------------


def start(case: Case, folder: Path, at: int = 0, how: str = "kill") -> int:
    """Forks a run, with a fault at its operation `at`; the child's process id. Its output goes to
    folder.err."""
    case.starts += 1
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        output = os.open(f"{folder}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faults = Faults(folder, at, how)
        code = _finetune(case.arguments(folder))
        Path(f"{folder}.operations").write_text(json.dumps(faults.names))
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _finetune(arguments: Sequence[str]) -> int:
    import torch
    from script_loader import load_script

    from instruction_modelling.errors import run_main

    torch.set_num_threads(1)
    sys.argv = ["finetune.py", *arguments]
    try:
        run_main(load_script("finetune").main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def wait(child: int) -> int:
    """The exit code of a forked run, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- two processes ----------------------------------------------------------------------------------------


def launch(case: Case, folder: Path) -> "subprocess.Popen[bytes]":
    """A launched run; its output goes to folder.err."""
    from training_runs import free_port

    case.starts += 1
    programs = Path(sys.executable).parent
    if case.launcher == "two":
        command = [programs / "torchrun", "--nproc_per_node", "2", "--master_port", free_port()]
    else:
        command = [
            programs / "accelerate",
            "launch",
            "--mixed_precision",
            "no",
            "--num_machines",
            "1",
            "--num_processes",
            "2",
            "--use_deepspeed",
            "--main_process_port",
            free_port(),
            "--deepspeed_config_file",
            ROOT / "ds_configs" / "stage3_no_offloading_accelerate.conf",
        ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if case.launcher == "two":
        environment["ACCELERATE_USE_CPU"] = "true"
    with open(f"{folder}.err", "ab") as output:
        return subprocess.Popen(
            [str(part) for part in [*command, ROOT / "src" / "finetune.py", *case.arguments(folder)]],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def end_all(run: "subprocess.Popen[bytes]") -> None:
    """SIGKILL for a launched run: the launcher first, so that it does not tidy up, then its processes,
    wherever they are."""
    from training_runs import descendants

    left = descendants(run.pid)
    for process in (run.pid, *left):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    run.wait()
    while any(Path(f"/proc/{process}").exists() for process in left):
        time.sleep(0.01)


# -- what is left, and whether it is right ----------------------------------------------------------------


def begun(folder: Path, starts: int) -> bool:
    """Whether the latest of so many starts has come to its first step."""
    with contextlib.suppress(OSError):
        return (folder / "train.log").read_text().count(" steps of up to ") >= starts
    return False


def note_kill(case: Case, folder: Path) -> None:
    """Counts a kill, and whether it fell into the saving of a checkpoint or of the model."""
    case.kills += 1
    left = [
        *folder.glob(".*.saving"),
        *folder.glob(".*.replaced"),
        *folder.glob(".*.pruned"),
        *folder.glob(".saving-model"),
    ]
    case.within_saves += bool(left)


def compare(case: Case, folder: Path, what: str, tidy: bool = True) -> None:
    """Notes every way in which a run that was started again differs from the undisturbed one.

    Args:
        tidy: whether nothing may be left over, either; a disk that failed may have kept something from being
            removed.
    """
    from safetensors.torch import load_file

    log = (folder / "train.log").read_text()
    case.skipped += [
        line.split("skipping a checkpoint: ", 1)[1]
        for line in log.splitlines()
        if "skipping a checkpoint" in line
    ]
    found = {}
    for root in (case.whole, folder):
        parts = {
            f"{part}/{name}": value
            for part in ("", LAST)
            for path in sorted((root / part).glob("*.safetensors"))
            for name, value in load_file(path).items()
        }
        lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
        steps = [{name: value for name, value in line.items() if name not in TIMING} for line in lines]
        record = json.loads((root / "run.json").read_text())
        hidden = sorted(path.name for path in root.iterdir() if path.name.startswith("."))
        kept = sorted(path.name for path in root.glob("step_*"))
        found[root] = parts, steps, record["finished"], hidden, kept
    whole, again = found[case.whole], found[folder]
    if whole[0].keys() != again[0].keys() or any(
        not value.equal(again[0][name]) for name, value in whole[0].items()
    ):
        case.problems.append(f"{what}: weights or optimiser state differ")
    for label, one, other in zip(
        ("metrics", "finished", "files left behind", "checkpoints"), whole[1:], again[1:], strict=True
    ):
        if one != other and (tidy or label in ("metrics", "finished")):
            case.problems.append(f"{what}: {label} differ: {other}")


def undisturbed(case: Case) -> None:
    """The run to compare with, and how long it takes from its first step on."""
    started: float | None = None
    if case.launcher == "one":
        child = start(case, case.whole)
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            started = started or (time.monotonic() if begun(case.whole, 1) else None)
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(ended[1])
    else:
        run = launch(case, case.whole)
        while run.poll() is None:
            started = started or (time.monotonic() if begun(case.whole, 1) else None)
            time.sleep(0.01)
        code = run.returncode
    if code or started is None:
        raise SystemExit(
            f"{case.name}: the undisturbed run ended with {code}: "
            f"{Path(f'{case.whole}.err').read_text()[-2000:]}"
        )
    case.seconds = time.monotonic() - started
    case.starts = 0


# -- what is done to a run --------------------------------------------------------------------------------


def finish(case: Case, folder: Path, what: str) -> bool:
    """Starts a run again, until it is done; whether it was."""
    code = wait(start(case, folder)) if case.launcher == "one" else launch(case, folder).wait()
    if code:
        case.problems.append(
            f"{what}: started again, it ended with {code}: {Path(f'{folder}.err').read_text()[-500:]}"
        )
    return code == 0


def operations(case: Case) -> list[str]:
    """The operations of the undisturbed run of one process, in their order."""
    return json.loads(Path(f"{case.whole}.operations").read_text())


def inject(case: Case, at: int, how: str) -> None:
    """A fault at operation `at`; then the run is started again and compared."""
    case.faults += 1
    what = f"{how} at operation {at}"
    folder = case.place / f"{case.name.replace(' ', '_')}-{how}-{at}"
    code = wait(start(case, folder, at, how))
    said = Path(f"{folder}.err").read_text()
    if how in ("kill", "half"):
        if code != -signal.SIGKILL:
            case.problems.append(f"{what}: was to be killed and ended with {code}")
    elif code not in (0, 2) or "Traceback" in said or (code == 2) != ("error: " in said):
        case.problems.append(f"{what}: ended with {code}: {said[-500:]}")
    if code == 0:
        # Saved again, a bad model would not be seen.
        compare(case, folder, f"{what}, as it ended", tidy=False)
    if finish(case, folder, what):
        compare(case, folder, what)
    shutil.rmtree(folder, ignore_errors=True)


def kill_at_random(case: Case, kills: int, chance: random.Random) -> None:
    """Kills a run `kills` times, at instants of its training and saving, starting it again each time; then
    compares."""
    folder = case.place / f"{case.name.replace(' ', '_')}-random-{case.kills}"
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(kills):
        deadline = None
        run = None
        child = 0
        if case.launcher == "one":
            child = start(case, folder)
        else:
            run = launch(case, folder)
        while os.waitpid(child, os.WNOHANG)[0] == 0 if run is None else run.poll() is None:
            if deadline is None and begun(folder, number + 1):
                deadline = time.monotonic() + chance.uniform(0, case.seconds)
            if deadline is not None and time.monotonic() >= deadline:
                break
            time.sleep(0.002)
        else:
            # It was done before its time came.
            if run is not None and run.returncode:
                case.problems.append(f"{folder.name}: ended by itself with {run.returncode}")
            break
        if run is None:
            os.kill(child, signal.SIGKILL)
            wait(child)
        else:
            _kill_launched(run, chance)
        note_kill(case, folder)
    what = f"random kills in {folder.name}"
    if finish(case, folder, what):
        compare(case, folder, what)
    shutil.rmtree(folder, ignore_errors=True)


def _kill_launched(run: "subprocess.Popen[bytes]", chance: random.Random) -> None:
    """All of a launched run, or one of its processes, upon which the launcher ends the other."""
    from training_runs import training_processes

    found = sorted(training_processes(run.pid).values())
    if found and chance.random() < 0.5:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)
        run.wait(120)
    else:
        end_all(run)


def results(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """A line for each case."""
    return [
        {
            "case": case.name,
            "faults": case.faults,
            "kills": case.kills,
            "within_saves": case.within_saves,
            "starts": case.starts,
            "checkpoints_skipped": len(case.skipped),
            "skipped": sorted(set(case.skipped)),
            "identical": not case.problems,
            "problems": case.problems,
        }
        for case in cases
    ]
