"""src/finetune.py itself, step by step."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.gate import Gate
from benchmarks.preparation import ARMS, SEED
from benchmarks.work import Work

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    """Return src/finetune.py as a module."""
    spec = importlib.util.spec_from_file_location("finetune", ROOT / "src" / "finetune.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["finetune"] = module
    spec.loader.exec_module(module)
    return module


def train(gate: Gate, work: Work) -> None:
    """Run src/finetune.py on the prepared rows; a turn is an update with all that belongs to it."""
    script: Any = load_script()
    settings = work.settings
    (own,) = settings["contenders"].values()
    step, save = script.train_step, script.save
    facts: dict[str, Any] = {}

    def one_step(run: Any, micro_batches: Any) -> dict[str, Any]:
        gate.turn(**facts)
        line = step(run, micro_batches)
        facts.update(
            loss=line["loss"],
            tokens=line["tokens"],
            weighted=line["tokens_with_loss"],
            positions=round(line["tokens"] / (1 - line["padding_fraction"])),
        )
        return line

    def save_after(run: Any) -> None:
        gate.finished(**facts)
        save(run)

    script.train_step, script.save = one_step, save_after
    from instruction_modelling.cpu import cycles_looked_for_seldom
    from instruction_modelling.options import FinetuneOptions

    options = FinetuneOptions(
        model_name_or_path=work.model,
        train_file=[str(work.rows_file())],
        output_dir=str(Path(work.scratch) / "run"),
        max_train_steps=1 if own.get("fresh") else work.steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=work.examples // 8,
        packing=own["layout"] == "packed",
        mixed_precision="bf16" if settings["precision"] == "bf16" else "no",
        max_seq_length=work.max_seq_length,
        use_lora=settings["lora"],
        lora_rank=work.lora_rank,
        seed=SEED,
        **ARMS[settings["arm"]],
    ).with_recipe()
    # As the script's own start has it.
    with cycles_looked_for_seldom(), script.StopSignals() as stop:
        script.tune(options, stop)
