"""What the figures were measured on and with."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "trl", "tokenizers", "numpy")
# Peers that are looked for in every run. Those that are not there are named in the results.
OTHER_PEERS = ("litgpt",)


def describe_machine() -> dict[str, Any]:
    """Return processor, its cores and instructions that matter, memory, and the GPU if there is one."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in cpu.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", "").split())
    return {
        "processor": named.get("model name", platform.processor()),
        "instructions": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": gpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def gpu_name() -> str | None:
    """Return the first GPU's name by NVIDIA's own program; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def versions() -> dict[str, str | None]:
    """Return the version of each package that takes part; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in (*PACKAGES, *OTHER_PEERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit(root: Path) -> str | None:
    """Return the commit that is measured, with a + where files differ from it; None outside git."""
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
