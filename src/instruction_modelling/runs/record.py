"""What run.json says of a run: its options, data, model, steps and environment."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from instruction_modelling.called import this_command
from instruction_modelling.models.adapters import adapter_layers
from instruction_modelling.models.loading import causal_model
from instruction_modelling.progress import counted
from instruction_modelling.rows.conversations import ConversationFile, bad_rows_table
from instruction_modelling.runs.environment import git_commit, machine, versions
from instruction_modelling.runs.members import describe_members
from instruction_modelling.tokens.encoded import EncodedData
from instruction_modelling.tokens.factors import pattern_line, pattern_warnings
from instruction_modelling.tokens.idle_weights import idle_weights
from instruction_modelling.tokens.patterns import PatternMatches, pattern_facts
from instruction_modelling.tokens.quotas import Quotas
from instruction_modelling.tokens.weighted import WeightedData, count_reasons, totals_by_kind
from instruction_modelling.training.plan import StepPlan

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from instruction_modelling.options import FinetuneOptions

logger = logging.getLogger(__name__)


def describe_run(
    options: "FinetuneOptions",
    data: dict[str, Any],
    model: dict[str, Any],
    plan: StepPlan,
    accelerator: "Accelerator",
) -> dict[str, Any]:
    """Return run.json of a run that has begun.

    Args:
        data: as `describe_data` gives it.
        model: what is known of the model so far.
    """
    return {
        "finished": False,
        "arm": options.arm(),
        "options": options.as_dict(),
        "options_given": sorted(options.given),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
        "computed_in": {"device": accelerator.device.type, "mixed_precision": accelerator.mixed_precision},
        "data": data,
        "model": model,
        "steps": plan.total_steps,
        "epochs": plan.total_steps / plan.steps_per_epoch,
        "examples_per_step": plan.batch_size,
        "command": this_command(),
    }


@dataclass(frozen=True)
class UsedRows:
    """A file's rows, and which of them are trained on."""

    encoded: EncodedData
    weighted: WeightedData
    """Those that have a loss."""
    quotas: Quotas | None
    """How many of each of several files an epoch has; None where it has all."""
    dropped: Sequence[str]
    """Why each of the others has none."""
    left_out: Sequence[Mapping[str, Any]]
    """The lines of bad_rows.jsonl."""


def describe_data(options: "FinetuneOptions", file: ConversationFile, used: UsedRows) -> dict[str, Any]:
    """Return the `data` part of run.json, and say the most of it in the log."""
    encoded, weighted, quotas, dropped = used.encoded, used.weighted, used.quotas, used.dropped
    kept, counts = weighted.data, encoded.counts
    record: dict[str, Any] = {
        "path": str(file.path),
        "sha256": file.sha256,
        "rows": file.rows,
        "used": len(kept),
        "bad_rows": bad_rows_table([*file.bad_rows, *encoded.refused]),
        "dropped": count_reasons(dropped),
        "truncated_rows": counts.truncated_rows,
        "tokens_cut": counts.tokens_cut,
        "tokens": len(kept.ids),
        "control_text_rows": counts.control_text_rows,
        "straddling_tokens": counts.straddling,
        "sequences": len(kept.sequence_lengths),
        "context_tokens": len(kept.owned) - int(np.count_nonzero(kept.owned)),
        "turns_cut": counts.turns_cut,
        "prompts_differ": counts.prompts_differ,
        "by_kind": totals_by_kind(weighted, None if quotas is None else quotas.times()),
    }
    if quotas is not None:
        record["tokens_per_epoch"] = round(float((kept.lengths * quotas.times()).sum()))
    if unread := file.unread_keys():
        logger.warning("%s: keys that nothing reads: %s", file.path, unread)
    weighs_all = options.use_lm_modelling and not options.blocks_keep_weights()
    if idle := idle_weights(file, options.policy(), weighs_all):
        logger.warning("%s", idle)
    logger.info(
        "%s: %s, %s used%s, %s; %s cut at the maximum length (%s)",
        file.path,
        counted(file.rows, "row"),
        counted(len(kept), "block") if options.use_lm_modelling else f"{len(kept):,}",
        f" (left out: {_reasons(record)})" if record["bad_rows"] or dropped else "",
        counted(len(kept.ids), "token"),
        counted(counts.truncated_rows, "row"),
        counted(counts.tokens_cut, "token"),
    )
    if members := describe_members(file, used.left_out, quotas):
        record["files"] = members
    _say_how_turns_are_trained(record, len(kept))
    logger.info(
        "share of the loss: %s",
        ", ".join(
            f"{kind} {entry['loss_share']:.1%}"
            for kind, entry in record["by_kind"].items()
            if entry["loss_share"]
        ),
    )
    return record


def _reasons(record: dict[str, Any]) -> str:
    """Return why rows or blocks are left out, with counts."""
    reasons = [*record["bad_rows"].items(), *record["dropped"].items()]
    return ", ".join(f"{count} {reason}" for reason, count in reasons)


def _say_how_turns_are_trained(record: dict[str, Any], rows: int) -> None:
    """Say in the log how many sequences the rows become, and where the model is asked in another way than it
    is trained."""
    if record["sequences"] > rows and record["context_tokens"]:
        logger.info(
            "%d rows become %d sequences, %.2f times the tokens: this chat template rewrites history",
            rows,
            record["sequences"],
            record["tokens"] / max(1, record["tokens"] - record["context_tokens"]),
        )
    elif record["sequences"] > rows:
        logger.info("%d rows become %d sequences: texts beside conversations", rows, record["sequences"])
    if record["prompts_differ"]:
        logger.warning(
            "before %s the generation prompt opens something that the turn does not go on with (<think> "
            "before an answer without reasoning), so the tuned model is asked in another way than it is "
            "trained. Where the chat template has a variable for that, give it, as in "
            "--chat_template_kwargs '{\"enable_thinking\": false}'; src/inspect_weights.py shows where",
            counted(record["prompts_differ"], "turn"),
        )


def describe_patterns(matches: Sequence[PatternMatches]) -> dict[str, dict[str, Any]]:
    """Return what each of --loss_patterns weighs and matched, by its regular expression, and say it in the
    log."""
    if matches:
        logger.info("loss patterns: %s", pattern_line(matches))
    for warning in pattern_warnings(matches):
        logger.warning("%s", warning)
    return pattern_facts(matches)


def describe_model(model: "nn.Module") -> dict[str, Any]:
    """Return how many weights a model has and how many of them are trained (sharded ones count whole), of how
    many tokens the rows are trained beside adapters, where there are any, and which attention it computes."""
    sizes = [
        (getattr(weight, "ds_numel", weight.numel()), weight.requires_grad) for weight in model.parameters()
    ]
    rows = adapter_layers(model).token_rows.values()
    tokens = {token for adapters in rows for ids in adapters.values() for token in ids}
    return {
        "parameters": sum(size for size, _ in sizes),
        "trainable_parameters": sum(size for size, trained in sizes if trained),
        **({"trained_tokens": len(tokens)} if tokens else {}),
        "attention": causal_model(model).config._attn_implementation,
    }
