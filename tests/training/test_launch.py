"""Starting the processes of a run."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import make_tiny_model
from training_runs import launch, sample_rows, write_rows

from instruction_modelling.training.devices import chosen_precision, device_words
from instruction_modelling.training.launch import (
    STALE_SECONDS,
    ask_no_model_for_deepspeed,
    remove_stale_build_locks,
)


def test_a_lock_that_a_killed_build_left_is_removed_and_one_of_a_build_at_work_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    ages = {"killed": STALE_SECONDS + 60, "at_work": 30}
    locks = {}
    for name, age in ages.items():
        locks[name] = tmp_path / name / "lock"
        locks[name].parent.mkdir()
        locks[name].touch()
        then = time.time() - age
        os.utime(locks[name], (then, then))
    remove_stale_build_locks()
    assert not locks["killed"].exists() and locks["at_work"].exists()
    assert f"removed {locks['killed']}" in caplog.text


@pytest.mark.parametrize("launcher", [None, "no", "bf16"])
@pytest.mark.parametrize("gpu", ["none", "float32 alone", "bfloat16"])
def test_a_gpu_that_has_bfloat16_computes_in_it_where_nobody_says_otherwise(
    gpu: str, launcher: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu != "none")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu == "bfloat16")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launcher:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert [chosen_precision(asked) for asked in ("no", "bf16")] == ["no", "bf16"]
    chosen = chosen_precision(None)
    assert chosen == ("bf16" if gpu == "bfloat16" and not launcher else None)

    run = SimpleNamespace(
        device=torch.device("cpu" if gpu == "none" else "cuda:0"), mixed_precision=chosen or launcher or "no"
    )
    words = device_words(run, None)
    assert words.startswith(f"{run.device}, {'bfloat16' if 'bf16' in (chosen, launcher) else 'float32'}")
    assert ("this GPU's default; --mixed_precision no for float32" in words) == (chosen == "bf16")
    assert ("the launcher says float32" in caplog.text) == (gpu != "none" and launcher == "no")
    caplog.clear()
    device_words(run, "no")
    assert caplog.text == ""


# What a plain run has no need of, and transformers, accelerate or a lapse of ours would import.
NOT_NEEDED = {
    *("deepspeed", "datasets", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "sacrebleu", "vllm"),
    *("tensorboard", "wandb", "trackio", "torch.distributed.checkpoint.hf_storage"),
    *("transformers.trainer", "torchvision", "numba"),
}


def test_a_plain_run_never_loads_what_it_has_no_need_of(tmp_path: Path) -> None:
    """Loading DeepSpeed to ask whether a model is one of its own took a twelfth of the time to the first
    step; scipy's optimisers and sharded checkpoints another tenth."""
    model = make_tiny_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sample_rows(4))
    folder = tmp_path / "run"
    program = (
        f"import atexit, runpy, sys; atexit.register(lambda: print({NOT_NEEDED!r} & set(sys.modules))); "
    )
    program += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    options = ["--model_name_or_path", model, "--train_file", rows, "--output_dir", folder, "--packing"]
    done = launch([sys.executable, "-c", program, "src/finetune.py", *options, "--max_train_steps", 1])
    assert done.code == 0, done.err
    assert (folder / "model.safetensors").exists()
    assert done.out.strip().splitlines()[-1] == "set()"


def test_a_run_that_deepspeed_was_asked_for_knows_its_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import other

    monkeypatch.setattr(other, "is_deepspeed_available", available := lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    ask_no_model_for_deepspeed()
    assert other.is_deepspeed_available is available
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    ask_no_model_for_deepspeed()
    assert not other.is_deepspeed_available()
