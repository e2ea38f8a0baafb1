"""Data sets of the hub as JSON Lines files, so that they are read, checked and hashed like any other file."""

import os
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.tokens.cache import cache_folder


def fetch_dataset(name: str, configuration: str | None = None, again: bool = False) -> Path:
    """The training split of a data set in the cache folder; downloaded where it is not there, or `again`.

    Raises:
        UserError: the datasets library cannot load it.
    """
    stem = "_".join(filter(None, [name, configuration])).replace("/", "_")
    path = cache_folder() / "datasets" / f"{stem}.jsonl"
    # A folder of the user's may have changed since.
    if path.exists() and not again and not Path(name).exists():
        return path
    import datasets

    try:
        rows = datasets.load_dataset(name, configuration, split="train")
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--dataset_name {name}: cannot be loaded: {first}; check the name and the network, or save it "
            "as JSON Lines and give --train_file"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    rows.to_json(aside, lines=True, force_ascii=False)
    aside.replace(path)
    return path
