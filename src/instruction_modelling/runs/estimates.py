"""What a training run will need: hours, memory and disk, by formula from a model's size and the hardware.

Nothing here is measured: `runs.needs` has what a run itself measures in a trial step (--dry_run)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.progress import duration

STATE_BYTES = 18
"""A parameter under ZeRO-3 in bfloat16, sharded: weight 2, gradient 4, float32 master 4, AdamW's two moments
8."""
CHECKPOINT_BYTES = 12
"""A trained parameter in a checkpoint: float32 weight 4, the two moments 8."""
AUTOCAST_BYTES = {"gated": 32, "plain": 22}
"""A token, layer and unit of width that a layer keeps for its backward pass, beside keys, values and its MLP:
float32 weights computed in bfloat16, the residual stream and the norms in float32 (plain processes, FSDP)."""
HALF_BYTES = {"gated": 20, "plain": 12}
"""The same where weights and residual stream are in bfloat16, as under DeepSpeed."""
KEY_VALUE_BYTES = 4
"""A token, layer and unit of the keys' width: keys and values in bfloat16."""
INNER_BYTES = {"gated": 8, "plain": 2}
"""A token, layer and unit of the MLP's inner width: gate, its activation, the other half and their product in
bfloat16; without a gate what the activation gives."""


@dataclass(frozen=True)
class ModelSize:
    """Parameters, layers and widths of a model."""

    parameters: float
    layers: int
    width: int
    key_values: int
    """Width of the keys, of all heads together."""
    inner: int
    """Width inside the MLP."""
    gated: bool
    """Whether the MLP has a gate, as Llama's has and OPT's has not."""

    def adapter_parameters(self, rank: int) -> int:
        """Return the parameters of LoRA's adapters on every linear layer but the head: of each layer, the
        rank times its inputs and outputs."""
        mlp = (3 if self.gated else 2) * (self.width + self.inner)
        # Queries and output, keys and values.
        attention = 2 * (self.width + self.width) + 2 * (self.width + self.key_values)
        return rank * self.layers * (attention + mlp)

    def activation_bytes(self, autocast: bool) -> int:
        """Return the bytes that one layer keeps of one token for its backward pass, its attention fused.

        Counted on a Llama's and an OPT's layer (`tests/runs/test_estimates.py` counts again).

        Args:
            autocast: whether float32 weights are computed in bfloat16; False where they are in bfloat16.
        """
        kind = "gated" if self.gated else "plain"
        of_width = (AUTOCAST_BYTES if autocast else HALF_BYTES)[kind] * self.width
        return of_width + KEY_VALUE_BYTES * self.key_values + INNER_BYTES[kind] * self.inner


# The paper's models, and others that costs are given for: none need be on this machine.
KNOWN = {
    "llama-2-7b": ModelSize(6.738e9, 32, 4096, 4096, 11008, True),
    "llama-2-13b": ModelSize(13.016e9, 40, 5120, 5120, 13824, True),
    "opt-6.7b": ModelSize(6.658e9, 32, 4096, 4096, 16384, False),
    "llama-3.2-1b": ModelSize(1.236e9, 16, 2048, 512, 8192, True),
    "llama-3.1-70b": ModelSize(70.554e9, 80, 8192, 1024, 28672, True),
    "smollm2-135m": ModelSize(134.5e6, 30, 576, 192, 1536, True),
}


@dataclass(frozen=True)
class Hardware:
    """The GPUs a run is planned for."""

    gpus: int
    tflops: float
    """Peak of one GPU in bfloat16, 10^12 operations a second."""
    utilisation: float
    """The share of that peak which training reaches: an assumption."""
    memory: float
    """Of one GPU, in 10^9 bytes."""


@dataclass(frozen=True)
class Workload:
    """What a run trains on, and how."""

    rows: int
    tokens: int
    """In one epoch."""
    epochs: int
    max_length: int
    """Tokens of the longest row."""
    batch_size: int
    """Rows in a micro-batch."""
    checkpoints: int
    """Kept at the end."""
    has_base_model: bool = False
    """Whether a KL term needs the untuned model beside."""
    adapter_rank: int = 0
    """Of LoRA on every linear layer; 0 where all weights are trained."""
    four_bit: bool = False
    """Whether the frozen weights take half a byte each, and every process holds them all."""


@dataclass(frozen=True)
class Estimate:
    """What one run needs."""

    tokens: int
    """Over all epochs."""
    hours: float
    memory: float
    """A GPU's, in 10^9 bytes."""
    disk: float
    """At most at any time, in 10^9 bytes."""
    kept_disk: float
    """Of that disk, what the finished run keeps."""

    def line(self, gpus: int) -> str:
        """Return the estimate in words, for so many GPUs (0: a CPU)."""
        where = "1 process on the CPU, hours not estimated"
        if gpus:
            hours = f"about {duration(3600 * self.hours)} ({two_digits(self.hours * gpus)} GPU-hours)"
            where = f"{gpus} GPU{'s' if gpus > 1 else ''}, {hours}"
        return (
            f"{where}, {two_digits(self.memory)} GB of memory each, {self.disk:.3g} GB of disk "
            f"({self.kept_disk:.3g} GB once finished)"
        )


def two_digits(value: float) -> str:
    """Return a number by two digits, or all of its whole part: 0.13, 73, 144; never with an exponent."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.001 else "less than 0.001"


def model_size(name: str) -> ModelSize | None:
    """Return the size of a model by a folder's config.json, or by its name; None for one not known here."""
    try:
        config = json.loads(_config_file(name).read_text(encoding="utf-8"))
        return size_of_config(config)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    # Another model's name may begin so; what it ends with says how it was tuned.
    of_name = name.lower().rstrip("/").rpartition("/")[2]
    return next((size for known, size in KNOWN.items() if re.fullmatch(f"{known}{_TUNED}", of_name)), None)


# What a name adds to that of the model before tuning.
_TUNED = r"(-(hf|chat|instruct|base))*"


def _config_file(name: str) -> Path:
    """Return where a model's config.json is: in its folder, or in the hub's cache."""
    if not Path(name).is_dir() and name.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return Path(cached)
    return Path(name) / "config.json"


def size_of_config(config: Mapping[str, Any]) -> ModelSize:
    """Return the size of a model by its config.json; a mixture's experts are counted all.

    Raises:
        KeyError, TypeError, ValueError: it is none of a decoder's.
    """
    config = {**config, **config.get("text_config", {})}
    layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or width // heads)
    key_values = head * int(config.get("num_key_value_heads") or heads)
    inner = int(config.get("intermediate_size") or config["ffn_dim"])
    vocabulary = int(config["vocab_size"]) * (1 if config.get("tie_word_embeddings") else 2)
    gated = "ffn_dim" not in config
    experts = int(config.get("num_experts") or config.get("num_local_experts") or 1)
    of_expert = int(config.get("moe_intermediate_size") or inner) if experts > 1 else inner
    # Attention's four matrices, and the MLP's three, or two without a gate.
    layer = 2 * width * (heads * head + key_values) + experts * (3 if gated else 2) * width * of_expert
    return ModelSize(layers * layer + vocabulary * width, layers, width, key_values, inner, gated)


def operations_per_token(size: ModelSize, tokens_per_row: float) -> float:
    """Return the operations that training on a token takes: 6 N, and 6 L d s for causal attention (N
    parameters, L layers of width d, rows of s tokens)."""
    return 6 * size.parameters + 6 * size.layers * size.width * tokens_per_row


def training_hours(size: ModelSize, tokens: float, tokens_per_row: float, hardware: Hardware) -> float:
    """Return the hours for so many tokens: their operations over the GPUs' peak times its utilisation."""
    per_second = max(hardware.gpus, 1) * hardware.tflops * 1e12 * hardware.utilisation
    return operations_per_token(size, tokens_per_row) * tokens / per_second / 3600


def hours_in_words(hours: float) -> str:
    """Return a time in seconds, minutes or hours."""
    if hours * 60 < 2:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:,.3g} h"


def estimate(size: ModelSize, work: Workload, hardware: Hardware) -> Estimate:
    """Return what a run needs.

    Hours as `training_hours`, of adapters two thirds, for frozen weights need no gradient of their own (2 N
    forward and 2 N for what flows back, of 6 N). Memory: `STATE_BYTES` a trained parameter over the GPUs (2
    more for a KL term's base model), 2 for a frozen one (half, and on every GPU, in 4 bits), and
    `ModelSize.activation_bytes` of a micro-batch of rows of `max_length`. Disk: the model in bfloat16, and
    one checkpoint more than are kept, for the next is written before the oldest goes; the kept ones stay."""
    tokens, gpus = work.tokens * work.epochs, max(hardware.gpus, 1)
    hours = training_hours(size, tokens, work.tokens / max(work.rows, 1), hardware)
    trained = size.adapter_parameters(work.adapter_rank) if work.adapter_rank else size.parameters
    frozen = 0.0
    if work.adapter_rank:
        hours *= 2 / 3
        frozen = size.parameters * (0.5 if work.four_bit else 2 / gpus)
    # On GPUs a sweep runs under DeepSpeed.
    kept = size.activation_bytes(autocast=not hardware.gpus)
    activations = kept * size.layers * work.max_length * work.batch_size
    base = 2 * size.parameters * work.has_base_model * (not work.adapter_rank)
    memory = (trained * STATE_BYTES + base) / gpus + frozen + activations
    kept_disk = 2 * size.parameters + trained * CHECKPOINT_BYTES * work.checkpoints
    disk = kept_disk + trained * CHECKPOINT_BYTES
    return Estimate(tokens, hours, memory / 1e9, disk / 1e9, kept_disk / 1e9)
