"""The processes a script runs on, as the launcher says."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(**keywords: Any) -> "Accelerator":
    """An `Accelerator` with the gloo backend where there are several processes and no GPU.

    Without it each process on CPU would think itself alone; a single process has no group to configure.
    """
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    handlers = [InitProcessGroupKwargs(backend="gloo")] if several and not torch.cuda.is_available() else []
    return Accelerator(kwargs_handlers=handlers, **keywords)
