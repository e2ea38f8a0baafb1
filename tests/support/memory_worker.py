"""Started by a launcher on every process: src/finetune.py, whose memory ends on the last process in step 2.

torchrun --nproc_per_node 2 tests/support/memory_worker.py --model_name_or_path ..."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

import torch  # noqa: E402
from script_loader import load_script  # noqa: E402

from instruction_modelling.errors import run_main  # noqa: E402
from instruction_modelling.training.loss_model import LossModel  # noqa: E402

if __name__ == "__main__":
    torch.set_num_threads(1)
    forward, calls = LossModel.forward, [0]

    def last_forward(self: LossModel, *arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2 and os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1):
            torch.empty(2**50)
        return forward(self, *arguments, **keywords)

    LossModel.forward = last_forward  # type: ignore[method-assign]
    run_main(load_script("finetune").main)
