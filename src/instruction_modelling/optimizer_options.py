"""The options of the optimiser and of its learning rate, and what does not go together among them."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class OptimizerOptions:
    """Optimiser."""

    recipe: Literal["paper", "released"] = "paper"
    """The paper's stated settings, or those of the released code: its masks, KL term, groups of rows that
    blocks are cut from, AdamW betas and epsilon, no clipping, its schedule's end and its scaling of an
    epoch's last, partial step. Flags given by hand win."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or plain SGD."""
    learning_rate: float = 2e-5
    """Peak learning rate."""
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = "linear"
    """Shape of the learning rate after warm-up."""
    warmup_ratio: float = 0.03
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.0
    """Weight decay (on all weights but biases and norms)."""
    adam_beta1: float = 0.9
    """AdamW's decay of the first moment."""
    adam_beta2: float | None = None
    """AdamW's decay of the second moment (default: paper 0.98, released 0.999)."""
    adam_epsilon: float | None = None
    """AdamW's epsilon (default: paper 1e-6, released 1e-8)."""
    clip_grad_norm: float | None = None
    """Largest norm of a step's gradient, -1 for no clipping (default: paper 1.0, released -1)."""
    use_8bit_optimizer: bool = False
    """AdamW with 8-bit states (needs bitsandbytes)."""
    weights_in: Literal["float32", "bf16"] = "float32"
    """bf16: trained weights and gradients in bfloat16, AdamW's states in one byte a number, all rounded by
    chance, so that small updates count on average: 6 bytes a weight, not 16, for a 7B model's full tuning on
    one 80 GB GPU. Less exact than float32: take that where it fits."""
    mixed_precision: Literal["no", "bf16"] | None = None
    """bf16: matrix products in bfloat16, weights and optimiser in float32 (default: what the launcher says,
    else bf16 on a GPU that has it, and no elsewhere)."""

    def optimizer_problems(self, has_adapters: bool) -> list[str]:
        """Return what does not go together, in words."""
        if self.weights_in != "bf16":
            return []
        adapters = "leave it out: adapters train in float32, and frozen weights take two bytes in any case"
        clashes = {
            adapters: has_adapters,
            "has an AdamW of its own: leave out --optimizer sgd": self.optimizer != "adamw",
            "has states of one byte of its own: leave out --use_8bit_optimizer": self.use_8bit_optimizer,
            "computes in bfloat16: leave out --mixed_precision no": self.mixed_precision == "no",
        }
        return [f"--weights_in bf16: {words}" for words, clash in clashes.items() if clash]
