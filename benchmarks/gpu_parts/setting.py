"""What the parts share: the device, random models, made-up rows of real lengths, and this repository's own
model, optimiser and step."""

import contextlib
import gc
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_parts.notes import Notes

# Tokens a row of 1,024 rows of LIMA and of Dolly, cut at 2,048.
LENGTHS: dict[str, list[int]] = json.loads(Path(__file__).with_name("row_lengths.json").read_text())
# Of each row so many of the first tokens are an instruction.
INSTRUCTION_SHARE = 0.25
# The shapes of Llama-3.2-1B and Llama-2-7B.
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
    "7B": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
    },
}
TOY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@dataclass(frozen=True)
class Setting:
    """Where and how large."""

    notes: Notes
    toy: bool
    """On a CPU with everything small: whether the script runs, not how fast."""
    only: tuple[str, ...] = ()
    """How the names of the parts end that are asked for; all where there is none."""

    def leaves_out(self, name: str) -> bool:
        """Return whether a part is not asked for."""
        return bool(self.only) and not name.endswith(self.only)

    @property
    def device(self) -> str:
        """Return the device that is measured."""
        return "cpu" if self.toy else "cuda"

    def shape(self, name: str) -> dict[str, Any]:
        """Return a model's configuration."""
        return {**SHAPES[name], **(TOY if self.toy else {})}

    def lengths(self, data: str, rows: int) -> list[int]:
        """Return the lengths of the first rows of a data set."""
        if self.toy:
            return [max(4, length // 32) for length in LENGTHS[data][: min(rows, 8)]]
        return LENGTHS[data][:rows]

    def capacity(self, tokens: int) -> int:
        """Return how many tokens a pack holds."""
        return tokens // 32 if self.toy else tokens

    def wait(self) -> None:
        """Wait until the device has done all it was given."""
        if not self.toy:
            torch.cuda.synchronize()

    def peak_gb(self) -> float | None:
        """Return the most memory that tensors have taken since training began, in 10^9 bytes."""
        return None if self.toy else round(torch.cuda.max_memory_allocated() / 1e9, 2)


def made_up_rows(lengths: list[int], vocabulary: int, arm: str) -> Any:
    """Return the `WeightedData` of random rows of these lengths under IT or IM."""
    from instruction_modelling.chat.spans import SpanKind
    from instruction_modelling.tokens.encoded import EncodedData
    from instruction_modelling.tokens.weighted import WeightedData

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    kinds = np.full(offsets[-1], SpanKind.ASSISTANT, dtype=np.int8)
    for start, length in zip(offsets, lengths, strict=False):
        kinds[start : start + max(1, int(length * INSTRUCTION_SHARE))] = SpanKind.USER
    rows = len(lengths)
    data = EncodedData(
        ids=np.random.default_rng(0).integers(0, vocabulary, offsets[-1]).astype(np.int32),
        kinds=kinds,
        messages=np.zeros(offsets[-1], dtype=np.int16),
        positions=np.full(offsets[-1], -1, dtype=np.int32),
        owned=np.ones(offsets[-1], dtype=bool),
        offsets=offsets,
        sequence_offsets=offsets,
        first_sequence=np.arange(rows + 1),
        rows=np.arange(rows),
        tokens_cut=np.zeros(rows, dtype=np.int64),
        row_ids=[str(row) for row in range(rows)],
        datasets=["" for _ in lengths],
        changed_messages=[[] for _ in lengths],
        message_roles=[["user"] for _ in lengths],
        message_weights=[[1.0] for _ in lengths],
    )
    weights = np.ones(len(kinds)) if arm == "im" else kinds == SpanKind.ASSISTANT
    return WeightedData(data, weights.astype(np.float32), "example", "nonzero")


def random_model(shape: dict[str, Any], attention: str, device: str, dtype: torch.dtype) -> Any:
    """Return a random Llama whose weights are bfloat16 numbers, as those of published models are."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from instruction_modelling.models.attention import register

    register()
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**shape), dtype=torch.bfloat16, attn_implementation=attention
        )
    model.config.use_cache = False
    return model.to(dtype)


@contextlib.contextmanager
def tuning(
    setting: Setting, shape: dict[str, Any], rows: Any, liger: bool = False, **changes: Any
) -> Iterator[Any]:
    """Yield a `finetune.Run` over a random model, as src/finetune.py would have it after loading, packed and
    in bfloat16 unless `changes` to the options say otherwise; what it took is freed afterwards.

    Args:
        liger: whether Liger's layers are put in place where it is installed, as the script would.
    """
    from unittest import mock

    from benchmarks.contenders.ours import load_script
    from instruction_modelling.models import compiled, loading
    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.training import sharding
    from instruction_modelling.training.launch import start_processes
    from instruction_modelling.training.optimizer import make_optimizer
    from instruction_modelling.training.step_totals import NllSums
    from instruction_modelling.training.trainable_model import trainable_model

    given: dict[str, Any] = {"packing": True, "mixed_precision": "bf16", **changes}
    options = FinetuneOptions(
        model_name_or_path="-", train_file=["-"], output_dir=str(setting.notes.folder / "run"), **given
    ).with_recipe()
    accelerator = start_processes(options)
    half = accelerator.mixed_precision == "bf16"
    attention = loading.pick_attention(options.packing, False, accelerator.device.type == "cuda", half)
    dtype = torch.bfloat16 if options.weights_in == "bf16" else torch.float32
    model = random_model(shape, attention, str(accelerator.device), dtype)
    if options.compile:
        compiled.require_compiler(accelerator.device, attention)
    has_all = mock.patch.object(loading, "fit_embeddings", return_value=[])
    with has_all, contextlib.nullcontext() if liger else mock.patch.object(loading, "use_fused_layers"):
        # No tokenizer: the model has all embeddings that it needs.
        wrapped = trainable_model(options, accelerator, range(0), model, lambda: None)  # type: ignore[arg-type]
    run = load_script().Run(options, accelerator, folder=SimpleNamespace(), stop=SimpleNamespace())
    optimizer = make_optimizer(wrapped, options, accelerator.device)
    run.model, run.optimizer = sharding.prepare(
        accelerator, wrapped, optimizer, options.packing, options.compile
    )
    run.window = NllSums(rows.data.datasets)
    if not setting.toy:
        # What making the model took is not what training it takes.
        torch.cuda.reset_peak_memory_stats()
    try:
        yield run
    finally:
        del run.model, run.optimizer, model, wrapped, optimizer
        free(setting)


def free(setting: Setting) -> None:
    """Give back what the last part took."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()
    if not setting.toy:
        torch.cuda.empty_cache()


def timed_steps(setting: Setting, run: Any, rows: Any, capacity: int, steps: int) -> dict[str, Any]:
    """Take steps over all rows, batches made anew for each; return tokens, seconds of the first step, the
    median of the others, and the last line of metrics."""
    import finetune
    from instruction_modelling.training.batches import step_micro_batches
    from instruction_modelling.training.pack_size import COMPILED_MULTIPLE
    from instruction_modelling.training.plan import GlobalBatch, Layout

    options, multiple = run.options, COMPILED_MULTIPLE if run.options.compile else 1
    layout = Layout(
        options.packing, options.per_device_train_batch_size, capacity, options.padding_side, multiple
    )
    seconds: list[float] = []
    for _ in range(1 + steps):
        setting.wait()
        begin = time.monotonic()
        batches = step_micro_batches(rows, GlobalBatch(run.done, np.arange(len(rows.data))), layout)
        line = finetune.train_step(run, batches)
        setting.wait()
        seconds.append(time.monotonic() - begin)
        run.done += 1
    median = statistics.median(seconds[1:] or seconds)
    return {
        "micro_batches": len(batches),
        "tokens": line["tokens"],
        "tokens_with_loss": line["tokens_with_loss"],
        "first_seconds": seconds[0],
        "seconds": median,
        "seconds_range": [min(seconds[1:] or seconds), max(seconds[1:] or seconds)],
        "tokens_per_second": line["tokens"] / median,
        "loss": line["loss"],
        "grad_norm": line["grad_norm"],
    }
