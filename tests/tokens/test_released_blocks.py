"""The blocks of the released code's language modelling, against the datasets library grouping the labels that
a second implementation gives."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from chat_tokenizers import byte_level_with_bos, llama2
from oracle import released_chat_labels

from instruction_modelling.chat.tulu import TuluFormat
from instruction_modelling.errors import UserError
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.released_blocks import ReleasedGroups
from instruction_modelling.tokens.row_encoder import RowEncoder
from instruction_modelling.tokens.weighted import weigh_rows
from instruction_modelling.tokens.weights import WeightPolicy

SIZE = 64


def labelled_rows(case: Any, path: Path, limit: int, instruction_loss: bool) -> list[dict[str, list[int]]]:
    """Ids and labels of the rows that have a label, by the oracle."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        ids, labels = released_chat_labels(
            lambda text: case.tokenizer(text)["input_ids"],
            json.loads(line)["messages"],
            "</s>",
            limit,
            instruction_loss,
        )
        if any(label != -100 for label in labels):
            rows.append({"input_ids": ids, "labels": labels})
    return rows


def grouped(columns: dict[str, list[list[int]]], size: int) -> dict[str, list[list[int]]]:
    """The columns of a batch of rows, each end to end and cut into whole blocks."""
    streams = {name: list(chain.from_iterable(rows)) for name, rows in columns.items()}
    return {
        name: [stream[at : at + size] for at in range(0, len(stream) - size + 1, size)]
        for name, stream in streams.items()
    }


def blocks_of_the_library(
    rows: list[dict[str, list[int]]], size: int, batch: int, workers: int | None
) -> list[tuple[list[int], list[int]]]:
    table = datasets.Dataset.from_list(rows).map(
        grouped,
        batched=True,
        batch_size=batch,
        num_proc=workers,
        fn_kwargs={"size": size},
        load_from_cache_file=False,
    )
    return list(zip(table["input_ids"], table["labels"], strict=True))


def our_blocks(
    case: Any, path: Path, sizes: tuple[int, int], instruction: float, groups: ReleasedGroups
) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of our blocks; `sizes` are the longest row and the block."""
    limit, size = sizes
    policy = WeightPolicy(instruction=instruction, mask_style="released")
    encoder = RowEncoder(case.tokenizer, TuluFormat("</s>"), limit, released=True)
    data = groups.kept(collect(encoder.encode(read_conversations(path).conversations)), policy, size)
    blocks = data.blocks(size, keep_kinds=True)
    weights = blocks.weights(policy)
    assert set(weights.tolist()) <= {0.0, 1.0}
    labels = np.where(weights > 0, blocks.ids, -100)
    spans = [blocks.span(i) for i in range(len(blocks))]
    return [(blocks.ids[span].tolist(), labels[span].tolist()) for span in spans]


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("lima_data", 1.0),
        ("alpagasus_3k_dolly", 0.0),
        pytest.param("lima_data", 0.0, marks=pytest.mark.slow),
        pytest.param("alpagasus_3k_dolly", 1.0, marks=pytest.mark.slow),
    ],
)
def test_the_blocks_of_the_real_sets(shared_data: Path, name: str, instruction: float) -> None:
    """One group, the file: as the released code runs without --preprocessing_num_workers."""
    path, case = shared_data / "train" / f"{name}.jsonl", llama2(shared_data)
    rows = labelled_rows(case, path, 2048, bool(instruction))
    wanted = grouped({key: [row[key] for row in rows] for key in ("input_ids", "labels")}, 2048)
    groups = ReleasedGroups.of_file(str(path), None)
    assert groups.batch >= len(rows)
    found = our_blocks(case, path, (2048, 2048), instruction, groups)
    assert found == list(zip(wanted["input_ids"], wanted["labels"], strict=True))


def written(folder: Path, rows: int) -> Path:
    """A file of chats of 20 to 60 tokens, in which every seventh has a prompt that fills 100 tokens."""
    path = folder / "chats.jsonl"
    chats = [
        [
            {"role": "user", "content": f"question {row} " + "x" * (200 if row % 7 == 3 else row % 11)},
            {"role": "assistant", "content": f"answer {row}" + "y" * (row % 5)},
        ]
        for row in range(rows)
    ]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
    return path


@pytest.mark.parametrize(("batch", "workers"), [(1000, None), (9, None), (9, 3), (1000, 2), (5, 4)], ids=str)
def test_groups_are_those_of_the_datasets_library(tmp_path: Path, batch: int, workers: int | None) -> None:
    case, path = byte_level_with_bos(), written(tmp_path, 40)
    rows = labelled_rows(case, path, 100, False)
    assert len(rows) < 40
    wanted = blocks_of_the_library(rows, SIZE, batch, workers)
    found = our_blocks(case, path, (100, SIZE), 0.0, ReleasedGroups(batch, workers or 1))
    assert found == wanted and len(found) > 5


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("data/lima_data.jsonl", 1030),
        ("alpagasus_3k_dolly.jsonl", 2996),
        ("alpagasus_9k_dolly.jsonl", 9229),
        ("alpagasus_claude_t45_alpaca.jsonl", 5305),
        ("lima/other.jsonl", 1000),
        ("org/name:config:train", 1000),
    ],
)
def test_a_file_has_its_batch(name: str, batch: int) -> None:
    assert ReleasedGroups.of_file(name, 16) == ReleasedGroups(batch, 16)


def test_groups_that_fill_no_block_are_refused_and_rows_without_weight_cost_nothing(tmp_path: Path) -> None:
    case, path = byte_level_with_bos(), written(tmp_path, 8)
    with pytest.raises(UserError, match="--block_size 500: no group of rows fills one block"):
        our_blocks(case, path, (100, 500), 0.0, ReleasedGroups(1000, 8))
    policy = WeightPolicy(mask_style="released")
    encoder = RowEncoder(case.tokenizer, TuluFormat("</s>"), 100, released=True)
    data = collect(encoder.encode(read_conversations(path).conversations))
    blocks = ReleasedGroups(1000, 1).kept(data, policy, SIZE).blocks(SIZE, keep_kinds=True)
    weighted, dropped = weigh_rows(blocks, policy, "example", "nonzero")
    # Nothing predicts a block's first token, as the released code's shift of the labels has it.
    first = weighted.data.sequence_offsets[:-1]
    assert (weighted.weights[first] == 0).all() and not dropped
