"""Inside a sandbox: runs a candidate's program and calls its function as it is asked to, over what was standard input and
output. Its text is sent there behind those of plain_values.py and restrictions.py, in place of the imports."""

import os
import sys
from typing import Any

from eval.sandbox.plain_values import decode, encode, receive, send
from eval.sandbox.restrictions import restrict


def main(settings: dict[str, Any]) -> None:
    """Serves calls until no more come."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the candidate prints goes nowhere, and it reads nothing.
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    restrict(settings)
    sys.path += settings["path"]
    send(answers, {"started": True})
    given = receive(asked)
    space: dict[str, Any] = {}
    try:
        exec(compile(given["program"], "<candidate>", "exec", dont_inherit=True), space)
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
