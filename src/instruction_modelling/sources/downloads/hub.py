"""Data sets of the hub as JSON Lines files, so that they are read, checked and hashed like any other file."""

from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.files.whole import whole_file
from instruction_modelling.tokens.cache import cache_folder


def fetch_dataset(name: str, configuration: str | None = None, again: bool = False) -> Path:
    """Return the training split of a data set, JSON Lines in the cache folder; fetch it where it is not
    there, or `again`.

    Args:
        name: of the data set on the hub, or a folder of files.
        configuration: of the data set (default: its only one).

    Raises:
        UserError: the datasets library cannot load it, or the cache cannot be written.
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
    with whole_file(path) as handle:
        rows.to_json(handle, lines=True, force_ascii=False)
    return path
