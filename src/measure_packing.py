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

    train_file: str = ""
    """JSON Lines (or one JSON array) of conversations."""
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
        """Every problem of the options, in words."""
        return [f"--{name} is needed" for name in ("train_file", "tokenizer_name") if not getattr(self, name)]


def main() -> int:
    """Rows, their lengths, and a line for each batch size."""
    options = parse_options(PackingOptions)

    import numpy as np

    from instruction_modelling.batching import StepPlan, groups_by_length, pack
    from instruction_modelling.chat_format import load_chat_format
    from instruction_modelling.conversations import check_bad_rows, read_conversations
    from instruction_modelling.encoded_data import RowEncoder, encode_file
    from instruction_modelling.modeling import load_tokenizer

    file = read_conversations(options.train_file)
    tokenizer = load_tokenizer(options.tokenizer_name)
    encoder = RowEncoder(tokenizer, load_chat_format(options.chat_format, tokenizer), options.max_seq_length)
    data = encode_file(file, encoder, options.overwrite_cache)
    check_bad_rows(file, options.max_bad_rows, data.refused)
    capacity = options.max_tokens_per_device or options.max_seq_length
    lengths = data.lengths

    def padded(groups: list[np.ndarray]) -> float:
        return sum(int(lengths[g].sum()) for g in groups) / sum(len(g) * int(lengths[g].max()) for g in groups)

    print(f"{options.train_file}: {len(data)} rows, {lengths.sum()} tokens, mean {lengths.mean():.1f}, longest "
          f"{lengths.max()}; packed micro-batches of {capacity} tokens, padded ones of {options.padded_size} examples")
    print("examples a step   steps   packed micro-batches   packed, full   padded, by length   padded, as they come")
    for size in options.batch_sizes:
        plan = StepPlan(len(data), size, options.seed, 0)
        steps = [plan.batch(step) for step in range(plan.steps_per_epoch)]
        bins = sum(len(pack(lengths[batch].tolist(), capacity)) for batch in steps)
        sorted_groups = [batch[g] for batch in steps for g in groups_by_length(lengths[batch].tolist(), options.padded_size)]
        plain_groups = [batch[i:i + options.padded_size] for batch in steps for i in range(0, len(batch), options.padded_size)]
        print(f"{size:15}   {len(steps):5}   {bins:20}   {lengths.sum() / (bins * capacity):12.1%}   "
              f"{padded(sorted_groups):17.1%}   {padded(plain_groups):20.1%}")
    return 0


if __name__ == "__main__":
    run_main(main)
