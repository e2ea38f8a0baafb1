"""Jobs in processes that start with the libraries imported: an import takes longer than many a short job.

A job is a process of its own all the same, forked from one that has imported much and done nothing, so it
computes what `python src/SCRIPT.py` computes. Jobs that measure one model may share one process, and so may
jobs that follow one another on a GPU."""

import contextlib
import gc
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from instruction_modelling.cpu import give_back_freed_memory

_LIBRARY = Path(__file__).parents[2]
# Of torch: whether there is a GPU is asked without starting CUDA.
_CUDA_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
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

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path | None = None,
        stdout: Path | None = None,
    ) -> None:
        """Start `command`, as `Job.command` gives it: Python, a script, its arguments.

        Args:
            log: the file that all it says is appended to (default: it goes where ours goes).
            stdout: the file that takes what it prints.
        """
        self._process = _fork(_run, list(command[1:]), dict(env), log, stdout)

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        _send(self._process, number)

    def poll(self) -> int | None:
        """Return its exit code, negative where a signal ended it; None while it runs."""
        exit_code: int | None = self._process.exitcode
        return exit_code

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative where a signal ended it."""
        self._process.join()
        return int(self._process.exitcode or 0)


class SharedProcess:
    """Scripts that run one after the other in one warm process; has of `subprocess.Popen` what jobs need, of
    the script that was started last.

    What a script has loaded the next one need not load again: the libraries on a GPU, and the model that they
    share, where none of them changes it."""

    def __init__(self, keeps_models: bool = True) -> None:
        """Begin without a process.

        Args:
            keeps_models: whether a model is loaded once; not for scripts that train.
        """
        self._keeps_models = keeps_models
        self._process: Any = None
        self._pipe: Connection | None = None
        self._shared_by: str | None = None
        self._code: int | None = None

    def keep_for(self, name: str | None) -> None:
        """End the process, unless it is one for scripts of this name: its model takes memory."""
        if name is None or name != self._shared_by:
            self.close()
        self._shared_by = name

    def start(
        self, command: Sequence[str], env: Mapping[str, str], log: Path | None = None
    ) -> "SharedProcess":
        """Start a script as `WarmProcess` does, in the process at hand or else in a new one."""
        if self._pipe is None:
            self._pipe, of_process = multiprocessing.get_context("forkserver").Pipe()
            self._process = _fork(_run_in_turn, of_process, self._keeps_models)
            of_process.close()
        self._code = None
        self._pipe.send((list(command[1:]), dict(env), log))
        return self

    def send_signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        _send(self._process, number)

    def poll(self) -> int | None:
        """Return the script's exit code, as `wait`; None while it runs."""
        if self._code is None and self._pipe is not None and self._pipe.poll():
            return self.wait()
        return self._code

    def wait(self) -> int:
        """Wait for the script's end and return its exit code, negative where a signal ended it; what failed
        leaves no process behind."""
        if self._code is not None:
            return self._code
        assert self._pipe is not None, "no script was started"
        try:
            self._code = int(self._pipe.recv())
        except (EOFError, OSError):
            # It has ended without a word: killed, or by an error of its own. Even a 0 is no script's end.
            self._process.join()
            self._code = int(self._process.exitcode or 1)
        if self._code:
            self.close()
        return self._code

    def close(self) -> None:
        """End the process, where there is one."""
        if self._pipe is not None:
            self._pipe.close()
            self._process.join()
        self._pipe = self._process = None


def can_start_warm() -> bool:
    """Return whether jobs may be forked here: on Linux, where the process that they are forked from has not
    asked CUDA for its devices, which no process forked from it could use then. Other systems' libraries, and
    those of other GPUs, may not survive a fork."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return False
    return not Path("/dev/nvidiactl").exists() or leaves_cuda_alone()


@cache
def leaves_cuda_alone() -> bool:
    """Return whether a forked process can use CUDA: whether what is imported before has not begun it."""
    _begin_server()
    process = multiprocessing.get_context("forkserver").Process(target=_exit_by_cuda)
    process.start()
    process.join()
    return process.exitcode == 0


def _exit_by_cuda() -> None:
    import torch

    sys.exit(int(torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()))


def _begin_server() -> None:
    """Start the process that others are forked from, if it does not run, with this copy of the library: it
    would know only the one that is installed, which may be another. What it imports and asks whether there is
    a GPU hears it from the driver's management library, which leaves CUDA alone."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(_IMPORTED))
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", _CUDA_CHECK)}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_LIBRARY), before["PYTHONPATH"])))
    os.environ[_CUDA_CHECK] = "1"
    # Until it has a session of its own, a Ctrl-C at the terminal is its too, and it would print where it was.
    is_main = threading.current_thread() is threading.main_thread()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    try:
        forkserver.ensure_running()
    finally:
        if is_main:
            signal.signal(signal.SIGINT, heard)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _fork(target: Any, *arguments: object) -> Any:
    _begin_server()
    # As a daemon: one that nobody has closed does not hold up our end.
    forks = multiprocessing.get_context("forkserver")
    process = forks.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _send(process: Any, number: int) -> None:
    if process is not None and process.pid is not None and process.is_alive():
        os.kill(process.pid, number)


def _run(words: list[str], env: dict[str, str], log: Path | None, stdout: Path | None) -> None:
    _leave_server()
    if stdout is not None:
        with open(stdout, "wb") as file:
            os.dup2(file.fileno(), 1)
    _run_script(words, env, log)


def _leave_server() -> None:
    """Take a session of one's own, for a Ctrl-C is the parent's to pass on, else a script would get it twice,
    and hear it, which the server does not."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_script(words: list[str], env: dict[str, str], log: Path | None) -> None:
    os.environ.clear()
    os.environ.update(env)
    if log is not None:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    runpy.run_path(words[0], run_name="__main__")


def _run_in_turn(pipe: Connection, keeps_models: bool) -> None:
    """Run each script that the pipe brings, and send its exit code; ends with the first that failed, or when
    the other end is closed."""
    from instruction_modelling.models.loading import keep_models
    from instruction_modelling.runs.pace import begin_script

    _leave_server()
    if keeps_models:
        keep_models()
    while True:
        try:
            words, env, log = pipe.recv()
        except EOFError:
            return
        code = 0
        begin_script()
        try:
            _run_script(words, env, log)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception:
            traceback.print_exc()
            code = 1
        del sys.path[0]
        _end_logs()
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(BrokenPipeError):
            pipe.send(code)
        if code:
            # Nothing that a script has left half done is to hold up the end.
            os._exit(code)
        _forget()


def _forget() -> None:
    """Put back what a script has changed of the libraries, so that the next one finds them as after their
    import, and give back its memory."""
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _end_logs() -> None:
    """Take away the log that a script has set up: the next one has its own."""
    library = logging.getLogger("instruction_modelling")
    for logger in (logging.getLogger(), library):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    library.propagate = True
    library.setLevel(logging.NOTSET)
