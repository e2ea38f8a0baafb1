"""The processes a script runs on, as the launcher says."""

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from instruction_modelling.library_output import silence_libraries

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(**keywords: Any) -> "Accelerator":
    """An `Accelerator` with the gloo backend where there are several processes and no GPU.

    Without it each process on CPU would think itself alone; a single process has no group to configure.
    """
    silence_libraries()
    # DeepSpeed's collectives warn once a call of names that a later torch will drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import torch

    if not torch.cuda.is_available():
        # Said once here, DeepSpeed need not guess it and warn about it in every process.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    handlers = [InitProcessGroupKwargs(backend="gloo")] if several and not torch.cuda.is_available() else []
    return Accelerator(kwargs_handlers=handlers, **keywords)


def end_processes(accelerator: "Accelerator") -> None:
    """Ends trackers and process group, once every process is done; a launched process exits here, with success.

    At an ordinary exit a thread of the communication libraries that still runs can abort the process ("terminate called
    without an active exception"): the launcher would then call a run failed whose model is saved.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if accelerator.num_processes > 1 or accelerator.state.deepspeed_plugin is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
