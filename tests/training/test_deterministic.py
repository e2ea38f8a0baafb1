"""--deterministic: what torch is told, and that it is part of the run."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import RESUME, attempt, interrupt, tune
from training_runs import same_bits

from instruction_modelling.training.loss_model import LossModel

place, quiet = checkpoint_runs.place, checkpoint_runs.quiet

ARM = ("--use_lm_loss", "--packing", "--neftune_alpha", 5, "--deterministic")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What --deterministic sets holds for a process."""
    for name in ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"):
        # Set and deleted, so that what the run sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    cudnn: Any = torch.backends.cudnn
    utils: Any = torch.utils.deterministic
    before = cudnn.deterministic, cudnn.benchmark, utils.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark, utils.fill_uninitialized_memory = before


def test_torch_is_told_before_anything_runs_on_a_gpu(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def no_gpu() -> bool:
        seen.append(told())
        return False

    monkeypatch.setattr(torch.cuda, "is_available", no_gpu)
    tune(place, tmp_path, *ARM, "--max_train_steps", 1)
    assert set(seen) == {(":4096:8", "1", True, False, True, False)}


def told() -> tuple[Any, ...]:
    return (
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        os.environ.get("FLASH_ATTENTION_DETERMINISTIC"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def test_a_continued_run_ends_with_the_same_bits_and_only_with_the_flag(place: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    tune(place, whole, *ARM)
    interrupt(place, cut, 3, *ARM)
    without = attempt(place, cut, *ARM[:-1], *RESUME)
    assert without.code == 2 and "deterministic: True then, False now" in without.err
    tune(place, cut, *ARM, *RESUME)
    assert same_bits(whole, cut)


def test_an_operation_that_has_no_such_algorithm_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*arguments: Any, **keywords: Any) -> None:
        raise RuntimeError(
            "cumsum_cuda_kernel does not have a deterministic implementation, but you set\n..."
        )

    monkeypatch.setattr(LossModel, "forward", forward)
    outcome = attempt(place, tmp_path, *ARM)
    assert outcome.code == 2 and outcome.err.splitlines()[-1] == (
        "error: --deterministic: cumsum_cuda_kernel does not have a deterministic implementation, but you "
        "set. Leave the flag out"
    )
