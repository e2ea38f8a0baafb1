"""Inside a sandbox: runs a candidate's program and calls its function as it is asked to, over what was standard input and
output. Its text is sent there behind that of plain_values.py, in place of the import."""

import os
import resource
import sys
from typing import Any

from eval.sandbox.plain_values import decode, encode, receive, send


def limit(name: int, value: int) -> None:
    """Sets a limit that cannot be raised again."""
    resource.setrlimit(name, (value, value))


def main(settings: dict[str, Any]) -> None:
    """Serves calls until no more come."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the candidate prints goes nowhere, and it reads nothing.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, settings["memory"])
    limit(resource.RLIMIT_FSIZE, settings["file"])
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_MSGQUEUE, 0)
    limit(resource.RLIMIT_MEMLOCK, 0)
    limit(resource.RLIMIT_CPU, settings["cpu"])
    limit(resource.RLIMIT_NPROC, settings["processes"])
    sys.path += settings["path"]
    send(answers, {"started": True})
    given = receive(asked)
    space: dict[str, Any] = {}
    try:
        exec(compile(given["program"], "<candidate>", "exec"), space)
        function = space[given["entry_point"]]
    except BaseException as error:
        send(answers, problem(error))
        return
    send(answers, {"loaded": True})
    while True:
        arguments, named = decode(receive(asked)["call"])
        try:
            value = encode(function(*arguments, **named))
        except BaseException as error:
            send(answers, problem(error))
            continue
        try:
            after = encode((arguments, named))
        except BaseException:
            after = None
        send(answers, {"value": value, "after": after})


def problem(error: BaseException) -> dict[str, Any]:
    """An exception, by name and words."""
    try:
        words = str(error)[:1000]
    except BaseException:
        words = ""
    return {"error": type(error).__name__, "exception": isinstance(error, Exception), "words": words}
