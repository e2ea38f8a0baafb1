"""A model's loss on rows by span kind, every token counted alike: what it knows, not what it is trained
on."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from instruction_modelling.chat.spans import KIND_NAMES, RESPONSE_KINDS
from instruction_modelling.errors import UserError
from instruction_modelling.processes.collectives import total
from instruction_modelling.progress import counted
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.weighted import WeightedData
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.plan import GlobalBatch, Layout
from instruction_modelling.training.sharding import reshard

if TYPE_CHECKING:
    from accelerate import Accelerator

    from instruction_modelling.training.evaluation_rows import EvaluationRows

logger = logging.getLogger(__name__)

# Rows laid out together: enough for packing to fill its micro-batches.
ROWS_PER_RANK = 64


@torch.no_grad()
def row_losses(
    model: torch.nn.Module,
    data: EncodedData,
    layout: Layout,
    accelerator: "Accelerator",
    progress: Callable[[int], Any] = lambda count: None,
) -> list[dict[str, Any]]:
    """Return for each row, in order, {"tokens": {kind: count}, "nll": {kind: mean NLL in nats per token}},
    and of a model with a KL term "kl": {kind: mean KL divergence in nats per token}.

    `response` is assistant + end (+ reasoning and tool calls). The ranks share the rows, and each gets the
    losses of all; every rank calls it.

    Args:
        model: a `LossModel` on its device, sharded or not.
        progress: called with the number of rows that all ranks have done since the last call.
    """
    training = model.training
    model.eval()
    weighted = WeightedData(data, data.owned.astype(np.float32), "sum")
    with_kl = getattr(accelerator.unwrap_model(model), "kl", None) is not None
    # Of NLL, of tokens, and of KL.
    sums = np.zeros((2 + with_kl, len(data), len(KIND_NAMES)))
    # Rows of like length are computed together.
    order = np.argsort(-data.lengths, kind="stable")
    batch_rows = ROWS_PER_RANK * accelerator.num_processes
    for start in range(0, len(order), batch_rows):
        chosen = order[start : start + batch_rows]
        micro_batches = step_micro_batches(
            weighted, GlobalBatch(0, chosen), layout, accelerator.process_index, accelerator.num_processes
        )
        outputs = [model(**batch.to(accelerator.device).tensors()) for batch in micro_batches]
        ends = np.cumsum([len(output["nll"]) for output in outputs])[:-1]
        names = ("nll", "token_kl")[: 1 + with_kl]
        # One reading for all of them: each makes the device wait.
        values = torch.stack([torch.cat([output[name].double() for output in outputs]) for name in names])
        read = np.split(values.cpu().numpy(), ends, axis=1)
        for batch, of_targets in zip(micro_batches, read, strict=True):
            scored = batch.coefficients.numpy() != 0
            rows = np.array([span.example for span in batch.example_spans] or [0])
            row_and_kind = rows[batch.example_of_target.numpy()[scored]], batch.kinds.numpy()[scored]
            np.add.at(sums[0], row_and_kind, of_targets[0][scored])
            np.add.at(sums[1], row_and_kind, 1)
            if with_kl:
                np.add.at(sums[2], row_and_kind, of_targets[1][scored])
        progress(len(chosen))
    reshard(model)
    model.train(training)
    by_row, counts, *of_kl = total(accelerator, torch.from_numpy(sums)).numpy()
    losses = [_by_kind(by_row[i], counts[i]) for i in range(len(data))]
    for kls in of_kl:
        losses = [{**row, "kl": _by_kind(kls[i], counts[i])["nll"]} for i, row in enumerate(losses)]
    return losses


def _by_kind(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    present = [kind for kind in range(len(KIND_NAMES)) if counts[kind]]
    tokens = {KIND_NAMES[kind]: int(counts[kind]) for kind in present}
    nll = {KIND_NAMES[kind]: float(sums[kind] / counts[kind]) for kind in present}
    response = [kind for kind in present if kind in RESPONSE_KINDS]
    if response:
        tokens["response"] = int(counts[response].sum())
        nll["response"] = float(sums[response].sum() / counts[response].sum())
    return {"tokens": tokens, "nll": nll}


def mean_kl(rows: Iterable[dict[str, Any]]) -> float | None:
    """Return the mean over rows of the KL divergence per response token, nats; None where it was not
    measured, or no row has a response."""
    values = [row["kl"]["response"] for row in rows if "response" in row.get("kl", {})]
    return sum(values) / len(values) if values else None


def summarise(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return {"mean_over_examples": {kind: nats}, "mean_over_tokens": {kind: nats}, "tokens": {kind: count}}.

    Args:
        rows: what `row_losses` gave; a row without tokens of a kind does not count in that kind's means.
    """
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


def by_dataset(rows: Iterable[dict[str, Any]], datasets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what `summarise` gives of the rows of each data set, and how many of them have tokens as
    `rows_scored`, in the order in which the data sets occur.

    Args:
        rows: what `row_losses` gave; `datasets` names the data set of each.
    """
    of: dict[str, list[dict[str, Any]]] = {}
    for row, dataset in zip(rows, datasets, strict=True):
        if row["tokens"]:
            of.setdefault(dataset, []).append(row)
    return {name: {"rows_scored": len(scored), **summarise(scored)} for name, scored in of.items()}


def response_loss(
    model: torch.nn.Module, rows: "EvaluationRows", layout: Layout, accelerator: "Accelerator"
) -> dict[str, Any]:
    """Return the loss on responses in nats per token, as a mean over rows and over tokens (None where no row
    has a response), and the number of rows that have one; besides, as plain means over tokens with how many
    these are, the loss by span kind and the responses' by data set; of several files also each one's mean
    over its rows, and their number; with a KL term the mean over rows of the KL divergence per response token
    as `kl`. Every rank calls it, while training.

    Args:
        model: a `LossModel` on its device, sharded or not.
    """
    data = rows.data
    with accelerator.autocast():
        scored = row_losses(model, data, layout, accelerator)
    means = summarise(scored)
    with_response = [row if "response" in row["nll"] else {"tokens": {}, "nll": {}} for row in scored]
    files = by_dataset(with_response, rows.files) if rows.files else {}
    sets = {name: of for name, of in by_dataset(scored, data.datasets).items() if "response" in of["tokens"]}
    nll, tokens, kl = means["mean_over_tokens"], means["tokens"], mean_kl(scored)
    return {
        **({} if kl is None else {"kl": kl}),
        "response_nll": means["mean_over_examples"].get("response"),
        "response_nll_per_token": nll.get("response"),
        "rows": sum("response" in row["nll"] for row in scored),
        "nll": {kind: value for kind, value in nll.items() if kind != "response"},
        "nll_tokens": {kind: count for kind, count in tokens.items() if kind != "response"},
        "dataset_nll": {name: of["mean_over_tokens"]["response"] for name, of in sets.items()},
        "dataset_nll_tokens": {name: of["tokens"]["response"] for name, of in sets.items()},
        **(
            {"file_nll": {name: of["mean_over_examples"]["response"] for name, of in files.items()}}
            if files
            else {}
        ),
        **({"file_rows": {name: of["rows_scored"] for name, of in files.items()}} if files else {}),
    }


def check_responses(path: str, data: EncodedData) -> None:
    """Say how many rows of a file to measure have no response token, and refuse a file where none has one.

    Raises:
        UserError: no row has a response token behind its first token, which nothing predicts.
    """
    measured = np.isin(data.kinds, RESPONSE_KINDS) & data.owned
    measured[data.sequence_offsets[:-1][data.sequence_lengths > 0]] = False
    total = np.concatenate([[0], np.cumsum(measured)])
    without = int((total[data.offsets[1:]] == total[data.offsets[:-1]]).sum())
    truncated = data.counts.truncated_rows
    rows, were = counted(truncated, "row"), "was" if truncated == 1 else "were"
    cut = f"; {rows} {were} cut at --max_seq_length" if truncated else ""
    if without == len(data):
        raise UserError(
            f"--eval_file {path}: none of its {len(data)} rows has a response token to measure{cut}. Raise "
            "--max_seq_length, or give rows with responses"
        )
    if without:
        logger.warning(
            "--eval_file %s: %d of %d rows have no response token and count in no mean%s",
            path,
            without,
            len(data),
            cut,
        )
