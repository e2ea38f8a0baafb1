"""The processes a script runs on, as the launcher says: started together, ended together."""

import logging
import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.cpu import keep_freed_memory, use_quicker_float32
from instruction_modelling.errors import UserError, first_line
from instruction_modelling.processes.connections import watch_connections
from instruction_modelling.processes.signals import LAUNCHER_GONE
from instruction_modelling.quiet import silence_libraries
from instruction_modelling.training.devices import chosen_precision, compute_deterministically
from instruction_modelling.training.sharding import (
    is_deepspeed,
    launched_with_fsdp,
    refuse_what_cannot_be_sharded,
    set_up_fsdp,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from instruction_modelling.options import FinetuneOptions

logger = logging.getLogger(__name__)

# The programs, and the modules run as programs, that start processes and wait for them.
LAUNCHERS = {
    "torchrun",
    "accelerate",
    "accelerate-launch",
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "deepspeed",
    "deepspeed.launcher.launch",
}


STALE_SECONDS = 900
# The number of a request to Linux's prctl.
PR_SET_PDEATHSIG = 1


def start_processes(options: "FinetuneOptions") -> "Accelerator":
    """Set up the processes, device and precision of a training run as the launcher says, and its trackers.

    Raises:
        UserError: a tracker is missing, or the options do not fit the launcher.
    """
    if options.deterministic:
        compute_deterministically()
    # Said below in words of our own, with what to do.
    warnings.filterwarnings("ignore", message=".*no supported trackers are currently installed.*")
    try:
        accelerator = make_accelerator(
            mixed_precision=chosen_precision(
                "bf16" if options.weights_in == "bf16" else options.mixed_precision
            ),
            project_dir=options.output_dir,
            log_with=options.report_to if options.with_tracking else None,
        )
    except ValueError as error:
        raise UserError(
            f"--report_to {options.report_to}, --mixed_precision {options.mixed_precision} or the launcher's "
            f"settings: {error}"
        ) from error
    watch_connections(options.lost_after)
    refuse_what_cannot_be_sharded(options, accelerator)
    if options.with_tracking:
        if not accelerator.log_with:
            raise UserError(
                f"--report_to {options.report_to}: this tracker is not installed here: install its package, "
                "or leave out --with_tracking (metrics.jsonl has the metrics in any case)"
            )
        if not options.dry_run:
            start_trackers(accelerator, options)
    return accelerator


def start_trackers(accelerator: "Accelerator", options: "FinetuneOptions") -> None:
    """Begin a run of each tracker, called as the run's folder; W&B's own variables hold (WANDB_PROJECT,
    WANDB_MODE).

    Raises:
        UserError: a tracker cannot begin.
    """
    plain = {name: value for name, value in options.as_dict().items() if isinstance(value, int | float | str)}
    name = Path(options.output_dir).resolve().name
    project = os.environ.get("WANDB_PROJECT") or "instruction_modelling"
    # Other trackers have no name of a run, or take the folder's.
    named = {"wandb": {"name": name, "dir": options.output_dir}, "trackio": {"name": name}}
    try:
        accelerator.init_trackers(project, plain, init_kwargs=named)
    except Exception as error:
        # Each tracker raises what it likes: no account, no network.
        raise UserError(
            f"--report_to {options.report_to}: the tracker cannot begin: {first_line(error)}; mend that, or "
            "leave out --with_tracking (metrics.jsonl has the metrics in any case)"
        ) from error


def make_accelerator(**keywords: Any) -> "Accelerator":
    """Return an `Accelerator` over all the processes that were launched, on GPUs or, over gloo, on CPUs.

    Raises:
        UserError: the launcher's configuration asks for the first version of FSDP.
    """
    silence_libraries()
    end_with_launcher()
    remove_stale_build_locks()
    # DeepSpeed's collectives warn once a call of names that a later torch will drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import torch

    if not torch.cuda.is_available():
        # Said once here, DeepSpeed need not guess it and warn about it in every process.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        use_quicker_float32()
        keep_freed_memory()
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    ask_no_model_for_deepspeed()
    # A single process has no group to configure. The others wait while the main one checks what was written.
    several, cuda = int(os.environ.get("WORLD_SIZE", "1")) > 1, torch.cuda.is_available()
    if several:
        keywords["kwargs_handlers"] = [
            InitProcessGroupKwargs("nccl" if cuda else "gloo", timeout=timedelta(hours=1))
        ]
    if several and not cuda:
        # Not told so, accelerate lets each process train for itself; DeepSpeed makes its own group.
        keywords["cpu"] = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true"
    accelerator = Accelerator(**keywords)
    if launched_with_fsdp():
        set_up_fsdp(accelerator)
    return accelerator


def ask_no_model_for_deepspeed() -> None:
    """Have accelerate, and transformers through it, not load all of DeepSpeed to ask whether a model is one
    of its engines, where the launcher has not asked for DeepSpeed: that took a twelfth of a start's time."""
    from accelerate.utils import other

    asked_for = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if not asked_for and hasattr(other, "is_deepspeed_available"):
        other.is_deepspeed_available = lambda: False


def remove_stale_build_locks() -> None:
    """Remove what killed builds of torch's extensions (DeepSpeed's) have left: a lock that every later start
    would wait for, for ever and without a word. A build takes a minute; a lock of `STALE_SECONDS` is left."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    locks = Path(root).glob("*/lock") if root else Path.home().glob(".cache/torch_extensions/*/*/lock")
    for lock in locks:
        try:
            if time.time() - lock.stat().st_mtime > STALE_SECONDS:
                lock.unlink()
                logger.warning("removed %s: a build that was killed had left it", lock)
        # Another process was first, or may not: then DeepSpeed says what it waits for, or goes on.
        except OSError:
            continue


def end_with_launcher() -> None:
    """Have the system send this process `signals.LAUNCHER_GONE` when its launcher ends; a process that does
    not listen for it ends too.

    A launcher that is killed takes no worker with it, and workers left alone would train on, unseen, in the
    way of the run that is started in their place. On other systems than Linux nothing is done.
    """
    import ctypes

    import psutil

    parent = psutil.Process().parent()
    try:
        launched = parent is not None and any(Path(word).name in LAUNCHERS for word in parent.cmdline())
    except psutil.Error:
        launched = True
    if launched and hasattr(libc := ctypes.CDLL(None), "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, LAUNCHER_GONE)
        if parent is None or not parent.is_running():
            os.kill(os.getpid(), LAUNCHER_GONE)


def end_processes(accelerator: "Accelerator", code: int = 0) -> None:
    """End trackers and process group, once every process is done; a launched process exits here, with `code`.

    At an ordinary exit a thread of the communication libraries that still runs can abort the process
    ("terminate called without an active exception"): the launcher would then call a run failed whose model is
    saved."""
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.num_processes > 1 or is_deepspeed(accelerator):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
