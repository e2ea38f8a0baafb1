"""The loss of a model on a file, row by row and by who wrote what.

    python src/compute_loss.py --model_name_or_path RUN --eval_file F.jsonl --output_dir OUT

Writes losses.jsonl, a line a row in the file's order, with the mean NLL in nats per token of each span kind
(`response` = assistant + end), and summary.json with the mean over examples and the mean over tokens. Under
`accelerate launch` the rows are shared out over the processes, and with DeepSpeed or FSDP2 the model is too.
"""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

logger = logging.getLogger("instruction_modelling.compute_loss")


@dataclass
class LossOptions:
    """Options."""

    model_name_or_path: str
    """Folder or hub name of the model."""
    eval_file: str
    """JSON Lines (or one JSON array) of conversations."""
    output_dir: str
    """Where losses.jsonl and summary.json go."""
    tokenizer_name: str | None = None
    """Folder or hub name of the tokenizer (default: the model's)."""
    use_flash_attn: bool = False
    """FlashAttention 2 where it is installed and the device has it, else SDPA with a warning."""
    use_slow_tokenizer: bool = False
    """Accepted for old commands; a fast tokenizer is used all the same."""
    max_seq_length: int = 2048
    """Tokens of a row, BOS counted, beyond which it is cut at the end."""
    preprocessing_num_workers: int | None = None
    """Threads that tokenise (default: all cores)."""
    per_device_eval_batch_size: int = 8
    """Rows a device computes at once with --no_packing."""
    packing: bool = True
    """Pad rows to batches instead of packing them; the losses are the same."""
    max_tokens_per_device: int | None = None
    """Most tokens in a packed micro-batch (default: 4096 or the longest row)."""
    chat_format: str = "auto"
    """auto (the tokenizer's own template, which a run folder holds; else tulu), tulu, tokenizer, or a Jinja
    file."""
    num_rows: int | None = None
    """Score only the first so many rows of the file (default: all)."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Number format of the weights (default: float32 on CPU, bfloat16 on a GPU)."""
    max_bad_rows: int = 0
    """Rows that may be unusable before it stops; each appears in losses.jsonl with its reason."""
    overwrite_cache: bool = False
    """Tokenise again even where the cache holds these rows."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        return [
            f"--{name} {getattr(self, name)}: must be {least} or more"
            for name, least in (
                ("max_seq_length", 2),
                ("per_device_eval_batch_size", 1),
                ("max_tokens_per_device", 2),
                ("num_rows", 1),
            )
            if getattr(self, name) is not None and getattr(self, name) < least
        ]


def main() -> int:
    """Rows, model, losses, files."""
    options = parse_options(LossOptions)
    import torch

    from instruction_modelling.models import loading
    from instruction_modelling.progress import Progress
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.tokens.cache import encode_file
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.training import loss_model
    from instruction_modelling.training.launch import end_processes, make_accelerator
    from instruction_modelling.training.plan import Layout
    from instruction_modelling.training.row_losses import row_losses
    from instruction_modelling.training.sharding import prepare_to_score, scoring_dtype

    accelerator = make_accelerator()
    RunFolder(options.output_dir, accelerator.is_main_process).start_log()
    file = read_conversations(options.eval_file)
    if options.num_rows is not None:
        file = replace(
            file,
            conversations=[c for c in file.conversations if c.row < options.num_rows],
            bad_rows=[b for b in file.bad_rows if b.row < options.num_rows],
        )
    tokenizer = loading.load_tokenizer(
        options.tokenizer_name or options.model_name_or_path, options.use_slow_tokenizer
    )
    encoder = row_encoder(
        tokenizer, options.chat_format, options.max_seq_length, threads=options.preprocessing_num_workers
    )
    with accelerator.main_process_first():
        data = encode_file(file, encoder, options.overwrite_cache and accelerator.is_main_process)
    check_bad_rows(file, options.max_bad_rows, data.refused)

    dtype = scoring_dtype(accelerator, options.dtype)
    attention = loading.pick_attention(
        options.packing, options.use_flash_attn, accelerator.device.type == "cuda", dtype == torch.bfloat16
    )
    model = prepare_to_score(
        accelerator,
        loss_model.LossModel(loading.load_model(options.model_name_or_path, dtype, attention)),
        options.packing,
    )
    longest = int(data.lengths.max(initial=1))
    layout = Layout(
        options.packing,
        options.per_device_eval_batch_size,
        max(longest, options.max_tokens_per_device or 4096),
    )
    progress = Progress(len(data), "rows", shown=accelerator.is_main_process)
    losses = row_losses(model, data, layout, accelerator, progress.add)
    if accelerator.is_main_process:
        write(options, file, data, losses, str(dtype))
    end_processes(accelerator)
    return 0


def write(options: LossOptions, file: Any, data: Any, losses: list[dict[str, Any]], dtype: str) -> None:
    """losses.jsonl with every row of the file in order, and summary.json."""
    from instruction_modelling.rows.conversations import bad_rows_table
    from instruction_modelling.runs.folder import write_aside
    from instruction_modelling.tokens.weighted import count_reasons
    from instruction_modelling.training.row_losses import summarise

    nothing_scored = "no token after the first"
    lines = {
        b.row: {"row": b.row, "id": b.id, "dropped": b.reason, "tokens": {}, "nll": {}}
        for b in [*file.bad_rows, *data.refused]
    }
    empty = []
    for index, found in enumerate(losses):
        line = {"row": int(data.rows[index]), "id": data.row_ids[index], **found}
        if not found["tokens"]:
            line["dropped"] = nothing_scored
            empty.append(nothing_scored)
        lines[line["row"]] = line
    folder = Path(options.output_dir)
    write_aside(
        folder / "losses.jsonl",
        "".join(json.dumps(lines[row], ensure_ascii=False) + "\n" for row in sorted(lines)),
    )
    rows = [found for found in losses if found["tokens"]]
    summary = {
        "model": options.model_name_or_path,
        "file": str(file.path),
        "sha256": file.sha256,
        "rows": file.rows,
        "rows_scored": len(rows),
        **summarise(rows),
        "dropped": {**bad_rows_table([*file.bad_rows, *data.refused]), **count_reasons(empty)},
        "truncated_rows": data.truncated_rows,
        "tokens_cut": data.tokens_cut,
        "chat_format": options.chat_format,
        "max_seq_length": options.max_seq_length,
        "dtype": dtype.removeprefix("torch."),
    }
    write_aside(folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    if not rows:
        raise UserError(f"{file.path}: no row could be scored ({summary['dropped']})")
    for kind, mean in summary["mean_over_examples"].items():
        logger.info(
            "%-10s %8.4f nats a token (mean over examples)  %8.4f (over tokens)  %9d tokens",
            kind,
            mean,
            summary["mean_over_tokens"][kind],
            summary["tokens"][kind],
        )


if __name__ == "__main__":
    run_main(main)
