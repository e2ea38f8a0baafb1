"""What a training run will need, before it starts: GPUs, hours, memory and disk. Estimates by formula, not
measurements."""

import json
from dataclasses import dataclass
from pathlib import Path

# Parameters, layers and width of the paper's models, which may not be on this machine.
KNOWN = {
    "llama-2-7b": (6.738e9, 32, 4096),
    "llama-2-13b": (13.016e9, 40, 5120),
    "opt-6.7b": (6.658e9, 32, 4096),
}

# Rows and mean words of the paper's data sets (Table 5), for files that are not there yet.
KNOWN_DATA = {
    "lima_data": (1030, 484.47),
    "mmlu-chat_adam_sim_trainp0.05_seed3_p0.05": (13533, 225.19),
    "tydiqa_adam_sim_trainp0.05_seed3_p0.05": (13533, 172.44),
    "bbh-icl_adam_sim_trainp0.05_seed3_p0.05": (13533, 262.03),
    "alpagasus_3k_dolly": (2996, 111.91),
    "alpagasus_9k_dolly": (9229, 73.40),
    "alpagasus_claude_t45_alpaca": (5305, 48.29),
    "tulu_v2_data": (326181, 541.16),
    "tulu_dataset_01": (32618, 517.45),
    "tulu_dataset_02": (65236, 504.56),
    "tulu_dataset_05": (163090, 515.63),
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
class Estimate:
    """What one run needs."""

    tokens: int
    """Over all epochs."""
    hours: float
    memory: float
    """A GPU's, in 10^9 bytes."""
    disk: float
    """At most at any time, in 10^9 bytes."""
    left: float
    """Of that disk, what the finished run keeps."""

    def line(self, gpus: int) -> str:
        """In words."""
        # The hours are a GPU's: what a CPU would take is not known.
        on = f"{gpus} GPU{'s' if gpus > 1 else ''}, about {self.hours:.2g} h ({self.hours * gpus:.2g} GPU-hours)"
        return (
            f"{on if gpus else '1 process on the CPU, hours not estimated'}, {self.memory:.2g} GB of memory "
            "each, "
            f"{self.disk:.3g} GB of disk ({self.left:.3g} GB once finished)"
        )


def model_size(name: str) -> ModelSize | None:
    """The size of a model by its name or, in a folder, its config.json; None for one not known here."""
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
    """Rows of a JSON Lines file of conversations and their tokens, each row cut at `max_length`: by
    characters, or for a file of the paper's that is not there by its table.

    Raises:
        OSError: the file is not there, and not the paper's.
    """
    rows = tokens = 0
    if path.stem in KNOWN_DATA and not path.is_file():
        rows, words = KNOWN_DATA[path.stem]
        return rows, round(rows * min(max_length, words * TOKENS_A_WORD))
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            if not line.strip():
                continue
            rows += 1
            try:
                characters = sum(
                    len(str(message.get("content") or "")) for message in json.loads(line)["messages"]
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                # Another shape of row: all of it but its punctuation and keys, say.
                characters = len(line)
            tokens += min(max_length, int(characters / CHARACTERS_A_TOKEN) + 1)
    return rows, tokens


def estimate(
    size: ModelSize,
    rows: int,
    tokens: int,
    epochs: int,
    max_length: int,
    batch_size: int,
    hardware: Hardware,
    checkpoints: int,
    base_model: bool = False,
) -> Estimate:
    """What a run over `rows` rows of `tokens` tokens needs.

    Hours: (6 N + 6 L d s) operations a token (N parameters, L layers, width d, s the mean row), over the
    GPUs' peak times its utilisation. Memory: `STATE_BYTES` a parameter over the GPUs (2 more for a KL term's
    base model), and the activations of a micro-batch of `batch_size` rows of `max_length`. Disk: the model in
    bfloat16, and one checkpoint more than are kept, for the next is written before the oldest goes; the kept
    ones stay."""
    mean = tokens / max(rows, 1)
    operations = (6 * size.parameters + 6 * size.layers * size.width * mean) * tokens * epochs
    gpus = max(hardware.gpus, 1)
    hours = operations / (gpus * hardware.tflops * 1e12 * hardware.utilisation) / 3600
    activations = ACTIVATION_BYTES * size.layers * size.width * max_length * batch_size
    memory = size.parameters * (STATE_BYTES + 2 * base_model) / gpus + activations
    left = size.parameters * (2 + CHECKPOINT_BYTES * checkpoints)
    disk = left + size.parameters * CHECKPOINT_BYTES
    return Estimate(tokens * epochs, hours, memory / 1e9, disk / 1e9, left / 1e9)
