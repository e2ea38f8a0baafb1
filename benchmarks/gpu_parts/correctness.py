"""Whether the device computes what a CPU does, whether packing changes nothing, and whether a continued run
is the run."""

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_parts.setting import Setting, made_up_rows, random_model, tuning

ROOT = Path(__file__).resolve().parents[2]
# A gradient's relative distance from the CPU's in float32: of another order of sums, and of rounding each
# product to bfloat16.
LARGEST_ERROR = {"float32": 1e-4, "bfloat16": 3e-2}
STEPS, CUT_AT = 6, 3
ROWS = ROOT / "data" / "sample" / "brief_answers_train.jsonl"


def same_step(setting: Setting) -> None:
    """Compare one step's loss and gradient with the CPU's in float32, packed."""
    shape = {**setting.shape("1B"), "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1024}
    shape |= {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
    if setting.toy:
        shape = setting.shape("1B")
    rows = made_up_rows(setting.lengths("dolly", 24), shape["vocab_size"], "im")
    expected = _step("cpu", shape, rows, half=False, packing=True)
    for half in (False, True):
        for packing in (True, False):
            name = f"{'bfloat16' if half else 'float32'}, {'packed' if packing else 'padded'}"
            with setting.notes.part(name):
                loss, gradient = _step(setting.device, shape, rows, half, packing)
                error = float((gradient - expected[1]).norm() / expected[1].norm())
                setting.notes.add(
                    name,
                    loss=loss,
                    loss_difference=loss - expected[0],
                    gradient_error=error,
                    right=error < LARGEST_ERROR[name.split(",")[0]],
                )


def _step(
    device: str, shape: dict[str, Any], rows: Any, half: bool, packing: bool
) -> tuple[float, torch.Tensor]:
    """Return a step's loss and gradient, float64 on the CPU."""
    from instruction_modelling.models.loading import pick_attention
    from instruction_modelling.training.batches import step_micro_batches
    from instruction_modelling.training.loss_model import LossModel
    from instruction_modelling.training.plan import GlobalBatch, Layout

    attention = pick_attention(packing, False, device == "cuda", half)
    # Made on the CPU: its random numbers are others than a GPU's.
    model = LossModel(random_model(shape, attention, "cpu", torch.float32).to(device)).train()
    total = 0.0
    layout = Layout(packing, 8, max(2048, int(rows.data.lengths.max())))
    for batch in step_micro_batches(rows, GlobalBatch(0, np.arange(len(rows.data))), layout):
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = model(**batch.to(device).tensors())["loss"]
        loss.backward()
        total += float(loss.detach())
    gradient = [w.grad.flatten().double().cpu() for w in model.parameters() if w.grad is not None]
    return total, torch.cat(gradient)


def waits(setting: Setting) -> None:
    """Count what makes the program wait for the device in a step of several micro-batches, by torch's own
    warnings of it."""
    with setting.notes.part("waits in a step"):
        shape = {**setting.shape("1B"), "num_hidden_layers": 2}
        rows = made_up_rows(setting.lengths("lima", 16), shape["vocab_size"], "im")
        with tuning(setting, shape, rows) as run, warnings.catch_warnings(record=True) as caught:
            import finetune
            from instruction_modelling.training.batches import step_micro_batches
            from instruction_modelling.training.plan import GlobalBatch, Layout

            layout = Layout(True, 1, setting.capacity(2048))
            batches = step_micro_batches(rows, GlobalBatch(0, np.arange(len(rows.data))), layout)
            # The first makes the optimiser's states and picks kernels.
            finetune.train_step(run, batches)
            warnings.simplefilter("always")
            caught.clear()
            if not setting.toy:
                torch.cuda.set_sync_debug_mode("warn")
            finetune.train_step(run, batches)
            if not setting.toy:
                torch.cuda.set_sync_debug_mode("default")
        found = [
            f"{Path(w.filename).name}:{w.lineno}" for w in caught if "called a synchroniz" in str(w.message)
        ]
        setting.notes.add(
            "waits in a step", micro_batches=len(batches), waits=len(found), places=sorted(set(found))
        )


def resume(setting: Setting) -> None:
    """Tune a tiny model with --deterministic twice, and a third time continued from its middle; compare the
    final weights bit for bit. Without the flag as well, to see what it changes."""
    from instruction_modelling.models.tiny import conversation_texts, save_tiny_model

    folder = setting.notes.folder / "resume"
    save_tiny_model(folder / "model", conversation_texts([ROWS]))
    # A CPU is deterministic in any case: there it is only tried.
    for flag in ("--deterministic",) if setting.toy else ("--deterministic", ""):
        name = f"resume {flag or 'without the flag'}"
        with setting.notes.part(name):
            _compare_runs(setting, folder, name, [flag] if flag else [])


def _compare_runs(setting: Setting, folder: Path, name: str, flags: list[str]) -> None:
    from safetensors.torch import load_file

    runs = {what: folder / f"{name.replace(' ', '-')}-{what}" for what in ("first", "again", "continued")}
    if setting.toy:
        del runs["again"]
    begun = [_tune(folder / "model", path, *flags) for what, path in runs.items() if what != "continued"]
    for process in begun:
        _finish(process)
    middle = str(runs["first"] / f"step_{CUT_AT}")
    _finish(_tune(folder / "model", runs["continued"], *flags, "--resume_from_checkpoint", middle))
    saved = {what: load_file(path / "model.safetensors") for what, path in runs.items()}
    for what in saved.keys() - {"first"}:
        pairs = [(saved["first"][key], saved[what][key]) for key in saved["first"]]
        setting.notes.add(
            f"{name}: {what}",
            same_bits=all(torch.equal(one, other) for one, other in pairs),
            largest_difference=max(float((one - other).abs().max()) for one, other in pairs),
        )


def _tune(model: Path, folder: Path, *flags: str) -> subprocess.Popen[bytes]:
    names = ("--model_name_or_path", str(model), "--train_file", str(ROWS), "--output_dir", str(folder))
    sizes = ("--max_seq_length", "256", "--per_device_train_batch_size", "8", "--learning_rate", "1e-3")
    steps = ("--max_train_steps", str(STEPS), "--checkpointing_steps", str(CUT_AT))
    arm = ("--use_lm_loss", "--packing", "--neftune_alpha", "5", "--mixed_precision", "bf16")
    command: Sequence[str] = [sys.executable, str(ROOT / "src" / "finetune.py"), *names, *sizes, *steps, *arm]
    command = [*command, "--save_dtype", "float32", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )


def _finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said.decode(errors='replace').strip()[-300:]}")
