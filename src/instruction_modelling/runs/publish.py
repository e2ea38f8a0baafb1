"""A run's model on a hub: private unless asked otherwise, with its card, without anything of the data."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instruction_modelling.called import command
from instruction_modelling.errors import UserError, first_line
from instruction_modelling.runs.card import model_card

TOKEN = "HF_TOKEN"
# What is uploaded of a run's folder: what reads the model, and how it was made. Rows that were left out,
# answers, samples and the log hold words of the data.
FILES = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *(
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.*",
        "merges.txt",
        "chat_template*",
    ),
    *("additional_chat_templates/*", "adapter/*.safetensors", "adapter/adapter_config.json"),
    *("run.json", "metrics.jsonl"),
)
logger = logging.getLogger(__name__)


def prepare(name: str, public: bool) -> str:
    """Make the repository, where it is not there yet, and return its full name; done before training, so that
    a missing right is found before the work.

    Raises:
        UserError: there is no token in the environment, or the hub refuses or cannot be reached.
    """
    with _said(name):
        return str(_api().create_repo(name, private=not public, exist_ok=True).repo_id)


def push(folder: Path, name: str) -> str:
    """Upload a finished run's model with its card in one commit, and return its address.

    Raises:
        UserError: the folder holds no finished run, or the hub refuses or cannot be reached; the folder stays
            as it is.
    """
    record = _record(folder)
    from huggingface_hub import CommitOperationAdd

    # On the hub the model is called so, whatever its folder is called here.
    card = model_card(record, name).encode()
    operations: list[Any] = [CommitOperationAdd("README.md", card)]
    operations += [CommitOperationAdd(str(path.relative_to(folder)), path) for path in _files(folder)]
    with _said(name):
        api = _api()
        api.create_commit(name, operations, commit_message=f"{record['arm']}, {record['steps']} steps")
        return f"{api.endpoint}/{name}"


def push_after_training(folder: Path, name: str) -> None:
    """Push a model that was just saved, and say where it is, or why not and how to try again; whatever comes
    of it, the model is saved."""
    try:
        logger.info("pushed to %s", push(folder, name))
    except UserError as error:
        again = command("push_to_hub", folder, name)
        logger.warning("%s\nThe model is saved in %s; to try again: %s", error, folder, again)


def _files(folder: Path) -> Iterator[Path]:
    for pattern in FILES:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): name the folder of a finished run") from error
    if not isinstance(record, dict) or not record.get("finished"):
        raise UserError(f"{folder}: the run is not finished, so there is no model to push")
    return record


def _api() -> Any:
    from huggingface_hub import HfApi

    token = os.environ.get(TOKEN)
    if not token:
        raise UserError(f"there is no token: set {TOKEN} to one that may write (it is read from there alone)")
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


class _said:
    """Turns what goes wrong with a hub into a line that names the repository and never the token."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        text = first_line(error)
        if said := getattr(error, "server_message", None):
            text += f" ({said})"
        token = os.environ.get(TOKEN)
        if token:
            text = text.replace(token, f"({TOKEN})")
        raise UserError(f"--push_to_hub {self._name}: {text}") from None
