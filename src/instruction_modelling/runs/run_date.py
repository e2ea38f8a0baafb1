"""The date of a run, which templates that write today's date get: that of the day it started on."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from instruction_modelling.chat.defaults import today
from instruction_modelling.processes.collectives import from_main
from instruction_modelling.runs.checkpoint_folders import saved_state

if TYPE_CHECKING:
    from accelerate import Accelerator

# The date's name in the fingerprint, where a template reads it.
TEMPLATE_DATE = "template date"


def run_date(accelerator: "Accelerator", checkpoint: str | None, output_dir: Path) -> datetime.date:
    """Return the date of the run: of the checkpoint that it goes on from, or the main process's today.

    Args:
        checkpoint: what --resume_from_checkpoint says.
    """
    date = today().isoformat()
    if accelerator.is_main_process and checkpoint:
        state = saved_state(checkpoint, output_dir) or {}
        date = state.get("fingerprint", {}).get(TEMPLATE_DATE) or date
    return datetime.date.fromisoformat(from_main(accelerator, date))
