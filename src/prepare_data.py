"""Downloads training sets and converts them to rows of chat: the paper's, the parts of the Tülu mixtures, the
mixtures.

    sh prepare_train_data.sh                 # the paper's seven sets, as its authors processed them:
    data/NAME.jsonl sh prepare_train_data.sh lima dolly      # sets by name: data/raw_train/NAME, then
    data/processed/NAME/NAME_data.jsonl sh prepare_train_data.sh tulu_v2         # a mixture: all its parts,
    then the mixture sh prepare_train_data.sh --list          # every set: rows, licence, size, address sh
    prepare_alpagasus_data.sh             # AlpaGasus from its own repository: data/alpagasus, then
    data/processed

Stopped at any point, the same command goes on where it was. What was fetched is recorded with its hash in
DATA_DIR/downloads.lock.json; a file that is there and right is not fetched again, and one that has changed at
its source is refused. Sets whose owners ask for consent (LIMA) are fetched with the token in the environment
variable HF_TOKEN, which goes to huggingface.co alone. A host's mirror is set by IM_MIRROR_ and its name:
IM_MIRROR_HUGGINGFACE_CO (or HF_ENDPOINT), IM_MIRROR_RAW_GITHUBUSERCONTENT_COM, IM_MIRROR_GITHUB_COM,
IM_MIRROR_BEAKER_ORG.

Exit code 0 if every set is there, 2 if one is not; the others are then there all the same.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.sources.downloads.sets import (
    DownloadOptions,
    ListOptions,
    fetch_sets,
    print_sets,
    print_summary,
)

if TYPE_CHECKING:
    from instruction_modelling.sources.downloads.catalogue import DataSet

# The tokenizer by which the published mixtures split ShareGPT's conversations.
SPLITTER = "oobabooga/llama-tokenizer"


@dataclass
class PrepareOptions(ListOptions, DownloadOptions):
    """Preparation."""

    markdown: bool = False
    """Print the Markdown table of data/README.md, and do nothing else."""
    sets: list[str] = field(default_factory=list, metadata={"positional": "SET"})
    """Names of sets (default: those of --collection)."""
    collection: Literal["paper", "alpagasus"] = "paper"
    """What is prepared where no set is named."""
    download_only: bool = False
    """Do not convert."""
    tokenizer_name: str = SPLITTER
    """Folder or hub name of the tokenizer that measures ShareGPT's conversations."""
    templates: str | None = None
    """JSON file of prompt templates, one of which is drawn for each row (default: no words are added)."""
    seed: int = 42
    """Of everything that is drawn in conversions."""

    def check(self) -> list[str]:
        """Every problem of the options, in words."""
        from instruction_modelling.sources.downloads.catalogue import CATALOGUE

        problems = [
            f"{name}: no such set; there are {', '.join(CATALOGUE)} (--list tells more)"
            for name in self.sets
            if name not in CATALOGUE
        ]
        return problems + self.download_problems()


def main() -> int:
    """Downloads, unpacks, converts, and says what is there."""
    options = parse_options(PrepareOptions)
    from instruction_modelling.sources.downloads.catalogue import ALPAGASUS_SETS, CATALOGUE, PAPER

    if options.list or options.markdown:
        (print_markdown if options.markdown else print_sets)(
            [CATALOGUE[name] for name in options.sets or CATALOGUE]
        )
        return 0
    names = options.sets or list(PAPER if options.collection == "paper" else ALPAGASUS_SETS)
    wanted = [CATALOGUE[name] for name in dict.fromkeys(names)]
    try:
        return prepare(wanted, options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


def prepare(wanted: "list[DataSet]", options: PrepareOptions) -> int:
    """Fetches and converts sets; the exit code."""
    problems = fetch_sets(with_parts(wanted), options)
    rows = []
    for one in wanted:
        problem = next((problems[name] for name in (one.name, *one.parts) if name in problems), None)
        if problem is None:
            rows.append((one.name, *finish_set(one, options)))
        else:
            rows.append((one.name, "failed", "", problem))
    return print_summary(rows)


def with_parts(sets: "list[DataSet]") -> "list[DataSet]":
    """The sets and the parts of mixtures among them, each once."""
    from instruction_modelling.sources.downloads.catalogue import CATALOGUE

    return list(
        {
            one.name: one for mixture in sets for one in (*map(CATALOGUE.get, mixture.parts), mixture) if one
        }.values()
    )


def finish_set(one: "DataSet", options: PrepareOptions) -> tuple[str, str, str]:
    """Converts a set whose files are there; (what came of it, rows, where it is or what went wrong)."""
    from instruction_modelling.sources.conversion.sets import (
        convert_set,
        converted_rows,
        needs_tokenizer,
        output_of,
        print_table,
    )
    from instruction_modelling.sources.downloads.catalogue import path_of

    data_dir = Path(options.data_dir)
    if not one.formats or options.download_only:
        files = [path_of(one, file, data_dir) for file in one.files]
        where = " ".join(map(str, files)) or str(data_dir / one.folder)
        if one.formats:
            return "ready", "", where
        rows = sum(map(lines_of, files))
        return (
            "ready",
            f"{rows:,}",
            where + (f" (the published set has {one.rows:,} rows)" if rows != one.rows else ""),
        )
    output_dir, templates = data_dir / "processed", Path(options.templates) if options.templates else None
    raw = data_dir / ("alpagasus" if one.folder.startswith("alpagasus") else "raw_train")
    try:
        total, outputs = 0, []
        for name in one.formats:
            splitter = options.tokenizer_name if needs_tokenizer(name, raw) else None
            there = converted_rows(
                name, raw, output_dir, seed=options.seed, templates=templates, tokenizer_name=splitter
            )
            if there is None:
                tokenizer: Any = None
                if splitter:
                    from instruction_modelling.models.loading import load_tokenizer

                    tokenizer = load_tokenizer(splitter)
                report = convert_set(
                    name, raw, output_dir, tokenizer=tokenizer, seed=options.seed, templates=templates
                )
                print_table([report])
                there = report.rows_written
            total += there
            outputs.append(str(output_of(name, output_dir)))
        return "ready", f"{total:,}", " ".join(outputs)
    except UserError as error:
        return "failed", "", str(error)


def lines_of(path: Path) -> int:
    """The lines of a file that are not empty."""
    with path.open("rb") as handle:
        return sum(1 for line in handle if line.strip())


def print_markdown(sets: "list[DataSet]") -> None:
    """The sets as the Markdown table of data/README.md."""
    from instruction_modelling.sources.downloads.catalogue import ALPAGASUS_SETS

    print(
        "| set | rows | words: instruction / output | licence | source | command |\n|---|--:|--:|---|---|---|"
    )
    for one in sets:
        script = "prepare_alpagasus_data.sh" if one.name in ALPAGASUS_SETS else "prepare_train_data.sh"
        rows = f"{one.rows:,}" if one.rows else "-"
        words = " / ".join(f"{mean:.0f}" for mean in one.words) if one.words else "-"
        print(
            f"| `{one.name}` | {rows} | {words} | {one.licence}{', on consent' if one.access else ''} | "
            f"<{one.source}> | `sh {script} {one.name}` |"
        )


if __name__ == "__main__":
    run_main(main)
