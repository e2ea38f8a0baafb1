"""Jobs in processes that start with the libraries imported: an import takes longer than many a short job.

A job is a process of its own all the same, forked from one that has imported much and done nothing, so it
computes what `python src/SCRIPT.py` computes."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

_LIBRARY = Path(__file__).parents[2]
# What training and measuring import.
_IMPORTED = (
    "instruction_modelling.comparison.own_session",
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "accelerate",
    "instruction_modelling.generation.respond",
    "instruction_modelling.generation.transformers_engine",
    "instruction_modelling.options",
    "instruction_modelling.runs.run",
    "instruction_modelling.runs.model",
    "instruction_modelling.runs.record",
    "instruction_modelling.training.launch",
    "instruction_modelling.training.loss_model",
    "instruction_modelling.training.row_losses",
    "instruction_modelling.training.trainable_model",
    "instruction_modelling.tokens.row_encoder",
)


class WarmProcess:
    """A script that runs in a forked process; has of `subprocess.Popen` what jobs need."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start `command`, as `Job.command` gives it: Python, a script, its arguments."""
        _begin_server()
        forks = multiprocessing.get_context("forkserver")
        self._process = forks.Process(target=_run, args=(list(command[1:]), dict(env)))
        self._process.start()

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative where a signal ended it."""
        self._process.join()
        return int(self._process.exitcode or 0)


def can_start_warm() -> bool:
    """Return whether jobs may be forked here: on Linux without a GPU, since what has asked CUDA for its
    devices cannot be forked, and other systems' libraries may not survive a fork."""
    return sys.platform == "linux" and not Path("/dev/nvidiactl").exists() and not Path("/dev/kfd").exists()


def _begin_server() -> None:
    """Start the process that others are forked from, if it does not run, with this copy of the library: it
    would know only the one that is installed, which may be another."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_IMPORTED))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_LIBRARY), before)))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(words: list[str], env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    # A Ctrl-C is the parent's to pass on, else the script would get it twice.
    os.setsid()
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")
