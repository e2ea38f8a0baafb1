"""The loss of a model on a file, row by row and by who wrote what.

    python src/compute_loss.py --model_name_or_path RUN --eval_file F.jsonl --output_dir OUT

Writes losses.jsonl, a line a row in the file's order, with the mean NLL in nats per token of each span kind
(`response` = assistant + end), and summary.json with the mean over examples and the mean over tokens. Under
`accelerate launch` the rows are shared out over the processes, and with DeepSpeed or FSDP2 the model is too.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.inputs import missing_inputs


@dataclass
class LossOptions:
    """Options."""

    model_name_or_path: str = field(metadata={"input": "model"})
    """Folder or hub name of the model."""
    eval_file: str = field(metadata={"input": "rows"})
    """Conversations, in any file that --train_file of src/finetune.py takes."""
    output_dir: str = field(metadata={"input": "output"})
    """Where losses.jsonl and summary.json go."""
    base_model: str | None = field(default=None, metadata={"input": "model"})
    """Folder or hub name of the model before tuning: the KL divergence of the model from it, over the whole
    vocabulary, is measured too."""
    columns: str | None = None
    """What columns of other names are: question=user,answer=assistant, a role or a known column each."""
    tokenizer_name: str | None = field(default=None, metadata={"input": "model"})
    """Folder or hub name of the tokenizer (default: the model's)."""
    use_flash_attn: bool = False
    """The flash-attn package where it is installed and the device has it, else torch's own attention with a
    warning; torch's has FlashAttention 2 too."""
    use_slow_tokenizer: bool = False
    """Accepted for old commands; a fast tokenizer is used all the same."""
    max_seq_length: int = 2048
    """Tokens of a row, BOS counted, beyond which --overlong holds."""
    overlong: Literal["cut", "drop", "error"] = "cut"
    """Rows longer than --max_seq_length: cut at the end, drop (each appears in losses.jsonl with its reason),
    or error."""
    preprocessing_num_workers: int | None = None
    """Threads that tokenise (default: all cores)."""
    per_device_eval_batch_size: int = 8
    """Rows a device computes at once with --no_packing."""
    no_packing: bool = False
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
        """Return every problem of the options, in words."""
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
    """Read the rows, score them and write the losses."""
    options = parse_options(LossOptions, also_check=missing_inputs)
    import torch

    from instruction_modelling.models import loading
    from instruction_modelling.models.positions import check_positions
    from instruction_modelling.models.sizes import require_embeddings
    from instruction_modelling.progress import Progress
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
    from instruction_modelling.runs.folder import RunFolder
    from instruction_modelling.tokens.cache import encode_file
    from instruction_modelling.tokens.overlong import leave_out_overlong
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.training.launch import end_processes, make_accelerator
    from instruction_modelling.training.loss_files import write_losses
    from instruction_modelling.training.plan import Layout
    from instruction_modelling.training.row_losses import mean_kl, row_losses
    from instruction_modelling.training.sharding import prepare_to_score, scoring_dtype
    from instruction_modelling.training.trainable_model import model_to_score

    accelerator = make_accelerator()
    RunFolder(options.output_dir, accelerator.is_main_process).start_log()
    file = read_conversations(options.eval_file, options.columns)
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
    data, overlong = leave_out_overlong(data, file, options.overlong, options.max_seq_length)
    data = replace(data, refused=[*data.refused, *overlong])

    dtype, packing = scoring_dtype(accelerator, options.dtype), not options.no_packing
    cuda = accelerator.device.type == "cuda"
    attention = loading.pick_attention(packing, options.use_flash_attn, cuda, dtype == torch.bfloat16)
    model = model_to_score(options.model_name_or_path, options.base_model, dtype, attention)
    require_embeddings(model.model, int(data.ids.max(initial=0)))
    check_positions(model.model, data.sequence_lengths.tolist())
    prepared = prepare_to_score(accelerator, model, packing)
    limit = max(int(data.sequence_lengths.max(initial=1)), options.max_tokens_per_device or 4096)
    layout = Layout(packing, options.per_device_eval_batch_size, limit)
    progress = Progress(len(data), "rows", shown=accelerator.is_main_process)
    losses = row_losses(prepared, data, layout, accelerator, progress.add)
    if accelerator.is_main_process:
        made_with = {
            "chat_format": options.chat_format,
            "max_seq_length": options.max_seq_length,
            "dtype": str(dtype).removeprefix("torch."),
            **({"base_model": options.base_model, "kl": mean_kl(losses)} if options.base_model else {}),
        }
        write_losses(Path(options.output_dir), options.model_name_or_path, file, (data, losses), made_with)
    end_processes(accelerator)
    return 0


if __name__ == "__main__":
    run_main(main)
