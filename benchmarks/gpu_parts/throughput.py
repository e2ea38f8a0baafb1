"""How many tokens a second this repository trains on, in how much memory, and which share of the peak that
is."""

from typing import Any

import torch

from benchmarks.gpu_parts.operations import Sizes, peak_tflops
from benchmarks.gpu_parts.setting import Setting, made_up_rows, timed_steps, tuning

MEASURED_STEPS = 4
CHECKPOINTING = ", gradient checkpointing"
LIGER = ", Liger"


def machine(setting: Setting) -> None:
    """Note the card, the versions, and what a large product and a large copy reach on it."""
    import time

    from benchmarks.gpu_parts.correctness import ROOT
    from benchmarks.machine import describe_machine, git_commit, versions

    setting.notes.add("machine", **describe_machine(), versions=versions(), commit=git_commit(ROOT))
    with setting.notes.part("product and copy"):
        size, dtype = (256 if setting.toy else 8192), torch.bfloat16
        one = torch.randn(size, size, device=setting.device, dtype=dtype)
        large = torch.empty(size * size * 16, device=setting.device, dtype=torch.int8)
        rates = []
        for work, amount in ((lambda: one @ one, 2 * size**3), (lambda: large.clone(), 2 * large.numel())):
            for _ in range(3):
                work()
            setting.wait()
            begin = time.monotonic()
            for _ in range(10):
                work()
            setting.wait()
            rates.append(10 * amount / (time.monotonic() - begin) / 1e12)
        setting.notes.add("product and copy", product_tflops=rates[0], copy_terabytes_per_second=rates[1])


def full_1b(setting: Setting) -> None:
    """Tune all weights of a 1B model: IM and IT, packs of three sizes, short rows, and what helps memory; the
    layers compiled, as transformers has them, and, last since it changes transformers, by Liger."""
    runs: tuple[tuple[str, str, str, int, dict[str, Any]], ...] = (
        ("IM, packs of 8192, compiled", "im", "lima", 8192, {"compile": True}),
        ("IM, packs of 2048, compiled", "im", "lima", 2048, {"compile": True}),
        ("IM, packs of 8192", "im", "lima", 8192, {}),
        ("IM, packs of 2048", "im", "lima", 2048, {}),
        ("IT, packs of 8192, compiled", "it", "lima", 8192, {"compile": True}),
        ("IM, packs of 16384, compiled", "im", "lima", 16384, {"compile": True}),
        ("IM, short rows, packs of 8192, compiled", "im", "dolly", 8192, {"compile": True}),
        ("IT, packs of 2048, compiled", "it", "lima", 2048, {"compile": True}),
        ("IM, packs of 8192, NEFTune, compiled", "im", "lima", 8192, {"neftune_alpha": 5.0, "compile": True}),
        ("IM, packs of 8192, gradient checkpointing", "im", "lima", 8192, {"gradient_checkpointing": True}),
        (f"IM, packs of 8192{LIGER}", "im", "lima", 8192, {}),
        (f"IM, packs of 2048{LIGER}", "im", "lima", 2048, {}),
    )
    for name, arm, data, pack, changes in runs:
        profiled = name in ("IM, packs of 8192, compiled", "IM, packs of 2048, compiled", "IM, packs of 8192")
        measure(setting, f"1B {name}", "1B", (arm, data, 128, pack), profiled, **changes)


def lora_7b(setting: Setting) -> None:
    """Tune adapters on a 7B model, whose own weights are held in bfloat16."""
    for pack, changes, liger in (
        (4096, {"compile": True}, False),
        (8192, {"compile": True}, False),
        (4096, {"compile": True, "lora_dropout": 0.1}, False),
        (4096, {}, False),
        (8192, {"gradient_checkpointing": True}, False),
        (4096, {}, True),
    ):
        name = f"7B LoRA, packs of {pack}{_words(changes, liger)}"
        lora: dict[str, Any] = {"use_lora": True, "lora_dropout": 0.0}
        measure(setting, name, "7B", ("im", "lima", 64, pack), **{**lora, **changes})


def full_7b(setting: Setting) -> None:
    """Tune all weights of a 7B model in bfloat16 with states of one byte."""
    for pack, changes, liger in (
        (2048, {"compile": True}, False),
        (4096, {"compile": True}, False),
        (8192, {"gradient_checkpointing": True}, True),
    ):
        name = f"7B full, --weights_in bf16, packs of {pack}{_words(changes, liger)}"
        measure(setting, name, "7B", ("im", "lima", 64, pack), weights_in="bf16", **changes)


def _words(changes: dict[str, Any], liger: bool) -> str:
    words = {
        "compile": ", compiled",
        "gradient_checkpointing": CHECKPOINTING,
        "lora_dropout": ", dropout 0.1",
    }
    return "".join(words[name] for name in changes) + LIGER * liger


def measure(
    setting: Setting,
    name: str,
    model: str,
    work: tuple[str, str, int, int],
    profiled: bool = False,
    **changes: Any,
) -> None:
    """Take a first step and some more, and note tokens a second, memory and MFU.

    Args:
        work: arm, data whose lengths the rows have, rows of a step, tokens of a pack.
        profiled: write what the kernels of one step took too.
        changes: options of src/finetune.py.
    """
    if setting.leaves_out(name):
        return
    arm, data, count, pack = work
    with setting.notes.part(name):
        shape, lengths = setting.shape(model), setting.lengths(data, count)
        rows = made_up_rows(lengths, shape["vocab_size"], arm)
        capacity = max(setting.capacity(pack), max(lengths))
        with tuning(setting, shape, rows, LIGER in name, **changes) as run:
            found = timed_steps(setting, run, rows, capacity, 1 if setting.toy else MEASURED_STEPS)
            wrapped = run.accelerator.unwrap_model(run.model)
            sizes = Sizes.of(wrapped.model, wrapped.config.get_text_config())
            rate = sizes.operations(lengths, found["tokens_with_loss"]) / found["seconds"] / 1e12
            peak = None if setting.toy else peak_tflops(torch.cuda.get_device_name())
            setting.notes.add(
                name,
                arm=arm,
                pack=capacity,
                **found,
                model_tflops=rate,
                mfu=rate / peak if peak else None,
                peak_gb=setting.peak_gb(),
                attention=wrapped.config._attn_implementation,
            )
            if profiled:
                _profile(setting, name, run, rows, capacity)


def _profile(setting: Setting, name: str, run: Any, rows: Any, capacity: int) -> None:
    """Write a table of one step's kernels beside the results."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([] if setting.toy else [ProfilerActivity.CUDA])]
    with profile(activities=activities) as kept:
        timed_steps(setting, run, rows, capacity, 0)
    key = "self_cpu_time_total" if setting.toy else "self_device_time_total"
    file = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    table = kept.key_averages().table(sort_by=key, row_limit=40)
    (setting.notes.folder / f"profile-{file}.txt").write_text(table, encoding="utf-8")
