"""Faults in what a run writes: a kill or a failing disk at the n-th operation on a file of its folder."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# By path, and by the descriptor of a file that was opened by path.
BY_PATH = ("open", "mkdir", "rename", "replace", "unlink", "rmdir")
BY_DESCRIPTOR = ("write", "fsync")
HOWS = ("kill", "half", "ENOSPC", "EIO")
"""SIGKILL before the operation, SIGKILL after half of a write (or after any other operation), or an error in
its place."""


class Faults:
    """Counts the operations that change `folder`, and lets the one numbered `at` (from 1) go wrong.

    Wraps functions of `os` for good, so it belongs in a process of its own.
    """

    def __init__(self, folder: Path, at: int = 0, how: str = "kill"):
        self.names: list[str] = []
        self._folder, self._at, self._how = str(folder), at, how
        self._descriptors: set[int] = set()
        self._real: dict[str, Callable[..., Any]] = {
            name: getattr(os, name) for name in (*BY_PATH, *BY_DESCRIPTOR, "close")
        }
        for name in BY_PATH:
            setattr(os, name, self._by_path(name))
        for name in BY_DESCRIPTOR:
            setattr(os, name, self._by_descriptor(name))
        setattr(os, "close", self._close)  # noqa: B010

    def arm(self, at: int, how: str = "kill") -> None:
        """Counts anew, and lets the operation numbered `at` from here go wrong; 0 for none."""
        self.names.clear()
        self._at, self._how = at, how

    def _within(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and (os.path.abspath(path) + os.sep).startswith(
            self._folder + os.sep
        )

    def _by_path(self, name: str) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            inside = self._within(path) or keywords.get("dir_fd") in self._descriptors
            if name != "open":
                return (
                    self._operation(name, path, *arguments, **keywords)
                    if inside
                    else self._real[name](path, *arguments, **keywords)
                )
            flags = arguments[0] if arguments else keywords["flags"]
            creates = inside and flags & os.O_CREAT
            found = (
                self._operation(name, path, *arguments, **keywords)
                if creates
                else self._real[name](path, *arguments, **keywords)
            )
            if inside:
                self._descriptors.add(found)
            return found

        return call

    def _by_descriptor(self, name: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            if descriptor in self._descriptors:
                return self._operation(name, descriptor, *arguments)
            return self._real[name](descriptor, *arguments)

        return call

    def _close(self, descriptor: int) -> None:
        self._descriptors.discard(descriptor)
        self._real["close"](descriptor)

    def _operation(self, name: str, target: Any, *arguments: Any, **keywords: Any) -> Any:
        self.names.append(name)
        if len(self.names) != self._at:
            return self._real[name](target, *arguments, **keywords)
        if self._how in ("ENOSPC", "EIO"):
            number = getattr(errno, self._how)
            raise OSError(number, os.strerror(number))
        if self._how == "half":
            if name == "write":
                self._real["write"](target, arguments[0][: len(arguments[0]) // 2])
            else:
                self._real[name](target, *arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process goes on")
