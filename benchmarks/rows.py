"""The rows of the table: what is measured, in which unit, and who takes part."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

OURS = "here"


@dataclass(frozen=True)
class Contender:
    """One way to do a row's work."""

    name: str
    function: str
    """`module:name` below benchmarks.contenders."""
    settings: dict[str, Any] = field(default_factory=dict)
    process: str = ""
    """Contenders that name one process share it, and so the memory of one model."""
    note: str = ""
    """Why it does not do the same work, in words; it is shown, and no verdict rests on it."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    """By which --only chooses it."""
    title: str
    unit: str
    measure: str
    """The reading that is compared: the name of a count, for a rate of it by second; or of a cost."""
    contenders: tuple[Contender, ...]
    """Ours first."""
    settings: dict[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True
    fresh: bool = False
    """Each turn is a whole run in a new process."""
    floor: str = ""
    """A contender that shows the least that the work can cost: shown, and no verdict rests on it."""


# What the first row of training shows to be slower than its neighbour is not measured in each.
SLOWER = ("plain loop, padded 8", "TRL, 1 at a time")


def installed(package: str) -> bool:
    """Return whether a peer is there; one that is not is named in the results."""
    return importlib.util.find_spec(package) is not None


def training_row(arm: str, precision: str, lora: bool = False) -> Row:
    """Return the row of updates of one arm in one precision, all weights or adapters."""
    plain, trl = "plain_loop:train", "trl_trainer:train"
    contenders = [
        Contender(OURS, "ours:train", {"layout": "packed"}),
        Contender("plain loop, 1 at a time", plain, {"size": 1, "loss": "example"}, "plain"),
        Contender("plain loop, padded 8", plain, {"size": 8, "loss": "micro_batches"}, "plain"),
        Contender("plain loop, padded 8 by length", plain, {"size": 8, "sort": True}, "plain"),
        Contender("TRL, padded 8", trl, {"size": 8, "loss": "token"}),
        Contender("TRL, 1 at a time", trl, {"size": 1, "loss": "token"}),
        Contender("TRL, packing", trl, {"size": 1, "packing": True}),
        Contender("litgpt, padded 8", "litgpt_loop:train", {"size": 8, "loss": "micro_batches"}),
    ]
    if (arm, precision, lora) != ("im", "bf16", False):
        contenders = [one for one in contenders if one.name not in SLOWER]
    if lora or not installed("litgpt"):
        contenders = [one for one in contenders if not one.function.startswith("litgpt")]
    what = f"{arm.upper()}, {'LoRA, ' if lora else ''}{precision}"
    return Row(
        f"training-{'lora-' if lora else ''}{arm}-{precision}",
        f"training, {what}",
        "tokens per second",
        "tokens",
        tuple(contenders),
        {"arm": arm, "precision": precision, "lora": lora},
    )


def encoding_row(kind: str) -> Row:
    """Return the row of text to tokens, kinds and masks."""
    contenders = (
        Contender(OURS, "encoding:ours"),
        Contender("TRL, messages", "encoding:trl", {"format": "messages"}, note="no masks are made"),
        Contender("TRL, prompt and completion", "encoding:trl", {"format": "completion"}),
        Contender("datasets.map and apply_chat_template", "encoding:plain", note="no masks are made"),
    )
    return Row(
        f"encoding-{kind}",
        f"encoding, {kind} rows",
        "tokens per second",
        "tokens",
        contenders,
        {"kind": kind},
    )


def fresh_row(name: str, title: str, unit: str, measure: str) -> Row:
    """Return a row of whole runs of one update; all such rows come from the same runs."""
    settings = {"raw": True, "fresh": True}
    contenders = (
        Contender(OURS, "ours:train", {"layout": "packed", **settings}),
        Contender("plain loop, padded 8", "plain_loop:train", {"size": 8, **settings}),
        Contender("TRL, padded 8", "trl_trainer:train", {"size": 8, **settings}),
    )
    return Row(
        name,
        title,
        unit,
        measure,
        contenders,
        {"arm": "im", "precision": "fp32", "lora": False},
        higher_is_better=False,
        fresh=True,
    )


def loss_row(tokens: int, measure: str, unit: str) -> Row:
    """Return the row of the loss alone, forward and backward, of hidden states to gradients."""
    contenders = (Contender(OURS, "loss_only:ours"), Contender("whole logits", "loss_only:whole"))
    what = "memory" if measure == "peak_mb" else "time"
    return Row(
        f"loss-{what}-{tokens}",
        f"{what} of the loss, {tokens:,} tokens",
        unit,
        measure,
        contenders,
        {"tokens": tokens},
        higher_is_better=False,
    )


def scoring_row(precision: str) -> Row:
    """Return the row of the loss of a model whose weights are in this precision."""
    contenders = (
        Contender(OURS, "scoring:ours"),
        Contender("transformers, one at a time", "scoring:plain", {"size": 1}, "plain"),
        Contender("transformers, padded 8 by length", "scoring:plain", {"size": 8}, "plain"),
    )
    name, title = f"scoring-{precision}", f"scoring, {precision}"
    return Row(name, title, "tokens per second", "tokens", contenders, {"precision": precision})


def all_rows(quick: bool) -> list[Row]:
    """Return the rows in the order in which they are measured."""
    rows = [training_row("im", "bf16"), training_row("it", "bf16"), training_row("im", "fp32")]
    if not quick:
        rows += [training_row("it", "fp32"), training_row("im", "bf16", lora=True)]
    rows += [encoding_row("long"), encoding_row("short")]
    rows += [scoring_row("fp32"), scoring_row("bf16")]
    generation = (
        Contender(OURS, "generation:ours"),
        Contender("transformers, batches of 8", "generation:plain", {"size": 8}, "plain"),
        Contender("transformers, batches of 16", "generation:plain", {"size": 16}, "plain"),
        Contender("transformers, batches of 32", "generation:plain", {"size": 32}, "plain"),
    )
    rows.append(
        Row("generation", "generation (src/generate.py)", "new tokens per second", "new_tokens", generation)
    )
    rows += [
        fresh_row("start-up", "start-up to the first step", "seconds", "start_up"),
        fresh_row("saving", "last step to saved model", "seconds", "saving"),
        fresh_row("memory", "peak memory of a run", "MB", "peak_bytes"),
    ]
    not_verified = "nothing is flushed, hashed or read back"
    checkpoints = (
        Contender(OURS, "checkpoints:ours"),
        Contender("accelerate's save_state, flushed and hashed", "checkpoints:plain", {"verified": True}),
        Contender("accelerate's save_state", "checkpoints:plain", {"verified": False}, note=not_verified),
    )
    rows.append(
        Row("checkpoints", "checkpoints", "seconds per GB", "per_gb", checkpoints, higher_is_better=False)
    )
    sizes = (1024, 2048) if quick else (2048, 4096, 8192)
    rows += [loss_row(tokens, "peak_mb", "MB") for tokens in sizes]
    rows.append(loss_row(sizes[-2], "seconds", "seconds"))
    return rows


def chosen_rows(quick: bool, only: Sequence[str], peers: Sequence[str] = ()) -> list[Row]:
    """Return the rows whose names begin with one of `only`, with the peers whose names begin with one of
    `peers`; all where these are empty. A row that is left without a peer is left out.

    Raises:
        UserError: one of `only` begins no row's name.
    """
    from instruction_modelling.errors import UserError

    rows = all_rows(quick)
    for beginning in only:
        if not any(row.name.startswith(beginning) for row in rows):
            names = ", ".join(row.name for row in rows)
            raise UserError(f"--only {beginning}: no row is called so; there are {names}")
    rows = [row for row in rows if not only or row.name.startswith(tuple(only))]
    if peers:
        begins = (OURS, *peers)
        rows = [
            replace(row, contenders=tuple(one for one in row.contenders if one.name.startswith(begins)))
            for row in rows
        ]
    return [row for row in rows if len(row.contenders) > 1]
