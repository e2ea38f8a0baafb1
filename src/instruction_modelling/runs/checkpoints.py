"""Checkpoints: trained weights, optimiser state, step, and the options that decide the run.

A checkpoint is written aside, read back and compared with the model, and only then given its name; a folder
without its manifest, or whose files do not match it, is never resumed from. It holds full tensors by name
(`training_state`), so a run may go on with another number of processes, sharded or not. Nothing in it is
unpickled."""

import json
import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.processes.collectives import from_main, together
from instruction_modelling.runs.state import WEIGHT, TrainingState, training_state

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
METRICS = "metrics.jsonl"
PREFIXES = ("step_", "epoch_")
# A process holds as much of what it writes, in bytes, before it writes a file of it.
FILE_BYTES = 2**31

# -- writing ------------------------------------------------------------------------------------------------


def save_checkpoint(
    accelerator: "Accelerator",
    model: torch.nn.Module,
    optimizer: Any,
    folder: Path,
    state: dict[str, Any],
    metrics: str = "",
) -> None:
    """Writes `folder` whole or not at all; every process calls it.

    Args:
        metrics: the lines of the run's metrics.jsonl so far, which the checkpoint keeps: whichever is resumed
            from, its own
            steps' lines are there.

    Raises:
        UserError: the disk is full or fails, or what was written does not match the model; on every process.
    """
    trained = training_state(accelerator, model, optimizer)
    aside = folder.with_name(f".{folder.name}.saving")
    writer = _Writer(aside, accelerator)
    try:
        with together(accelerator):
            if accelerator.is_main_process:
                durable.remove_tree(aside)
                _check_room(folder.parent, trained.bytes())
                os.makedirs(aside)
        with together(accelerator):
            for name, tensor in trained.entries():
                writer.add(name, tensor)
            writer.finish()
        files, entries = writer.everything_written()
        with together(accelerator):
            if accelerator.is_main_process:
                _check_written(aside, files, entries, trained)
                files[METRICS] = durable.write_file(aside / METRICS, [metrics.encode("utf-8")])
                seal(aside, state, files)
                _put_in_place(aside, folder)
    except UserError as error:
        if accelerator.is_main_process:
            durable.remove_tree(aside)
        try:
            free = f", and {_size(shutil.disk_usage(folder.parent).free)} are free there"
        except OSError:
            free = ""
        raise UserError(
            f"the checkpoint {folder} could not be written: {error}. It takes "
            f"{_size(trained.bytes())}{free}; the "
            "one before is untouched. Make room and continue with --resume_from_checkpoint latest"
        ) from error


class _Writer:
    """Files of entries, their writing shared by the processes of the first machine."""

    def __init__(self, folder: Path, accelerator: "Accelerator"):
        self._folder, self._accelerator = folder, accelerator
        processes = accelerator.num_processes
        self._loads = [0] * min(processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._files: dict[str, dict[str, Any]] = {}
        self._entries: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self._error: OSError | None = None

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes an entry; every process is given every entry, in the same order, and the least busy one
        writes it.

        After an error the entries are let go, so that the others' gathering goes on.
        """
        self._entries[name] = (tuple(tensor.shape), tensor.dtype)
        size = tensor.numel() * tensor.element_size()
        mine = self._loads.index(min(self._loads))
        self._loads[mine] += size
        if mine != self._accelerator.process_index or self._error:
            return
        self._held[name] = tensor.detach().to("cpu", copy=True).contiguous()
        self._held_bytes += size
        if self._held_bytes >= FILE_BYTES:
            self._write()

    def finish(self) -> None:
        """Writes what is still held.

        Raises:
            OSError: a file could not be written.
        """
        if self._held:
            self._write()
        if self._error:
            raise self._error

    def _write(self) -> None:
        from safetensors.torch import save

        name = f"state-{self._accelerator.process_index:03d}-{len(self._files):04d}.safetensors"
        try:
            self._files[name] = durable.write_file(self._folder / name, [save(self._held)])
        except OSError as error:
            self._error = error
        self._held, self._held_bytes = {}, 0

    def everything_written(
        self,
    ) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[tuple[int, ...], torch.dtype]]]:
        """Every process's files with their sizes and hashes, and every entry's shape and dtype."""
        files = list(self._files.items())
        if self._accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            files = gather_object(files)
        return dict(files), self._entries


def _check_room(folder: Path, needed: int) -> None:
    """Raises:
    UserError: the disk has less room than the checkpoint takes.
    """
    os.makedirs(folder, exist_ok=True)
    if shutil.disk_usage(folder).free < needed:
        raise UserError("there is not enough room on the disk")


def _check_written(
    folder: Path,
    files: dict[str, dict[str, Any]],
    entries: dict[str, tuple[tuple[int, ...], torch.dtype]],
    trained: TrainingState,
) -> None:
    """Raises:
    UserError: a file on the disk is not what was given to it, or names, shapes and dtypes are not the
    model's."""
    for name, entry in files.items():
        if durable.file_sha256(folder / name) != entry["sha256"]:
            raise UserError(f"{name} reads back other than it was written: the disk is not to be trusted")
    with ExitStack() as stack:
        stored = {
            name: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
            for name, part in _parts(stack, folder, files).items()
        }
    if stored != entries:
        other = min(name for name in {*stored, *entries} if stored.get(name) != entries.get(name))
        raise UserError(
            f"it does not match the model: {other} was stored as {stored.get(other)} and is "
            f"{entries.get(other)}"
        )
    shapes = {
        name.removeprefix(f"{WEIGHT}/"): shape
        for name, (shape, _) in stored.items()
        if name.startswith(f"{WEIGHT}/")
    }
    if shapes != trained.shapes():
        other = min(
            name for name in {*shapes, *trained.shapes()} if shapes.get(name) != trained.shapes().get(name)
        )
        raise UserError(f"it does not match the model: {other} was stored with shape {shapes.get(other)}")


# What safetensors calls the number formats.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _parts(stack: ExitStack, folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """Every entry of the files, not read yet; they stay open as long as the stack."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for name in files:
        if not name.endswith(".safetensors"):
            continue
        try:
            opened = stack.enter_context(safe_open(folder / name, framework="pt"))
            found.update({entry: opened.get_slice(entry) for entry in opened.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / name} cannot be read: {error}") from error
    return found


def seal(aside: Path, state: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Writes the manifest, last, and flushes the folder."""
    manifest = json.dumps({**state, "files": dict(sorted(files.items()))}, indent=1)
    durable.write_file(aside / MANIFEST, [manifest.encode("utf-8")])
    durable.sync(aside)


def _put_in_place(aside: Path, folder: Path) -> None:
    """Gives the folder its name. One of that name is first put by, from where `repair` would bring it
    back."""
    replaced = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        durable.remove_tree(replaced)
        durable.rename(folder, replaced)
    try:
        durable.rename(aside, folder)
    except OSError:
        if replaced.exists() and not folder.exists():
            durable.rename(replaced, folder)
        raise
    durable.remove_tree(replaced)


def repair(output_dir: Path) -> None:
    """Tidies up after a run that was killed within a save: what it had put by goes back where nothing took
    its place, and half-written folders go. The main process calls it, before any checkpoint is looked for."""
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


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


# -- finding ------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """The state a checkpoint was saved with.

    Raises:
        UserError: it is not a checkpoint, or a file of it is missing or of another size.
    """
    try:
        state = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        int(state["step"])
        sizes = {name: entry["bytes"] for name, entry in state["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} is not a whole checkpoint: no readable {MANIFEST} in it") from error
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{folder} is damaged: {name} is missing or not {size} bytes long")
    return state


def check_contents(folder: Path) -> None:
    """Raises:
    UserError: it is not a whole checkpoint, or a file of it is not what was written.
    """
    for name, entry in read_manifest(folder)["files"].items():
        if durable.file_sha256(folder / name) != entry["sha256"]:
            raise UserError(f"{folder} is damaged: {name} is not what was written there (another SHA-256)")


def find_checkpoint(choice: str, output_dir: Path) -> Path | None:
    """The checkpoint to resume from: the folder named, or for `latest` the newest whole one (None where none
    is).

    Raises:
        UserError: the folder named is not a whole checkpoint, or is damaged.
    """
    if choice != "latest":
        check_contents(Path(choice))
        return Path(choice)
    found = []
    for folder in output_dir.glob("*/"):
        if not folder.name.startswith(PREFIXES):
            continue
        try:
            found.append((int(read_manifest(folder)["step"]), folder))
        except UserError as error:
            logger.warning("skipping a checkpoint: %s", error)
    for _, folder in sorted(found, reverse=True):
        try:
            check_contents(folder)
        except UserError as error:
            logger.warning("skipping a checkpoint: %s", error)
        else:
            return folder
    return None


def choose_checkpoint(accelerator: "Accelerator", choice: str | None, output_dir: Path) -> Path | None:
    """`find_checkpoint` by the main process, whose word every process takes, after a `repair`; None without a
    choice.

    Raises:
        UserError: as `find_checkpoint`; or this process cannot see the folder.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            repair(output_dir)
            found[0] = find_checkpoint(choice, output_dir) if choice else None
        except (UserError, OSError) as error:
            found[1] = str(error)
    path, problem = from_main(accelerator, found)
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


# -- reading ------------------------------------------------------------------------------------------------


def load_checkpoint(accelerator: "Accelerator", model: torch.nn.Module, optimizer: Any, folder: Path) -> None:
    """Puts the checkpoint's weights and optimiser state in place; every process reads what it needs.

    Raises:
        UserError: the stored names, shapes or number formats are not the model's; nothing has been changed.
    """
    trained = training_state(accelerator, model, optimizer)
    with ExitStack() as stack:
        parts = _parts(stack, folder, read_manifest(folder)["files"])
        stored = {name: tuple(part.get_shape()) for name, part in parts.items()}
        own = {f"{WEIGHT}/{name}": shape for name, shape in trained.shapes().items()}
        weights = {name for name in stored if name.startswith(f"{WEIGHT}/")}
        if weights != set(own):
            raise UserError(
                f"{folder}: its weights are not this model's (for example {min(weights ^ set(own))})"
            )
        for name, shape in own.items():
            if stored[name] != shape:
                raise UserError(f"{folder}: {name} has shape {stored[name]}, the model {shape}")
            if parts[name].get_dtype() != "F32":
                raise UserError(f"{folder}: {name} is stored as {parts[name].get_dtype()}, not float32")
        trained.restore(lambda name: _read(parts[name]), stored)


def _read(part: Any) -> torch.Tensor:
    """An entry's tensor, whole."""
    return part[:] if part.get_shape() else part[...]


def prune(output_dir: Path, keep: int | None, but: Path | None = None) -> None:
    """Removes the oldest whole checkpoints beyond `keep`; each is hidden first, so that none is seen half
    removed.

    `but` stays: the one just saved, which is not the latest where the run went back to an earlier one.
    """
    if keep is None:
        return
    found = []
    for folder in output_dir.glob("*/"):
        if folder.name.startswith(PREFIXES):
            try:
                found.append((int(read_manifest(folder)["step"]), folder))
            except UserError:
                continue
    for _, folder in sorted(found)[:-keep]:
        if folder == but:
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
