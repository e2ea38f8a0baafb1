"""Runs a launcher of processes (torchrun, accelerate) with a watch over its connections to other machines.

    python -m instruction_modelling.processes.launcher SECONDS PROGRAM ARGUMENT...

PROGRAM is a script of Python. A launcher keeps to its rendezvous by a connection that is blocked for as long
as its system tries to reach a machine that is gone, a quarter of an hour, and cannot be interrupted
meanwhile; so its thread ends it (exit code 1) when another machine has been silent for SECONDS (0: never)
and its processes had time to say so."""

import contextlib
import os
import runpy
import sys

from instruction_modelling.processes.connections import GRACE, ConnectionWatch


def _end(words: str) -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    print(f"error: {words}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """Start the watch, and become the launcher."""
    seconds, program, *arguments = sys.argv[1:]
    if int(seconds) and sys.platform == "linux":
        # Its processes are given theirs first.
        ConnectionWatch(int(seconds), who="the launcher", grace=GRACE * 1.5, end=_end).start()
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
