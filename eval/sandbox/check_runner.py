"""Inside a sandbox of its own, where no candidate's code ever runs: runs a task's test, each call of the
function under test going to the candidate's process. Only what happens here says whether a candidate passes.
Its text is sent there behind those of plain_values.py and restrictions.py, in place of the imports."""

import _signal as signal
import builtins
import os
import sys
from typing import Any, BinaryIO

from eval.sandbox.plain_values import BadMessage, Ended, decode, encode, receive, send
from eval.sandbox.restrictions import restrict

# The compiler's flag to give the syntax tree alone; importing ast for its name would take a third of a
# process's start.
ONLY_SYNTAX = 0x400


class TimedOut(BaseException):
    """The time is over."""


class CandidateExit(BaseException):
    """The candidate raised what is no Exception: SystemExit, KeyboardInterrupt."""


def on_time(number: int, frame: object) -> None:
    """Raise TimedOut: the alarm's handler."""
    raise TimedOut


def failure(answer: dict[str, Any]) -> BaseException:
    """Return the exception that the candidate raised, as far as it can be raised here.

    That is one of Python's own, or a RuntimeError."""
    name, words = str(answer.get("error"))[:100], str(answer.get("words"))[:1000]
    if answer.get("exception") is not True:
        return CandidateExit(name)
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(words)
        except TypeError:
            pass
    return RuntimeError(f"{name}: {words}")


def put_back(old: Any, new: Any) -> None:
    """Make arguments what the candidate made of them."""
    for before, after in zip(old, new, strict=False):
        if type(before) is not type(after):
            continue
        if isinstance(before, list):
            if before != after:
                before[:] = after
        elif isinstance(before, (dict, set)) and before != after:
            before.clear()
            before.update(after)


def main(settings: dict[str, Any]) -> None:
    """Write two messages to what was standard output: that both processes have started, and the verdict
    with the secret."""
    answers, asked = os.fdopen(settings["answers"], "rb"), os.fdopen(settings["asked"], "wb")
    verdict = os.fdopen(os.dup(1), "wb")
    # A test may print what a candidate returned.
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    task = receive(sys.stdin.buffer)
    # Starting the other process is not the candidate's time; nothing of the candidate's has run before its
    # message.
    receive(answers)
    restrict(settings)
    sys.path += settings["path"]
    send(verdict, {"started": True})
    signal.signal(signal.SIGALRM, on_time)
    signal.setitimer(signal.ITIMER_REAL, task["timeout"])
    try:
        result = run_test(task, answers, asked)
    except TimedOut:
        result = "timed out"
    except Ended:
        result = "failed: the process ended"
    except BadMessage as error:
        result = f"failed: what came back cannot be compared ({error})"
    except CandidateExit as error:
        result = f"failed: {error}"
    except BaseException as error:
        result = f"failed: {str(error)[:500] or type(error).__name__}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    send(verdict, {"secret": task["secret"], "result": result})
    # Clearing up what a candidate returned may take long.
    os._exit(0)


def definitions(prompt: str) -> Any:
    """Compile a prompt as a program of its own: what it ends with is a function that may still lack a
    body."""
    try:
        return compile(prompt, "<prompt>", "exec", dont_inherit=True)
    except SyntaxError:
        return compile(prompt + "    pass\n", "<prompt>", "exec", dont_inherit=True)


def program_of(task: dict[str, str]) -> str:
    """Return what of prompt + completion + test comes before the test, where all of it in one piece is
    Python.

    A completion may end in the middle of something, such as a decorator's line: as one program, that goes
    with the test.

    Raises:
        SyntaxError: it is no Python in one piece.
        BadMessage: a statement of the completion's runs into the test, which is not the candidate's to see.
    """
    # As the compiler reads line ends, by which it counts lines.
    before = (task["prompt"] + task["completion"] + "\n").replace("\r\n", "\n").replace("\r", "\n")
    text = f"{before}{task['test']}\ncheck({task['entry_point']})"
    whole = compile(text, "<candidate>", "exec", ONLY_SYNTAX, dont_inherit=True)
    last = before.count("\n")
    end = max((statement.end_lineno for statement in whole.body if statement.lineno <= last), default=0)  # type: ignore[attr-defined]
    if end > last:
        raise BadMessage("the completion does not end before the test")
    # A line's end may be escaped; another must follow.
    return "".join(line + "\n" for line in before.split("\n")[:end]) + "\n"


def bound_by(test: str) -> tuple[str, list[str]]:
    """Return what a test binds for all: its imports as a program, and its other names.

    In one program they replace the candidate's."""
    imports, names = [], []
    body: Any = compile(test, "<test>", "exec", ONLY_SYNTAX, dont_inherit=True).body  # type: ignore[attr-defined]
    for statement in body:
        kind = type(statement).__name__
        if kind in ("Import", "ImportFrom"):
            what = ", ".join(
                part.name + (f" as {part.asname}" if part.asname else "") for part in statement.names
            )
            imports.append(
                f"from {statement.module} import {what}" if kind == "ImportFrom" else f"import {what}"
            )
        elif kind in ("FunctionDef", "ClassDef"):
            names.append(statement.name)
        elif kind == "Assign":
            names += [target.id for target in statement.targets if type(target).__name__ == "Name"]
    return "\n".join(imports), names


def run_test(task: dict[str, str], answers: BinaryIO, asked: BinaryIO) -> str:
    """Return "passed"; what the test raises goes on."""

    def candidate(*arguments: Any, **named: Any) -> Any:
        send(asked, {"call": encode((arguments, named))})
        answer = receive(answers)
        if not isinstance(answer, dict):
            raise BadMessage("not an answer")
        if "error" in answer:
            raise failure(answer)
        value = decode(answer.get("value"))
        if answer.get("after") is not None:
            after = decode(answer["after"])
            if (
                isinstance(after, tuple)
                and len(after) == 2
                and isinstance(after[0], tuple)
                and isinstance(after[1], dict)
            ):
                put_back(arguments, after[0])
                both = [name for name in named if name in after[1]]
                put_back([named[name] for name in both], [after[1][name] for name in both])
        return value

    imports, names = bound_by(task["test"])
    send(
        asked,
        {"program": program_of(task), "entry_point": task["entry_point"], "imports": imports, "names": names},
    )
    loaded = receive(answers)
    if not isinstance(loaded, dict) or "loaded" not in loaded:
        raise failure(loaded if isinstance(loaded, dict) else {})
    space: dict[str, Any] = {}
    # The helpers that a prompt defines, from the prompt itself and not from the candidate.
    exec(definitions(task["prompt"]), space)
    space[task["entry_point"]] = candidate
    exec(compile(task["test"], "<test>", "exec", dont_inherit=True), space)
    space["check"](candidate)
    return "passed"
