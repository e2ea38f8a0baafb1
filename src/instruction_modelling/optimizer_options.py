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
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """AdamW, plain SGD, or Muon: torch's own on the matrices of the hidden layers, at AdamW's learning rate,
    and AdamW on all other weights (embeddings, head, biases, norms)."""
    muon_momentum: float = 0.95
    """Muon's momentum."""
    learning_rate: float = 2e-5
    """Peak learning rate."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "warmup_stable_decay",
    ] = "linear"
    """Shape of the learning rate after warm-up; warmup_stable_decay keeps its peak until it falls in the last
    --decay_ratio of the steps."""
    min_lr_ratio: float = 0.0
    """Where linear, cosine and warmup_stable_decay end: the share of the peak (the last also begins its
    warm-up there)."""
    decay_ratio: float = 0.1
    """Share of the steps over which warmup_stable_decay falls."""
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """How it falls."""
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
        schedule, problems = self.lr_scheduler_type, []
        if self.min_lr_ratio and schedule not in ("linear", "cosine", "warmup_stable_decay"):
            problems.append(
                f"--min_lr_ratio: {schedule} has an end of its own; it is for linear, cosine and "
                "warmup_stable_decay"
            )
        if schedule == "warmup_stable_decay" and self.warmup_ratio + self.decay_ratio > 1:
            problems.append(
                f"--warmup_ratio {self.warmup_ratio:g} and --decay_ratio {self.decay_ratio:g}: together more "
                "than all steps"
            )
        if schedule != "warmup_stable_decay" and (self.decay_ratio, self.decay_type) != (0.1, "linear"):
            problems.append(
                "--decay_ratio and --decay_type: give --lr_scheduler_type warmup_stable_decay too"
            )
        if self.optimizer != "muon" and self.muon_momentum != 0.95:
            problems.append("--muon_momentum: give --optimizer muon too")
        adapters = "leave it out: adapters train in float32, and frozen weights take two bytes in any case"
        half = {
            adapters: has_adapters,
            f"has an AdamW of its own: leave out --optimizer {self.optimizer}": self.optimizer != "adamw",
            "has states of one byte of its own: leave out --use_8bit_optimizer": self.use_8bit_optimizer,
            "computes in bfloat16: leave out --mixed_precision no": self.mixed_precision == "no",
        }
        if self.weights_in == "bf16":
            problems += [f"--weights_in bf16: {words}" for words, clash in half.items() if clash]
        muon = {
            "trains whole matrices, and adapters are parts of some: leave one out": has_adapters,
            "has no 8-bit states: leave out --use_8bit_optimizer": self.use_8bit_optimizer,
        }
        if self.optimizer == "muon":
            problems += [f"--optimizer muon: {words}" for words, clash in muon.items() if clash]
        if self.optimizer == "sgd" and self.use_8bit_optimizer:
            problems.append("--use_8bit_optimizer: is AdamW's; leave out --optimizer sgd")
        return problems
