"""From conversations to tokens."""

from pathlib import Path
from typing import Any

from benchmarks.contenders.plain_loop import TULU
from benchmarks.gate import Gate, repeat
from benchmarks.work import Work


def ours(gate: Gate, work: Work) -> None:
    """Read, check, render and tokenise the file, with spans, kinds and weights, past every cache but the
    tokenizer's own, which everyone here has loaded before; a turn is the whole file."""
    from benchmarks.preparation import tokenizer_of, weighted_rows

    path, _ = rows_path(work), tokenizer_of(work.model)

    def once(name: str) -> dict[str, Any]:
        return {"tokens": len(weighted_rows(work, path, "im").data.ids)}

    repeat(gate, once)


def trl(gate: Gate, work: Work) -> None:
    """Have SFTTrainer prepare the same rows, which are in memory; a turn is all of them."""
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    (own,) = work.settings["contenders"].values()
    tokenizer = _tokenizer(work)
    rows = _messages(work)
    if own["format"] == "completion":
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    model: Any = AutoModelForCausalLM.from_pretrained(work.model)
    config = SFTConfig(
        output_dir=str(Path(work.scratch) / "trl"),
        max_length=work.max_seq_length,
        completion_only_loss=own["format"] == "completion",
        bf16=False,
        use_cpu=True,
        report_to="none",
    )

    def once(name: str) -> dict[str, Any]:
        trainer = SFTTrainer(model, config, train_dataset=_dataset(rows), processing_class=tokenizer)
        return {"tokens": _count(trainer.train_dataset)}

    repeat(gate, once)


def plain(gate: Gate, work: Work) -> None:
    """Map apply_chat_template over the same rows, which are in memory; a turn is all of them."""
    tokenizer, rows = _tokenizer(work), _messages(work)

    def tokenise(row: dict[str, Any]) -> dict[str, list[int]]:
        encoded = tokenizer.apply_chat_template(
            row["messages"], tokenize=True, return_dict=True, truncation=True, max_length=work.max_seq_length
        )
        return {"input_ids": encoded["input_ids"], "labels": list(encoded["input_ids"])}

    def once(name: str) -> dict[str, Any]:
        return {"tokens": _count(_dataset(rows).map(tokenise, remove_columns=["messages"]))}

    repeat(gate, once)


def rows_path(work: Work) -> Path:
    """Return the file of the row's kind of rows."""
    return Path(work.settings[work.settings["kind"]])


def _tokenizer(work: Work) -> Any:
    from datasets import disable_caching
    from transformers import AutoTokenizer

    disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = TULU
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _messages(work: Work) -> list[dict[str, Any]]:
    from instruction_modelling.rows.conversations import read_conversations

    return [
        {"messages": [{"role": m.role, "content": m.content} for m in conversation.messages]}
        for conversation in read_conversations(rows_path(work)).conversations
    ]


def _dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def _count(data: Any) -> int:
    import pyarrow.compute as compute

    return int(compute.sum(compute.list_value_length(data.data.column("input_ids"))).as_py())
