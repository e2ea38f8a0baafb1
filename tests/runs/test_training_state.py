"""Checkpoints of sharded runs: continued as they were, on other numbers of processes, and with or without
sharding."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny_model
from training_runs import (
    farthest,
    finetune,
    free_port,
    launch,
    losses,
    metrics,
    record,
    same_bits,
    sample_rows,
    write_rows,
)

from instruction_modelling.models.adapters import AdapterLayers, merge_adapters

ARGUMENTS = ("--learning_rate", 1e-3, "--checkpointing_steps", 1, "--use_lm_loss", "--packing")
FULL = ("--neftune_alpha", 5)
LORA = ("--use_lora", "--lora_rank", 4, "--lora_dropout", 0.1)
RESUME = ("--resume_from_checkpoint", "latest")
# Steps of 8 rows: two full ones and a partial one an epoch.
ROWS, STEPS = 19, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    return folder


def zero3(  # noqa: PLR0913 (the parts of one command)
    place: Path,
    folder: Path,
    *arguments: object,
    precision: str = "no",
    config: str = "no_offloading",
    processes: int = 2,
    launcher: str = "",
) -> Path:
    command = f"""accelerate launch --mixed_precision {precision} --num_machines 1 --num_processes
        {processes} --use_deepspeed {launcher} --main_process_port {free_port()} --deepspeed_config_file
        ds_configs/stage3_{config}_accelerate.conf src/finetune.py --model_name_or_path {place}/model
        --train_file {place}/rows.jsonl --output_dir {folder} --per_device_train_batch_size 4"""
    outcome = launch([*command.split(), *ARGUMENTS, *arguments])
    assert outcome.code == 0, outcome.err[-3000:]
    return folder


def two_processes(place: Path, folder: Path, *arguments: object) -> Path:
    command = f"""torchrun --nproc_per_node 2 --master_port {free_port()} src/finetune.py
        --model_name_or_path {place}/model --train_file {place}/rows.jsonl --output_dir {folder}
        --per_device_train_batch_size 4"""
    outcome = launch([*command.split(), *ARGUMENTS, *arguments], ACCELERATE_USE_CPU="true")
    assert outcome.code == 0, outcome.err[-3000:]
    return folder


def fsdp2(place: Path, folder: Path, *arguments: object) -> Path:
    command = f"""accelerate launch --config_file fsdp_configs/fsdp2.yaml --mixed_precision no
        --num_processes 2 --main_process_port {free_port()} src/finetune.py --model_name_or_path
        {place}/model --train_file {place}/rows.jsonl --output_dir {folder} --per_device_train_batch_size 4"""
    outcome = launch([*command.split(), *ARGUMENTS, *arguments])
    assert outcome.code == 0, outcome.err[-3000:]
    return folder


def one_process(place: Path, folder: Path, *arguments: object) -> Path:
    return finetune(place / "model", place / "rows.jsonl", folder, *ARGUMENTS, *arguments)


def cut_back(whole: Path, folder: Path, steps: int = 3) -> Path:
    """The run folder as a kill after some steps would have left it."""
    shutil.copytree(whole, folder)
    for path in folder.iterdir():
        if path.name.startswith("step_") and int(path.name.removeprefix("step_")) > steps:
            shutil.rmtree(path)
    for name in ("model.safetensors", "config.json", "README.md"):
        (folder / name).unlink()
    (folder / "run.json").write_text(json.dumps({**record(whole), "finished": False}))
    return folder


def check_continued(whole: Path, folder: Path) -> None:
    assert "resuming from" in (folder / "train.log").read_text()
    assert same_bits(folder, whole)
    assert losses(folder) == losses(whole)
    assert [line["grad_norm"] for line in metrics(folder)] == [line["grad_norm"] for line in metrics(whole)]


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        found.update(load_file(path))
    return found


@pytest.mark.slow
def test_zero_3_goes_on_as_it_was_and_on_one_process(place: Path, tmp_path: Path) -> None:
    whole = zero3(place, tmp_path / "whole", *FULL)
    assert len(losses(whole)) == STEPS
    # Loaded in parts, the model is still known for the one that was loaded whole.
    check_continued(
        whole,
        zero3(place, cut_back(whole, tmp_path / "again"), *FULL, *RESUME, launcher="--zero3_init_flag true"),
    )
    # Both processes wrote, and what they wrote has the names and shapes of one process's.
    assert {path.name for path in (whole / "step_3").iterdir()} == {
        "checkpoint.json",
        "metrics.jsonl",
        "state-000-0000.safetensors",
        "state-001-0000.safetensors",
    }
    plain = one_process(place, tmp_path / "plain", *FULL)
    ours, theirs = tensors(whole / "step_3"), tensors(plain / "step_3")
    assert {name: (value.shape, value.dtype) for name, value in ours.items()} == {
        name: (value.shape, value.dtype) for name, value in theirs.items()
    }
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=1e-3, atol=1e-4), name
    # The sharded run's checkpoint goes on unsharded, on one process, to rounding.
    moved = one_process(place, cut_back(whole, tmp_path / "moved"), *FULL, *RESUME)
    assert losses(moved) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(moved)[:3] == losses(whole)[:3] and farthest(moved, whole) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [two_processes, zero3, fsdp2], ids=lambda function: function.__name__)
def test_one_process_goes_on_anywhere_and_back(place: Path, tmp_path: Path, launcher: object) -> None:
    assert callable(launcher)
    plain = one_process(place, tmp_path / "plain", *FULL)
    moved = launcher(place, cut_back(plain, tmp_path / "moved"), *FULL, *RESUME)
    assert losses(moved) == pytest.approx(losses(plain), rel=1e-5) and farthest(moved, plain) < 5e-4
    back = one_process(place, cut_back(moved, tmp_path / "back", 4), *FULL, *RESUME)
    assert losses(back) == pytest.approx(losses(plain), rel=1e-5) and farthest(back, plain) < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [two_processes, zero3, fsdp2], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "arm",
    [FULL, (*LORA, *FULL), ("--optimizer", "sgd", "--learning_rate", 0.05)],
    ids=["AdamW", "LoRA with dropout", "SGD"],
)
def test_every_launcher_goes_on_bit_for_bit(
    place: Path, tmp_path: Path, launcher: object, arm: tuple[object, ...]
) -> None:
    assert callable(launcher)
    whole = launcher(place, tmp_path / "whole", *arm)
    check_continued(whole, launcher(place, cut_back(whole, tmp_path / "again"), *arm, *RESUME))


@pytest.mark.slow
def test_a_number_of_processes_that_no_size_divides_by(place: Path, tmp_path: Path) -> None:
    """Three processes, each of whose last parts of weights of 64 and 65,536 numbers is padded."""
    arm = (*FULL, "--per_device_train_batch_size", 2)
    whole = zero3(place, tmp_path / "whole", *arm, processes=3)
    check_continued(whole, zero3(place, cut_back(whole, tmp_path / "again"), *arm, *RESUME, processes=3))
    alone = (*FULL, "--per_device_train_batch_size", 6)
    moved = one_process(place, cut_back(whole, tmp_path / "moved"), *alone, *RESUME)
    assert losses(moved) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_adapters_under_zero_3_are_saved_merged(place: Path, tmp_path: Path) -> None:
    arm = ("--use_lora", "--lora_rank", 4, "--lora_dropout", 0)
    sharded, plain = zero3(place, tmp_path / "sharded", *arm), one_process(place, tmp_path / "plain", *arm)
    assert farthest(sharded, plain) < 5e-5 < 1e-3 < farthest(sharded, place / "model")
    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (sharded, plain)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, value in adapters[0].items():
        assert torch.allclose(value, adapters[1][name], atol=5e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("save_dtype", ["float32", "bfloat16"])
def test_a_bf16_zero_3_run_saves_the_weights_asked_for(place: Path, tmp_path: Path, save_dtype: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = zero3(place, tmp_path / "run", "--save_dtype", save_dtype, precision="bf16")
    saved = load_file(folder / "model.safetensors")
    masters = {
        name.removeprefix("weight/model."): value
        for name, value in tensors(folder / f"step_{STEPS}").items()
        if name.startswith("weight/")
    }
    dtype = getattr(torch, save_dtype)
    for name, value in masters.items():
        assert value.dtype == torch.float32 and torch.equal(saved[name], value.to(dtype)), name
    # float32 holds digits that bfloat16 does not.
    assert any(not torch.equal(value, value.to(torch.bfloat16).float()) for value in masters.values())
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype


@pytest.mark.slow
def test_an_offloaded_run_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    whole = zero3(place, tmp_path / "whole", *FULL, config="offloading")
    again = zero3(place, cut_back(whole, tmp_path / "again"), *FULL, *RESUME, config="offloading")
    check_continued(whole, again)


def test_adapters_are_added_to_their_layers_scaled() -> None:
    """scaling x B A, by hand."""
    up, down = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
    merged = merge_adapters(
        {
            "base_model.model.head.base_layer.weight": torch.ones(2, 3),
            "base_model.model.head.lora_A.default.weight": down,
            "base_model.model.head.lora_B.default.weight": up,
            "base_model.model.norm.weight": torch.ones(2),
        },
        AdapterLayers({"base_model.model.head": {"default": 0.5}}),
    )
    assert merged["head.weight"].tolist() == [[2.5, 3.0, 3.5], [4.0, 5.0, 6.0]]
    assert merged["norm.weight"].tolist() == [1.0, 1.0] and len(merged) == 2
