"""Every option of the training script, in groups that other scripts share."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from instruction_modelling.chat.settings import ChatSettings, History
from instruction_modelling.errors import UserError
from instruction_modelling.optimizer_options import OptimizerOptions
from instruction_modelling.option_rules import ALWAYS_PASSED, NEEDS, RULES
from instruction_modelling.recipes import choices_of, options_asked
from instruction_modelling.rows.columns import column_problems
from instruction_modelling.rows.mixture import RowFiles, files_to_measure, row_files
from instruction_modelling.rows.tables import data_set_name
from instruction_modelling.tokens.overlong import Overlong
from instruction_modelling.tokens.released_blocks import ReleasedGroups
from instruction_modelling.tokens.row_encoder import TemplateDefaults
from instruction_modelling.tokens.weights import MaskStyle, read_loss_weights, written_table
from instruction_modelling.weight_options import WEIGHT_FLAGS, WeightOptions

KLEstimator = Literal["exact", "released"]


@dataclass
class DataOptions:
    """Data."""

    train_file: list[str] | None = field(default=None, metadata={"input": "rows"})
    """Conversations (messages, ShareGPT, prompt/completion, Alpaca and other rows): JSON Lines, one JSON
    array, Parquet, CSV or TSV, also compressed; a folder of files or of save_to_disk; or a data set of the
    hub, NAME:CONFIG:SPLIT. Several are trained on together; so are those of a mixture, a YAML file with
    files: and proportions:."""
    proportions: list[float] | None = None
    """The share of an epoch of each of several --train_file, in their order and in any unit: an epoch has as
    many examples as all files have; a file that is too small for its share repeats, one that is too large
    gives another part each epoch (default: an epoch is all rows of all files)."""
    columns: str | None = field(default=None, metadata={"mapping": "pairs"})
    """What the columns of all files of rows are, where they have other names:
    question=user,answer=assistant, each a role or the name of a known column."""
    tokenizer_name: str | None = field(default=None, metadata={"input": "model"})
    """Folder or hub name of the tokenizer (default: the model's)."""
    use_slow_tokenizer: bool = False
    """Accepted for old commands; a fast tokenizer is used all the same, since only it gives character
    offsets."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template if it has one, else tulu), tulu, tokenizer, or a Jinja file."""
    chat_template_kwargs: str | None = field(default=None, metadata={"mapping": "json"})
    """Variables of the chat template for every row, as a JSON object, such as '{"enable_thinking": false}'; a
    row's own chat_template_kwargs come before them. The saved template holds them."""
    end_of_turn: str | None = None
    """A token appended as the end of each of the assistant's turns, for a chat template that ends them by
    nothing of its own; it is trained, and generation stops at it."""
    history: History | None = None
    """as_written: each turn behind the text that the model is asked with, in a sequence of its own where the
    template rewrites earlier turns; whole: the text of the whole conversation alone, and a row of which that
    lacks something is refused (default: what the tokenizer's template was trained with, else as_written)."""
    max_seq_length: int = 2048
    """Tokens of a row, BOS counted, beyond which --overlong holds."""
    overlong: Overlong = "cut"
    """Rows longer than --max_seq_length (in --eval_file too): cut at the end, drop (left out, listed in
    bad_rows.jsonl), or error (an end before any model is loaded)."""
    preprocessing_num_workers: int | None = None
    """Threads that tokenise (default: all cores)."""
    overwrite_cache: bool = False
    """Tokenise again even where the cache holds these rows, this tokenizer and this format."""
    max_bad_rows: int = 0
    """Rows that may be unusable before the run stops; each is counted and listed with its reason."""

    def template_defaults(self, date: datetime.date | None = None) -> TemplateDefaults:
        """Return what the options give the chat template, with this date or today's.

        Raises:
            UserError: as `TemplateDefaults.read`.
        """
        settings = ChatSettings(self.end_of_turn, self.history)
        return TemplateDefaults.read(self.chat_template_kwargs, date, settings)


@dataclass
class ModelOptions:
    """Model."""

    model_name_or_path: str = field(metadata={"input": "model"})
    """Folder or hub name of the model to tune."""
    config_name: str | None = field(default=None, metadata={"input": "model"})
    """Folder or hub name of a configuration to use instead of the model's own."""
    use_flash_attn: bool = False
    """The flash-attn package where it is installed and the device has it, else torch's own attention with a
    warning; torch's has FlashAttention 2 too."""
    low_cpu_mem_usage: bool = False
    """Load the weights straight into the model, one at a time (what transformers does in any case)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the decoder layers by torch.compile (needs --packing and a compiler; the first step takes
    minutes): fewer and larger kernels, whose rounding is another, so it is part of what makes the run."""
    use_lora: bool = False
    """Train low-rank adapters on every linear layer instead of the weights, and save the merged model."""
    lora_rank: int = 64
    """Rank of the adapters."""
    lora_alpha: float = 16.0
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    lora_dropout: float = 0.1
    """Dropout before the adapters; at 0 the run does not depend on how a batch is laid out."""
    lora_target_modules: list[str] | None = None
    """Layers that get adapters, by name or its last part, such as q_proj v_proj (default: all-linear, every
    linear layer but the head)."""
    lora_modules_to_save: list[str] | None = None
    """Layers trained whole beside the adapters, such as embed_tokens lm_head. Tokens that the model has not
    learnt are trained in any case, each by its own rows; under DeepSpeed and FSDP they are refused (launch
    plain processes, or train all weights)."""
    use_dora: bool = False
    """DoRA: adapters that train the length of each weight vector by itself (arXiv 2402.09353)."""
    use_qlora: bool = False
    """Adapters on 4-bit weights (needs bitsandbytes; every process holds the whole model)."""


@dataclass
class StepOptions:
    """Steps."""

    per_device_train_batch_size: int = 8
    """Examples a device computes at once without packing."""
    gradient_accumulation_steps: int = 1
    """Micro-batches a step: the global batch is per-device size x this x processes examples."""
    packing: bool = False
    """Lay examples end to end without padding; they never attend to each other, and the run stays the
    same."""
    max_tokens_per_device: int | None = None
    """Most tokens in a packed micro-batch (default: 1024 on a CPU; on a GPU, by its memory and the model's
    size, a power of two from 2048 to 16384; no less than the longest row)."""
    padding_side: Literal["right", "left"] = "right"
    """Where padding goes when examples are not packed."""
    num_train_epochs: int = 2
    """Passes over the data."""
    max_train_steps: int | None = None
    """Optimiser steps, whatever --num_train_epochs says."""
    seed: int = 0
    """Decides the order of examples, the noise and the dropout: step n is a function of (seed, n)."""
    deterministic: bool = False
    """The same numbers from the same command on a GPU, and from a continued run, bit for bit: torch's
    deterministic algorithms, which take more time (a CPU needs nothing for it)."""
    neftune_alpha: float | None = None
    """NEFTune: uniform noise of magnitude alpha / sqrt(length x width) on the input embeddings."""
    use_lm_modelling: bool = False
    """Language modelling: all examples end to end, cut into blocks. Every token weighs 1, unless
    --use_lm_loss, another weight flag or --recipe released is given, whose weights then hold across the
    blocks."""
    block_size: int | None = None
    """Tokens a block of --use_lm_modelling (default: --max_seq_length). --recipe released loses what fills no
    block in each group of rows: a batch of 1,000 (for the paper's files the file) of each of
    --preprocessing_num_workers."""
    apply_kl_div_loss: bool = False
    """Add --kl_penalty_ctl x KL to the model as it was before tuning (paper Eq. 5), by --kl_estimator."""
    kl_penalty_ctl: float = 1.0
    """Weight of the KL term."""
    kl_estimator: KLEstimator | None = None
    """exact: KL over the whole vocabulary; released: log p_tuned - log p_base of the tokens with a loss, the
    released code's, which with weights of 0 and 1 leaves (1 - --kl_penalty_ctl) x the NLL's gradient: none at
    1 (default: by --recipe)."""
    kl_direction: Literal["tuned_to_base", "base_to_tuned"] = "tuned_to_base"
    """Which KL: KL(tuned || base), the paper's, or KL(base || tuned); the released estimator has none."""


@dataclass
class RunOptions:
    """Run."""

    output_dir: str = field(default="output", metadata={"input": "output"})
    """The run folder: model, tokenizer, metrics.jsonl, run.json, log, model card, checkpoints."""
    dry_run: bool = False
    """Say what the run needs (steps, memory, disk, and hours by a trial step of the model), refuse what the
    run would refuse, and end before it begins; nothing is written to --output_dir."""
    overwrite_output: bool = False
    """Replace the finished run that --output_dir holds; without it, such a folder is refused."""
    logging_steps: int = 1
    """Steps between lines in metrics.jsonl and the log."""
    with_tracking: bool = False
    """Send the metrics to the trackers of --report_to."""
    report_to: str = "tensorboard"
    """Tracker(s) accelerate knows: tensorboard, wandb, comet_ml, ..., or all."""
    checkpointing_steps: str | None = field(default=None, metadata={"may_be_empty": True})
    """Steps between checkpoints, or epoch."""
    save_total_limit: int | None = None
    """Checkpoints to keep, the latest ones."""
    resume_from_checkpoint: str | None = field(default=None, metadata={"input": "checkpoint"})
    """A checkpoint folder, or latest: the newest whole one in --output_dir."""
    lost_after: int = 60
    """Seconds, 5 or more, for which another machine of the run may be silent (a cut cable, no power) before
    the run ends with a line that says so; what its processes are busy with does not count, for its system
    answers. 0: for ever."""
    save_dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the saved model (default: bfloat16 where the run computes in bf16 or the base model is
    stored in it, else float32); checkpoints keep float32."""
    eval_file: list[str] | None = field(default=None, metadata={"input": "rows"})
    """Rows whose response loss is measured while training, after each epoch or every --eval_steps; several
    files have a loss each, by name, beside that of all their rows."""
    eval_steps: int | None = None
    """Steps between such measurements (default: an epoch)."""
    eval_kl: bool = False
    """Measure there too how far the model is from what it was before tuning: the KL divergence of the tuned
    from the untuned model, over the whole vocabulary. Without adapters it takes the untuned model's memory
    too."""
    early_stopping_patience: int | None = None
    """End the run once so many measurements in a row, of --eval_file or by --task_score, were no better than
    the best before; the learning rates stay those of the whole plan."""
    keep_best: bool = False
    """Save the weights of the lowest loss on --eval_file, or of the best --task_score, bit for bit, in place
    of the last ones."""
    push_to_hub: str | None = None
    """OWNER/NAME on the hub (or that of HF_ENDPOINT) to upload the saved model to, private and with its card;
    the token is read from HF_TOKEN alone. Rows, answers and the log stay here."""
    hub_public: bool = False
    """Make that repository public, where it is made."""
    check_answers: int | None = None
    """Rows that the saved model answers at the end (of the first --eval_file, else --train_file): how many
    answers do not end, loop, are empty or copy the prompt is counted and warned of (default: 16 on a GPU; 0
    on a CPU, where 16 take a minute or more). Of several processes' model, src/check_answers.py says it."""
    sample_file: str | None = field(default=None, metadata={"input": "rows"})
    """Rows whose prompts are answered while training, after each epoch or every --sample_steps, by the most
    likely token each time: in the log, in samples.jsonl, in the trackers and in the report."""
    sample_steps: int | None = None
    """Steps between such responses (default: an epoch)."""
    sample_tokens: int = 64
    """Most tokens of such a response."""
    task_score: str | None = None
    """A command that scores those responses, each time they are made: it reads a file of the form of
    responses.jsonl, named after its own words and on standard input too, and prints a number a line, more
    being better. No shell is run. --keep_best and --early_stopping_patience then go by the mean, not by the
    loss on --eval_file."""
    dataset_name: str | None = None
    """The training split of a data set on the hub, instead of --train_file, by the datasets library."""
    dataset_config_name: str | None = None
    """Its configuration."""


@dataclass
class FinetuneOptions(RunOptions, OptimizerOptions, StepOptions, WeightOptions, DataOptions, ModelOptions):
    """Every option of src/finetune.py."""

    given: ClassVar[frozenset[str]] = frozenset()
    """The options that stand on the command line, with their default's value or another."""

    as_asked = staticmethod(options_asked)

    def with_recipe(self) -> "FinetuneOptions":
        """Return the options with what the recipe decides filled in where no flag did."""
        recipe = choices_of(self.recipe, kl_term=self.apply_kl_div_loss)
        chosen = {name: value for name, value in recipe.items() if getattr(self, name) is None}
        # Two ways to write one table are one run.
        table = self.loss_weights and written_table(read_loss_weights(self.loss_weights))
        options = replace(self, **chosen, loss_weights=table)
        vars(options)["given"] = self.given
        return options

    def blocks_keep_weights(self) -> bool:
        """Return whether the blocks of --use_lm_modelling keep the weights of the rows they are cut from."""
        defaults = {field.name: field.default for field in fields(self)}
        changed = any(getattr(self, name) != defaults[name] for name in WEIGHT_FLAGS if name != "mask_style")
        return changed or self.mask_style == "released" or bool(self.given & {*WEIGHT_FLAGS})

    def released_groups(self) -> ReleasedGroups | None:
        """Return the groups of rows that the released recipe cuts blocks in; None for one of all rows."""
        if self.recipe != "released":
            return None
        return ReleasedGroups.of_file(str(self.training_files().path), self.preprocessing_num_workers)

    def arm(self) -> str:
        """Return the run's name in tables: what its loss covers and what was added."""
        name = self.policy().name()
        if self.loss_denominator == "messages":
            name = f"reweighted {name}"
        if self.train_turns != "all":
            name += f" {self.train_turns} turns"
        if self.loss_patterns:
            name += f" patterns {Path(self.loss_patterns).stem}"
        if self.use_lm_modelling:
            name = f"LM {name}" if self.blocks_keep_weights() else "LM"
        if self.neftune_alpha:
            name += "+NEFTune"
        if self.apply_kl_div_loss:
            released = "released " if self.kl_estimator == "released" else ""
            name += f"+{released}KL {self.kl_penalty_ctl:g}"
        return name + (" (released)" if self.mask_style == "released" else "")

    def uses_best(self) -> bool:
        """Return whether measurements decide which weights are saved, or when the run ends."""
        return self.keep_best or self.early_stopping_patience is not None

    def best_by(self) -> str | None:
        """Return what these measurements are of, by its key in metrics.jsonl; None where nothing is decided
        by them."""
        if not self.uses_best():
            return None
        return "eval_response_nll" if self.task_score is None else "task_score"

    def training_files(self) -> RowFiles:
        """Return the files of the training rows, as `read_conversations` takes them.

        Raises:
            UserError: as `row_files`.
        """
        names = self.train_file or [data_set_name(str(self.dataset_name), self.dataset_config_name)]
        # Options of before there could be several hold one name.
        return row_files([names] if isinstance(names, str) else names, self.proportions)

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        masks: MaskStyle = self.mask_style or ("released" if self.recipe == "released" else "exact")
        problems = [
            *replace(self, mask_style=masks).weight_problems(),
            *self.idle_options(),
            *column_problems(self.columns),
        ]
        problems += self.optimizer_problems(self.use_lora or self.use_qlora)
        if bool(self.train_file) == bool(self.dataset_name):
            problems.append("give --train_file FILE or --dataset_name NAME, one of them")
        problems += self._problems_of_files()
        problems += [
            f"--compile: not with --{name}, whose layers torch.compile cannot look into; leave one out"
            for name in ("use_qlora", "use_flash_attn")
            if self.compile and getattr(self, name)
        ]
        if self.compile and self.sample_file:
            problems.append(
                "--sample_file: compiled layers (--compile) take packed rows alone and write nothing; leave "
                "one out"
            )
        problems += [
            f"--{name} {value}: {rule.words}"
            for rule in RULES
            for name in rule.names
            if (value := getattr(self, name)) is not None and not rule.holds(value)
        ]
        return problems

    def _problems_of_files(self) -> list[str]:
        problems = []
        try:
            if self.train_file:
                files = self.training_files()
                if self.use_lm_modelling and files.proportions:
                    problems.append(
                        "--use_lm_modelling: blocks are cut across rows, so files have no proportions there; "
                        "leave one out"
                    )
                if self.use_lm_modelling and self.recipe == "released" and len(files.names) > 1:
                    problems.append(
                        "--use_lm_modelling with --recipe released cuts its groups from one file; name one"
                    )
        except UserError as error:
            problems.append(str(error))
        try:
            files_to_measure("--eval_file", self.eval_file or ["-"])
        except UserError as error:
            problems.append(str(error))
        return problems

    def idle_options(self) -> list[str]:
        """Return which options are given and would change nothing, in words."""
        given = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        given |= self.given - {*ALWAYS_PASSED}
        problems = [
            f"--{name}: give {' or '.join(f'--{other}' for other in needed)} too"
            for names, needed in NEEDS
            for name in names
            if name in given and not any(getattr(self, other) for other in needed)
        ]
        estimator = self.kl_estimator or self.recipe
        if self.apply_kl_div_loss and "kl_direction" in given and estimator == "released":
            problems.append(
                f"--kl_direction {self.kl_direction}: the released code's KL term has no direction; leave it "
                f"out, or give --kl_estimator exact"
            )
        if (
            self.use_lm_modelling
            and self.loss_denominator != "nonzero"
            and not (self.blocks_keep_weights() or self.recipe == "released")
        ):
            problems.append(
                f"--loss_denominator {self.loss_denominator}: blocks of --use_lm_modelling have no messages "
                "where every token weighs 1; give a weight flag too"
            )
        return problems

    def as_dict(self) -> dict[str, object]:
        """Return the options by name, for run.json."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def kl_term(options: Mapping[str, Any]) -> str:
    """Return the KL term that options, by name, ask for, in words: its weight and what is computed."""
    if not options["apply_kl_div_loss"]:
        return "none"
    # Before there was a choice, it was exact.
    if options.get("kl_estimator") == "released":
        words = "log p_tuned - log p_base of the tokens with a loss, as the released code computes it"
    else:
        words = f"KL over the whole vocabulary, {options['kl_direction'].replace('_', ' ')}"
    return f"{options['kl_penalty_ctl']:g} x {words}"
