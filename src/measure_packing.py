"""How full the micro-batches of a file are, packed and padded, for the steps that training would take.

python src/measure_packing.py --train_file F.jsonl --tokenizer_name T --batch_sizes 32 128
"""

from dataclasses import dataclass, field

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.options import DataOptions


@dataclass
class PackingOptions(DataOptions):
    """Packing."""

    tokenizer_name: str = ""
    """Folder or hub name of the tokenizer."""
    batch_sizes: list[int] = field(default_factory=lambda: [32, 128])
    """Examples a step."""
    max_tokens_per_device: int | None = None
    """Most tokens in a packed micro-batch (default: --max_seq_length)."""
    padded_size: int = 8
    """Examples in a padded micro-batch."""
    seed: int = 0
    """Of the order of examples; one epoch is measured."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        return [f"--{name} is needed" for name in ("train_file", "tokenizer_name") if not getattr(self, name)]


def main() -> int:
    """Read the rows, lay out an epoch for each batch size, and print a line for each."""
    options = parse_options(PackingOptions)

    from instruction_modelling.models.loading import load_tokenizer
    from instruction_modelling.rows.conversations import check_bad_rows, read_conversations
    from instruction_modelling.rows.mixture import row_files
    from instruction_modelling.tokens.cache import encode_file
    from instruction_modelling.tokens.quotas import quotas_of
    from instruction_modelling.tokens.row_encoder import row_encoder
    from instruction_modelling.training.packing_fill import packing_fill

    files = row_files(options.train_file or [], options.proportions)
    file = read_conversations(files, options.columns, keep=False)
    tokenizer = load_tokenizer(options.tokenizer_name)
    encoder = row_encoder(
        tokenizer, options.chat_format, options.max_seq_length, threads=options.preprocessing_num_workers
    )
    data = encode_file(file, encoder, options.overwrite_cache)
    check_bad_rows(file, options.max_bad_rows, data.refused)
    capacity = options.max_tokens_per_device or options.max_seq_length
    lengths, quotas = data.lengths, quotas_of(file, data.rows)

    print(
        f"{file.path}: {len(data)} rows, {lengths.sum()} tokens, mean {lengths.mean():.1f}, longest "
        f"{lengths.max()}; packed micro-batches of {capacity} tokens, padded ones of {options.padded_size} "
        "examples"
    )
    print(
        "examples a step   steps   packed micro-batches   packed, full   padded, by length   padded, as they "
        "come"
    )
    for size in options.batch_sizes:
        fill = packing_fill(lengths, size, capacity, options.padded_size, (options.seed, quotas))
        print(
            f"{size:15}   {fill.steps:5}   {fill.packed_micro_batches:20}   {fill.packed:12.1%}   "
            f"{fill.padded_by_length:17.1%}   {fill.padded_as_they_come:20.1%}"
        )
    return 0


if __name__ == "__main__":
    run_main(main)
