"""The folders of a run's checkpoints: which are whole, which is the newest, and which go.

A folder has a checkpoint's name only once its manifest, the last file to be written, lists every other file
with its size and hash. Folders whose names begin with a dot are half written, replaced or being removed."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.processes.collectives import from_main, together

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
PREFIXES = ("step_", "epoch_")
# The weights of the best measurement, which no run goes on from.
BEST = "best_"


def seal(unfinished: Path, state: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Write the manifest, last of all, and flush the folder.

    Args:
        unfinished: the folder, under the hidden name that it is written under.
        state: what the checkpoint keeps beside its files.
        files: each file's size in bytes and SHA-256, by name.
    """
    manifest = json.dumps({**state, "files": dict(sorted(files.items()))}, indent=1)
    durable.write_file(unfinished / MANIFEST, [manifest.encode("utf-8")])
    durable.sync(unfinished)


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Give the folder its name. One that has the name already becomes `.NAME.replaced` first, and `repair`
    gives it its name back where a kill comes between the two."""
    replaced = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        durable.remove_tree(replaced)
        durable.rename(folder, replaced)
    try:
        durable.rename(unfinished, folder)
    except OSError:
        if replaced.exists() and not folder.exists():
            durable.rename(replaced, folder)
        raise
    durable.remove_tree(replaced)


def repair(output_dir: Path) -> None:
    """Tidy up after a run that was killed within a save: a replaced checkpoint gets its name back where no
    new one took it, and half-written folders go. The main process calls it, before any checkpoint is looked
    for."""
    for replaced in output_dir.glob(".*.replaced"):
        folder = replaced.with_name(replaced.name.removeprefix(".").removesuffix(".replaced"))
        if folder.exists():
            durable.remove_tree(replaced)
        else:
            durable.rename(replaced, folder)
    for pattern in (".*.saving", ".*.pruned", ".*.part"):
        for left in output_dir.glob(pattern):
            if left.is_dir():
                durable.remove_tree(left)
            else:
                left.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest holds: the state the checkpoint was saved with, and its files.

    Raises:
        UserError: it is not a checkpoint, or a file of it is missing or of another size.
    """
    try:
        state = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        int(state["step"])
        sizes = {name: entry["bytes"] for name, entry in state["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such folder; a run's checkpoints are RUN/step_N"
            ) from error
        raise UserError(f"{folder} is not a whole checkpoint: no readable {MANIFEST} in it") from error
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{folder} is damaged: {name} is missing or not {size} bytes long")
    return state


def check_contents(folder: Path) -> None:
    """Compare every file's hash with the manifest's.

    Raises:
        UserError: it is not a whole checkpoint, or a file of it is not what was written.
    """
    for name, entry in read_manifest(folder)["files"].items():
        if durable.file_sha256(folder / name) != entry["sha256"]:
            raise UserError(f"{folder} is damaged: {name} is not what was written there (another SHA-256)")


def _by_step(output_dir: Path, warning: str = "") -> list[Path]:
    """Return the checkpoints whose manifests can be read, by their step; the others go to the log."""
    step_and_folder = []
    for folder in output_dir.glob("*/"):
        if not folder.name.startswith(PREFIXES):
            continue
        try:
            step_and_folder.append((int(read_manifest(folder)["step"]), folder))
        except UserError as error:
            if warning:
                logger.warning(warning, error)
    return [folder for _, folder in sorted(step_and_folder)]


def mentioned_best(output_dir: Path) -> set[int]:
    """Return the steps whose weights were the best when one of the checkpoints was saved."""
    states = [read_manifest(folder).get("best") for folder in _by_step(output_dir)]
    return {int(best["step"]) for best in states if best}


def find_checkpoint(choice: str, output_dir: Path) -> Path | None:
    """Return the checkpoint to resume from: the folder named, or for `latest` the newest whole one (None
    where none is).

    Raises:
        UserError: the folder named is not a whole checkpoint, or is damaged.
    """
    if choice != "latest":
        check_contents(Path(choice))
        return Path(choice)
    for folder in reversed(_by_step(output_dir, "skipping a checkpoint: %s")):
        try:
            check_contents(folder)
        except UserError as error:
            logger.warning("skipping a checkpoint: %s", error)
        else:
            return folder
    return None


def saved_state(choice: str, output_dir: Path) -> dict[str, Any] | None:
    """Return what the manifest of the checkpoint to resume from holds, by `read_manifest` alone; None where
    there is none that can be read."""
    folders = _by_step(output_dir)[-1:] if choice == "latest" else [Path(choice)]
    try:
        return read_manifest(folders[0]) if folders else None
    except UserError:
        return None


def choose_checkpoint(
    accelerator: "Accelerator", choice: str | None, output_dir: Path, mending: bool = True
) -> Path | None:
    """Return what `find_checkpoint` finds on the main process, after a `repair`, on every process; None
    without a choice.

    Args:
        mending: do that `repair`; without it nothing is written.

    Raises:
        UserError: as `find_checkpoint`; or this process cannot see the folder.
    """
    path_and_problem: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            if mending:
                repair(output_dir)
            path_and_problem[0] = find_checkpoint(choice, output_dir) if choice else None
        except (UserError, OSError) as error:
            path_and_problem[1] = str(error)
    path, problem = from_main(accelerator, path_and_problem)
    if problem:
        raise UserError(problem)
    with together(accelerator):
        if path is not None and not (path / MANIFEST).is_file():
            raise UserError(
                f"{path} is not there for process {accelerator.process_index}: --output_dir must be on a "
                "file "
                "system that all machines share"
            )
    return path


def prune(output_dir: Path, keep: int | None, just_saved: Path | None = None) -> None:
    """Remove the oldest whole checkpoints beyond `keep` (None keeps all); each gets a hidden name first, so
    that none is seen half removed.

    Args:
        just_saved: stays in any case: it is not the latest where the run went back to an earlier checkpoint.
    """
    if keep is None:
        return
    for folder in _by_step(output_dir)[:-keep]:
        if folder == just_saved:
            continue
        hidden = folder.with_name(f".{folder.name}.pruned")
        durable.remove_tree(hidden)
        try:
            durable.rename(folder, hidden)
        except OSError as error:
            # One too many harms nothing, and the next save tries again.
            logger.warning("the old checkpoint %s could not be removed: %s", folder, error.strerror or error)
            continue
        durable.remove_tree(hidden)
