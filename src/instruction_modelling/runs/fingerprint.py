"""What makes a run this run: the options, the data and the model that its continuation must not change."""

import functools
import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files.stamps import differing
from instruction_modelling.runs.run_date import TEMPLATE_DATE

if TYPE_CHECKING:
    from torch import nn

# Changing one of these makes another run; everything else may change between a run and its continuation.
RUN_OPTIONS = (
    "use_lm_loss",
    "instruction_loss_weight",
    "response_loss_weight",
    "template_loss_weight",
    "loss_weights",
    "train_turns",
    "mask_style",
    "loss_normalization",
    "loss_denominator",
    "max_seq_length",
    "overlong",
    "chat_format",
    "chat_template_kwargs",
    "end_of_turn",
    "history",
    "use_lm_modelling",
    "block_size",
    "compile",
    "use_lora",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_modules_to_save",
    "use_dora",
    "use_qlora",
    "num_train_epochs",
    "max_train_steps",
    "seed",
    "deterministic",
    "neftune_alpha",
    "apply_kl_div_loss",
    "kl_penalty_ctl",
    "kl_estimator",
    "kl_direction",
    "recipe",
    "optimizer",
    "learning_rate",
    "muon_momentum",
    "lr_scheduler_type",
    "min_lr_ratio",
    "decay_ratio",
    "decay_type",
    "warmup_ratio",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "clip_grad_norm",
    "use_8bit_optimizer",
    "weights_in",
    "early_stopping_patience",
    "keep_best",
)
# With dropout on, masks are drawn in the order of computation, so the layout decides too.
LAYOUT_OPTIONS = ("packing", "max_tokens_per_device", "per_device_train_batch_size", "padding_side")
MODEL_SHA256, PRECISION = "model before tuning sha256", "mixed precision"
PROCESSES = "processes (with dropout)"
QUOTAS = "examples of each file an epoch"
# Numbers taken of each weight into its hash.
SAMPLED = 64


def weights_sha256(model: "nn.Module") -> str:
    """Return a hash of a loaded model: of its weights' names and shapes, and of numbers spread over each.

    It is not the identity of a folder (`models.identity`): it is taken of the tensors that are in memory,
    which ZeRO-3 has already sharded in loading them, so a run whose model came from the hub, or from a folder
    that was moved or written over in place, is told by what it trains. 4-bit weights, which are packed by
    device, are left out. Where DeepSpeed shards, every rank has to call this; where FSDP lets one rank load
    the weights, that one's hash counts.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if not weight.is_floating_point() or weight.is_meta:
            continue
        with _gathered(weight):
            numbers = weight.detach().flatten()
            numbers = numbers[:: max(1, len(numbers) // SAMPLED)][:SAMPLED].float().cpu()
            digest.update(f"{name} {tuple(weight.shape)}".encode() + numbers.numpy().tobytes())
    return digest.hexdigest()


def _gathered(weight: "nn.Parameter") -> AbstractContextManager[Any]:
    if not hasattr(weight, "ds_tensor"):
        return nullcontext()
    from deepspeed import zero

    return zero.GatheredParameters([weight])


@dataclass(frozen=True)
class RunInputs:
    """What a run is made from, beside its options."""

    data_sha256: str
    """Of the file of rows."""
    tokens_sha256: str
    """Of the rows' tokens and loss weights, in which a changed tokenizer or template shows."""
    model_sha256: str
    """`weights_sha256` of the model before tuning."""
    precision: str
    """What is computed in, by the script's option or the launcher's."""
    batch_size: int
    """Examples a step."""
    processes: int
    dropout: bool
    """Whether the model draws any, in its adapters or by its own configuration."""
    loss_patterns: dict[str, float] | None = None
    """What --loss_patterns holds, regular expression to weight; None where it is not given."""
    measured: dict[str, Any] = field(default_factory=dict)
    """The hash of --eval_file and --eval_steps, or what --task_score goes by, where they decide which weights
    are saved, or when the run ends."""
    quotas: tuple[int, ...] | None = None
    """How many examples of each of several files an epoch has; None where it has all rows."""
    template_date: str | None = None
    """What the chat template writes as today's date, YYYY-MM-DD; None where it writes none."""


def run_fingerprint(options: dict[str, Any], inputs: RunInputs) -> dict[str, Any]:
    """Return what must stay the same for a continuation to be the same run, each by a name a user can
    read."""
    names = (*RUN_OPTIONS, *(LAYOUT_OPTIONS if inputs.dropout else ()))
    return {
        **{name: options[name] for name in names},
        "loss_patterns": inputs.loss_patterns,
        PRECISION: inputs.precision,
        "data sha256": inputs.data_sha256,
        "tokens and weights sha256": inputs.tokens_sha256,
        MODEL_SHA256: inputs.model_sha256,
        "examples a step": inputs.batch_size,
        **inputs.measured,
        **({QUOTAS: list(inputs.quotas)} if inputs.quotas else {}),
        **({TEMPLATE_DATE: inputs.template_date} if inputs.template_date else {}),
        **({PROCESSES: inputs.processes} if inputs.dropout else {}),
    }


def check_same_run(folder: Path, state: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Compare a checkpoint's fingerprint with that of the run which would go on from it.

    Args:
        state: the checkpoint's manifest.

    Raises:
        UserError: the checkpoint belongs to another run; names what differs.
    """
    before = dict(state.get("fingerprint", {}))
    names = dict.fromkeys([*before, *fingerprint])
    if TEMPLATE_DATE not in before:
        # Saved before dates were: the hash of the tokens, which hold it, decides.
        names.pop(TEMPLATE_DATE, None)
    before, now = ({name: option_of(facts, name) for name in names} for facts in (before, fingerprint))
    changed = set(differing(before, now))
    if not changed:
        return
    lines = [f"  - {name}: {before[name]!r} then, {now[name]!r} now" for name in names if name in changed]
    if changed & {*LAYOUT_OPTIONS, PROCESSES}:
        lines.append("The model draws dropout in the order of computation, so another layout is another run.")
    if PRECISION in changed and before[PRECISION] == "no":
        lines.append("A GPU computes in bfloat16 by default; --mixed_precision no goes on in float32.")
    lines.append("Use the same values, or start anew in another --output_dir")
    raise UserError("\n".join([f"{folder} belongs to another run:", *lines]))


def option_of(recorded: Mapping[str, Any], name: str) -> Any:
    """Return the value of an option (or another fact) in what a run has recorded; the option's default where
    it was recorded before there was such an option."""
    if name == "max_tokens_per_device" and recorded.get("packing") and recorded.get(name) is None:
        # Before the default went by device, it was this.
        return max(int(recorded.get("max_seq_length") or 0), int(recorded.get("block_size") or 0))
    if name in recorded:
        return recorded[name]
    if name == PRECISION:
        # Before a GPU computed in bfloat16 by default, what nobody asked for was this.
        return "no"
    if name == "kl_estimator":
        # Every KL term was exact before there was a choice, under either recipe.
        return "exact" if recorded.get("apply_kl_div_loss") else None
    return _defaults(str(recorded.get("recipe", "paper"))).get(name)


@functools.cache
def _defaults(recipe: str) -> dict[str, Any]:
    """Return the value that every option has where it is not given."""
    from instruction_modelling.options import FinetuneOptions

    return FinetuneOptions("", recipe=recipe).with_recipe().as_dict()  # type: ignore[arg-type]
