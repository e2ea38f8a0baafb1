"""A model's loss on rows, token by token, by span kind: what it knows, not what it is trained on."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from instruction_modelling.batching import KIND_NAMES, Layout, WeightedData, step_micro_batches
from instruction_modelling.encoded_data import EncodedData
from instruction_modelling.spans import RESPONSE_KINDS

RESPONSE_NAMES = [KIND_NAMES[kind] for kind in RESPONSE_KINDS]
ROWS_AT_ONCE = 64


@torch.no_grad()
def row_losses(model: torch.nn.Module, data: EncodedData, rows: Sequence[int], layout: Layout,
               device: torch.device | str, progress: Callable[[int], Any] = lambda count: None) -> list[dict[str, Any]]:
    """For each row, in the order given: {"tokens": {kind: count}, "nll": {kind: mean NLL in nats per token}}.

    `response` is assistant + end (+ reasoning and tool calls). The first token of a row is predicted by nothing.

    Args:
        model: a `LossModel`, prepared or not.
        rows: indices into the data.
    """
    training = model.training
    model.eval()
    ones = np.ones(len(data.ids), dtype=np.float32)
    ones[data.offsets[:-1][data.lengths > 0]] = 0.0
    weighted = WeightedData(data, ones, "sum")
    sums = np.zeros((len(rows), len(KIND_NAMES)))
    counts = np.zeros((len(rows), len(KIND_NAMES)), dtype=np.int64)
    # Rows of like length are computed together.
    order = np.argsort(-data.lengths[np.asarray(rows, dtype=np.int64)], kind="stable")
    for start in range(0, len(order), ROWS_AT_ONCE):
        chosen = np.asarray(order[start:start + ROWS_AT_ONCE])
        number = {int(rows[i]): int(i) for i in chosen}
        for batch in step_micro_batches(weighted, 0, np.asarray([rows[i] for i in chosen]), layout):
            nll = model(**batch.to(device).tensors())["nll"].double().cpu().numpy()
            kinds, slots = batch.kinds.cpu().numpy(), batch.slots.cpu().numpy()
            scored = batch.coefficients.cpu().numpy() != 0
            owner = np.array([number[place.example] for place in batch.places] or [0])
            np.add.at(sums, (owner[slots[scored]], kinds[scored]), nll[scored])
            np.add.at(counts, (owner[slots[scored]], kinds[scored]), 1)
        progress(len(chosen))
    model.train(training)
    return [_by_kind(sums[i], counts[i]) for i in range(len(rows))]


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
    """{"mean_over_examples": {kind: nats}, "mean_over_tokens": {kind: nats}, "tokens": {kind: count}} of `row_losses`."""
    values: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        for kind, nll in row["nll"].items():
            values.setdefault(kind, []).append((nll, row["tokens"][kind]))
    tokens = {kind: sum(count for _, count in pairs) for kind, pairs in values.items()}
    return {"mean_over_examples": {kind: sum(nll for nll, _ in pairs) / len(pairs) for kind, pairs in values.items()},
            "mean_over_tokens": {kind: sum(nll * count for nll, count in pairs) / tokens[kind]
                                 for kind, pairs in values.items()},
            "tokens": tokens}
