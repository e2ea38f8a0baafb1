"""A model's loss on rows, token by token, by span kind: what it knows, not what it is trained on."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from instruction_modelling.chat.spans import KIND_NAMES, RESPONSE_KINDS
from instruction_modelling.processes.collectives import total
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import Layout
from instruction_modelling.training.sharding import reshard

if TYPE_CHECKING:
    from accelerate import Accelerator

RESPONSE_NAMES = [KIND_NAMES[kind] for kind in RESPONSE_KINDS]
ROWS_AT_ONCE = 64


@torch.no_grad()
def row_losses(
    model: torch.nn.Module,
    data: EncodedData,
    layout: Layout,
    accelerator: "Accelerator",
    progress: Callable[[int], Any] = lambda count: None,
) -> list[dict[str, Any]]:
    """For each row, in order: {"tokens": {kind: count}, "nll": {kind: mean NLL in nats per token}}.

    `response` is assistant + end (+ reasoning and tool calls). The processes share the rows, and each gets the losses of all; every process calls it.

    Args:
        model: a `LossModel` on its device, sharded or not.
        progress: told how many more rows are done, by all processes.
    """
    training = model.training
    model.eval()
    weighted = WeightedData(data, np.ones(len(data.ids), dtype=np.float32), "sum")
    sums = np.zeros((2, len(data), len(KIND_NAMES)))
    # Rows of like length are computed together.
    order = np.argsort(-data.lengths, kind="stable")
    at_once = ROWS_AT_ONCE * accelerator.num_processes
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        for batch in step_micro_batches(
            weighted, 0, chosen, layout, accelerator.process_index, accelerator.num_processes
        ):
            nll = model(**batch.to(accelerator.device).tensors())["nll"].double().cpu().numpy()
            scored = batch.coefficients.numpy() != 0
            owner = np.array([place.example for place in batch.places] or [0])
            where = owner[batch.slots.numpy()[scored]], batch.kinds.numpy()[scored]
            np.add.at(sums[0], where, nll[scored])
            np.add.at(sums[1], where, 1)
        progress(len(chosen))
    reshard(model)
    model.train(training)
    nlls, counts = total(accelerator, torch.from_numpy(sums)).numpy()
    return [_by_kind(nlls[i], counts[i]) for i in range(len(data))]


def _by_kind(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    present = [kind for kind in range(len(KIND_NAMES)) if counts[kind]]
    tokens = {KIND_NAMES[kind]: int(counts[kind]) for kind in present}
    nll = {KIND_NAMES[kind]: float(sums[kind] / counts[kind]) for kind in present}
    response = [kind for kind in present if kind in RESPONSE_KINDS]
    if response:
        tokens["response"] = int(counts[response].sum())
        nll["response"] = float(sums[response].sum() / counts[response].sum())
    return {"tokens": tokens, "nll": nll}


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """{"mean_over_examples": {kind: nats}, "mean_over_tokens": {kind: nats}, "tokens": {kind: count}} of
    `row_losses`."""
    values: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        for kind, nll in row["nll"].items():
            values.setdefault(kind, []).append((nll, row["tokens"][kind]))
    tokens = {kind: sum(count for _, count in pairs) for kind, pairs in values.items()}
    return {
        "mean_over_examples": {
            kind: sum(nll for nll, _ in pairs) / len(pairs) for kind, pairs in values.items()
        },
        "mean_over_tokens": {
            kind: sum(nll * count for nll, count in pairs) / tokens[kind] for kind, pairs in values.items()
        },
        "tokens": tokens,
    }
