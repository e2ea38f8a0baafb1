"""What one GPU does: is it right, how fast is it, in how much memory, and how fast is TRL there?

    python benchmarks/gpu.py --output_dir results/gpu
    python benchmarks/gpu.py --output_dir results/gpu --groups lora-7b full-7b resume      (a second call)
    python benchmarks/gpu.py --output_dir results/gpu --dry_run_on_cpu          (toy sizes: does it run?)

Models are random, made on the card in the shapes of Llama-3.2-1B and Llama-2-7B; rows are random tokens in
the lengths of LIMA's and Dolly's: nothing is fetched, and nothing but this repository is needed. The groups
of parts come in order of what they are worth, each in a process of its own, so that one that fails or hangs
takes nothing else with it; at --stop_after seconds what runs is ended. Every result is a line of
results.jsonl the moment it is there; errors.txt has what failed, profile-*.txt what kernels took.
`gpu_parts/operations.py` says how the share of the peak (MFU) is counted."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(path) for path in (ROOT, ROOT / "src") if str(path) not in sys.path]

from benchmarks.gpu_parts.notes import Notes  # noqa: E402
from instruction_modelling.command_line import parse_options  # noqa: E402
from instruction_modelling.errors import UserError, run_main  # noqa: E402

# In order of value. What each holds is `_measure`'s.
GROUPS = ("right", "full-1b", "trl", "lora-7b", "resume", "full-7b")


@dataclass
class GpuOptions:
    """Options."""

    output_dir: str
    """Where results.jsonl and what belongs to it go; lines are added to those that are there."""
    groups: list[str] | None = None
    """Groups of parts to run, in this order (default: all): right, full-1b, trl, lora-7b, resume, full-7b."""
    only: list[str] | None = None
    """Of full-1b, lora-7b, full-7b and trl those parts alone whose name ends so (default: all)."""
    stop_after: float = 570.0
    """Seconds after which what runs is ended and nothing more begins."""
    dry_run_on_cpu: bool = False
    """Run every part on the CPU with toy models and few rows."""
    group: str | None = None
    """Run one group in this process; what the script itself calls."""

    def check(self) -> list[str]:
        """Return what is wrong with the options, in words."""
        wrong = [name for name in (*(self.groups or ()), *filter(None, [self.group])) if name not in GROUPS]
        return [f"--groups {name}: must be one of {', '.join(GROUPS)}" for name in wrong]


def main() -> int:
    """Run the groups, each in a process of its own; return 1 where one of them failed or was ended."""
    options = parse_options(GpuOptions)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if options.group:
        _measure(options.group, folder, options.dry_run_on_cpu, tuple(options.only or ()))
        return 0
    import torch

    if not (options.dry_run_on_cpu or torch.cuda.is_available()):
        raise UserError("no CUDA device here: --dry_run_on_cpu shows on a CPU whether the script runs")
    # Else a dry run would find the card where there is one.
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if options.dry_run_on_cpu else {})}
    end, failed = time.monotonic() + options.stop_after, False
    for group in options.groups or GROUPS:
        left = end - time.monotonic()
        notes, begin = Notes(folder, group), time.monotonic()
        if left <= 0:
            notes.add("group", not_begun=f"{options.stop_after:.0f} seconds were over")
            failed = True
            continue
        toy = ["--dry_run_on_cpu"] if options.dry_run_on_cpu else []
        only = ["--only", *options.only] if options.only else []
        command = [sys.executable, __file__, "--output_dir", str(folder), "--group", group, *only, *toy]
        try:
            code = subprocess.run(command, timeout=left, env=environment).returncode
        except subprocess.TimeoutExpired:
            notes.add("group", ended=f"{options.stop_after:.0f} seconds were over")
            failed = True
            continue
        notes.add("group", exit_code=code, group_seconds=round(time.monotonic() - begin, 1))
        failed |= code != 0
    return int(failed)


def _measure(group: str, folder: Path, toy: bool, only: tuple[str, ...]) -> None:
    from benchmarks.gpu_parts import correctness, peer, throughput
    from benchmarks.gpu_parts.setting import Setting

    setting = Setting(Notes(folder, group), toy, only)
    parts = {
        "right": (throughput.machine, correctness.same_step, correctness.waits),
        "full-1b": (throughput.full_1b,),
        "trl": (peer.trl,),
        "lora-7b": (throughput.lora_7b,),
        "resume": (correctness.resume,),
        "full-7b": (throughput.full_7b,),
    }
    for part in parts[group]:
        with setting.notes.part(part.__name__):
            part(setting)


if __name__ == "__main__":
    run_main(main)
