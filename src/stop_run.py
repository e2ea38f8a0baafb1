"""Asks a run to save and end: its training processes on this machine finish the step at hand, save, and exit
with 75.

    python src/stop_run.py --output_dir OUT

Signals the processes themselves, and not their launcher, which would give them half a minute before it kills
them. One process of a run is enough, so on several machines any one will do."""

import contextlib
import os
import signal
from dataclasses import dataclass

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError, run_main
from instruction_modelling.processes.find_processes import training_processes


@dataclass
class StopOptions:
    """Stop."""

    output_dir: str
    """The run folder."""


def main() -> int:
    """Find the processes and signal each."""
    options = parse_options(StopOptions)
    processes = training_processes(options.output_dir)
    if not processes:
        raise UserError(f"no process on this machine trains into {options.output_dir}")
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGUSR1)
    print(
        f"asked {len(processes)} process{'es' if len(processes) > 1 else ''} to save and end: "
        f"{' '.join(map(str, processes))}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
