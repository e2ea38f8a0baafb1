"""Rows against the model's positions, blocks and their weights, rows to measure that have no response."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_families import FAMILIES
from step_samples import random_model
from tiny import make_tiny_model, make_tiny_tokenizer
from training_runs import Outcome, finetune, losses, metrics, record, run, sample_rows, write_rows

from instruction_modelling.chat.formats import load_chat_format
from instruction_modelling.models.loading import load_tokenizer
from instruction_modelling.models.positions import positions_of
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.tokens.collector import collect
from instruction_modelling.tokens.row_encoder import RowEncoder

FIXED = {"opt", "gpt2"}


@pytest.mark.parametrize("family", FAMILIES.keys())
def test_which_models_look_their_positions_up(family: str) -> None:
    assert positions_of(random_model(FAMILIES[family]())) == (128, family in FIXED)


def test_positions_of_other_kinds() -> None:
    gptj = transformers.GPTJConfig(
        vocab_size=61, n_embd=24, n_layer=1, n_head=4, n_positions=96, rotary_dim=4
    )
    assert positions_of(random_model(gptj, "eager")) == (96, True)
    bloom = transformers.BloomConfig(vocab_size=61, hidden_size=24, n_layer=1, n_head=4)
    assert positions_of(random_model(bloom, "eager")) == (None, False)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4}
    llama = FAMILIES["llama tied"]()
    llama.rope_parameters = yarn
    assert positions_of(random_model(llama)) == (512, False)


def model_of(folder: Path, kind: str, positions: int) -> Path:
    """A tiny OPT or Llama with few positions, and a tokenizer."""
    tokenizer = make_tiny_tokenizer()
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sizes: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, **ends}
    sizes.update(vocab_size=512, max_position_embeddings=positions)
    if kind == "opt":
        config: Any = transformers.OPTConfig(**sizes, ffn_dim=40, word_embed_proj_dim=24, dropout=0.0)
    else:
        config = transformers.LlamaConfig(**sizes, intermediate_size=40)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def attempt(script: str, model: Path, rows: Path, folder: Path, *arguments: object) -> Outcome:
    """A run that may be refused."""
    file = "--train_file" if script == "finetune" else "--eval_file"
    steps = ("--max_train_steps", 1) if script == "finetune" else ()
    names = ("--model_name_or_path", model, file, rows, "--output_dir", folder)
    return run(script, *names, *steps, *arguments)


@pytest.mark.parametrize("script", ["finetune", "compute_loss"])
def test_rows_longer_than_the_positions(tmp_path: Path, script: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(6))
    count = 208
    tokenizer = load_tokenizer(str(model_of(tmp_path / "opt", "opt", count)))
    encoder = RowEncoder(tokenizer, load_chat_format("auto", tokenizer), 2048)
    lengths = collect(encoder.encode(read_conversations(rows).conversations)).lengths
    longer, longest = int((lengths > count).sum()), int(lengths.max())
    assert 1 < longer < len(lengths)
    words = f"{longer} rows are longer (up to {longest} tokens) than the model's"

    refused = attempt(script, tmp_path / "opt", rows, tmp_path / "one")
    assert refused.code == 2 and "Traceback" not in refused.err
    assert f"{words} {count} positions" in refused.err and f"--max_seq_length {count}" in refused.err
    assert not (tmp_path / "one" / "metrics.jsonl").exists()
    assert attempt(script, tmp_path / "opt", rows, tmp_path / "two", "--max_seq_length", count).code == 0

    warned = attempt(script, model_of(tmp_path / "llama", "llama", count), rows, tmp_path / "three")
    assert (
        warned.code == 0 and f"{words} {count} positions, beyond which it has not been trained" in warned.out
    )
    quiet = attempt(script, tmp_path / "llama", rows, tmp_path / "four", "--max_seq_length", count)
    assert "positions" not in quiet.out


def test_a_block_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    model = model_of(tmp_path / "llama", "llama", 64)
    blocks = ("--use_lm_modelling", "--block_size")
    refused = attempt("finetune", model, rows, tmp_path / "run", *blocks, 65)
    assert refused.code == 2 and "--block_size 65: the model has 64 positions" in refused.err
    assert attempt("finetune", model, rows, tmp_path / "run", *blocks, 64).code == 0


# -- blocks ------------------------------------------------------------------------------------------------


def block_run(tmp_path: Path, name: str, *flags: object) -> Path:
    """An epoch of language modelling at learning rate 0, in blocks of 50 tokens, one at a time."""
    if not (tmp_path / "model").exists():
        make_tiny_model(tmp_path / "model")
        rows = sample_rows(6)
        rows[1]["messages"][-1]["weight"] = 0.5
        write_rows(tmp_path / "rows.jsonl", rows)
    lm = ("--use_lm_modelling", "--block_size", 50, "--learning_rate", 0, "--num_train_epochs", 1)
    one = ("--per_device_train_batch_size", 1)
    return finetune(tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / name, *lm, *one, *flags)


@pytest.mark.parametrize(
    ("flags", "instruction", "released", "arm"),
    [
        (("--response_loss_weight", 1), 0.0, False, "LM IT"),
        (("--use_lm_loss",), 1.0, False, "LM IM"),
        (("--recipe", "released"), 0.0, True, "LM IT (released)"),
        (("--instruction_loss_weight", 0.25), 0.25, False, "LM IM w=0.25"),
    ],
    ids=str,
)
def test_weights_that_are_given_hold_across_the_blocks(
    tmp_path: Path, flags: tuple[object, ...], instruction: float, released: bool, arm: str
) -> None:
    """Each block's loss, by plain transformers and the weights of the rows that it is cut from."""
    from instruction_modelling.tokens.weights import WeightPolicy

    folder = block_run(tmp_path, "run", *flags)
    assert record(folder)["arm"] == arm
    tokenizer = load_tokenizer(str(tmp_path / "model"))
    encoder = RowEncoder(tokenizer, load_chat_format("auto", tokenizer), 2048, released)
    rows = collect(encoder.encode(read_conversations(tmp_path / "rows.jsonl").conversations))
    weights = rows.weights(WeightPolicy(instruction, 1.0, 0.0, "released" if released else "exact"))
    assert 0.5 in weights.tolist()
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    expected = []
    for start in range(0, len(rows.ids) // 50 * 50, 50):
        ids = torch.from_numpy(rows.ids[start : start + 50].astype(np.int64))
        own = torch.from_numpy(weights[start + 1 : start + 50].copy())
        with torch.no_grad():
            logits = plain(input_ids=ids[None]).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        if (own != 0).any():
            expected.append(float((nll * own).sum() / (own != 0).sum()))
    assert sorted(losses(folder)) == pytest.approx(sorted(expected), rel=1e-4)


def test_without_a_weight_flag_every_token_of_a_block_weighs_one(tmp_path: Path) -> None:
    folder = block_run(tmp_path, "run", "--loss_normalization", "token")
    assert record(folder)["arm"] == "LM"
    assert all(line["tokens_with_loss"] == 49 for line in metrics(folder) if "loss" in line)


# -- rows to measure ---------------------------------------------------------------------------------------


def eval_rows(path: Path, *lengths: int) -> Path:
    """Rows of which each has a user message of so many words."""
    return write_rows(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": "word " * n},
                    {"role": "assistant", "content": "Yes, it is."},
                ]
            }
            for n in lengths
        ],
    )


def test_an_eval_file_without_a_response_is_refused_and_a_part_of_it_said(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(8))
    cut = ("--max_seq_length", 120, "--eval_steps", 1)
    held_out = eval_rows(tmp_path / "long.jsonl", 400)
    refused = attempt("finetune", model, rows, tmp_path / "run", *cut, "--eval_file", held_out)
    assert refused.code == 2 and "Traceback" not in refused.err
    assert (
        "none of its 1 rows has a response token to measure; 1 row was cut at --max_seq_length" in refused.err
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()

    held_out = eval_rows(tmp_path / "mixed.jsonl", 400, 5, 500)
    outcome = attempt("finetune", model, rows, tmp_path / "run", *cut, "--eval_file", held_out)
    assert (
        outcome.code == 0 and "2 of 3 rows have no response token and count in no mean; 2 rows" in outcome.out
    )
    [line] = [line for line in metrics(tmp_path / "run") if "eval_rows" in line]
    assert line["eval_rows"] == 1 and math.isfinite(line["eval_response_nll"])
    assert "nan" not in json.dumps(metrics(tmp_path / "run")).lower()
