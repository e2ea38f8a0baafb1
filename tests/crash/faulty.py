"""Runs a script with a fault at one chosen operation on the files of its run folder.

    python tests/crash/faulty.py --count src/finetune.py --output_dir OUT ...
    python tests/crash/faulty.py --at 17 --how kill src/finetune.py --output_dir OUT ...

Operations are counted from 1 and are: making a file, each write, each flush, each rename, each removal, each folder made,
and each file that a library writes by itself, outside Python (`serialize`).
"""

import argparse
import builtins
import errno
import io
import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOWS = ("kill", "kill_within", "enospc", "eio", "short_write")


@dataclass(frozen=True)
class Fault:
    """What happens at which operation.

    kill: SIGKILL before it (or, with a delay, so many seconds after it has begun). kill_within: halfway through a write.
    enospc: a write is taken by half, and from then on the disk is full. eio: it fails once. short_write: a write is
    taken by half, as a system may; the rest must be written by another. A file that is written outside Python is cut off
    after `cut_after` bytes; its writer is told that the file is too large, not that the disk is full.
    """

    at: int
    how: str = "kill"
    delay: float = 0.0
    cut_after: int = 4096

    def applies_to(self, kind: str) -> bool:
        """Whether such an operation can meet this fault."""
        if self.how == "kill_within":
            return kind in ("write", "serialize")
        if self.how == "short_write":
            return kind == "write"
        return self.how != "enospc" or kind not in ("unlink", "rmdir")


class Operations:
    """Counts the operations on files below some folders, writes each to a list, and makes one of them fail.

    Args:
        folders: whose operations count.
        listed: a file that takes one line an operation: `kind path`; it is whole up to the moment of the fault.
    """

    def __init__(self, folders: Sequence[Path], fault: Fault | None, listed: Path | None):
        self.count, self._fault, self._full = 0, fault, False
        # The names, not what links lead to: a file is found by the name it was opened with.
        self._folders = [f"{os.path.realpath(folder)}{os.sep}" for folder in folders]
        self._write, self._unlimited = os.write, resource.getrlimit(resource.RLIMIT_FSIZE)
        self._list = os.open(listed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if listed else None

    def watches(self, path: str) -> bool:
        """Whether operations on this file count."""
        return any(f"{path}{os.sep}".startswith(folder) for folder in self._folders)

    def note(self, kind: str, path: str) -> str | None:
        """Counts an operation that is about to begin; what is to go wrong with it. A kill happens here."""
        self.count += 1
        if self._list is not None:
            folder = next(folder for folder in self._folders if f"{path}{os.sep}".startswith(folder))
            self._write(self._list, f"{kind} {os.path.relpath(path, folder)}\n".encode())
        if self._full and kind in ("open", "write", "fsync", "mkdir", "serialize"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self._fault is None or self._fault.at != self.count or not self._fault.applies_to(kind):
            return None
        how = self._fault.how
        if how == "kill" and self._fault.delay:
            # Nothing handles SIGALRM, so the system ends the process, whatever it is in the middle of.
            signal.setitimer(signal.ITIMER_REAL, self._fault.delay)
            return None
        if how == "kill":
            die()
        self._full = how == "enospc"
        if how in ("enospc", "eio") and not (how == "enospc" and kind == "write") and kind != "serialize":
            number = getattr(errno, how.upper())
            raise OSError(number, os.strerror(number), path)
        return how

    def write(self, real: Callable[[Any], int], data: Any, path: str) -> int:
        """A write, or half of it."""
        how = self.note("write", path)
        if how is None:
            return real(data)
        if how == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        view = memoryview(data).cast("B")
        taken = real(view[:(len(view) + 1) // 2])
        if how == "kill_within":
            die()
        return taken

    def serialize(self, real: Callable[[], Any], path: str) -> Any:
        """A file that a library writes outside Python: the system itself stops it after some bytes."""
        how = self.note("serialize", path)
        if how is None or self._fault is None:
            return real()
        if how == "kill_within":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._fault.cut_after, self._unlimited[1]))
        try:
            return real()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._unlimited)

    # -- where the operations come from -----------------------------------------------------------------

    def install(self) -> None:
        """Puts itself in place of the functions that change files; libraries' own writers when they are imported."""
        for name, kind in (("rename", "rename"), ("replace", "rename"), ("unlink", "unlink"), ("remove", "unlink"),
                           ("rmdir", "rmdir"), ("mkdir", "mkdir")):
            setattr(os, name, self._on_path(kind, getattr(os, name)))
        real_write, real_fsync, real_open = os.write, os.fsync, os.open

        def write(handle: int, data: Any) -> int:
            path = _of_handle(handle)
            return self.write(lambda part: real_write(handle, part), data, path) if self.watches(path) else real_write(handle, data)

        def fsync(handle: Any) -> None:
            path = _of_handle(handle if isinstance(handle, int) else handle.fileno())
            if self.watches(path):
                self.note("fsync", path)
            real_fsync(handle)

        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & os.O_CREAT and self.watches(absolute := _absolute(path, dir_fd)):
                self.note("open", absolute)
            return real_open(path, flags, mode, dir_fd=dir_fd)

        os.write, os.fsync, os.open = write, fsync, open_  # type: ignore[assignment]
        builtins.open = io.open = self._file_opener()  # type: ignore[assignment]
        self._watch_libraries()

    def _on_path(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *more: Any, **named: Any) -> Any:
            absolute = _absolute(path, named.get("dir_fd"))
            if self.watches(absolute):
                self.note(kind, absolute)
            return real(path, *more, **named)

        return operation

    def _file_opener(self) -> Callable[..., Any]:
        """`open` whose files, where they are watched and written, hand every write to the system to `write`."""
        real, operations = io.open, self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                return operations.write(super().write, data, _of_handle(self.fileno()))

        def open_(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
                  newline: str | None = None, closefd: bool = True, opener: Any = None) -> Any:
            writes = isinstance(file, str | os.PathLike) and set(mode) & set("wax")
            if not writes or not operations.watches(path := _absolute(file, None)):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            operations.note("open", path)
            raw = Raw(path, mode.replace("b", "").replace("t", ""))
            if "b" in mode and buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        return open_

    def _watch_libraries(self) -> None:
        import safetensors.torch
        from transformers import PreTrainedTokenizerFast

        serialize_file, save_tokenizer = safetensors.torch.serialize_file, PreTrainedTokenizerFast._save_pretrained

        def serialize(tensors: Any, filename: Any, *more: Any, **named: Any) -> Any:
            def real() -> Any:
                return serialize_file(tensors, filename, *more, **named)

            return self.serialize(real, path) if self.watches(path := _absolute(filename, None)) else real()

        def save(tokenizer: Any, save_directory: Any, *more: Any, **named: Any) -> Any:
            def real() -> Any:
                return save_tokenizer(tokenizer, save_directory, *more, **named)

            path = os.path.join(_absolute(save_directory, None), "tokenizer.json")
            return self.serialize(real, path) if self.watches(path) else real()

        safetensors.torch.serialize_file = serialize
        PreTrainedTokenizerFast._save_pretrained = save  # type: ignore[method-assign]


def die() -> None:
    """Ends this process as hard as it can be ended."""
    os.kill(os.getpid(), signal.SIGKILL)


def _absolute(path: Any, folder: int | None) -> str:
    name = os.fsdecode(path) if not isinstance(path, int) else _of_handle(path)
    if folder is not None:
        return os.path.join(_of_handle(folder), name)
    head, tail = os.path.split(os.path.abspath(name))
    return os.path.join(os.path.realpath(head), tail)


def _of_handle(handle: int) -> str:
    """The path of an open file, as the system knows it."""
    try:
        return os.readlink(f"/proc/self/fd/{handle}")
    except OSError:
        return ""


def watched_folders(arguments: Sequence[str]) -> list[Path]:
    """The run folder of a command line, and the folder of encoded files."""
    cache = os.environ.get("INSTRUCTION_MODELLING_CACHE")
    return [Path(arguments[arguments.index("--output_dir") + 1]), *([Path(cache)] if cache else [])]


def main() -> None:
    """The script, as if it had been called by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, default=0, help="the operation that meets the fault, from 1 (0: none)")
    parser.add_argument("--how", choices=HOWS, default="kill")
    parser.add_argument("--delay", type=float, default=0.0, help="with kill: seconds from the operation's begin")
    parser.add_argument("--rank", type=int, default=0, help="the process that meets it, where several are launched")
    parser.add_argument("--list", type=Path, help="write each operation of that process to this file")
    parser.add_argument("--count", action="store_true", help="say at the end how many operations there were")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    sys.argv = [given.script, *given.arguments]
    if int(os.environ.get("RANK", "0")) == given.rank:
        operations = Operations(watched_folders(given.arguments), Fault(given.at, given.how, given.delay), given.list)
        operations.install()
        if given.count:
            say_at_the_end(operations)
    runpy.run_path(given.script, run_name="__main__")


def say_at_the_end(operations: Operations) -> None:
    """Also where a launched process leaves by `os._exit`."""
    import atexit

    leave = os._exit

    def say() -> None:
        print(f"{operations.count} operations", flush=True)

    def leave_and_say(code: int) -> None:
        say()
        leave(code)

    atexit.register(say)
    os._exit = leave_and_say  # type: ignore[assignment]


if __name__ == "__main__":
    main()
