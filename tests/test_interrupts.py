"""Ctrl-C is one line, with the code that a shell gives it, whatever a program is at."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
# A script of this project, up to what it is at: it says that it is ready, and waits.
PROGRAM = """
import concurrent.futures, subprocess, sys, time
from instruction_modelling.errors import run_main
def main():
    {work}
    print("ready", flush=True)
    time.sleep(60)
    return 0
run_main(main, goes_on={goes_on})
"""
CHILD = 'subprocess.Popen(["sleep", "61"], start_new_session=True)'
THREAD = "concurrent.futures.ThreadPoolExecutor(1).submit(time.sleep, 60)"
# Begins, imports for seconds, and soon has a session of its own.
SERVER = "from instruction_modelling.comparison.warm_start import _begin_server; _begin_server()"
# Deaf to all but the last signal.
DEAF = (
    'subprocess.Popen([sys.executable, "-c", "import signal, time\\nfor number in (2, 15): '
    'signal.signal(number, signal.SIG_IGN)\\ntime.sleep(62)"])'
)


def interrupted(program: list[str], ready: str = "ready", **keywords: object) -> tuple[int, str, list[int]]:
    """Return the exit code, the error output and the children left of a program that is told to stop as a
    terminal tells it, once it has said that it is ready."""
    process = subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **keywords,  # type: ignore[call-overload]
    )
    assert process.stdout is not None
    while ready not in (line := process.stdout.readline()):
        assert line, process.communicate()
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    # The tracker of a server's memory ends when it sees that all others have.
    _, left = psutil.wait_procs(children, timeout=2)
    return process.returncode, said, [child.pid for child in left]


@pytest.mark.parametrize(
    ("work", "goes_on"),
    [("pass", True), (CHILD, False), (THREAD, False), (SERVER, False)],
    ids=["alone", "a child of its own session", "a thread", "a server that jobs are forked from"],
)
def test_a_script_says_one_line_and_ends_its_children(work: str, goes_on: bool) -> None:
    program = PROGRAM.format(work=work, goes_on=goes_on)
    begun = time.monotonic()
    code, said, left = interrupted([sys.executable, "-c", program])
    assert (code, left) == (130, []) and time.monotonic() - begun < 20
    assert said == ("stopped; the same command goes on\n" if goes_on else "stopped\n")


@pytest.mark.slow
def test_a_child_that_does_not_listen_is_ended_all_the_same() -> None:
    code, said, left = interrupted([sys.executable, "-c", PROGRAM.format(work=DEAF, goes_on=False)])
    assert (code, said, left) == (130, "stopped\n", [])


def test_a_script_that_is_still_being_loaded(tmp_path: Path) -> None:
    # The real script, stopped in the middle of an import of its own.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'instruction_modelling.command_line':\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"}
    code, said, _ = interrupted([sys.executable, str(ROOT / "src" / "finetune.py")], env=environment)
    assert (code, said) == (-signal.SIGINT, "stopped\n")


def test_setup_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/setup.sh", "requirements.txt", "requirements-eval.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    # pip says that it was cancelled, and fails. In the background: a sleep that is just being started would
    # not hear the signal, and hold up the rest.
    python.write_text(
        "#!/usr/bin/env bash\ncase $* in *venv*) mkdir -p .venv/bin; cp $0 .venv/bin/python;;\n"
        "*'pip install'*) trap 'kill $!; exit 1' INT; sleep 60 & echo ready; wait;;\n"
        "*--version*) echo Python 3.11.7;; esac\n"
    )
    python.chmod(0o755)
    command = ["bash", "scripts/setup.sh", "--no_model", "--no_system_packages"]
    code, said, _ = interrupted(command, cwd=tmp_path, env={**os.environ, "PYTHON": str(python)})
    assert code == 130 and said.endswith("[setup] stopped; the same command goes on\n"), said


def test_a_run_with_nothing_done_ends_at_once_and_one_at_work_saves_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from instruction_modelling.processes.signals import StopSignals

    with StopSignals() as stop:
        stop.nothing_done = True
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        assert stop.received is None
        # One of several processes waits for the others, so that none hangs.
        monkeypatch.setenv("WORLD_SIZE", "2")
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
