"""TRL's SFTTrainer on the same model, rows and card."""

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders.trl_trainer import sft_config
from benchmarks.gpu_parts.setting import Setting, free, made_up_rows, random_model
from benchmarks.work import Work

# Name, micro-batch, what else: packing takes packs of 2,048, its default.
WAYS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("packing", 4, {"packing": True}),
    ("padded 8", 8, {}),
    ("1 at a time", 1, {}),
    ("packing, Liger", 4, {"packing": True, "use_liger_kernel": True}),
)
STEPS = 5


def trl(setting: Setting) -> None:
    """Train the 1B model by TRL, at the settings that are its fastest; where it is not installed, say so."""
    from importlib.util import find_spec

    if find_spec("trl") is None:
        setting.notes.add("TRL", failed="not installed here")
        return
    for name, size, own in WAYS:
        if setting.leaves_out(name):
            continue
        if "use_liger_kernel" in own and find_spec("liger_kernel") is None:
            setting.notes.add(f"1B TRL, {name}", failed="Liger is not installed here")
            continue
        with setting.notes.part(f"1B TRL, {name}"):
            _train(setting, f"1B TRL, {name}", size, own)
        free(setting)


def _train(setting: Setting, name: str, size: int, own: dict[str, Any]) -> None:
    import datasets
    import trl as package
    from transformers import TrainerCallback

    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.models.tiny import save_tiny_model

    shape, folder = setting.shape("1B"), setting.notes.folder / "trl"
    # The trainer wants a tokenizer, though the rows are tokens.
    save_tiny_model(folder / "tokenizer", ["The trainer wants a tokenizer, though the rows are tokens."])
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    tokenizer.pad_token = tokenizer.eos_token
    lengths = setting.lengths("lima", 64)
    data = made_up_rows(lengths, shape["vocab_size"], "im").data
    rows = [data.ids[data.span(row)].tolist() for row in range(len(data))] * (STEPS + 1)
    work = Work("", "", str(folder), len(lengths), STEPS, 0, 2048, setting.toy, {"precision": "bf16"})
    config = sft_config(work, {"size": min(size, len(lengths)), **own})
    config.use_liger_kernel = own.get("use_liger_kernel", False)
    config.logging_strategy, config.logging_steps = "steps", 1

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            setting.wait()
            self.at.append(time.monotonic())

    if not setting.toy:
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    trainer = package.SFTTrainer(
        model=random_model(shape, "sdpa", setting.device, torch.float32),
        args=config,
        train_dataset=datasets.Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    seen = [line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line]
    # The first step warms up.
    tokens, seconds = seen[STEPS - 1] - seen[0], clock.at[STEPS - 1] - clock.at[0]
    setting.notes.add(
        name,
        version=package.__version__,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds,
        peak_gb=setting.peak_gb(),
    )
    _remove(folder)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
