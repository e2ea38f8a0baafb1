"""Converts downloaded instruction data to rows of `dataset`, `id` and `messages`, one JSON object a line.

    python src/reformat_datasets.py --raw_data_dir data/raw_train/ --output_dir data/processed/
    python src/reformat_datasets.py --raw_data_dir data/raw_train/ --output_dir data/processed/ --dataset tulu_v2

Each set goes to OUTPUT_DIR/NAME/NAME_data.jsonl; beside it NAME_data.card.json says what was read, with which options,
and what became of every row, and NAME_data.refused.jsonl lists the rows that could not be used, with file, line and
reason. With no --dataset, every set whose raw files are there is converted.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main

MIXTURES = ("tulu_v1", "tulu_v2")


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
    """JSON file of prompt templates, one of which is drawn for each row; its words are trained wherever instructions
    are (default: no words are added)."""
    rows_per_file: int | None = None
    """Most rows from each raw file, drawn at random; 0 for all (default: 50000 of cot, 30000 of wizardlm and
    open_orca, else all; the mixtures have limits of their own)."""
    best_replies: int | None = None
    """OASST: replies followed at each message, the best first (default: all; the mixtures have their own: 1 in tulu_v2)."""
    tokenizer_name: str | None = None
    """Folder or hub name of the tokenizer that measures ShareGPT's conversations (the published split: Llama's)."""
    max_tokens: int | None = None
    """ShareGPT: tokens at which conversations are split; 0 leaves them whole (default: 2048 for sharegpt, 4096 for
    sharegpt_4096)."""
    released_split: bool = False
    """ShareGPT: lose the last turn of a conversation where the published splitter does (the mixtures always do)."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        from instruction_modelling.source_formats import CONVERTERS

        known = (*CONVERTERS, *MIXTURES)
        problems = [f"--dataset {name}: there are {', '.join(known)}" for name in self.dataset if name not in known]
        problems += [f"--{name} {getattr(self, name)} is below {least}" for name, least in
                     (("rows_per_file", 0), ("best_replies", 1), ("max_tokens", 0))
                     if getattr(self, name) is not None and getattr(self, name) < least]
        if not Path(self.raw_data_dir).is_dir():
            problems.append(f"--raw_data_dir {self.raw_data_dir}: there is no such folder; run prepare_train_data.sh first")
        return problems


def main() -> int:
    """Converts the sets; gives 2 if one of them could not be."""
    options = parse_options(ReformatOptions)
    from instruction_modelling.source_formats import CONVERTERS

    raw = Path(options.raw_data_dir)
    names = options.dataset or [name for name in (*CONVERTERS, *MIXTURES) if raw_files(name, raw)]
    if not names:
        raise UserError(f"{raw}: holds no raw files of {', '.join(CONVERTERS)}; run prepare_train_data.sh first")
    tokenizer = None
    if options.tokenizer_name:
        from instruction_modelling.modeling import load_tokenizer

        tokenizer = load_tokenizer(options.tokenizer_name)
    reports, failed = [], []
    for name in names:
        try:
            reports.append(reformat(name, options, tokenizer))
        except UserError as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
    print_table(reports)
    if failed:
        print(f"not converted: {', '.join(failed)} (see above)")
    return 2 if failed else 0


def raw_files(name: str, raw: Path) -> list[Path]:
    """The raw files of a set or of all parts of a mixture; empty where one is missing."""
    from instruction_modelling.source_formats import raw_files_of
    from instruction_modelling.tulu_mixture import TULU_V1, TULU_V2, mixture_files

    try:
        if name in MIXTURES:
            return [path for _, files in mixture_files(TULU_V2 if name == "tulu_v2" else TULU_V1, raw) for path in files]
        return raw_files_of(name, raw)
    except UserError:
        return []


def reformat(name: str, options: ReformatOptions, tokenizer: Any) -> Any:
    """Converts one set or mixture; gives its report."""
    from instruction_modelling.progress import Progress
    from instruction_modelling.prompt_templates import load_templates
    from instruction_modelling.source_formats import CONVERTERS, convert, raw_files_of
    from instruction_modelling.tulu_mixture import build_tulu_v1, build_tulu_v2

    raw, output = Path(options.raw_data_dir), Path(options.output_dir) / name / f"{name}_data.jsonl"
    progress = Progress(sum(path.stat().st_size for path in raw_files(name, raw)), f"bytes of {name}")
    if name in MIXTURES:
        build = build_tulu_v2 if name == "tulu_v2" else build_tulu_v1
        templates = load_templates(Path(options.templates)) if options.templates else None
        return build(raw, output, seed=options.seed, templates=templates, tokenizer=tokenizer, progress=progress.add)
    files = raw_files_of(name, raw)
    if not files:
        wanted = " or ".join(", ".join(group) for group in CONVERTERS[name].files)
        raise UserError(f"its raw files are not in {raw}: {wanted}; run prepare_train_data.sh first")
    return convert(name, files, output, templates=Path(options.templates) if options.templates else None, seed=options.seed,
                   limit=options.rows_per_file, best_replies=options.best_replies, max_tokens=options.max_tokens,
                   tokenizer=tokenizer, released_split=options.released_split, progress=progress.add)


def print_table(reports: list[Any]) -> None:
    """A line a set, and under it what was refused, left out and changed, by reason."""
    if not reports:
        return
    width = max(len(report.format) for report in reports)
    print(f"{'set':{width}}  {'read':>9}  {'written':>9}  {'refused':>9}  {'left out':>9}  file")
    for report in reports:
        print(f"{report.format:{width}}  {report.rows_read:9,}  {report.rows_written:9,}  {report.refused.total():9,}  "
              f"{report.left_out.total():9,}  {report.output}")
        for kind, counts in (("refused", report.refused), ("left out", report.left_out), ("changed", report.notes)):
            for reason, count in counts.most_common():
                print(f"{'':{width}}  {kind}: {count:,} {reason}")
        if report.refused:
            print(f"{'':{width}}  every refused row: {report.refusals}")


if __name__ == "__main__":
    run_main(main)
