"""The loss of a model on rows."""

from typing import Any

import numpy as np

from benchmarks.contenders.plain_loop import padded
from benchmarks.counts import IGNORED
from benchmarks.gate import Gate, repeat
from benchmarks.preparation import weighted_rows
from benchmarks.work import Work


def ours(gate: Gate, work: Work) -> None:
    """Score the rows as src/compute_loss.py does, packed; a turn is an update's rows, twice as many as are
    trained on at once."""

    from instruction_modelling.models import loading
    from instruction_modelling.training.launch import make_accelerator
    from instruction_modelling.training.loss_model import LossModel
    from instruction_modelling.training.plan import Layout
    from instruction_modelling.training.row_losses import row_losses
    from instruction_modelling.training.sharding import prepare_to_score

    accelerator = make_accelerator(mixed_precision="no")
    cuda = accelerator.device.type == "cuda"
    attention = loading.pick_attention(True, False, cuda, False)
    model = LossModel(loading.load_model(work.model, dtype_of(work), attention))
    prepared: Any = prepare_to_score(accelerator, model, True)
    data = weighted_rows(work, work.rows_file(), "im").data.take(np.arange(rows_of_turn(work)))
    layout = Layout(True, 8, max(4096, int(data.sequence_lengths.max())))

    def once(name: str) -> dict[str, Any]:
        scored = row_losses(prepared, data, layout, accelerator)
        # Kinds, without `response`, which is the sum of some of them.
        parts = [
            (row["nll"][kind] * row["tokens"][kind], row["tokens"][kind])
            for row in scored
            for kind in row["nll"]
            if kind != "response"
        ]
        tokens = int(data.offsets[-1])
        return {"tokens": tokens, "loss": sum(nll for nll, _ in parts) / sum(n for _, n in parts)}

    repeat(gate, once)


def plain(gate: Gate, work: Work) -> None:
    """Score the same rows with transformers' own logits and cross-entropy."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=dtype_of(work))
    model = model.to(device).eval()
    data = weighted_rows(work, work.rows_file(), "im").data
    rows = [data.ids[data.span(i)].tolist() for i in range(rows_of_turn(work))]

    @torch.no_grad()
    def once(name: str) -> dict[str, Any]:
        size = work.settings["contenders"][name]["size"]
        ordered = sorted(rows, key=len, reverse=True) if size > 1 else rows
        total, count = 0.0, 0
        for start in range(0, len(ordered), size):
            group = [{"input_ids": row, "labels": row} for row in ordered[start : start + size]]
            batch = {name: tensor.to(device) for name, tensor in padded(group).items()}
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            nll = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
            )
            total, count = total + float(nll.double().sum()), count + int((labels != IGNORED).sum())
        return {"tokens": sum(map(len, rows)), "loss": total / count}

    repeat(gate, once)


def dtype_of(work: Work) -> Any:
    """Return the number format of the weights in this row."""
    import torch

    return torch.bfloat16 if work.settings["precision"] == "bf16" else torch.float32


def rows_of_turn(work: Work) -> int:
    """Return how many rows are scored at each turn."""
    return 2 * work.examples
