"""One run of src/finetune.py: what it gathers, and what follows from that."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.options import FinetuneOptions
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.runs.best import Best
from instruction_modelling.training.at_hand import AtHand

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.chat.formats import ChatFormat
    from instruction_modelling.rows.conversations import ConversationFile
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.runs.model import SavedForm
    from instruction_modelling.tokens.quotas import Quotas
    from instruction_modelling.tokens.weighted import WeightedData
    from instruction_modelling.training.evaluation_rows import EvaluationRows
    from instruction_modelling.training.plan import Layout, StepPlan
    from instruction_modelling.training.step_totals import NllSums


@dataclass
class Run:
    """One run: what `tune` gathers, step by step, and every function below reads."""

    options: FinetuneOptions
    accelerator: "Accelerator"
    folder: "RunFolder"
    stop: StopSignals
    checkpoint: Path | None = None
    """Where the run goes on from."""
    data: "Data" = field(init=False)
    plan: "StepPlan" = field(init=False)
    """Which examples meet in each step."""
    layout: "Layout" = field(init=False)
    """How a step is laid out as micro-batches."""
    record: dict[str, Any] = field(init=False)
    """What run.json says."""
    model: Any = field(init=False)
    """A `LossModel`, prepared for the processes at hand."""
    optimizer: Any = field(init=False)
    window: "NllSums" = field(init=False)
    """Losses by span kind and data set since the last logged step."""
    model_sha256: str = field(init=False)
    """Of the model before tuning: a continuation must start from the same one."""
    done: int = 0
    """Steps done."""
    samples: Any = None
    """The prompts of --sample_file (`generation.samples.SamplePrompts`), where it is given."""
    best: Best = field(default_factory=Best)
    """The best measurement of --eval_file, or by --task_score."""
    at_hand: AtHand = field(default_factory=AtHand)

    def ended(self) -> bool:
        """Return whether every step is done, or the measurements ended the run before."""
        return self.done == self.plan.total_steps or self.best.exhausted(self.options.early_stopping_patience)


@dataclass
class Data:
    """The rows to train on and what they came from."""

    file: "ConversationFile"
    tokenizer: "PreTrainedTokenizerBase"
    chat_format: "ChatFormat"
    weighted: "WeightedData"
    quotas: "Quotas | None"
    """How many examples of each of several files an epoch has; None where it has all rows."""
    record: dict[str, Any]
    """The `data` part of run.json."""
    left_out: list[dict[str, Any]]
    """The lines of bad_rows.jsonl."""
    evaluation: "EvaluationRows | None" = None
    """The rows of --eval_file."""


def fingerprint(run: Run) -> dict[str, Any]:
    """Return what must not change between a run and its continuation."""
    from instruction_modelling.models.loading import draws_dropout
    from instruction_modelling.runs.fingerprint import RunInputs, run_fingerprint

    inputs = RunInputs(
        data_sha256=run.data.file.sha256,
        tokens_sha256=run.data.weighted.sha256(),
        model_sha256=run.model_sha256,
        precision=run.accelerator.mixed_precision,
        batch_size=run.plan.batch_size,
        processes=run.accelerator.num_processes,
        dropout=draws_dropout(run.accelerator.unwrap_model(run.model).model),
        loss_patterns={name: one["weight"] for name, one in run.data.record["loss_patterns"].items()} or None,
        measured=measured_by(run) if run.options.uses_best() else {},
        quotas=run.data.quotas.an_epoch if run.data.quotas else None,
        template_date=run.data.record.get("template_date"),
    )
    options = run.options.as_dict()
    if run.layout.packing:
        options["max_tokens_per_device"] = run.layout.max_tokens
    return run_fingerprint(options, inputs)


def measured_by(run: Run) -> dict[str, Any]:
    """Return by what the best weights are told: facts that a continuation must share."""
    options, held_out = run.options, run.data.evaluation
    if options.task_score is not None:
        return {
            "sample_file sha256": run.samples.sha256,
            **{name: getattr(options, name) for name in ("task_score", "sample_steps", "sample_tokens")},
        }
    return {"eval_file sha256": held_out.sha256, "eval_steps": options.eval_steps} if held_out else {}


def saved_form(run: Run) -> "SavedForm":
    """Return what is saved beside the weights, and the number format of those."""
    from instruction_modelling.runs.model import SavedForm, saved_dtype

    dtype = saved_dtype(run.options, run.accelerator.mixed_precision == "bf16")
    return SavedForm(run.data.tokenizer, run.data.chat_format, dtype)
