"""How fast this machine trains a model.

`python -m instruction_modelling.comparison.calibration MODEL PRECISION` prints token-passes a second.

A program of its own, so that the memory it takes, on a GPU too, is free again before the first job."""

import sys
import time
from typing import Any


def tokens_per_second(model_name_or_path: str, mixed_precision: str) -> float:
    """Return the tokens a second of one training step's forward and backward pass on made-up tokens."""
    import torch

    from instruction_modelling.models import loading
    from instruction_modelling.training.hidden_states import output_head

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = loading.load_model(model_name_or_path, torch.float32)
    model.to(device)
    ids = torch.randint(0, min(1000, output_head(model).vocabulary), (2, 256), device=device)
    seconds = 0.0
    # The first pass warms up; the second counts.
    for _ in range(2):
        begin = time.monotonic()
        with torch.autocast(device, torch.bfloat16, enabled=mixed_precision == "bf16"):
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - begin
    return ids.numel() / seconds


def main() -> None:
    """Print the rate on the last line of standard output."""
    from instruction_modelling.quiet import silence_libraries

    silence_libraries()
    print(tokens_per_second(*sys.argv[1:3]))


if __name__ == "__main__":
    from instruction_modelling.errors import run_main

    run_main(main)
