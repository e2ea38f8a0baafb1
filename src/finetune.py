"""Tune a language model on conversations, with the loss where you want it.

    python src/finetune.py --model_name_or_path M --train_file F.jsonl --output_dir OUT               (IT)
    python src/finetune.py --model_name_or_path M --train_file F.jsonl --output_dir OUT --use_lm_loss (IM)

Runs on one process or, under `accelerate launch`, on many: the same run. Look at the weights first with
`python src/inspect_weights.py` and the same options.

On SIGTERM, SIGINT or SIGUSR1 the run ends after the step at hand, with a checkpoint, and
--resume_from_checkpoint latest goes on from there as if nothing had happened; a second signal ends it at
once. A launcher that is killed counts as a first. Exit codes: 0 finished, 2 something to mend, 75 told to
stop (under a launcher that restarts what fails 0, and others report their own; run.json says `stopped`). One
run at a time writes to a folder; another waits two minutes for it, then refuses."""

import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.processes.collectives import total
from instruction_modelling.processes.signals import StopSignals, exit_code

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from instruction_modelling.chat.formats import ChatFormat
    from instruction_modelling.rows.conversations import ConversationFile
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.tokens.encoded import EncodedData
    from instruction_modelling.tokens.weighted import WeightedData
    from instruction_modelling.training.batches import MicroBatch
    from instruction_modelling.training.plan import Layout, StepPlan

logger = logging.getLogger("instruction_modelling.finetune")


def main() -> int:
    """Arguments, data, model, loop, save."""
    options = parse_options(FinetuneOptions).with_recipe()
    with StopSignals() as stop:
        return tune(options, stop)


def tune(options: FinetuneOptions, stop: StopSignals) -> int:
    """One run; its exit code."""
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.training.launch import end_processes

    accelerator = start_processes(options)
    folder = RunFolder(options.output_dir, accelerator.is_main_process)
    folder.start_log()

    with folder.held():
        data = load_data(options, accelerator, folder)
        plan, layout = make_plan(options, data, accelerator.num_processes)
        record = describe(options, data, plan)
        folder.write_run(record)

        model, optimizer = load_model(options, data, accelerator)
        record["model"].update(count_parameters(accelerator, model))

        done = resume(options, data, plan, accelerator, model, optimizer, folder)
        begin = time.monotonic()
        done, signal = train(options, data, plan, layout, accelerator, model, optimizer, folder, done, stop)
        seconds = time.monotonic() - begin
        if done < plan.total_steps:
            folder.write_run({**record, "stopped": {"signal": signal, "step": done}, "seconds": seconds})
            logger.info(
                "stopped by %s after %d of %d steps; go on with --resume_from_checkpoint latest",
                signal,
                done,
                plan.total_steps,
            )
            end_processes(accelerator, exit_code())
            return exit_code()

        save(
            options,
            data,
            accelerator,
            model,
            optimizer,
            folder,
            {**record, "finished": True, "seconds": seconds},
        )
        end_processes(accelerator)
        return 0


def start_processes(options: FinetuneOptions) -> "Accelerator":
    """Processes, device and precision, as the launcher says."""
    from instruction_modelling.training.launch import make_accelerator
    from instruction_modelling.training.sharding import refuse_what_cannot_be_sharded

    try:
        accelerator = make_accelerator(
            mixed_precision=options.mixed_precision,
            project_dir=options.output_dir,
            log_with=options.report_to if options.with_tracking else None,
        )
    except ValueError as error:
        raise UserError(
            f"--report_to {options.report_to}, --mixed_precision {options.mixed_precision} or the launcher's "
            f"settings: {error}"
        ) from error
    refuse_what_cannot_be_sharded(options, accelerator)
    if options.with_tracking:
        if not accelerator.log_with:
            raise UserError(
                f"--report_to {options.report_to}: this tracker is not installed here: install its package, "
                "or "
                "leave out --with_tracking (metrics.jsonl has the metrics in any case)"
            )
        plain = {
            name: value for name, value in options.as_dict().items() if isinstance(value, int | float | str)
        }
        accelerator.init_trackers("instruction_modelling", plain)
    return accelerator


# -- data ---------------------------------------------------------------------------------------------------


@dataclass
class Data:
    """The rows to train on and what they came from."""

    file: "ConversationFile"
    tokenizer: "PreTrainedTokenizerBase"
    chat_format: "ChatFormat"
    weighted: "WeightedData"
    record: dict[str, Any]
    evaluation: "EncodedData | None" = None


def load_data(options: FinetuneOptions, accelerator: "Accelerator", folder: "RunFolder") -> Data:
    """Reads, validates, renders, tokenises and weighs the rows; stops at bad ones before any model is
    loaded."""
    from instruction_modelling.chat.formats import load_chat_format
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
    from instruction_modelling.sources.downloads.hub import fetch_dataset
    from instruction_modelling.tokens.cache import encode_file
    from instruction_modelling.tokens.encoded import RowEncoder

    with accelerator.main_process_first():
        path = options.train_file or fetch_dataset(
            options.dataset_name or "",
            options.dataset_config_name,
            options.overwrite_cache and accelerator.is_main_process,
        )
    file = read_conversations(path)
    tokenizer = load_tokenizer(
        options.tokenizer_name or options.model_name_or_path, options.use_slow_tokenizer
    )
    chat_format = load_chat_format(options.chat_format, tokenizer)
    if options.preprocessing_num_workers:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options.preprocessing_num_workers))
    encoder = RowEncoder(tokenizer, chat_format, options.max_seq_length, options.mask_style == "released")
    if options.mask_style == "released" and chat_format.name != "tulu":
        raise UserError(
            "--mask_style released (--recipe released) is defined for the Tülu format, and this tokenizer "
            "has a chat template of its own: add --chat_format tulu, or --mask_style exact"
        )
    with accelerator.main_process_first():
        encoded = encode_file(file, encoder, options.overwrite_cache and accelerator.is_main_process)
    bad_rows = [*file.bad_rows, *encoded.refused]
    folder.write_bad_rows(bad_rows, [])
    check_bad_rows(file, options.max_bad_rows, encoded.refused)
    weighted, dropped = weigh(options, encoded)
    lines = [
        {"row": int(encoded.rows[i]), "id": encoded.row_ids[i], "reason": reason}
        for i, reason in dropped.items()
    ]
    folder.write_bad_rows(bad_rows, lines)
    record = describe_data(file, encoded, weighted, list(dropped.values()))
    evaluation = None
    if options.eval_file:
        held_out = read_conversations(options.eval_file)
        evaluation = encode_file(held_out, encoder)
        check_bad_rows(held_out, options.max_bad_rows, evaluation.refused)
    return Data(file, tokenizer, chat_format, weighted, record, evaluation)


def weigh(options: FinetuneOptions, encoded: "EncodedData") -> tuple["WeightedData", dict[int, str]]:
    """The rows with their tokens' loss weights, less those that no loss can be taken of (index to reason)."""
    from instruction_modelling.tokens.weighted import weigh_rows

    denominator = options.loss_denominator
    if options.use_lm_modelling:
        encoded, denominator = encoded.blocks(options.block_size or options.max_seq_length), "nonzero"
    weighted, dropped = weigh_rows(encoded, options.policy(), options.loss_normalization, denominator)
    if not len(weighted.data):
        raise UserError(
            f"{options.train_file or options.dataset_name}: no row has a token to train on "
            f"({next(iter(dropped.values()), 'no rows')}); see the weights with src/inspect_weights.py"
        )
    return weighted, dropped


def describe_data(
    file: "ConversationFile", encoded: "EncodedData", weighted: "WeightedData", dropped: list[str]
) -> dict[str, Any]:
    """The `data` part of run.json, and a line of it in the log."""
    from instruction_modelling.rows.conversations import bad_rows_table
    from instruction_modelling.tokens.weighted import count_reasons, totals_by_kind

    kept = weighted.data
    record: dict[str, Any] = {
        "path": str(file.path),
        "sha256": file.sha256,
        "rows": file.rows,
        "used": len(kept),
        "bad_rows": bad_rows_table([*file.bad_rows, *encoded.refused]),
        "dropped": count_reasons(dropped),
        "truncated_rows": encoded.truncated_rows,
        "tokens_cut": encoded.tokens_cut,
        "tokens": len(kept.ids),
        "control_text_rows": encoded.control_text_rows,
        "straddling_tokens": encoded.straddling,
        "by_kind": totals_by_kind(weighted),
    }
    logger.info(
        "%s: %d rows, %d used%s, %d tokens; %d rows cut at the maximum length (%d tokens)",
        file.path,
        file.rows,
        len(kept),
        f" (left out: {record['bad_rows']} {record['dropped']})" if len(kept) < file.rows else "",
        len(kept.ids),
        encoded.truncated_rows,
        encoded.tokens_cut,
    )
    logger.info(
        "share of the loss weight: %s",
        ", ".join(
            f"{kind} {entry['loss_share']:.1%}"
            for kind, entry in record["by_kind"].items()
            if entry["loss_share"]
        ),
    )
    return record


# -- steps --------------------------------------------------------------------------------------------------


def make_plan(options: FinetuneOptions, data: Data, processes: int) -> tuple["StepPlan", "Layout"]:
    """Which examples meet in each step, and how a step is laid out."""
    from instruction_modelling.training.plan import Layout, StepPlan

    examples, lengths = len(data.weighted.data), data.weighted.data.lengths
    batch_size = options.per_device_train_batch_size * options.gradient_accumulation_steps * processes
    per_epoch = -(-examples // batch_size)
    plan = StepPlan(
        examples, batch_size, options.seed, options.max_train_steps or options.num_train_epochs * per_epoch
    )
    limit = options.max_tokens_per_device or max(options.max_seq_length, int(lengths.max()))
    if options.packing and limit < lengths.max():
        raise UserError(
            f"--max_tokens_per_device {limit}: the longest row has {lengths.max()} tokens; raise it, or cut "
            f"rows with --max_seq_length"
        )
    return plan, Layout(options.packing, options.per_device_train_batch_size, limit, options.padding_side)


def describe(options: FinetuneOptions, data: Data, plan: "StepPlan") -> dict[str, Any]:
    """run.json of a run that has begun."""
    from instruction_modelling.runs.folder import git_commit, machine, versions

    return {
        "finished": False,
        "arm": options.arm(),
        "options": options.as_dict(),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": machine(),
        "data": data.record,
        "model": {"name_or_path": options.model_name_or_path, "chat_format": data.chat_format.name},
        "steps": plan.total_steps,
        "epochs": plan.total_steps / plan.steps_per_epoch,
        "examples_per_step": plan.batch_size,
        "command": " ".join(sys.argv),
    }


# -- model --------------------------------------------------------------------------------------------------


def load_model(
    options: FinetuneOptions, data: Data, accelerator: "Accelerator"
) -> tuple["torch.nn.Module", Any]:
    """The model wrapped with its loss, and its optimiser, both prepared for the processes at hand."""
    import torch

    from instruction_modelling.models import loading, quantisation
    from instruction_modelling.processes.collectives import from_main
    from instruction_modelling.runs.fingerprint import weights_sha256
    from instruction_modelling.training import loss_model, sharding
    from instruction_modelling.training.neftune import NeftuneNoise
    from instruction_modelling.training.optimizer import make_optimizer

    cuda = accelerator.device.type == "cuda"
    attention = loading.pick_attention(
        options.packing, options.use_flash_attn, cuda, accelerator.mixed_precision == "bf16"
    )
    load = partial(
        loading.load_model, options.model_name_or_path, torch.float32, attention, options.config_name
    )
    model: Any = load(**quantisation.four_bit_loading(accelerator.device) if options.use_qlora else {})
    origin = from_main(accelerator, weights_sha256(model))
    loading.use_fused_layers(model)
    loading.fit_embeddings(model, data.tokenizer, options.seed)
    kl_weight = options.kl_penalty_ctl if options.apply_kl_div_loss else 0.0
    adapters = options.use_lora or options.use_qlora
    base = None
    if kl_weight and not adapters:
        base = load()
        loading.fit_embeddings(base, data.tokenizer, options.seed)
    if options.use_qlora:
        model = quantisation.prepare_to_train(model, options.gradient_checkpointing)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if adapters:
        # Fresh adapters are the seed's alone, whatever loading has drawn.
        torch.manual_seed(options.seed)
        model = loading.add_lora(model, options.lora_rank, options.lora_alpha, options.lora_dropout)
    noise = None
    if options.neftune_alpha:
        noise = NeftuneNoise(
            loading.causal_model(model).get_input_embeddings(), options.neftune_alpha, options.seed
        )
    wrapped = loss_model.LossModel(model, kl_weight, options.kl_direction, base, noise, origin)
    sharding.configure_deepspeed(options, accelerator)
    return sharding.prepare(
        accelerator, wrapped, make_optimizer(wrapped, options, accelerator.device), options.packing
    )


def count_parameters(accelerator: "Accelerator", model: "torch.nn.Module") -> dict[str, int]:
    """All and trainable weights (whole sizes where they are sharded)."""
    sizes = [
        (getattr(weight, "ds_numel", weight.numel()), weight.requires_grad)
        for weight in accelerator.unwrap_model(model).model.parameters()
    ]
    return {
        "parameters": sum(size for size, _ in sizes),
        "trainable_parameters": sum(size for size, trained in sizes if trained),
    }


def resume(
    options: FinetuneOptions,
    data: Data,
    plan: "StepPlan",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    folder: "RunFolder",
) -> int:
    """Puts a checkpoint's state in place where one was asked for and is there; the number of steps it had
    done."""
    from instruction_modelling.runs import checkpoints
    from instruction_modelling.runs.fingerprint import check_same_run

    chosen = options.resume_from_checkpoint
    path = checkpoints.choose_checkpoint(accelerator, chosen, folder.path)
    done = 0
    if path is not None:
        state = checkpoints.read_manifest(path)
        check_same_run(path, state, fingerprint(options, data, plan, accelerator, model))
        checkpoints.load_checkpoint(accelerator, model, optimizer, path)
        done = int(state["step"])
        logger.info("resuming from %s: %d of %d steps done", path, done, plan.total_steps)
        if accelerator.is_main_process and chosen == "latest":
            # What a failing disk kept the last save from removing; the one resumed from is the newest, and
            # stays.
            checkpoints.prune(folder.path, options.save_total_limit)
    elif chosen:
        logger.info("no checkpoint in %s yet: starting from the beginning", folder.path)
    folder.restore_metrics((path / checkpoints.METRICS).read_text(encoding="utf-8") if path else "")
    return done


def fingerprint(
    options: FinetuneOptions,
    data: Data,
    plan: "StepPlan",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
) -> dict[str, Any]:
    """What must not change between a run and its continuation."""
    from instruction_modelling.runs.fingerprint import run_fingerprint
    from instruction_modelling.training.loss_model import draws_dropout

    wrapped: Any = accelerator.unwrap_model(model)
    return run_fingerprint(
        options.as_dict(),
        data.file.sha256,
        data.weighted.sha256(),
        wrapped.origin,
        accelerator.mixed_precision,
        plan.batch_size,
        accelerator.num_processes,
        draws_dropout(wrapped.model),
    )


# -- loop ---------------------------------------------------------------------------------------------------


def train(
    options: FinetuneOptions,
    data: Data,
    plan: "StepPlan",
    layout: "Layout",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    folder: "RunFolder",
    done: int,
    stop: StopSignals,
) -> tuple[int, str | None]:
    """Every step from `done` on, or as many as come before a signal to stop; the steps done, and the
    signal."""
    from instruction_modelling.progress import Progress
    from instruction_modelling.training.batches import step_micro_batches
    from instruction_modelling.training.optimizer import learning_rates

    rates = learning_rates(options, plan.total_steps, plan.examples, accelerator.num_processes)
    # The released code divides an epoch's last, partial step by the size of a full one.
    full = plan.batch_size if options.recipe == "released" else None
    logger.info(
        "%s: %d steps of up to %d examples (%d processes), %s",
        options.arm(),
        plan.total_steps,
        plan.batch_size,
        accelerator.num_processes,
        accelerator.device,
    )
    saved, signal = done, stop.agreed(accelerator)
    progress = Progress(
        plan.total_steps, "steps", done=done, shown=accelerator.is_main_process and sys.stderr.isatty()
    )
    for step in range(done, plan.total_steps):
        if signal:
            break
        started = time.monotonic()
        examples = plan.batch(step)
        batches = step_micro_batches(
            data.weighted, step, examples, layout, accelerator.process_index, accelerator.num_processes, full
        )
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        line = train_step(options, accelerator, model, optimizer, batches, step)
        seconds = time.monotonic() - started
        line = {
            "step": step + 1,
            "epoch": (step + 1) / plan.steps_per_epoch,
            **line,
            "learning_rate": rates[step],
            "examples": len(examples),
            "tokens_per_second": line["tokens"] / seconds,
            "seconds": seconds,
        }
        stop_if_not_finite(line, examples, data, folder)
        note = (
            f"loss {line['loss']:.4f}  grad {line['grad_norm']:.3g}  lr {rates[step]:.3g}  "
            f"{line['tokens_per_second']:.0f} tok/s"
        )
        progress.add(1, note)
        if (step + 1) % options.logging_steps == 0 or step + 1 == plan.total_steps:
            folder.add_metrics(line)
            accelerator.log(
                {name: value for name, value in line.items() if isinstance(value, int | float)}, step + 1
            )
            # On a terminal the bar shows it; the log file always has it.
            logger.info(
                "step %d/%d  %s  %s left",
                step + 1,
                plan.total_steps,
                note,
                progress.left(),
                extra={"on_bar": progress.on_terminal},
            )
        done = step + 1
        if after_step(options, data, plan, layout, accelerator, model, optimizer, folder, done):
            saved = done
        signal = stop.agreed(accelerator)
    if signal and saved < done < plan.total_steps:
        save_checkpoint(options, data, plan, accelerator, model, optimizer, folder, f"step_{done}", done)
    return done, signal


def train_step(
    options: FinetuneOptions,
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    batches: list["MicroBatch"],
    step: int,
) -> dict[str, Any]:
    """Forward and backward over a process's micro-batches, then one update; what happened, over all
    processes."""
    import torch

    from instruction_modelling.chat.spans import KIND_NAMES
    from instruction_modelling.training.seeding import derived_seed
    from instruction_modelling.training.sharding import accumulating

    model.train()
    # Dropout follows from (seed, step, process), so a resumed run draws the same masks.
    torch.manual_seed(derived_seed(options.seed, step, accelerator.process_index))
    noise = accelerator.unwrap_model(model).noise
    kinds = torch.zeros(2, len(KIND_NAMES), dtype=torch.float64)
    sums = torch.zeros(5, dtype=torch.float64)
    for number, batch in enumerate(batches, start=1):
        if noise:
            noise.expect(batch)
        with accumulating(accelerator, model, last=number == len(batches)):
            out = model(**batch.to(accelerator.device).tensors())
            # Processes average their gradients; the step's coefficients already divide by the whole step.
            accelerator.backward(out["loss"] * accelerator.num_processes)
        scored = batch.coefficients != 0
        nll = out["nll"].double().cpu()[scored]
        kinds[0].index_add_(0, batch.kinds[scored], nll)
        kinds[1].index_add_(0, batch.kinds[scored], torch.ones_like(nll))
        sums += torch.tensor(
            [
                float(out["loss"].detach()),
                float(out.get("kl", 0.0)),
                batch.real_tokens,
                batch.tokens_with_loss,
                batch.input_ids.numel() if batch.places else 0,
            ],
            dtype=torch.float64,
        )
    if noise:
        noise.expect(None)
    kinds, sums = total(accelerator, kinds), total(accelerator, sums)
    loss, kl, tokens, with_loss, positions = sums.tolist()
    norm = update(options, accelerator, model, optimizer, finite=math.isfinite(loss))
    line: dict[str, Any] = {"loss": loss}
    if options.apply_kl_div_loss:
        line["kl"] = kl
    line["nll"] = {
        KIND_NAMES[kind]: float(kinds[0, kind] / kinds[1, kind])
        for kind in range(len(KIND_NAMES))
        if kinds[1, kind]
    }
    return {
        **line,
        "grad_norm": norm,
        "tokens": int(tokens),
        "tokens_with_loss": int(with_loss),
        "padding_fraction": 1 - tokens / positions,
    }


def update(
    options: FinetuneOptions, accelerator: "Accelerator", model: Any, optimizer: Any, finite: bool
) -> float:
    """Clips, steps and clears the gradients; their norm before clipping. A loss that is not finite moves
    nothing."""
    from instruction_modelling.training.sharding import clip, is_deepspeed

    if is_deepspeed(accelerator):
        # DeepSpeed has clipped and stepped within the last backward pass.
        norm = model.get_global_grad_norm()
        return float(norm) if norm is not None else math.nan
    limit = options.clip_grad_norm if options.clip_grad_norm and options.clip_grad_norm > 0 else math.inf
    norm = clip(model, limit)
    if finite and math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def stop_if_not_finite(line: dict[str, Any], examples: "np.ndarray", data: Data, folder: "RunFolder") -> None:
    """Raises:
    UserError: the loss or the gradient is NaN or infinite; names the step, the rows and the last checkpoint.
    """
    if math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"]):
        return
    from instruction_modelling.runs.checkpoints import find_checkpoint

    rows = sorted(int(data.weighted.data.rows[i]) for i in examples)
    shown = ", ".join(map(str, rows[:20])) + (f", ... ({len(rows)} rows)" if len(rows) > 20 else "")
    last = find_checkpoint("latest", folder.path)
    raise UserError(
        f"step {line['step']}: the loss is {line['loss']} and the gradient's norm {line['grad_norm']}; rows "
        "of "
        f"{data.file.path} in this step: {shown}. Last checkpoint: {last or 'none'}. Lower --learning_rate, "
        "set --clip_grad_norm, or look at these rows with src/inspect_weights.py"
    )


def after_step(
    options: FinetuneOptions,
    data: Data,
    plan: "StepPlan",
    layout: "Layout",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    folder: "RunFolder",
    done: int,
) -> bool:
    """Evaluation and checkpoint, where they are due after `done` steps; whether a checkpoint was."""
    epoch, within = divmod(done, plan.steps_per_epoch)
    if data.evaluation is not None and (
        done % options.eval_steps == 0 if options.eval_steps else within == 0 or done == plan.total_steps
    ):
        evaluate(data.evaluation, layout, accelerator, model, folder, done)
    every = options.checkpointing_steps
    if every and (within == 0 if every == "epoch" else done % int(every) == 0):
        name = f"epoch_{epoch}" if every == "epoch" else f"step_{done}"
        save_checkpoint(options, data, plan, accelerator, model, optimizer, folder, name, done)
        return True
    return False


def save_checkpoint(
    options: FinetuneOptions,
    data: Data,
    plan: "StepPlan",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    folder: "RunFolder",
    name: str,
    done: int,
) -> None:
    """The checkpoint `name`, of `done` steps; then the oldest ones go, as --save_total_limit says."""
    from instruction_modelling.runs import checkpoints

    path = folder.path / name
    checkpoints.save_checkpoint(
        accelerator,
        model,
        optimizer,
        path,
        {"step": done, "fingerprint": fingerprint(options, data, plan, accelerator, model)},
        folder.metrics(),
    )
    if accelerator.is_main_process:
        checkpoints.prune(folder.path, options.save_total_limit, path)
    logger.info("saved checkpoint %s", path)


def evaluate(
    rows: "EncodedData",
    layout: "Layout",
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    folder: "RunFolder",
    done: int,
) -> None:
    """The response loss on the rows of --eval_file, to metrics.jsonl and the log."""
    from instruction_modelling.training.row_losses import row_losses, summarise

    with accelerator.autocast():
        scored = row_losses(model, rows, layout, accelerator)
    means = summarise(scored)
    line = {
        "step": done,
        "eval_response_nll": means["mean_over_examples"].get("response"),
        "eval_response_nll_per_token": means["mean_over_tokens"].get("response"),
        "eval_rows": len(scored),
    }
    folder.add_metrics(line)
    accelerator.log({name: value for name, value in line.items() if value is not None}, done)
    logger.info(
        "after %d steps: response loss on the evaluation rows %.4f",
        done,
        line["eval_response_nll"] or math.nan,
    )


# -- save ---------------------------------------------------------------------------------------------------


def save(
    options: FinetuneOptions,
    data: Data,
    accelerator: "Accelerator",
    model: "torch.nn.Module",
    optimizer: Any,
    folder: "RunFolder",
    record: dict[str, Any],
) -> None:
    """The model with tokenizer, template and stop tokens, its card, and the finished run.json."""
    import torch

    from instruction_modelling.runs.folder import model_card, write_aside
    from instruction_modelling.runs.model import save_model

    half = accelerator.mixed_precision == "bf16"
    name = options.save_dtype or ("bfloat16" if half else "float32")
    save_model(
        accelerator, model, optimizer, data.tokenizer, data.chat_format, folder.path, getattr(torch, name)
    )
    if accelerator.is_main_process:
        write_aside(folder.path / "README.md", model_card(record))
    folder.write_run(record)
    logger.info("saved %s (%s) after %.0f s", folder.path, name, record["seconds"])


if __name__ == "__main__":
    run_main(main)
