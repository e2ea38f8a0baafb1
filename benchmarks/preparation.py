"""The rows that everyone trains on, their tokens, and what the first update's loss must be."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.counts import IGNORED
from benchmarks.work import Work

# Options of src/finetune.py by arm.
ARMS: dict[str, dict[str, Any]] = {"it": {}, "im": {"use_lm_loss": True}}
SEED = 0


def prepare(connection: Any, work: str, log: str) -> None:
    """Write rows, tokens and first losses to the folder of `work`, in a process of its own, and send how many
    tokens there are, or {"failed": why}."""
    with open(log, "a", encoding="utf-8") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    try:
        connection.send(_prepare(Work.from_json(work)))
    except BaseException as error:
        import traceback

        traceback.print_exc()
        connection.send({"failed": f"{type(error).__name__}: {error}"})


def _prepare(work: Work) -> dict[str, Any]:
    folder = Path(work.prepared)
    folder.mkdir(parents=True, exist_ok=True)
    if work.settings["make_model"]:
        from instruction_modelling.models.tiny import conversation_texts, save_tiny_model

        save_tiny_model(Path(work.model), conversation_texts([Path(work.settings["short"])]))
    needed = work.examples * (work.steps - 1)
    rows = _choose_rows(work, needed)
    with work.rows_file().open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)
    facts: dict[str, Any] = {"rows": len(rows)}
    for arm in ARMS:
        tokens = _tokens_in_order(work, arm)
        (folder / f"tokens-{arm}.json").write_text(json.dumps(tokens), encoding="utf-8")
        sums = first_losses(work.model, tokens[: work.examples])
        (folder / f"losses-{arm}.json").write_text(json.dumps(sums), encoding="utf-8")
        facts[arm] = {
            "tokens": sum(len(row["input_ids"]) for row in tokens),
            "weighted": sum(label != IGNORED for row in tokens for label in row["labels"][1:]),
        }
    return facts


def _choose_rows(work: Work, needed: int) -> list[dict[str, Any]]:
    """Return the first rows of the file that have a loss in every arm and are not cut, as messages."""
    from instruction_modelling.errors import UserError
    from instruction_modelling.rows.conversations import read_conversations

    path = Path(work.settings["short"])
    file = read_conversations(path)
    by_row = {conversation.row: conversation for conversation in file.conversations}
    usable: set[int] | None = None
    for arm in ARMS:
        # Some rows are too long or have no loss; of three times as many there are enough.
        weighted = weighted_rows(work, path, arm, first=3 * needed)
        data = weighted.data
        here = {
            int(data.rows[i])
            for i in range(len(data))
            if not any(data.tokens_cut[s] for s in data.sequences_of(i)) and len(data.sequences_of(i)) == 1
        }
        usable = here if usable is None else usable & here
    chosen = sorted(usable or ())[:needed]
    if len(chosen) < needed:
        raise UserError(
            f"{path} has {len(chosen)} rows that can be used and {needed} are needed: give fewer --pairs or "
            "--examples_per_step, or another --data"
        )
    return [
        {"messages": [{"role": m.role, "content": m.content} for m in by_row[row].messages]} for row in chosen
    ]


@cache
def tokenizer_of(model: str) -> Any:
    """Return the tokenizer of a model's folder, loaded once in a process."""
    from instruction_modelling.models.loading import load_tokenizer

    return load_tokenizer(model)


def weighted_rows(
    work: Work, path: Path, arm: str, normalization: str = "example", first: int | None = None
) -> Any:
    """Return the `WeightedData` of a file's rows with a loss, as src/finetune.py makes it of them; of the
    `first` so many alone where that is given."""
    from itertools import islice

    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.tokens.collector import collect
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.tokens.weighted import weigh_rows

    options = FinetuneOptions(
        model_name_or_path=work.model, train_file=[str(path)], **ARMS[arm]
    ).with_recipe()
    encoder = row_encoder(tokenizer_of(work.model), options.chat_format, work.max_seq_length)
    data = collect(encoder.encode(islice(read_conversations(path).conversations, first)))
    return weigh_rows(data, options.policy(), normalization, options.loss_denominator)[0]


def _tokens_in_order(work: Work, arm: str) -> list[dict[str, list[int]]]:
    """Return each row's ids and labels in the order in which src/finetune.py visits them in its first
    epoch."""
    from instruction_modelling.training.plan import epoch_order

    weighted = weighted_rows(work, work.rows_file(), arm)
    data, rows = weighted.data, []
    for index in epoch_order(len(data), SEED, 0).tolist():
        span = data.span(index)
        ids, weights = data.ids[span].tolist(), weighted.weights[span].tolist()
        labels = [id_ if weight else IGNORED for id_, weight in zip(ids, weights, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def first_losses(model_name: str, rows: list[dict[str, list[int]]]) -> list[tuple[float, int]]:
    """Return of each row the sum of its labels' NLL in nats and their number, by transformers alone: one row
    at a time, in float32, before any update."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_name, dtype=torch.float32).eval()
    sums = []
    for row in rows:
        labels = torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1].double()
        nll = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        sums.append((float(nll), int((labels != IGNORED).sum())))
    return sums


def expected_loss(sums: list[tuple[float, int]], normalization: str, micro_batch: int = 0) -> float:
    """Return the first update's loss from each row's NLL and number of labels.

    Args:
        normalization: example, the mean over rows of their means; token, the mean over labels; micro_batches,
            the mean over micro-batches of their means over labels.
        micro_batch: rows of a micro-batch.
    """
    size = {"example": 1, "token": len(sums), "micro_batches": micro_batch}[normalization]
    groups = [sums[start : start + size] for start in range(0, len(sums), size)]
    return sum(sum(nll for nll, _ in group) / sum(n for _, n in group) for group in groups) / len(groups)
