"""How much a step has to compute, and which share of a GPU's peak that is: model FLOPs utilisation (MFU).

A multiplication and an addition count as two. Of a row of n tokens, of which w have a loss:

- the layers' matrices, N numbers in all: 2 N n forward; as much for the gradient of what they are applied to;
  as much again for their own, where they are trained. Trained: 6 N n. Frozen, under adapters: 4 N n. The
  adapters, A numbers: 6 A n.
- the output head, V x d: 2 V d w forward, and as for the layers behind it; on the w tokens with a loss alone.
- attention, causal, L layers with heads of a total width h: a token sees itself and those before it, so the
  products of queries with keys and of scores with values take 2 x 2 h n (n + 1) / 2 a layer, and twice that
  behind: 6 L h n (n + 1).

Embeddings, norms, softmax, the optimiser and what is computed twice (gradient checkpointing) do not count.
MFU is that, a second, over the peak of dense products in bfloat16."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Dense products in bfloat16, 10^12 operations a second, by NVIDIA's data sheets of the SXM cards.
PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "B200": 2250.0, "A100": 312.0}


@dataclass(frozen=True)
class Sizes:
    """What decides a step's operations."""

    layers: int
    heads_width: int
    """Of all heads together."""
    matrices: int
    """Numbers in the layers' matrices."""
    head: int
    """Numbers in the output head."""
    adapters: int = 0
    """Numbers in adapters on frozen matrices; 0 where all is trained."""

    @classmethod
    def of(cls, model: Any, config: Any) -> "Sizes":
        """Return the sizes of a model, with adapters or without.

        Args:
            config: of the language model.
        """
        layers = {name: w for name, w in model.named_parameters() if ".layers." in name and w.ndim == 2}
        adapters = sum(w.numel() for name, w in layers.items() if ".lora_" in name)
        width = config.num_attention_heads * (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        return cls(
            config.num_hidden_layers,
            width,
            sum(w.numel() for w in layers.values()) - adapters,
            config.vocab_size * config.hidden_size,
            adapters,
        )

    def operations(self, lengths: Sequence[int], with_loss: int) -> float:
        """Return the operations of a step on rows of these lengths, `with_loss` of whose tokens have one."""
        tokens = sum(lengths)
        passes = 4 if self.adapters else 6
        products = passes * (self.matrices * tokens + self.head * with_loss) + 6 * self.adapters * tokens
        seen = sum(length * (length + 1) for length in lengths)
        return float(products + 6 * self.layers * self.heads_width * seen)


def peak_tflops(device_name: str) -> float | None:
    """Return the peak of a card by its name; None for one that is not listed."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)
