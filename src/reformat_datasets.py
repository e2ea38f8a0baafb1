"""Convert downloaded instruction data to rows of `dataset`, `id` and `messages`, one JSON object a line.

    python src/reformat_datasets.py --raw_data_dir data/raw_train/ --output_dir data/processed/
    python src/reformat_datasets.py --raw_data_dir data/raw_train/ --dataset tulu_v2

Each set goes to OUTPUT_DIR/NAME/NAME_data.jsonl; beside it NAME_data.card.json says what was read, with which
options, and what became of every row, and NAME_data.refused.jsonl lists the rows that could not be used, with
file, line and reason. With no --dataset, every set whose raw files are there is converted."""

from dataclasses import dataclass, field
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main


@dataclass
class ReformatOptions:
    """Data."""

    raw_data_dir: str = "data/raw_train"
    """Folder of the downloads: one folder a set."""
    output_dir: str = "data/processed"
    """Folder of the converted sets."""
    dataset: list[str] = field(default_factory=list)
    """Sets to convert (default: all whose raw files are there)."""
    seed: int = 42
    """Of everything that is drawn: rows, few-shot examples, templates; each set starts from it anew."""
    templates: str | None = None
    """JSON file of prompt templates, one of which is drawn for each row; its words are trained wherever
    instructions are (default: no words are added)."""
    rows_per_file: int | None = None
    """Most rows from each raw file, drawn at random; 0 for all (default: 50000 of cot, 30000 of wizardlm and
    open_orca, else all; the mixtures have limits of their own)."""
    best_replies: int | None = None
    """OASST: replies followed at each message, the best first (default: all; the mixtures have their own: 1
    in tulu_v2)."""
    tokenizer_name: str | None = None
    """Folder or hub name of the tokenizer that measures ShareGPT's conversations (the published split:
    Llama's)."""
    max_tokens: int | None = None
    """ShareGPT: tokens at which conversations are split; 0 leaves them whole (default: 2048 for sharegpt,
    4096 for sharegpt_4096)."""
    released_split: bool = False
    """ShareGPT: lose the last turn of a conversation where the published splitter does (the mixtures always
    do)."""

    def check(self) -> list[str]:
        """Return every problem of the options, in words."""
        from instruction_modelling.sources.conversion.formats import CONVERTERS
        from instruction_modelling.sources.conversion.mixtures import MIXTURES

        known = (*CONVERTERS, *MIXTURES)
        problems = [
            f"--dataset {name}: there are {', '.join(known)}" for name in self.dataset if name not in known
        ]
        problems += [
            f"--{name} {getattr(self, name)} is below {least}"
            for name, least in (("rows_per_file", 0), ("best_replies", 1), ("max_tokens", 0))
            if getattr(self, name) is not None and getattr(self, name) < least
        ]
        if not Path(self.raw_data_dir).is_dir():
            problems.append(
                f"--raw_data_dir {self.raw_data_dir}: there is no such folder; run prepare_train_data.sh "
                "first"
            )
        return problems


def main() -> int:
    """Convert the sets; return 2 if one of them could not be."""
    options = parse_options(ReformatOptions)
    from instruction_modelling.sources.conversion.formats import CONVERTERS
    from instruction_modelling.sources.conversion.mixtures import MIXTURES
    from instruction_modelling.sources.conversion.options import ConversionOptions
    from instruction_modelling.sources.conversion.sets import convert_set, print_table, set_files
    from instruction_modelling.sources.conversion.templates import load_templates

    raw = Path(options.raw_data_dir)
    names = options.dataset or [name for name in (*CONVERTERS, *MIXTURES) if set_files(name, raw)]
    if not names:
        raise UserError(
            f"{raw}: holds no raw files of {', '.join(CONVERTERS)}; run prepare_train_data.sh first"
        )
    tokenizer = None
    if options.tokenizer_name:
        from instruction_modelling.models.loading import load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer_name)
    conversion = ConversionOptions(
        seed=options.seed,
        templates=load_templates(Path(options.templates)) if options.templates else None,
        limit=options.rows_per_file,
        best_replies=options.best_replies,
        max_tokens=options.max_tokens,
        tokenizer=tokenizer,
        released_split=options.released_split,
    )
    reports, failed = [], []
    for name in names:
        try:
            reports.append(convert_set(name, raw, Path(options.output_dir), conversion))
        except UserError as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
    print_table(reports)
    if failed:
        print(f"not converted: {', '.join(failed)} (see above)")
    return 2 if failed else 0


if __name__ == "__main__":
    run_main(main)
