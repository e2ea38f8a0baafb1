"""One run to a folder: a second one, started by mistake or beside workers whose launcher was killed, would
spoil both."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instruction_modelling.errors import UserError
from instruction_modelling.processes.running import training_processes

logger = logging.getLogger(__name__)

# How long the processes of a killed run may take to save and go, in seconds.
PATIENCE = 120.0


@contextmanager
def held(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keeps the folder for this process as long as the block; the system lets go of it when the process ends,
    however it does.

    The folder itself is what is locked, so nothing is left in it. A file system without locks is taken as it
    is.

    Raises:
        UserError: another process still holds it after `patience` seconds.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        deadline, told = time.monotonic() + patience, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                others = [process for process in training_processes(folder) if process != os.getpid()]
                by = f" (process {', '.join(map(str, others))})" if others else ""
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"--output_dir {folder}: another run{by} is writing to this folder. Wait for it, end "
                        "it with "
                        f"`python src/stop_run.py --output_dir {folder}`, or choose another folder"
                    ) from None
                if not told:
                    logger.info(
                        "%s: waiting up to %.0f s for another run%s to let go of it", folder, patience, by
                    )
                    told = True
                time.sleep(0.2)
            except OSError:
                break
        yield
    finally:
        os.close(handle)
