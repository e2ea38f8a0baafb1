"""Weights and optimiser states on the disk."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.gate import Gate, repeat
from benchmarks.work import Work


def ours(gate: Gate, work: Work) -> None:
    """Save a checkpoint as src/finetune.py does: flushed, hashed, read back, compared with the model."""
    from instruction_modelling.runs import checkpoints
    from instruction_modelling.runs.state import training_state

    accelerator, model, optimizer = stepped_once(work)
    folder = Path(work.scratch) / "run" / "step_1"

    def once(name: str) -> dict[str, Any]:
        checkpoints.save_checkpoint(
            accelerator,
            training_state(accelerator, model, optimizer),
            folder,
            {"step": 1, "fingerprint": {}, "since_logged": {}},
        )
        return {}

    saved(gate, folder, once)


def plain(gate: Gate, work: Work) -> None:
    """Save by accelerate's save_state; where `verified`, flush every file, hash it and read it back too."""
    (own,) = work.settings["contenders"].values()
    accelerator, _, _ = stepped_once(work)
    folder = Path(work.scratch) / "run" / "step_1"

    def once(name: str) -> dict[str, Any]:
        accelerator.save_state(str(folder))
        for path in folder.rglob("*") if own["verified"] else ():
            if path.is_file():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
                    hashlib.file_digest(handle, "sha256")
        return {}

    saved(gate, folder, once)


def saved(gate: Gate, folder: Path, once: Any) -> None:
    """Save anew at every turn, and say how large that is."""

    def clean_and_save(name: str) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        once(name)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {"gb": size / 1e9}

    repeat(gate, clean_and_save)


def stepped_once(work: Work) -> tuple[Any, Any, Any]:
    """Return an accelerator, the model that src/finetune.py would train and its AdamW, which has stepped
    once."""
    import torch

    from instruction_modelling.models import loading
    from instruction_modelling.training.launch import make_accelerator
    from instruction_modelling.training.loss_model import LossModel

    accelerator = make_accelerator(mixed_precision="no")
    model = LossModel(loading.load_model(work.model, torch.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    for weight in prepared.parameters():
        weight.grad = torch.full_like(weight, 1e-3)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return accelerator, prepared, optimizer
