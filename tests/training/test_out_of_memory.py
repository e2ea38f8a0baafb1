"""Where memory ends, a run ends with one line that says where, of how much, and what would help."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_tiny_model
from training_runs import ROOT, free_port, launch, run, sample_rows, write_rows

from instruction_modelling.errors import is_out_of_memory
from instruction_modelling.training.loss_model import LossModel

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 "
    "GiB is free. Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the allocated"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(8))
    return folder


def cuda_is_full(*arguments: Any, **keywords: Any) -> Any:
    raise torch.OutOfMemoryError(CUDA)


def cpu_is_full(*arguments: Any, **keywords: Any) -> Any:
    return torch.empty(2**50)


def numpy_is_full(*arguments: Any, **keywords: Any) -> Any:
    raise MemoryError


def at_call(number: int, fail: Callable[..., Any], of: Callable[..., Any]) -> Callable[..., Any]:
    """`of`, whose call of this number fails."""
    calls = []

    def instead(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        return (fail if len(calls) == number else of)(*arguments, **keywords)

    return instead


def tune(place: Path, folder: Path, *arguments: object) -> str:
    """What a run says that has to end with an error, after its log."""
    outcome = run(
        "finetune",
        *("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl"),
        *("--output_dir", folder, "--per_device_train_batch_size", 4, "--max_seq_length", 256),
        *("--max_train_steps", 2, *arguments),
    )
    assert outcome.code == 2 and "Traceback" not in outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert outcome.err.endswith(f"{line}\n")
    return line


PACKED = "--packing", "--max_tokens_per_device", 400
HELP = "or share the model between processes (ds_configs, fsdp_configs)"
FAILURES: dict[str, tuple[tuple[object, ...], Callable[..., Any], str, str]] = {
    "padded": (
        (),
        cpu_is_full,
        "4,194,304.00 GiB were asked for on the CPU",
        "--gradient_checkpointing, or --packing with --max_tokens_per_device, or --use_lora",
    ),
    "packed": (
        PACKED,
        cuda_is_full,
        CUDA[CUDA.index("Tried") : CUDA.index("is free") + 7],
        "--gradient_checkpointing, or a smaller --max_tokens_per_device, or --use_lora",
    ),
    "all that helps": (
        (*PACKED, "--use_lora", "--gradient_checkpointing"),
        numpy_is_full,
        "MemoryError",
        "a smaller --max_tokens_per_device",
    ),
}


@pytest.mark.parametrize("arm", FAILURES)
def test_in_a_step_with_the_size_of_its_micro_batch(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    arguments, fail, asked, advice = FAILURES[arm]
    sizes = []

    def seen(*arguments: Any, **keywords: Any) -> Any:
        sizes.append((*keywords["input_ids"].shape, int((keywords["coefficients"] != 0).sum())))
        return fail()

    monkeypatch.setattr(LossModel, "forward", at_call(2, seen, LossModel.forward))
    line = tune(place, tmp_path, *arguments)
    (rows, columns, with_loss) = sizes[0]
    step = 1 if PACKED[0] in arguments else 2
    assert line == (
        f"error: out of memory in step {step} (a micro-batch of {rows} x {columns:,} tokens, {with_loss:,} "
        f"of them with a loss): {asked}. Give {advice}, {HELP}"
    )


PHASES = {
    "reading the rows": "instruction_modelling.tokens.cache.encode_file",
    "loading the model": "transformers.AutoModelForCausalLM.from_pretrained",
    "in the update of step 1": "torch.optim.AdamW.step",
    "measuring the rows of --eval_file": "instruction_modelling.training.row_losses.row_losses",
    "saving the checkpoint step_1": "instruction_modelling.runs.checkpoints.save_checkpoint",
    "saving the model": "instruction_modelling.runs.model.save_model",
}


@pytest.mark.parametrize("doing", PHASES)
def test_anywhere_else_too(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    monkeypatch.setattr(PHASES[doing], cuda_is_full)
    held_out = ("--eval_file", place / "rows.jsonl", "--eval_steps", 1, "--checkpointing_steps", 1)
    line = tune(place, tmp_path, *held_out)
    assert line.startswith(f"error: out of memory {doing}: Tried to allocate 2.00 GiB. GPU 0")


def test_in_another_script_too(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossModel, "forward", cuda_is_full)
    names = ("--model_name_or_path", place / "model", "--eval_file", place / "rows.jsonl")
    outcome = run("compute_loss", *names, "--output_dir", tmp_path)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == f"error: out of memory: {CUDA}"


def test_what_is_another_error_stays_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    monkeypatch.setattr(LossModel, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tune(place, tmp_path)


@pytest.mark.slow
def test_one_process_says_so_and_the_others_end_with_a_line_too(place: Path, tmp_path: Path) -> None:
    outcome = launch(
        [
            *(
                Path(sys.executable).with_name("torchrun"),
                "--nproc_per_node",
                2,
                "--master_port",
                free_port(),
            ),
            ROOT / "tests" / "support" / "memory_worker.py",
            *("--model_name_or_path", place / "model", "--train_file", place / "rows.jsonl"),
            *("--output_dir", tmp_path, "--per_device_train_batch_size", 2, "--max_seq_length", 256),
        ],
        PYTHONPATH=f"{ROOT / 'src'}",
    )
    assert outcome.code != 0
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    (own,) = [line for line in lines if "out of memory in step 2" in line]
    assert "on process 1: 4,194,304.00 GiB were asked for on the CPU. Give --gradient_checkpointing" in own
    # The first process waits for it, until it hears that it is gone or the launcher ends it.
    assert [line for line in lines if line != own] in (
        [],
        ["error: process 0: another process of this run has ended; its own message says why"],
    )
    # Of the launcher's own report, and of nothing else.
    assert outcome.err.count("Traceback") <= 1
