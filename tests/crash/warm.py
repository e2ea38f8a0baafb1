"""A process that has imported everything and runs scripts in forked copies of itself, so that none imports it again.

Reads requests, one JSON object a line, and answers each with one line: how the process ended, and its seconds.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

from faulty import Fault, Operations, watched_folders


def load_libraries() -> None:
    """Imports what a run imports. No thread may have been started when the process is copied."""
    import torch

    from instruction_modelling.library_output import silence_libraries

    torch.set_num_threads(1)
    silence_libraries()
    import accelerate.utils  # noqa: F401
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from instruction_modelling import checkpoints, encoded_data, modeling, saving  # noqa: F401


def run(request: dict[str, Any]) -> None:
    """The request's script in this process, which ends with it."""
    with open(request["output"], "ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(request["environment"])
    arguments = request["arguments"]
    fault, listed = request["fault"], request["list"]
    if fault or listed:
        Operations(watched_folders(arguments), Fault(**fault) if fault else None, Path(listed) if listed else None).install()
    sys.argv = [request["script"], *arguments]
    runpy.run_path(request["script"], run_name="__main__")


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Runs a request in a copy, killed after `kill_after` seconds if it then still runs.

    Returns:
        {"code": the exit code, or minus the signal that ended it, "seconds": ...}
    """
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(request)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0) if not isinstance(stop.code, str) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    limit = request["kill_after"] or request["timeout"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - begin >= limit:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.0005)
    return {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - begin}


def main() -> None:
    """Serves until its input ends."""
    load_libraries()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
