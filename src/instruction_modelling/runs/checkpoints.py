"""Saving and loading checkpoints: trained weights, optimiser state, step, and what decides the run.

A checkpoint is written under a hidden name, read back and compared with the model, and only then given its
name; a folder without its manifest, or whose files do not match it, is never resumed from. It holds full
tensors by name (`training_state`), so a run may go on with another number of processes, sharded or not.
Nothing in it is unpickled."""

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from instruction_modelling.errors import UserError
from instruction_modelling.files import durable
from instruction_modelling.processes.collectives import together
from instruction_modelling.runs.checkpoint_folders import put_in_place, read_manifest, seal
from instruction_modelling.runs.folder import METRICS
from instruction_modelling.runs.state import WEIGHT, TrainingState
from instruction_modelling.runs.tensor_files import DTYPES, file_parts
from instruction_modelling.training.sharding import is_deepspeed

if TYPE_CHECKING:
    from accelerate import Accelerator

# Bytes of entries that a process gathers before it writes a file of them.
FILE_BYTES = 2**31


def save_checkpoint(
    accelerator: "Accelerator", trained: TrainingState, folder: Path, state: dict[str, Any], metrics: str = ""
) -> None:
    """Write `folder` whole or not at all; every process calls it.

    Args:
        trained: the weights and optimiser state as they are now.
        state: what the manifest keeps: `step` and `fingerprint`.
        metrics: the lines of the run's metrics.jsonl so far. The checkpoint keeps them, so that the lines of
            its steps are there whichever checkpoint is resumed from.

    Raises:
        UserError: the disk is full or fails, or what was written does not match the model; on every process.
    """
    unfinished = folder.with_name(f".{folder.name}.saving")
    writer = _Writer(unfinished, accelerator)
    try:
        with together(accelerator):
            if accelerator.is_main_process:
                durable.remove_tree(unfinished)
                _check_free_space(folder.parent, trained.bytes())
                os.makedirs(unfinished)
        with together(accelerator):
            for name, tensor in trained.entries():
                writer.add(name, tensor)
            writer.finish()
        files, entries = writer.everything_written()
        with together(accelerator):
            if accelerator.is_main_process:
                _check_written(unfinished, files, entries, trained)
                files[METRICS] = durable.write_file(unfinished / METRICS, [metrics.encode("utf-8")])
                seal(unfinished, state, files)
                put_in_place(unfinished, folder)
    except UserError as error:
        if accelerator.is_main_process:
            durable.remove_tree(unfinished)
        try:
            free = f", and {size_in_words(shutil.disk_usage(folder.parent).free)} are free there"
        except OSError:
            free = ""
        raise UserError(
            f"the checkpoint {folder} could not be written: {error}. It takes "
            f"{size_in_words(trained.bytes())}{free}; the one before is untouched. Make "
            "room and continue with --resume_from_checkpoint latest"
        ) from error


def size_in_words(count: int) -> str:
    """Return a number of bytes as text, in GB or MB."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


class _Writer:
    """Writes entries to files, the work shared by the processes of the first machine."""

    def __init__(self, folder: Path, accelerator: "Accelerator"):
        self._folder, self._accelerator = folder, accelerator
        processes = accelerator.num_processes
        self._loads = [0] * min(processes, int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._files: dict[str, dict[str, Any]] = {}
        self._entries: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self._error: OSError | UserError | None = None

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take an entry; every process is given every entry, in the same order, and the one with the fewest
        bytes so far writes it.

        After an error the entries are dropped, and not refused: else the other processes, which gather the
        next one, would wait for ever.
        """
        self._entries[name] = (tuple(tensor.shape), tensor.dtype)
        size = tensor.numel() * tensor.element_size()
        writer = self._loads.index(min(self._loads))
        self._loads[writer] += size
        if writer != self._accelerator.process_index or self._error:
            return
        # What is gathered from several processes, or by DeepSpeed, may be overwritten by the next entry.
        alone = self._accelerator.num_processes == 1 and not is_deepspeed(self._accelerator)
        self._held[name] = tensor.detach().to("cpu", copy=not alone).contiguous()
        self._held_bytes += size
        if self._held_bytes >= FILE_BYTES:
            self._write()

    def finish(self) -> None:
        """Write the entries that are not in a file yet.

        Raises:
            OSError: a file could not be written.
            UserError: a file on the disk is not what was given to it.
        """
        if self._held:
            self._write()
        if self._error:
            raise self._error

    def _write(self) -> None:
        name = f"state-{self._accelerator.process_index:03d}-{len(self._files):04d}.safetensors"
        parts = file_parts(self._held)
        try:
            self._files[name] = durable.write_file(self._folder / name, parts)
            if not durable.holds(self._folder / name, parts):
                self._error = UserError(
                    f"{name} reads back other than it was written: the disk is not to be trusted"
                )
        except OSError as error:
            self._error = error
        self._held, self._held_bytes = {}, 0

    def everything_written(
        self,
    ) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[tuple[int, ...], torch.dtype]]]:
        """Return every process's files with their sizes and hashes, and every entry's shape and dtype."""
        files = list(self._files.items())
        if self._accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            files = gather_object(files)
        return dict(files), self._entries


def _check_free_space(folder: Path, needed: int) -> None:
    os.makedirs(folder, exist_ok=True)
    if shutil.disk_usage(folder).free < needed:
        raise UserError("there is not enough room on the disk")


def _check_written(
    folder: Path,
    files: dict[str, dict[str, Any]],
    entries: dict[str, tuple[tuple[int, ...], torch.dtype]],
    trained: TrainingState,
) -> None:
    """Compare what the files say that they hold with the model; their bytes were read back by who wrote them.

    Raises:
        UserError: names, shapes and dtypes are not the model's.
    """
    with ExitStack() as stack:
        stored = {
            name: (tuple(part.get_shape()), DTYPES.get(part.get_dtype()))
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


def _parts(stack: ExitStack, folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """Return every entry of the files, not read yet, by name; the files stay open as long as the stack."""
    from safetensors import SafetensorError, safe_open

    parts = {}
    for name in files:
        if not name.endswith(".safetensors"):
            continue
        try:
            opened = stack.enter_context(safe_open(folder / name, framework="pt"))
            parts.update({entry: opened.get_slice(entry) for entry in opened.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / name} cannot be read: {error}") from error
    return parts


def load_checkpoint(trained: TrainingState, folder: Path) -> None:
    """Put a checkpoint's weights and optimiser state in the place of the present ones; every process reads
    what it needs.

    Raises:
        UserError: the stored names, shapes or number formats are not the model's; nothing has been changed.
    """
    with ExitStack() as stack:
        parts = _parts(stack, folder, read_manifest(folder)["files"])
        stored = {name: tuple(part.get_shape()) for name, part in parts.items()}
        of_model = {f"{WEIGHT}/{name}": shape for name, shape in trained.shapes().items()}
        weights = {name for name in stored if name.startswith(f"{WEIGHT}/")}
        if weights != set(of_model):
            raise UserError(
                f"{folder}: its weights are not this model's (for example {min(weights ^ set(of_model))})"
            )
        for name, shape in of_model.items():
            if stored[name] != shape:
                raise UserError(f"{folder}: {name} has shape {stored[name]}, the model {shape}")
            stored_in, dtype = parts[name].get_dtype(), trained.formats()[name.removeprefix(f"{WEIGHT}/")]
            if DTYPES.get(stored_in) != dtype:
                raise UserError(f"{folder}: {name} is stored as {stored_in}, and the model has {dtype}")
        trained.restore(lambda name: _read(parts[name]), stored)


def _read(part: Any) -> torch.Tensor:
    """Return an entry's tensor, whole; safetensors slices no tensor without dimensions."""
    return part[:] if part.get_shape() else part[...]
