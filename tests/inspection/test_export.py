"""A Parquet file of ids, labels and weights gives any other trainer the loss of src/finetune.py."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from inspections import Inspect, chat
from tiny import make_tiny_model
from training_runs import finetune, run, write_rows
from transformers import AutoModelForCausalLM

# Writes the reasoning of the last message alone, so that earlier turns are rewritten.
DROPS_REASONING = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{% if m.reasoning_content and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THOUGHT = {"role": "assistant", "content": "Yes.", "reasoning_content": "Only one and seven."}
ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Prime?"}, THOUGHT, *chat("And 9?", "No.")["messages"]]},
    chat("Name a river.", "The Loire is a long river."),
    {"messages": [{"role": "user", "content": "Hm"}, {"role": "assistant", "content": "So", "weight": 0.5}]},
]


@dataclass
class Exported:
    """One export, and what the run of the same options measured in its first step."""

    lines: list[dict[str, Any]]
    about: dict[str, Any]
    loss: float
    model: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose template rewrites earlier turns, and rows."""
    folder = tmp_path_factory.mktemp("export")
    make_tiny_model(folder / "model", chat_template=DROPS_REASONING)
    write_rows(folder / "rows.jsonl", ROWS)
    return folder


def exported(place: Path, folder: Path, *arguments: object) -> Exported:
    """Exports the rows, and trains one step on all of them with the same options."""
    rows, model, target = place / "rows.jsonl", place / "model", folder / "rows.parquet"
    asked = ("--train_file", rows, "--tokenizer_name", model, "--export", target)
    outcome = run("inspect_weights", *asked, *arguments)
    assert outcome.code == 0, outcome.err
    table = parquet.read_table(target)
    step = ("--max_train_steps", 1, "--per_device_train_batch_size", len(ROWS), "--learning_rate", 0)
    tuned = finetune(model, rows, folder / "run", *step, *arguments)
    metrics = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    about = json.loads(table.schema.metadata[b"instruction_modelling"])
    return Exported(table.to_pylist(), about, metrics[0]["loss"], model)


def padded(lines: list[dict[str, Any]], name: str, fill: float) -> torch.Tensor:
    """A column as one tensor, each sequence padded on the right."""
    width = max(len(line[name]) for line in lines)
    return torch.tensor([line[name] + [fill] * (width - len(line[name])) for line in lines])


def test_plain_transformers_on_the_export_gives_our_loss(place: Path, tmp_path: Path) -> None:
    rows = [row for row in ROWS if row["messages"][-1].get("weight") is None]
    (place / "rows.jsonl").rename(tmp_path / "all.jsonl")
    write_rows(place / "rows.jsonl", rows)
    try:
        found = exported(place, tmp_path, "--use_lm_loss", "--loss_normalization", "token")
    finally:
        (tmp_path / "all.jsonl").rename(place / "rows.jsonl")
    assert [(line["row"], line["part"]) for line in found.lines] == [(0, 0), (0, 1), (1, 0)]
    ids, labels = padded(found.lines, "input_ids", 0), padded(found.lines, "labels", -100)
    model = AutoModelForCausalLM.from_pretrained(found.model, dtype=torch.float32)
    with torch.no_grad():
        plain = model(
            input_ids=ids, attention_mask=(padded(found.lines, "input_ids", -1) >= 0).long(), labels=labels
        )
    assert float(plain.loss) == pytest.approx(found.loss, rel=1e-5)


@pytest.mark.parametrize("packing", [(), ("--packing",)])
def test_weights_on_the_export_give_our_loss(
    place: Path, tmp_path: Path, packing: tuple[object, ...]
) -> None:
    asked = ("--instruction_loss_weight", 0.25, "--loss_normalization", "sum")
    found = exported(place, tmp_path, *asked, *packing)
    model = AutoModelForCausalLM.from_pretrained(found.model, dtype=torch.float32)
    total = 0.0
    for line in found.lines:
        ids = torch.tensor([line["input_ids"]])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0].log_softmax(-1)
        for position, weight in enumerate(line["loss_weights"]):
            if weight:
                total -= weight * float(scores[position - 1, line["input_ids"][position]])
    assert total == pytest.approx(found.loss, rel=1e-5)
    assert sorted({weight for line in found.lines for weight in line["loss_weights"]}) == [0, 0.25, 0.5, 1]


def test_the_columns_say_what_each_token_is(place: Path, tmp_path: Path) -> None:
    found = exported(place, tmp_path)
    assert [line["id"] for line in found.lines] == ["rows_0", "rows_0", "rows_1", "rows_2"]
    assert {line["dataset"] for line in found.lines} == {"rows"}
    for line in found.lines:
        assert line["labels"] == [
            token if weight else -100
            for token, weight in zip(line["input_ids"], line["loss_weights"], strict=True)
        ]
        assert line["labels"][0] == -100
        assert len(line["kinds"]) == len(line["messages"]) == len(line["owned"]) == len(line["input_ids"])
    first, second = found.lines[:2]
    # The second sequence repeats the first exchange without its reasoning, and trains the second alone.
    assert {m for m, weight in zip(first["messages"], first["loss_weights"], strict=True) if weight} == {1}
    assert {m for m, weight in zip(second["messages"], second["loss_weights"], strict=True) if weight} == {3}
    assert not all(second["owned"])
    assert all(first["owned"])
    assert "reasoning" in first["kinds"]
    assert found.about["rows"] == found.about["examples"] == len(ROWS)
    assert found.about["ignored_label"] == -100
    assert found.about["template"].endswith(DROPS_REASONING)
    assert found.about["options"]["loss_normalization"] == "example"


def test_an_export_holds_every_row_that_is_trained_on_and_no_other(inspect: Inspect, tmp_path: Path) -> None:
    rows = [*[chat(f"Question {number}?", "Yes.") for number in range(5)], {"messages": []}, chat("open")]
    target = tmp_path / "rows.parquet"
    assert inspect(rows, "--export", target, "--num_examples", 1, "--max_bad_rows", 9).code == 0
    table = parquet.read_table(target)
    assert table.column("row").to_pylist() == list(range(5))
    assert sum(json.loads(table.schema.metadata[b"instruction_modelling"])["dropped"].values()) == 2


def test_blocks_are_exported_as_they_are_trained(inspect: Inspect, tmp_path: Path) -> None:
    target, rows = tmp_path / "rows.parquet", [chat("Question?", "A long answer.") for _ in range(6)]
    result = inspect(rows, "--export", target, "--use_lm_modelling", "--block_size", 8)
    lengths = [len(ids) for ids in parquet.read_table(target).column("input_ids").to_pylist()]
    whole = sum(len(record["tokens"]) for record in result.records)
    assert lengths == [8] * math.floor(whole / 8)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    done = run(
        "inspect_weights",
        "--train_file",
        write_rows(tmp_path / "r.jsonl", [chat("a", "b")]),
        "--tokenizer_name",
        make_tiny_model(tmp_path / "model"),
        "--export",
        tmp_path / "taken",
    )
    assert done.code == 2
    assert "could not be written" in done.err
