"""The loss alone: from hidden states to the gradients of states and head, in a model without layers."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gate import Gate, repeat
from benchmarks.preparation import weighted_rows
from benchmarks.work import Work


def ours(gate: Gate, work: Work) -> None:
    """Compute the loss as in training; a turn is one micro-batch of the row's number of tokens."""
    from instruction_modelling.training.batches import step_micro_batches
    from instruction_modelling.training.loss_model import LossModel
    from instruction_modelling.training.plan import GlobalBatch, Layout

    model = LossModel(without_layers(work.model))
    weighted = weighted_rows(work, Path(work.settings["long"]), "im", "token", first=64)
    chosen = np.array(rows_of_tokens(weighted.data, work.settings["tokens"]))
    (batch,) = step_micro_batches(weighted, GlobalBatch(0, chosen), Layout(True, 1, 10**6))

    def once() -> float:
        loss = model(**batch.tensors())["loss"]
        loss.backward()
        return float(loss.detach())

    measured(gate, model, once)


def whole(gate: Gate, work: Work) -> None:
    """Compute transformers' own loss, which holds all logits at once."""
    import torch

    model = without_layers(work.model)
    weighted = weighted_rows(work, Path(work.settings["long"]), "im", "token", first=64)
    data = weighted.data
    parts = [data.span(i) for i in rows_of_tokens(data, work.settings["tokens"])]
    ids = torch.from_numpy(np.concatenate([data.ids[part] for part in parts]).astype(np.int64))[None]
    weights = torch.from_numpy(np.concatenate([weighted.weights[part] for part in parts]))[None]
    labels = torch.where(weights != 0, ids, -100)

    def once() -> float:
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        return float(loss.detach())

    measured(gate, model, once)


def without_layers(name: str) -> Any:
    """Return the model of embeddings and head alone, in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from instruction_modelling.models import attention

    attention.register()
    config = AutoConfig.from_pretrained(name)
    config.num_hidden_layers = 0
    config.layer_types = []
    # A tiny model's vocabulary is so small that its logits take no memory to speak of.
    config.vocab_size = max(config.vocab_size, 32_768)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").train()


def rows_of_tokens(data: Any, tokens: int) -> list[int]:
    """Return rows, some of them several times, that have about so many tokens together."""
    rows: list[int] = []
    while tokens > 0:
        row = len(rows) % len(data)
        rows.append(row)
        tokens -= int(data.lengths[row])
    return rows


def measured(gate: Gate, model: Any, once: Any) -> None:
    """Take turns, and say how many MB of memory each needed at most beyond what there was before."""

    def turn(name: str) -> dict[str, Any]:
        # Gradients stay where they are, as between micro-batches, and count for no one.
        model.zero_grad(set_to_none=False)
        before = memory("VmRSS")
        # Sets the highest mark of resident memory back to what is resident now.
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        loss = once()
        return {"peak_mb": (memory("VmHWM") - before) / 1e6, "loss": loss}

    repeat(gate, turn)


def memory(name: str) -> int:
    """Return this process's memory in bytes: VmRSS, resident now, or VmHWM, at most."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(name)
