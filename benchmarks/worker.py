"""A contender's process."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gate import FreeGate, PairedGate
from benchmarks.work import Work

# Loaded once, before contenders' processes are forked.
PRELOADED = ["torch", "transformers", "accelerate", "peft", "datasets", "benchmarks.preloaded"]


def take_turns(function: str, work: str, connection: Any, log: str) -> None:
    """Run a contender in a forked process, its output in the file `log`.

    Args:
        function: `module:name` below benchmarks.contenders.
        work: what `Work.to_json` wrote.
        connection: where turns come from and readings go; a failure is sent as {"failed": why}.
    """
    with open(log, "a", encoding="utf-8") as handle:
        for descriptor in (1, 2):
            os.dup2(handle.fileno(), descriptor)
    try:
        call(function)(PairedGate(connection), Work.from_json(work))
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        connection.send({"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"})
    finally:
        os._exit(0)


def call(function: str) -> Any:
    """Return the function `module:name` below benchmarks.contenders."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)


def main() -> None:
    """Run a contender from a fresh start to its end: function, work and the file for its marks are given."""
    function, work, marks = sys.argv[1:]
    call(function)(FreeGate(Path(marks)), Work.from_json(work))


if __name__ == "__main__":
    main()
