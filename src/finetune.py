"""Tune a language model on conversations, with the loss where you want it.

    python src/finetune.py --model_name_or_path M --train_file F.jsonl --output_dir OUT               (IT)
    python src/finetune.py --model_name_or_path M --train_file F.jsonl --output_dir OUT --use_lm_loss (IM)

Runs on one process or, under `accelerate launch`, on many: the same run. Look at the weights first with
`python src/inspect_weights.py` and the same options.

On SIGTERM, SIGINT or SIGUSR1 the run ends after the step at hand, with a checkpoint, and
--resume_from_checkpoint latest goes on from there as if nothing had happened; a second signal ends it at
once. A launcher that is killed counts as a first signal.

Exit codes: 0 when finished; 2 when there is something to mend; 75 when told to stop; 0 when told to stop
under torchrun with restarts, which would start the run again. Launchers may end with a code of their own;
run.json says `stopped` in any case. One run at a time writes to a folder; another waits two minutes for it,
then refuses."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from instruction_modelling.called import command
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.inputs import problems_of_training
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.processes.signals import StopSignals, exit_code
from instruction_modelling.runs.run import Data, Run, fingerprint, saved_form

if TYPE_CHECKING:
    import torch

    from instruction_modelling.progress import Progress
    from instruction_modelling.tokens.encoded import EncodedData
    from instruction_modelling.tokens.weighted import WeightedData
    from instruction_modelling.training.batches import MicroBatch
    from instruction_modelling.training.plan import Layout, StepPlan

logger = logging.getLogger("instruction_modelling.finetune")
# Rows that a model tuned on a GPU answers at the end, where --check_answers does not say.
CHECKED_ON_GPU = 16


def main() -> int:
    """Read the options and tune; return the exit code."""
    options = parse_options(FinetuneOptions, also_check=problems_of_training).with_recipe()
    with StopSignals() as stop:
        stop.nothing_done = True
        return tune(options, stop)


def tune(options: FinetuneOptions, stop: StopSignals) -> int:
    """Run from the options to the saved model, or to a signal to stop; return the exit code."""
    from instruction_modelling.runs.checkpoint_folders import choose_checkpoint
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.runs.record import describe_model, describe_run
    from instruction_modelling.runs.save_trial import try_saving
    from instruction_modelling.training.launch import end_processes, start_processes
    from instruction_modelling.training.step_totals import NllSums

    accelerator = start_processes(options)
    folder = RunFolder(options.output_dir, accelerator.is_main_process, options.dry_run)
    folder.start_log()
    run = Run(options, accelerator, folder, stop)
    with folder.held(), run.at_hand.told(options):
        run.checkpoint = choose_checkpoint(
            accelerator, options.resume_from_checkpoint, folder.path, mending=not options.dry_run
        )
        if run.checkpoint is None and not options.overwrite_output:
            folder.refuse_finished(accelerator)
        prepare_push(run)
        run.data = load_data(run)
        if options.sample_file:
            from instruction_modelling.generation.samples import sample_prompts

            run.samples = sample_prompts(run)
        run.plan, run.layout = plan_steps(run)
        run.window = NllSums(run.data.weighted.data.datasets)
        model = {"name_or_path": options.model_name_or_path, "chat_format": run.data.chat_format.name}
        run.record = describe_run(options, run.data.record, model, run.plan, accelerator)
        if run.checkpoint is None:
            folder.begin(run.record, run.data.left_out, is_new=True)

        run.model, run.optimizer, run.model_sha256 = load_model(run)
        run.record["model"].update(describe_model(accelerator.unwrap_model(run.model).model))
        try_saving(accelerator, run.model, saved_form(run), folder.path, options.dry_run)
        resume(run)
        if options.dry_run:
            show_needs(run)
            end_processes(accelerator)
            return 0
        if run.checkpoint is not None:
            # Only now is it known that the folder's files are this run's.
            folder.begin(run.record, run.data.left_out)
        begin = time.monotonic()
        signal = train(run)
        run.record["seconds"] = time.monotonic() - begin
        if finished := run.ended():
            save(run)
            check_answers(run)
            push(run)
        else:
            folder.write_stop(run.record, signal, run.done)
        code = 0 if finished else exit_code()
        end_processes(accelerator, code)
        return code


def prepare_push(run: Run) -> None:
    """Make the repository of --push_to_hub, before any work that could not be uploaded.

    Raises:
        UserError: on every process, as `runs.publish.prepare`.
    """
    from instruction_modelling.processes.collectives import together
    from instruction_modelling.runs.publish import prepare

    options = run.options
    if options.push_to_hub and not options.dry_run:
        with together(run.accelerator):
            if run.accelerator.is_main_process:
                prepare(options.push_to_hub, options.hub_public)


def load_data(run: Run) -> Data:
    """Read, validate, render, tokenise and weigh the rows, before any model is loaded.

    Raises:
        UserError: more rows than --max_bad_rows cannot be used, or none has a token to train on or, in
            --eval_file, to measure.
    """
    from instruction_modelling.chat.defaults import fixed_date
    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
    from instruction_modelling.runs.folder import rows_left_out
    from instruction_modelling.runs.record import UsedRows, describe_data, describe_patterns
    from instruction_modelling.runs.run_date import run_date
    from instruction_modelling.tokens.cache import encode_file
    from instruction_modelling.tokens.factors import with_factors
    from instruction_modelling.tokens.overlong import leave_out_overlong
    from instruction_modelling.tokens.quotas import quotas_of
    from instruction_modelling.tokens.row_encoder import require_user_end, row_encoder
    from instruction_modelling.training.evaluation_rows import evaluation_rows

    options, accelerator, folder = run.options, run.accelerator, run.folder
    file = read_conversations(options.training_files(), options.columns, keep=False)
    tokenizer = load_tokenizer(
        options.tokenizer_name or options.model_name_or_path, options.use_slow_tokenizer
    )
    date = run_date(accelerator, options.resume_from_checkpoint, folder.path)
    encoder = row_encoder(
        tokenizer,
        options.chat_format,
        options.max_seq_length,
        options.mask_style == "released",
        options.preprocessing_num_workers,
        options.template_defaults(date),
    )
    require_user_end(encoder, options.policy(), file)
    with accelerator.main_process_first():
        encoded = encode_file(file, encoder, options.overwrite_cache and accelerator.is_main_process)
    bad_rows = [*file.bad_rows, *encoded.refused]
    if run.checkpoint is None:
        folder.write_bad_rows(rows_left_out(file, bad_rows))
    check_bad_rows(file, options.max_bad_rows, encoded.refused)
    encoded, overlong = leave_out_overlong(encoded, file, options.overlong, options.max_seq_length)
    encoded, matches = with_factors(encoded, file.conversations, options.text_factors())
    weighted, dropped = weigh(options, encoded)
    # What is dropped of --use_lm_modelling are blocks, not rows.
    no_rows = {} if options.use_lm_modelling else dropped
    left_out = rows_left_out(file, [*bad_rows, *overlong], encoded, no_rows)
    reasons = [*dropped.values(), *(row.reason for row in overlong)]
    quotas = quotas_of(file, weighted.data.rows)
    record = describe_data(options, file, UsedRows(encoded, weighted, quotas, reasons, left_out))
    record["loss_patterns"] = describe_patterns(matches)
    if written := fixed_date(encoder.chat_format.template, date):
        record["template_date"] = written
    held_out = evaluation_rows(options, encoder)
    return Data(file, tokenizer, encoder.chat_format, weighted, quotas, record, left_out, held_out)


def weigh(options: FinetuneOptions, encoded: "EncodedData") -> tuple["WeightedData", dict[int, str]]:
    """Return the rows that have a loss, with their tokens' weights (`tokens.weights.loss_weights`), and why
    each other row has none (by its index).

    Raises:
        UserError: no row has a loss.
    """
    from instruction_modelling.tokens.weighted import weigh_rows

    denominator = options.loss_denominator
    if options.use_lm_modelling:
        keep, size = options.blocks_keep_weights(), options.block_size or options.max_seq_length
        if groups := options.released_groups():
            encoded = groups.kept(encoded, options.policy(), size)
        encoded = encoded.blocks(size, keep)
        denominator = denominator if keep else "nonzero"
    weighted, dropped = weigh_rows(encoded, options.policy(), options.loss_normalization, denominator)
    if not len(weighted.data):
        raise UserError(
            f"{options.training_files().path}: no row has a token to train on "
            f"({next(iter(dropped.values()), 'no rows')}); see the weights with src/inspect_weights.py"
        )
    return weighted, dropped


def plan_steps(run: Run) -> tuple["StepPlan", "Layout"]:
    """Decide which examples meet in each step, and how a step is laid out.

    Raises:
        UserError: a packed micro-batch does not hold the longest row.
    """
    from instruction_modelling.training.pack_size import COMPILED_MULTIPLE, pack_limit
    from instruction_modelling.training.plan import Layout, StepPlan

    options, rows = run.options, run.data.weighted.data
    examples_of_rank = options.per_device_train_batch_size * options.gradient_accumulation_steps
    batch_size = examples_of_rank * run.accelerator.num_processes
    steps_per_epoch = -(-len(rows) // batch_size)
    total_steps = options.max_train_steps or options.num_train_epochs * steps_per_epoch
    plan = StepPlan(len(rows), batch_size, options.seed, total_steps, run.data.quotas)
    longest = int(rows.sequence_lengths.max())
    limit = pack_limit(options, run.accelerator.device, longest)
    size, side = options.per_device_train_batch_size, options.padding_side
    return plan, Layout(options.packing, size, limit, side, COMPILED_MULTIPLE if options.compile else 1)


def load_model(run: Run) -> tuple["torch.nn.Module", Any, str]:
    """Return the model wrapped with its loss and its optimiser, both prepared for the processes at hand, and
    the hash of the model before tuning."""
    from instruction_modelling.models.positions import check_positions
    from instruction_modelling.models.quantisation import four_bit_loading
    from instruction_modelling.processes.collectives import from_main
    from instruction_modelling.runs.fingerprint import weights_sha256
    from instruction_modelling.training import sharding
    from instruction_modelling.training.optimizer import make_optimizer
    from instruction_modelling.training.trainable_model import model_loader, trainable_model

    options, accelerator, tokenizer = run.options, run.accelerator, run.data.tokenizer
    run.at_hand.now("loading the model")
    load = model_loader(options, accelerator)
    model = load(**four_bit_loading(accelerator.device) if options.use_qlora else {})
    sha256 = from_main(accelerator, weights_sha256(model))
    loss_model = trainable_model(options, accelerator, tokenizer, model, load)
    held_out, block_size = run.data.evaluation, options.block_size if options.use_lm_modelling else None
    rows = [run.data.weighted.data, *([held_out.data] if held_out else [])]
    check_positions(model, [n for data in rows for n in data.sequence_lengths.tolist()], block_size)
    sharding.configure_deepspeed(options, accelerator)
    optimizer = make_optimizer(loss_model, options, accelerator.device)
    return *sharding.prepare(accelerator, loss_model, optimizer, options.packing, options.compile), sha256


def show_needs(run: Run) -> None:
    """Take a trial step, and say what the run needs."""
    from instruction_modelling.runs.needs import measure_needs

    of_run = (run.model, run.optimizer, run.data.weighted, run.plan, run.layout, saved_form(run), run.done)
    needs = measure_needs(run.options, run.accelerator, *of_run, lambda batches: train_step(run, batches))
    logger.info("needs of this run (--dry_run: nothing was written to %s)", run.folder.path)
    for line in needs.lines():
        logger.info("  %s", line)


def train(run: Run) -> str | None:
    """Take every step that is not done yet; return the signal that ended it before the last one, by its name.

    Raises:
        UserError: a loss or a gradient is not finite.
    """
    from instruction_modelling.runs import pace
    from instruction_modelling.runs.diverged import diverged
    from instruction_modelling.runs.due import checkpoint_due, evaluation_due, samples_due
    from instruction_modelling.training.batches import step_micro_batches
    from instruction_modelling.training.optimizer import learning_rates
    from instruction_modelling.training.plan import GlobalBatch

    options, plan, accelerator = run.options, run.plan, run.accelerator
    rank, ranks = accelerator.process_index, accelerator.num_processes
    rates = learning_rates(options, plan.total_steps, plan.examples, ranks)
    # The released code divides an epoch's last, partial step by the size of a full one.
    full_batch_examples = plan.batch_size if options.recipe == "released" else None
    progress = pace.begin_training(run)
    run.stop.nothing_done = False
    saved, signal = run.done, run.stop.agreed(accelerator)
    while not run.ended() and not signal:
        started = time.monotonic()
        batch = GlobalBatch(run.done, plan.batch(run.done), full_batch_examples)
        for group in run.optimizer.param_groups:
            group["lr"] = rates[run.done]
        micro_batches = step_micro_batches(run.data.weighted, batch, run.layout, rank, ranks)
        first = pace.timed(run, micro_batches) if progress.measured is None else None
        line = train_step(run, first or micro_batches)
        seconds = time.monotonic() - started
        if first:
            pace.say_time(run, progress, first, seconds, line["tokens"])
        line = {
            "step": run.done + 1,
            "epoch": (run.done + 1) / plan.steps_per_epoch,
            **line,
            "learning_rate": rates[run.done],
            "examples": len(batch.examples),
            "tokens_per_second": line["tokens"] / seconds,
            "seconds": seconds,
        }
        if not (math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])):
            rows = run.data.weighted.data.rows[batch.examples]
            raise diverged(line, run.data.file, rows, run.folder.path)
        run.done += 1
        report_step(run, line, progress)
        if evaluation_due(options, plan, run.done):
            evaluate(run)
        if samples_due(options, plan, run.done):
            show_samples(run)
        if name := checkpoint_due(options, plan, run.done):
            save_checkpoint(run, name)
            saved = run.done
        signal = run.stop.agreed(accelerator)
    if signal and saved < run.done and not run.ended():
        save_checkpoint(run, f"step_{run.done}")
    return signal


def train_step(run: Run, micro_batches: list["MicroBatch"]) -> dict[str, Any]:
    """Run forward and backward over this rank's micro-batches, then update once; return the step's losses,
    gradient norm and token counts over all ranks."""
    import torch

    from instruction_modelling.training.seeding import derived_seed
    from instruction_modelling.training.sharding import accumulating, clip, is_deepspeed
    from instruction_modelling.training.step_totals import StepTotals

    options, accelerator, model = run.options, run.accelerator, run.model
    model.train()
    # Dropout follows from (seed, step, process), so a resumed run draws the same masks.
    torch.manual_seed(derived_seed(options.seed, run.done, accelerator.process_index))
    noise = accelerator.unwrap_model(model).noise
    totals = StepTotals(run.window, accelerator.device)
    for number, batch in enumerate(micro_batches, start=1):
        run.at_hand.now(f"in step {run.done + 1}", batch)
        if noise:
            noise.expect(batch)
        with accumulating(accelerator, model, last=number == len(micro_batches)):
            output = model(**batch.to(accelerator.device).tensors())
            # Processes average their gradients; the step's coefficients already divide by the whole step.
            accelerator.backward(output["loss"] * accelerator.num_processes)
        totals.add(batch, output)
    run.at_hand.now(f"in the update of step {run.done + 1}")
    if noise:
        noise.expect(None)
    norm = clip(accelerator, model, options.clip_grad_norm)
    totals.over_ranks(accelerator, norm)
    if not is_deepspeed(accelerator):
        # A loss or a gradient that is not finite moves nothing.
        if totals.finite:
            run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
    losses = totals.losses(with_kl=options.apply_kl_div_loss)
    return {**losses, "grad_norm": totals.grad_norm, **totals.tokens()}


def report_step(run: Run, line: dict[str, Any], progress: "Progress") -> None:
    """Show a step on the bar and, every --logging_steps, in metrics.jsonl, the trackers and the log."""
    note = (
        f"loss {line['loss']:.4f}  grad {line['grad_norm']:.3g}  lr {line['learning_rate']:.3g}  "
        f"{line['tokens_per_second']:.0f} tok/s"
    )
    progress.add(1, note)
    if run.done % run.options.logging_steps and run.done != run.plan.total_steps:
        return
    run.folder.add_metrics(line, run.accelerator)
    run.window.clear()
    # On a terminal the bar shows it; the log file always has it.
    on_bar = {"on_bar": progress.on_terminal}
    steps = f"step {run.done}/{run.plan.total_steps}"
    logger.info("%s  %s  %s left", steps, note, progress.left(), extra=on_bar)


def evaluate(run: Run) -> None:
    """Write the response loss on the rows of --eval_file to metrics.jsonl, the trackers and the log."""
    from instruction_modelling.runs.best import take_measurement
    from instruction_modelling.training.evaluation_rows import in_words
    from instruction_modelling.training.row_losses import response_loss

    assert run.data.evaluation is not None
    run.at_hand.now("measuring the rows of --eval_file")
    means = response_loss(run.model, run.data.evaluation, run.layout, run.accelerator)
    line = {"step": run.done, **{f"eval_{name}": value for name, value in means.items()}}
    run.folder.add_metrics(line, run.accelerator)
    logger.info("%s", in_words(line))
    take_measurement(run, line, lambda: fingerprint(run))


def show_samples(run: Run) -> None:
    """Answer the prompts of --sample_file by the model as it is now, in the log, samples.jsonl and the
    trackers, and score the answers (--task_score)."""
    from instruction_modelling.generation.samples import take_samples
    from instruction_modelling.runs.best import take_measurement

    run.at_hand.now("answering the prompts of --sample_file")
    score = take_samples(run, run.samples)
    if score is not None:
        line = {"step": run.done, "task_score": score}
        run.folder.add_metrics(line, run.accelerator)
        take_measurement(run, line, lambda: fingerprint(run))


def save_checkpoint(run: Run, name: str) -> None:
    """Save the checkpoint `name`; then the oldest ones go, as --save_total_limit says."""
    from instruction_modelling.runs import checkpoint_folders, checkpoints
    from instruction_modelling.runs.best import forget_others
    from instruction_modelling.runs.state import training_state

    path, accelerator = run.folder.path / name, run.accelerator
    run.at_hand.now(f"saving the checkpoint {name}")
    checkpoints.save_checkpoint(
        accelerator,
        training_state(accelerator, run.model, run.optimizer),
        path,
        {
            "step": run.done,
            "fingerprint": fingerprint(run),
            "since_logged": run.window.state(),
            **({"best": run.best.state()} if run.options.uses_best() else {}),
        },
        run.folder.metrics(),
    )
    if accelerator.is_main_process:
        checkpoint_folders.prune(run.folder.path, run.options.save_total_limit, path)
    forget_others(run)
    logger.info("saved checkpoint %s", path)


def resume(run: Run) -> None:
    """Put the checkpoint's weights, optimiser state, step and metrics in place where there is one.

    Raises:
        UserError: the checkpoint belongs to another run.
    """
    from instruction_modelling.runs import checkpoint_folders, checkpoints
    from instruction_modelling.runs.best import find_kept
    from instruction_modelling.runs.fingerprint import check_same_run
    from instruction_modelling.runs.folder import METRICS
    from instruction_modelling.runs.state import training_state

    chosen, folder, accelerator = run.options.resume_from_checkpoint, run.folder, run.accelerator
    path = run.checkpoint
    if path is not None:
        state = checkpoint_folders.read_manifest(path)
        check_same_run(path, state, fingerprint(run))
        checkpoints.load_checkpoint(training_state(accelerator, run.model, run.optimizer), path)
        run.done = int(state["step"])
        run.window.restore(state.get("since_logged", {}))
        if "best" in state:
            run.best.restore(state["best"])
        find_kept(run, path)
        logger.info("resuming from %s: %d of %d steps done", path, run.done, run.plan.total_steps)
        if accelerator.is_main_process and chosen == "latest" and not run.options.dry_run:
            # What a failing disk kept the last save from removing; the one resumed from is the newest, and
            # stays.
            checkpoint_folders.prune(folder.path, run.options.save_total_limit)
    elif chosen:
        logger.info("no checkpoint in %s yet: starting from the beginning", folder.path)
    folder.restore_metrics((path / METRICS).read_text(encoding="utf-8") if path else "")
    folder.restore_samples(run.done)


def save(run: Run) -> None:
    """Save the model (of the best measurement, where asked for) with tokenizer, template and stop tokens, its
    card, and the finished run.json."""
    from instruction_modelling.runs.best import describe_best, forget_others, put_back
    from instruction_modelling.runs.model import save_model

    form = saved_form(run)
    run.at_hand.now("saving the model")
    put_back(run)
    save_model(run.accelerator, run.model, run.optimizer, form, run.folder.path)
    run.record["model"]["saved_as"] = form.dtype_name
    record = {**run.record, "finished": True, **describe_best(run)}
    unweighted = run.options.use_lm_modelling and not run.options.blocks_keep_weights()
    run.folder.write_card(record, every_token_weighs_1=unweighted)
    run.folder.write_run(record)
    forget_others(run, ended=True)
    logger.info("saved %s (%s) after %.0f s", run.folder.path, form.dtype_name, record["seconds"])
    run.record = record
    logger.info("try it: %s", command("chat", run.folder.path))


def check_answers(run: Run) -> None:
    """Have the saved model answer a few rows and count what is plainly wrong (--check_answers)."""
    options, accelerator, rows = run.options, run.accelerator, run.options.check_answers
    if rows is None:
        rows = CHECKED_ON_GPU if accelerator.device.type == "cuda" else 0
    if not rows or not accelerator.is_main_process:
        return
    from instruction_modelling.generation.check import check_after_training

    run.model = run.optimizer = None
    accelerator.free_memory()
    run.at_hand.now("checking the saved model's answers")
    files = options.eval_file or options.train_file or []
    counts = check_after_training(run.folder.path, files, rows, options.columns, accelerator.num_processes)
    if counts is not None:
        run.record["answers"] = counts
        run.folder.write_run(run.record)


def push(run: Run) -> None:
    """Upload the saved model (--push_to_hub)."""
    if run.options.push_to_hub and run.accelerator.is_main_process:
        from instruction_modelling.runs.publish import push_after_training

        run.at_hand.now("uploading the model")
        push_after_training(run.folder.path, run.options.push_to_hub)


if __name__ == "__main__":
    run_main(main)
