"""What a training run will need, before it starts: GPUs, hours, memory and disk. Estimates by formula, not
measurements."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.literature import paper_tables
from instruction_modelling.rows.files import open_parts
from instruction_modelling.rows.json_lines import BLANK

# The fields of `ModelSize` of the paper's models, which may not be on this machine.
KNOWN = {
    "llama-2-7b": (6.738e9, 32, 4096, 4096, 11008, True),
    "llama-2-13b": (13.016e9, 40, 5120, 5120, 13824, True),
    "opt-6.7b": (6.658e9, 32, 4096, 4096, 16384, False),
}

# Files of the paper's data, which may not be there yet, by their names in its Table 5.
NAME_IN_TABLE_5 = {
    "lima_data": "LIMA",
    "mmlu-chat_adam_sim_trainp0.05_seed3_p0.05": "Less MMLU Chat",
    "tydiqa_adam_sim_trainp0.05_seed3_p0.05": "Less Tydiqa",
    "bbh-icl_adam_sim_trainp0.05_seed3_p0.05": "Less BBH ICL",
    "alpagasus_3k_dolly": "Alpagasus Dolly 3k",
    "alpagasus_9k_dolly": "Alpagasus Dolly 9k",
    "alpagasus_claude_t45_alpaca": "Alpagasus Alpaca 5k",
    "tulu_v2_data": "Tulu V2",
    "tulu_dataset_01": "Tulu V2 10 %",
    "tulu_dataset_02": "Tulu V2 20 %",
    "tulu_dataset_05": "Tulu V2 50 %",
}
TOKENS_A_WORD = 1.5
"""LIMA and AlpaGasus-Dolly-3k have 1.47 and 1.56 Llama-2 tokens a word."""

CHARACTERS_A_TOKEN = 4.0
"""Of English text, roughly; what is tokenised is counted exactly only by the run itself."""

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

    def activation_bytes(self, autocast: bool) -> int:
        """Return the bytes that one layer keeps of one token for its backward pass, its attention fused.

        Counted on a Llama's and an OPT's layer (`tests/sweeps/test_estimates.py` counts again).

        Args:
            autocast: whether float32 weights are computed in bfloat16; False where they are in bfloat16.
        """
        kind = "gated" if self.gated else "plain"
        of_width = (AUTOCAST_BYTES if autocast else HALF_BYTES)[kind] * self.width
        return of_width + KEY_VALUE_BYTES * self.key_values + INNER_BYTES[kind] * self.inner


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
            hours = f"about {self.hours:.2g} h ({self.hours * gpus:.2g} GPU-hours)"
            where = f"{gpus} GPU{'s' if gpus > 1 else ''}, {hours}"
        return (
            f"{where}, {self.memory:.2g} GB of memory each, {self.disk:.3g} GB of disk "
            f"({self.kept_disk:.3g} GB once finished)"
        )


def model_size(name: str) -> ModelSize | None:
    """Return the size of a model by its name or a folder's config.json; None for one not known here."""
    for known, size in KNOWN.items():
        if known in name.lower():
            return ModelSize(*size)
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        layers, width = int(config["num_hidden_layers"]), int(config["hidden_size"])
        heads = int(config["num_attention_heads"])
        head = int(config.get("head_dim") or width // heads)
        key_values = head * int(config.get("num_key_value_heads") or heads)
        inner = int(config.get("intermediate_size") or config["ffn_dim"])
        vocabulary = int(config["vocab_size"]) * (1 if config.get("tie_word_embeddings") else 2)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Attention's four matrices, and the MLP's three, or two without a gate.
    gated = "ffn_dim" not in config
    layer = 2 * width * (heads * head + key_values) + (3 if gated else 2) * width * inner
    return ModelSize(layers * layer + vocabulary * width, layers, width, key_values, inner, gated)


def tokens_in(path: Path, max_length: int) -> tuple[int, int]:
    """Return the rows of a file of conversations and their tokens, each row cut at `max_length`.

    Tokens are estimated by characters, or for a file of the paper's that is not there by its Table 5.

    Raises:
        OSError: the file is not there, and not the paper's.
        UserError: it cannot be read.
    """
    if path.stem in NAME_IN_TABLE_5 and not path.is_file():
        name = NAME_IN_TABLE_5[path.stem]
        count, words, *_ = next(
            data_set["values"] for data_set in paper_tables()["table_5"]["sets"] if data_set["name"] == name
        )
        return count, round(count * min(max_length, words * TOKENS_A_WORD))
    if not path.exists():
        raise FileNotFoundError(path)
    rows = tokens = 0
    for part in open_parts(path):
        for _, value in part.values:
            if value is not BLANK:
                rows += 1
                tokens += min(max_length, int(_characters(value) / CHARACTERS_A_TOKEN) + 1)
    return rows, tokens


def _characters(row: Any) -> int:
    try:
        return sum(len(str(message.get("content") or "")) for message in row["messages"])
    except (KeyError, TypeError, AttributeError):
        # Another shape of row: all of its values, say.
        return sum(len(str(value)) for value in row.values()) if isinstance(row, dict) else 0


def estimate(size: ModelSize, work: Workload, hardware: Hardware) -> Estimate:
    """Return what a run needs.

    Hours: (6 N + 6 L d s) operations a token (N parameters, L layers, width d, s the mean row), over the
    GPUs' peak times its utilisation. Memory: `STATE_BYTES` a parameter over the GPUs (2 more for a KL term's
    base model), and `ModelSize.activation_bytes` of a micro-batch of rows of `max_length`. Disk: the model in
    bfloat16, and one checkpoint more than are kept, for the next is written before the oldest goes; the kept
    ones stay."""
    tokens_per_row = work.tokens / max(work.rows, 1)
    operations = 6 * size.parameters + 6 * size.layers * size.width * tokens_per_row
    tokens = work.tokens * work.epochs
    gpus = max(hardware.gpus, 1)
    hours = operations * tokens / (gpus * hardware.tflops * 1e12 * hardware.utilisation) / 3600
    # On GPUs a sweep runs under DeepSpeed.
    kept = size.activation_bytes(autocast=not hardware.gpus)
    activations = kept * size.layers * work.max_length * work.batch_size
    memory = size.parameters * (STATE_BYTES + 2 * work.has_base_model) / gpus + activations
    kept_disk = size.parameters * (2 + CHECKPOINT_BYTES * work.checkpoints)
    disk = kept_disk + size.parameters * CHECKPOINT_BYTES
    return Estimate(tokens, hours, memory / 1e9, disk / 1e9, kept_disk / 1e9)
