"""Started by a launcher on every process: runs the cases of a JSON file and, on the first process, keeps what
they gave.

torchrun --nproc_per_node 2 tests/support/same_run_worker.py PLACE FOLDER CASES.json
"""

import json
import os
import sys
from pathlib import Path

import torch
from same_run import Case, record_case

from instruction_modelling.cpu import cycles_looked_for_seldom


def leave_messages_to_gloo() -> None:
    """Keeps DeepSpeed from compiling its messages through shared memory, which takes a new machine a minute:
    the sums are what is compared, and launched runs have those messages."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


@cycles_looked_for_seldom()
def main() -> None:
    """Writes FOLDER/case_N.safetensors and .json for the N-th case."""
    place, folder, cases = (Path(argument) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        leave_messages_to_gloo()
    for number, (layout, arm) in enumerate(json.loads(cases.read_text())):
        measured = record_case(
            Case(layout, arm), place, folder / f"runs_{number}", int(os.environ["WORLD_SIZE"])
        )
        if os.environ["RANK"] == "0":
            measured.save(folder / f"case_{number}")
    # An ordinary exit can abort in a thread of the communication libraries.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
