"""Jobs in processes that start with the libraries imported: an import takes longer than many a short job.

A job is a process of its own all the same, forked from one that has imported much and done nothing, so it
computes what `python src/SCRIPT.py` computes. Jobs that measure one model may share one process."""

import logging
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

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

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stdout: Path | None = None) -> None:
        """Start `command`, as `Job.command` gives it: Python, a script, its arguments.

        Args:
            stdout: the file that takes what it prints.
        """
        self._process = _fork(_run, list(command[1:]), dict(env), stdout)

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        _send(self._process, number)

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative where a signal ended it."""
        self._process.join()
        return int(self._process.exitcode or 0)


class SharedProcess:
    """Scripts that run one after the other in one warm process, which loads the model they share once; has of
    `subprocess.Popen` what jobs need, of the script that was started last."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None
        self._shared_by: str | None = None

    def keep_for(self, name: str | None) -> None:
        """End the process, unless it is one for scripts of this name: its model takes memory."""
        if name is None or name != self._shared_by:
            self.close()
        self._shared_by = name

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> "SharedProcess":
        """Start a script as `WarmProcess` does, in the process at hand or else in a new one."""
        if self._pipe is None:
            self._pipe, of_process = multiprocessing.get_context("forkserver").Pipe()
            self._process = _fork(_run_in_turn, of_process)
            of_process.close()
        self._pipe.send((list(command[1:]), dict(env)))
        return self

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        _send(self._process, number)

    def wait(self) -> int:
        """Wait for the script's end and return its exit code, negative where a signal ended it; what failed
        leaves no process behind."""
        assert self._pipe is not None, "no script was started"
        try:
            code = int(self._pipe.recv())
        except (EOFError, OSError):
            # It has ended without a word: killed, or by an error of its own.
            self._process.join()
            code = int(self._process.exitcode or 0)
            self.close()
            return code
        if code:
            self.close()
        return code

    def close(self) -> None:
        """End the process, where there is one."""
        if self._pipe is not None:
            self._pipe.close()
            self._process.join()
        self._pipe = self._process = None


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


def _fork(target: Any, *arguments: object) -> Any:
    _begin_server()
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    return process


def _send(process: Any, number: int) -> None:
    if process is not None and process.pid is not None and process.is_alive():
        os.kill(process.pid, number)


def _run(words: list[str], env: dict[str, str], stdout: Path | None) -> None:
    # A Ctrl-C is the parent's to pass on, else the script would get it twice.
    os.setsid()
    if stdout is not None:
        with open(stdout, "wb") as file:
            os.dup2(file.fileno(), 1)
    _run_script(words, env)


def _run_script(words: list[str], env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")


def _run_in_turn(pipe: Connection) -> None:
    """Run each script that the pipe brings, and send its exit code; ends with the first that failed, or when
    the other end is closed."""
    from instruction_modelling.models.loading import keep_models

    os.setsid()
    keep_models()
    code = 0
    while not code:
        try:
            words, env = pipe.recv()
        except EOFError:
            return
        try:
            _run_script(words, env)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        del sys.path[0]
        _end_logs()
        sys.stdout.flush()
        pipe.send(code)


def _end_logs() -> None:
    """Take away the log that a script has set up: the next one has its own."""
    library = logging.getLogger("instruction_modelling")
    for logger in (logging.getLogger(), library):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    library.propagate = True
    library.setLevel(logging.NOTSET)
