"""What the values of single options must be, whatever the others say."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What the values of some options must be; None, an option that is not given, always passes."""

    names: tuple[str, ...]
    holds: Callable[[Any], bool]
    words: str


# OWNER/NAME of a model on a hub, or NAME.
_HUB_NAME = re.compile(r"(?:\w[\w.-]*/)?\w(?:[\w.-]*\w)?", re.ASCII)


HUB_NAMES = "a model on a hub is called OWNER/NAME, of letters, digits, -, _ and ."


def is_hub_name(name: str) -> bool:
    """Return whether a model on a hub can be called so."""
    return len(name) <= 96 and bool(_HUB_NAME.fullmatch(name)) and "--" not in name and ".." not in name


RULES = (
    Rule(
        (
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "lora_rank",
            "logging_steps",
            "max_train_steps",
            "num_train_epochs",
            "save_total_limit",
            "eval_steps",
            "early_stopping_patience",
            "sample_steps",
            "sample_tokens",
            "max_tokens_per_device",
            "preprocessing_num_workers",
        ),
        lambda value: value >= 1,
        "must be 1 or more",
    ),
    Rule(
        (
            "learning_rate",
            "weight_decay",
            "warmup_ratio",
            "neftune_alpha",
            "kl_penalty_ctl",
            "lora_alpha",
            "adam_epsilon",
            "max_bad_rows",
            "check_answers",
        ),
        lambda value: math.isfinite(value) and value >= 0,
        "must be a finite number, 0 or more",
    ),
    Rule(
        ("lora_dropout", "adam_beta1", "adam_beta2", "muon_momentum", "min_lr_ratio"),
        lambda value: 0 <= value < 1,
        "must be 0 or more and less than 1",
    ),
    # Linux answers probes of a full connection at most twice a second, and rarer ones later.
    Rule(("lost_after",), lambda value: value == 0 or value >= 5, "must be 5 seconds or more, or 0"),
    Rule(("warmup_ratio",), lambda value: not value > 1, "a share, at most 1"),
    Rule(("lora_rank",), lambda value: value <= 2**16, "at most 65,536, more than any layer is wide"),
    Rule(("decay_ratio",), lambda value: 0 < value <= 1, "a share, more than 0 and at most 1"),
    Rule(
        ("clip_grad_norm",), lambda value: not (value <= 0 and value != -1), "a positive norm, or -1 for none"
    ),
    Rule(
        ("checkpointing_steps",),
        lambda value: value in ("", "epoch") or bool(value.isdigit() and int(value)),
        "a number of steps, or epoch",
    ),
    Rule(("push_to_hub",), is_hub_name, HUB_NAMES),
    Rule(("seed",), lambda value: value >= 0, "0 or more"),
    Rule(
        ("max_seq_length", "block_size"),
        lambda value: value >= 2,
        "must be 2 or more, since a loss needs a token before it",
    ),
)

# Launchers made for the released code write these in every command: with their defaults they ask for nothing.
ALWAYS_PASSED = ("kl_penalty_ctl", "lora_rank", "lora_alpha", "lora_dropout")
# Options that say nothing without one of others: given alone, they would be ignored.
NEEDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("kl_penalty_ctl", "kl_estimator", "kl_direction"), ("apply_kl_div_loss",)),
    (
        (
            *("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"),
            *("lora_modules_to_save", "use_dora"),
        ),
        ("use_lora", "use_qlora"),
    ),
    (("block_size",), ("use_lm_modelling",)),
    (("eval_steps", "eval_kl"), ("eval_file",)),
    (("early_stopping_patience", "keep_best"), ("eval_file", "task_score")),
    (("sample_steps", "sample_tokens", "task_score"), ("sample_file",)),
    (("compile",), ("packing",)),
    (("hub_public",), ("push_to_hub",)),
    (("dataset_config_name",), ("dataset_name",)),
    (("proportions",), ("train_file",)),
)
