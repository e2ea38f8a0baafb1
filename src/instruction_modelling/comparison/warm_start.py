"""Jobs in processes that start with the libraries imported: an import takes longer than many a short job.

A job is a process of its own all the same, forked from one that has imported much and done nothing, so it
computes what `python src/SCRIPT.py` computes."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence

# What training and measuring import.
_IMPORTED = (
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "accelerate",
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
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(list(_IMPORTED))
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


def _run(words: list[str], env: dict[str, str]) -> None:
    os.environ.update(env)
    # A Ctrl-C is the parent's to pass on, else the script would get it twice.
    os.setsid()
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")
