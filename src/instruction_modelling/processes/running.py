"""The training processes of a run on this machine, as opposed to the launchers that wait for them."""

import contextlib
from pathlib import Path

SCRIPT = "finetune.py"


def training_processes(output_dir: str | Path) -> list[int]:
    """The ids of the processes that train into a folder.

    A launcher names the script in its command too, but after a program of its own.
    """
    import psutil

    wanted = Path(output_dir).resolve()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, IndexError, StopIteration):
            command = process.cmdline()
            script = next(word for word in command[1:] if not word.startswith("-"))
            if Path(script).name != SCRIPT:
                continue
            given = command[command.index("--output_dir") + 1]
            if (Path(process.cwd()) / given).resolve() == wanted:
                found.append(process.pid)
    return sorted(found)
