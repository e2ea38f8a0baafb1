"""The training processes of a run on this machine, as opposed to the launchers that wait for them."""

import contextlib
from pathlib import Path

SCRIPT = "finetune.py"


def training_processes(output_dir: str | Path) -> list[int]:
    """Return the ids of this machine's processes that train into a folder, sorted.

    A launcher names the script in its command too, but after a program of its own.
    """
    import psutil

    folder = Path(output_dir).resolve()
    ids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, IndexError, StopIteration):
            command = process.cmdline()
            script = next(word for word in command[1:] if not word.startswith("-"))
            if Path(script).name != SCRIPT:
                continue
            trained_into = command[command.index("--output_dir") + 1]
            if (Path(process.cwd()) / trained_into).resolve() == folder:
                ids.append(process.pid)
    return sorted(ids)
