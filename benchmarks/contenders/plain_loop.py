"""The loop that the authors' released code has, on today's packages: accelerate, AdamW, transformers' own
loss as a mean over each micro-batch."""

from pathlib import Path
from typing import Any

from benchmarks.counts import IGNORED, add_counts, count_batch
from benchmarks.gate import Gate
from benchmarks.work import Work


def train(gate: Gate, work: Work) -> None:
    """Train on the prepared tokens, or with `raw` on tokens made here; a turn is an update."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

    settings = work.settings
    set_seed(0)
    accelerator = Accelerator(mixed_precision="bf16" if settings["precision"] == "bf16" else "no")
    first = next(iter(settings["contenders"].values()))
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    rows = tokenised_rows(work, tokenizer) if first.get("raw") else work.tokens()
    model: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    model.config.use_cache = False
    if settings["lora"]:
        model = with_adapters(model, work.lora_rank)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True)
    scheduler = get_scheduler("linear", optimizer, 0, work.steps)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    model.train()
    by_length = sorted(rows, key=lambda row: -len(row["input_ids"]))
    steps: dict[str, int] = {}
    facts: dict[str, Any] = {}
    if not first.get("fresh"):
        facts["losses"] = {
            name: first_loss(accelerator, model, micro_batches(rows[: work.examples], own["size"]))
            for name, own in settings["contenders"].items()
            if not own.get("sort")
        }
    while not (first.get("fresh") and steps):
        name = gate.turn(**facts)
        own = settings["contenders"].get(name, first)
        number = steps[name] = steps.get(name, 0) + 1
        start = (number - 1) * work.examples % len(rows)
        # Sorted by length over the epoch, other rows meet in an update.
        ordered = by_length if own.get("sort") else rows
        groups = micro_batches(ordered[start : start + work.examples], own["size"])
        loss, counts = 0.0, []
        for group in groups:
            tensors = padded(group)
            counts.append(count_batch(tensors["labels"], tensors["attention_mask"]))
            on_device = {name: tensor.to(accelerator.device) for name, tensor in tensors.items()}
            part = model(**on_device, use_cache=False).loss / len(groups)
            accelerator.backward(part)
            loss += float(part.detach())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        facts = {"loss": loss, **add_counts(counts)}
    gate.finished(**facts)
    saved = Path(work.scratch) / "model"
    accelerator.unwrap_model(model).save_pretrained(saved)
    tokenizer.save_pretrained(saved)


def micro_batches(rows: list[Any], size: int) -> list[list[Any]]:
    """Return an update's rows in micro-batches of `size`."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def first_loss(accelerator: Any, model: Any, groups: list[list[Any]]) -> float:
    """Return the loss of an update that is not made."""
    import torch

    with torch.no_grad():
        losses = [
            float(model(**{name: value.to(accelerator.device) for name, value in padded(group).items()}).loss)
            for group in groups
        ]
    return sum(losses) / len(losses)


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Return input_ids, labels and attention_mask, int64[rows, longest], padded on the right."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def filled(values: list[list[int]], padding: int) -> torch.Tensor:
        return torch.tensor([row + [padding] * (longest - len(row)) for row in values])

    ids = [row["input_ids"] for row in rows]
    return {
        "input_ids": filled(ids, 0),
        "labels": filled([row["labels"] for row in rows], IGNORED),
        "attention_mask": filled([[1] * len(row) for row in ids], 0),
    }


def with_adapters(model: Any, rank: int) -> Any:
    """Return the model with LoRA on all linear layers, as src/finetune.py has it by default."""
    from peft import get_peft_model

    return get_peft_model(model, adapters(rank))


def adapters(rank: int) -> Any:
    """Return peft's configuration of these adapters."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def tokenised_rows(work: Work, tokenizer: Any) -> list[dict[str, list[int]]]:
    """Return the rows of the file as tokens, by datasets, which keeps them for the next run."""
    from datasets import load_dataset

    def tokenise(row: dict[str, Any]) -> dict[str, list[int]]:
        ids = tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"]
        return {"input_ids": ids, "labels": list(ids)}

    if tokenizer.chat_template is None:
        tokenizer.chat_template = TULU
    data = load_dataset("json", data_files=str(work.rows_file()), split="train")
    return data.map(tokenise, remove_columns=data.column_names).to_list()


# For a base model whose tokenizer has none.
TULU = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
)
