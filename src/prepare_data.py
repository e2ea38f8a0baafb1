"""Download training sets and convert them to rows of chat: the paper's, the parts of the Tülu mixtures, the
mixtures.

    sh prepare_train_data.sh              # the paper's seven sets, as its authors processed them, to data/
    sh prepare_train_data.sh lima dolly   # sets by name: data/raw_train/NAME, then data/processed/NAME
    sh prepare_train_data.sh tulu_v2      # a mixture: all its parts, then the mixture
    sh prepare_train_data.sh --list       # every set: rows, licence, size, address
    sh prepare_alpagasus_data.sh          # AlpaGasus from its own repository: data/alpagasus, data/processed

Stopped at any point, the same command goes on where it was. What was fetched is recorded with its hash in
DATA_DIR/downloads.lock.json; a file that is there and right is not fetched again, and one that has changed at
its source is refused. Sets whose owners ask for consent (LIMA) are fetched with the token in the environment
variable HF_TOKEN, which goes to huggingface.co alone. A host's mirror is set by IM_MIRROR_ and its name:
IM_MIRROR_HUGGINGFACE_CO (or HF_ENDPOINT), IM_MIRROR_RAW_GITHUBUSERCONTENT_COM, IM_MIRROR_GITHUB_COM,
IM_MIRROR_BEAKER_ORG.

Exit code 0 if every set is there, 2 if one is not; the others are then there all the same.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import run_main
from instruction_modelling.sources.downloads.sets import (
    DownloadOptions,
    ListOptions,
    print_sets,
    until_interrupted,
)

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
        """Return every problem of the options, in words."""
        from instruction_modelling.sources.downloads.catalogue import CATALOGUE

        return self.download_problems(self.sets, CATALOGUE)


def main() -> int:
    """Download, unpack, convert, and say what is there."""
    options = parse_options(PrepareOptions)
    from instruction_modelling.sources.downloads.catalogue import ALPAGASUS_SETS, CATALOGUE, PAPER
    from instruction_modelling.sources.preparation import Preparation, prepare_sets, print_markdown

    if options.list or options.markdown:
        (print_markdown if options.markdown else print_sets)(
            [CATALOGUE[name] for name in options.sets or CATALOGUE]
        )
        return 0
    names = options.sets or list(PAPER if options.collection == "paper" else ALPAGASUS_SETS)
    preparation = Preparation(
        data_dir=Path(options.data_dir),
        download_only=options.download_only,
        seed=options.seed,
        templates=Path(options.templates) if options.templates else None,
        tokenizer_name=options.tokenizer_name,
        load_tokenizer=loaded_tokenizer,
    )
    sets = [CATALOGUE[name] for name in dict.fromkeys(names)]
    return until_interrupted(lambda: prepare_sets(sets, options, preparation))


def loaded_tokenizer(name: str) -> Any:
    """Load a tokenizer, and transformers only now: most sets need neither."""
    from instruction_modelling.models import loading

    return loading.load_tokenizer(name)


if __name__ == "__main__":
    run_main(main)
