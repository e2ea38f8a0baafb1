"""One run to a folder: a second one, started by mistake or beside workers whose launcher was killed, would
spoil both."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from instruction_modelling.called import command
from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import Locked, locked
from instruction_modelling.processes.find_processes import training_processes

logger = logging.getLogger(__name__)

# How long the processes of a killed run may take to save and go, in seconds.
PATIENCE = 120.0


@contextmanager
def held(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep a run folder for this process as long as the block.

    Args:
        patience: seconds to wait for another run to end.

    Raises:
        UserError: another process still holds it after that; names the processes that train into it.
    """

    def say_waiting() -> None:
        logger.info(
            "%s: waiting up to %.0f s for another run%s to let go of it", folder, patience, _others(folder)
        )

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, patience, say_waiting))
        except Locked:
            raise UserError(
                f"--output_dir {folder}: another run{_others(folder)} is writing to this folder. Wait for "
                f"it, end it with `{command('stop_run', '--output_dir', folder)}`, or choose another folder"
            ) from None
        yield


def _others(folder: Path) -> str:
    others = [process for process in training_processes(folder) if process != os.getpid()]
    return f" (process {', '.join(map(str, others))})" if others else ""
