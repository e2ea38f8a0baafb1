"""Whole training runs: that a step is the formula, that the layout does not matter, and what a run leaves
behind."""

import math
from pathlib import Path
from typing import Any

import finetune_runs
import pyarrow
import pytest
import torch
from finetune_runs import ARGUMENTS, ROWS, STEPS, tune
from pyarrow import parquet
from training_runs import (
    ROOT,
    SAMPLE,
    farthest,
    finetune,
    losses,
    metrics,
    record,
    run,
    same_bits,
    sample_rows,
    weights,
    write_rows,
)

# The fixtures of this module.
place, it = (finetune_runs.place, finetune_runs.it)


LAYOUTS: dict[str, tuple[object, ...]] = {
    "packed": ("--packing",),
    "packed in many": ("--packing", "--max_tokens_per_device", 700, "--max_seq_length", 600),
    "padded left": ("--padding_side", "left"),
    "one at a time": ("--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 8),
    "all at once": ("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1),
    "recomputed activations": ("--gradient_checkpointing", "--packing"),
}


# -- the formula -------------------------------------------------------------------------------------------


def labelled(tokenizer: Any, row: dict[str, Any], instruction: float) -> tuple[torch.Tensor, list[float]]:
    """Ids and weights of a single-turn row in the Tülu format, found by looking for its contents in the
    text."""
    question, answer = (message["content"].strip() for message in row["messages"])
    text = f"<s><|user|>\n{question}\n<|assistant|>\n{answer}</s>"
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    user, response = text.index(question), len(text) - len("</s>") - len(answer)
    out = []
    for _, end in encoded["offset_mapping"]:
        last = end - 1
        out.append(1.0 if last >= response else instruction if user <= last < user + len(question) else 0.0)
    return torch.tensor([encoded["input_ids"]]), out


def single_turns(count: int) -> list[dict[str, Any]]:
    rows = [row for row in sample_rows(60) if [m["role"] for m in row["messages"]] == ["user", "assistant"]]
    assert len(rows) >= count
    return rows[:count]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--use_lm_loss",),
        ("--instruction_loss_weight", 0.3),
        ("--use_lm_loss", "--recipe", "paper", "--packing"),
    ],
    ids=str,
)
def test_one_sgd_step_is_the_gradient_of_the_formula(
    place: Path, tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    """theta - lr x the gradient of the mean over examples of the weighted mean NLL, by plain transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = single_turns(7)
    finetune(
        place / "model",
        write_rows(tmp_path / "rows.jsonl", rows),
        tmp_path / "run",
        "--optimizer",
        "sgd",
        "--learning_rate",
        1000,
        "--lr_scheduler_type",
        "constant",
        "--clip_grad_norm",
        -1,
        "--num_train_epochs",
        1,
        *arguments,
    )
    instruction = {0: 0.0, 1: 1.0, 2: 0.3, 4: 1.0}[len(arguments)]
    plain, tokenizer = (
        AutoModelForCausalLM.from_pretrained(place / "model"),
        AutoTokenizer.from_pretrained(place / "model"),
    )
    loss = torch.zeros(())
    for row in rows:
        ids, own = labelled(tokenizer, row, instruction)
        logs = torch.log_softmax(plain(input_ids=ids).logits[0], dim=-1)
        total = sum(-w * logs[t - 1, ids[0, t]] for t, w in enumerate(own) if w)
        loss = loss + total / sum(w != 0 for w in own) / len(rows)
    loss.backward()
    (line,) = metrics(tmp_path / "run")
    assert line["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    saved, difference, length = weights(tmp_path / "run"), 0.0, 0.0
    for name, weight in plain.named_parameters():
        assert weight.grad is not None
        # The large learning rate keeps the rounding of the weights out of the comparison.
        found = (weight.detach().double() - saved[name].double()) / 1000
        difference += float((found - weight.grad.double()).square().sum())
        length += float(weight.grad.double().square().sum())
    assert line["grad_norm"] == pytest.approx(math.sqrt(length), rel=1e-6)
    assert math.sqrt(difference / length) < 3e-6


def test_released_recipe_divides_the_last_step_by_the_full_size(place: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", single_turns(5))
    common = (
        "--per_device_train_batch_size",
        2,
        "--gradient_accumulation_steps",
        2,
        "--num_train_epochs",
        1,
        "--learning_rate",
        0,
        "--mask_style",
        "exact",
    )
    paper = losses(finetune(place / "model", rows, tmp_path / "paper", *common))
    released = losses(finetune(place / "model", rows, tmp_path / "released", *common, "--recipe", "released"))
    assert released[0] == pytest.approx(paper[0], rel=1e-6)
    # One example is left for the second step of four.
    assert released[1] == pytest.approx(paper[1] / 4, rel=1e-6)


# -- layouts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "layouts"),
    [((), ["packed"]), (("--use_lm_loss", "--neftune_alpha", 5), list(LAYOUTS))],
    ids=["IT", "IM+NEFTune"],
)
def test_layouts_give_the_same_run(
    place: Path, tmp_path: Path, arm: tuple[object, ...], layouts: list[str]
) -> None:
    adam = tune(place, tmp_path / "adam", *arm)
    sgd = tune(place, tmp_path / "sgd", *arm, "--optimizer", "sgd", "--learning_rate", 0.05)
    assert len(losses(adam)) == STEPS and losses(adam)[-1] < losses(adam)[0]
    assert farthest(place / "model", sgd) > 2e-3
    for name in layouts:
        layout = LAYOUTS[name]
        other = tune(place, tmp_path / f"adam {name}", *arm, *layout)
        assert losses(other) == pytest.approx(losses(adam), abs=1e-4), name
        if name in ("packed in many", "all at once"):
            continue
        other = tune(
            place, tmp_path / f"sgd {name}", *arm, *layout, "--optimizer", "sgd", "--learning_rate", 0.05
        )
        assert farthest(other, sgd) < 1e-5, name


def test_two_runs_are_equal_bit_for_bit(place: Path, it: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = tune(place, tmp_path / "again")
    assert same_bits(again, it)
    assert not same_bits(tune(place, tmp_path / "seed", "--seed", 1), it)
    lora = ("--use_lora", "--lora_rank", 4, "--neftune_alpha", 5, "--packing")
    one = tune(place, tmp_path / "one", *lora)
    torch.manual_seed(98)
    assert same_bits(tune(place, tmp_path / "two", *lora), one)


def test_measuring_changes_nothing(place: Path, it: Path, tmp_path: Path) -> None:
    """The fixture's run has an evaluation file, this one none; and NEFTune is off while measuring."""
    noisy = tune(
        place,
        tmp_path / "noisy",
        "--neftune_alpha",
        5,
        "--learning_rate",
        0,
        "--num_train_epochs",
        1,
        "--eval_file",
        SAMPLE / "brief_answers_test.jsonl",
    )
    still = tune(
        place,
        tmp_path / "still",
        "--learning_rate",
        0,
        "--num_train_epochs",
        1,
        "--eval_file",
        SAMPLE / "brief_answers_test.jsonl",
    )
    noisy_nll, still_nll = metrics(noisy)[-1]["eval_response_nll"], metrics(still)[-1]["eval_response_nll"]
    assert noisy_nll == still_nll
    assert losses(noisy)[0] != pytest.approx(losses(still)[0], abs=1e-3)


# -- other ways to train -----------------------------------------------------------------------------------


def test_language_modelling_trains_on_every_token_of_every_block(place: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from instruction_modelling.chat.formats import load_chat_format
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import read_conversations
    from instruction_modelling.tokens.collector import collect
    from instruction_modelling.tokens.row_encoder import RowEncoder

    folder = tune(
        place,
        tmp_path,
        "--use_lm_modelling",
        "--block_size",
        100,
        "--learning_rate",
        0,
        "--num_train_epochs",
        1,
    )
    tokenizer = load_tokenizer(str(place / "model"))
    rows = collect(
        RowEncoder(tokenizer, load_chat_format("auto", tokenizer), 2048).encode(
            read_conversations(place / "rows.jsonl").conversations
        )
    )
    blocks = len(rows.ids) // 100
    lines, data = metrics(folder), record(folder)["data"]
    assert data["used"] == blocks and data["tokens"] == 100 * blocks
    assert sum(line["examples"] for line in lines) == blocks
    assert sum(line["tokens_with_loss"] for line in lines) == 99 * blocks
    plain = AutoModelForCausalLM.from_pretrained(place / "model")
    stream = torch.from_numpy(rows.ids[: 100 * blocks].astype("int64")).view(blocks, 100)
    with torch.no_grad():
        mean = float(
            torch.stack([plain(input_ids=block[None], labels=block[None]).loss for block in stream]).mean()
        )
    assert sum(line["loss"] * line["examples"] for line in lines) / blocks == pytest.approx(mean, rel=1e-5)


def test_the_kl_anchor_holds_a_run_back(place: Path, it: Path, tmp_path: Path) -> None:
    anchored = tune(place, tmp_path / "kl", "--apply_kl_div_loss", "--kl_penalty_ctl", 5)
    lines = metrics(anchored)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6) and lines[-1]["kl"] > 1e-3
    assert lines[0]["loss"] == pytest.approx(losses(it)[0], rel=1e-6)
    assert record(anchored)["arm"] == "IT+KL 5"
    nll = [sum(line["nll"].values()) for line in lines]
    assert nll[-1] > sum(metrics(it)[-2]["nll"].values())
    none = tune(place, tmp_path / "none", "--apply_kl_div_loss", "--kl_penalty_ctl", 0)
    assert same_bits(none, it)


def test_a_folder_of_the_datasets_library(place: Path, it: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set" / "train.jsonl", [{"messages": row["messages"]} for row in sample_rows(ROWS)])
    outcome = run(
        "finetune",
        "--model_name_or_path",
        place / "model",
        "--dataset_name",
        tmp_path / "set",
        "--output_dir",
        tmp_path / "run",
        *ARGUMENTS,
    )
    assert outcome.code == 0, outcome.err
    assert losses(tmp_path / "run") == losses(it)
    write_rows(tmp_path / "set" / "train.jsonl", [{"messages": row["messages"]} for row in sample_rows(5)])
    outcome = run(
        "finetune",
        "--model_name_or_path",
        place / "model",
        "--dataset_name",
        tmp_path / "set",
        "--output_dir",
        tmp_path / "changed",
        *ARGUMENTS,
    )
    assert outcome.code == 0 and record(tmp_path / "changed")["data"]["rows"] == 5


def test_a_table_whose_columns_have_other_names(place: Path, tmp_path: Path) -> None:
    rows = single_turns(ROWS)
    texts = [[message["content"] for message in row["messages"]] for row in rows]
    table = pyarrow.Table.from_pylist([{"ask": ask, "say": say} for ask, say in texts])
    parquet.write_table(table, tmp_path / "rows.parquet")
    plain = write_rows(tmp_path / "rows.jsonl", [{"messages": row["messages"]} for row in rows])
    columns = ("--columns", "ask=user,say=assistant", "--eval_file", tmp_path / "rows.parquet")
    one = finetune(place / "model", tmp_path / "rows.parquet", tmp_path / "one", *ARGUMENTS, *columns)
    other = finetune(place / "model", plain, tmp_path / "other", *ARGUMENTS)
    assert same_bits(one, other)
    assert record(one)["data"]["rows"] == ROWS


def test_message_weights_of_the_data_count(place: Path, tmp_path: Path) -> None:
    rows = sample_rows(4)
    first = losses(
        finetune(
            place / "model", write_rows(tmp_path / "a.jsonl", rows), tmp_path / "a", "--learning_rate", 0
        )
    )
    for row in rows:
        for message in row["messages"]:
            message["weight"] = 0.5
    half = losses(
        finetune(
            place / "model", write_rows(tmp_path / "b.jsonl", rows), tmp_path / "b", "--learning_rate", 0
        )
    )
    assert half == pytest.approx([loss / 2 for loss in first], rel=1e-6)


def test_trackers_get_the_metrics(place: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tune(place, tmp_path, "--with_tracking", "--report_to", "tensorboard")
    events = EventAccumulator(str(folder / "instruction_modelling"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(folder), rel=1e-6)


def test_logging_steps_thin_the_log_not_the_run(place: Path, it: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, "--logging_steps", 4)
    assert [line["step"] for line in metrics(folder)] == [4, 6]
    assert losses(folder) == [losses(it)[3], losses(it)[5]]
    assert same_bits(folder, it)


def test_evaluation_every_few_steps(place: Path, it: Path, tmp_path: Path) -> None:
    folder = tune(place, tmp_path, "--eval_file", SAMPLE / "brief_answers_test.jsonl", "--eval_steps", 2)
    assert [line["step"] for line in metrics(folder) if "eval_rows" in line] == [2, 4, 6]
    assert metrics(folder)[-1] == metrics(it)[-1]


def test_every_flag_of_the_released_code_is_taken(place: Path, it: Path, tmp_path: Path) -> None:
    folder = tune(
        place,
        tmp_path,
        "--tokenizer_name",
        place / "model",
        "--config_name",
        place / "model",
        "--use_slow_tokenizer",
        "--use_flash_attn",
        "--max_seq_length",
        2048,
        "--preprocessing_num_workers",
        16,
        "--lr_scheduler_type",
        "linear",
        "--warmup_ratio",
        0.03,
        "--weight_decay",
        "0.",
        "--low_cpu_mem_usage",
        "--padding_side",
        "right",
        "--clip_grad_norm",
        1,
        "--overwrite_cache",
        "--lora_rank",
        64,
        "--lora_alpha",
        16,
        "--lora_dropout",
        0.1,
        "--report_to",
        "tensorboard",
        "--logging_steps",
        1,
        "--kl_penalty_ctl",
        1,
    )
    assert same_bits(folder, it)
    log = (folder / "train.log").read_text()
    assert log.count("--use_flash_attn") == 1 and log.count("--use_slow_tokenizer") == 1


def test_finetune_stays_one_readable_script() -> None:
    import ast

    text = (ROOT / "src" / "finetune.py").read_text()
    assert len(text.splitlines()) <= 600
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name
