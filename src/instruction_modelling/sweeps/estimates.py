"""What a training run will need, before it starts: GPUs, hours, memory and disk. Estimates by formula, not
measurements."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instruction_modelling.analysis.literature import paper_tables
from instruction_modelling.rows.files import open_parts
from instruction_modelling.rows.json_lines import BLANK

# Parameters, layers and width of the paper's models, which may not be on this machine.
KNOWN = {
    "llama-2-7b": (6.738e9, 32, 4096),
    "llama-2-13b": (13.016e9, 40, 5120),
    "opt-6.7b": (6.658e9, 32, 4096),
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
ACTIVATION_BYTES = 34
"""A token, layer and unit of width: what a layer keeps for its backward pass (Korthikanti et al., arXiv
2205.05198, Eq. 2 without the term of attention scores, which fused attention does not keep)."""


@dataclass(frozen=True)
class ModelSize:
    """Parameters, layers and hidden units of a model."""

    parameters: float
    layers: int
    width: int


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
        key_values = width * int(config.get("num_key_value_heads") or heads) // heads
        inner = int(config.get("intermediate_size") or config["ffn_dim"])
        vocabulary = int(config["vocab_size"]) * (1 if config.get("tie_word_embeddings") else 2)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Attention's four matrices and a gated MLP's three.
    layer = 2 * width * (width + key_values) + 3 * width * inner
    return ModelSize(layers * layer + vocabulary * width, layers, width)


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
    base model), and the activations of a micro-batch of rows of `max_length`. Disk: the model in bfloat16,
    and one checkpoint more than are kept, for the next is written before the oldest goes; the kept ones
    stay."""
    tokens_per_row = work.tokens / max(work.rows, 1)
    operations = 6 * size.parameters + 6 * size.layers * size.width * tokens_per_row
    tokens = work.tokens * work.epochs
    gpus = max(hardware.gpus, 1)
    hours = operations * tokens / (gpus * hardware.tflops * 1e12 * hardware.utilisation) / 3600
    activations = ACTIVATION_BYTES * size.layers * size.width * work.max_length * work.batch_size
    memory = size.parameters * (STATE_BYTES + 2 * work.has_base_model) / gpus + activations
    kept = size.parameters * (2 + CHECKPOINT_BYTES * work.checkpoints)
    disk = kept + size.parameters * CHECKPOINT_BYTES
    return Estimate(tokens, hours, memory / 1e9, disk / 1e9, kept / 1e9)
