"""Make a tiny random Llama (0.34 million parameters) with a byte-level BPE tokenizer learnt from the shipped
sample.

For trying commands in seconds and for tests: it knows nothing. It has no chat template, so conversations are
written in the Tülu format, as for Llama-2. The same files and seed give the same bytes."""

from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.models.tiny import conversation_texts, save_tiny_model

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


@dataclass
class TinyModelOptions:
    """Options."""

    output_dir: str
    """Where the model goes: a folder made whole or not at all."""
    seed: int = 0
    """Seed of the weights."""
    train_file: str | None = None
    """Conversations to learn the tokenizer from (default: all of data/sample)."""
    max_bad_rows: int = 0
    """Rows that may be unusable before the script stops; each is counted and listed with its reason."""

    def check(self) -> list[str]:
        """Return what is wrong with the options, in words."""
        return [] if 0 <= self.seed < 2**64 else [f"--seed {self.seed}: a whole number from 0 to 2^64 - 1"]


def main() -> None:
    """Make the model."""
    options = parse_options(TinyModelOptions)
    files = [Path(options.train_file)] if options.train_file else sorted(SAMPLE.glob("*.jsonl"))
    if not files:
        raise UserError(f"{SAMPLE} holds no .jsonl file to learn the tokenizer from: give --train_file FILE")
    texts = conversation_texts(files, options.max_bad_rows)
    parameters = save_tiny_model(Path(options.output_dir), texts, options.seed)
    print(f"saved {options.output_dir} ({parameters:,} parameters)")


if __name__ == "__main__":
    run_main(main)
