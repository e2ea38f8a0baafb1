"""scripts/eval_humaneval.sh: every model at both temperatures."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


PYTHON = """#!/usr/bin/env bash
printf '%q ' "$@" >>calls; echo >>calls
if [[ $* == *"${SLEEPING:-nobody}"* ]]; then trap 'exit 130' INT; sleep 30 >/dev/null 2>&1 & wait; fi
[[ $* != *broken* ]]
"""


@dataclass
class Checkout:
    """A copy of scripts/eval_humaneval.sh whose Python only notes what it is asked."""

    folder: Path

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in ("RESULTS", "TEMPERATURES", "SAMPLES", "PASS_AT_KS")
        }
        return subprocess.Popen(
            ["bash", self.folder / "scripts" / "eval_humaneval.sh", *arguments],
            env={**clean, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def calls(self) -> list[dict[str, str]]:
        """What was asked: the flags with their values in one text, and those without as empty ones."""
        path = self.folder / "calls"
        made = []
        for line in path.read_text().splitlines() if path.exists() else ():
            words = shlex.split(line)
            assert words[:2] == ["-m", "eval.codex_humaneval.run_eval"]
            made.append(
                {
                    flag: " ".join(values)
                    for flag, *values in (part.split() for part in " ".join(words[2:]).split("--")[1:])
                }
            )
        return made


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "scripts" / "sourced").mkdir(parents=True)
    for name in ("eval_humaneval.sh", "sourced/eval_models.sh", "sourced/from_anywhere.sh"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    (folder / ".venv" / "bin" / "python").write_text(PYTHON)
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    return Checkout(folder)


def test_the_script_runs_each_model_at_both_temperatures_and_goes_on_after_a_failure(
    checkout: Checkout,
) -> None:
    process = checkout.start("--results", "r/", "out/broken", "out/done/", "--", "--use_vllm")
    said = process.communicate(timeout=30)[0]
    assert process.returncode == 1 and "failed (humaneval): out/broken\n" in said
    common = {"top_p": "0.95", "unbiased_sampling_size_n": "20", "eval_pass_at_ks": "1 10", "use_vllm": ""}
    assert checkout.calls() == [
        {
            "model_name_or_path": model,
            "save_dir": f"r/{Path(model).name}/humaneval_t{heat}",
            "temperature": heat,
            **common,
        }
        for model, heat in (
            ("out/broken", "0.1"),
            ("out/broken", "0.7"),
            ("out/done", "0.1"),
            ("out/done", "0.7"),
        )
    ]


def test_the_scripts_variables_are_kept(checkout: Checkout) -> None:
    process = checkout.start(
        "hub/im", RESULTS="elsewhere", TEMPERATURES="0.2", SAMPLES="3", PASS_AT_KS="1 2 3"
    )
    assert process.wait(30) == 0
    (call,) = checkout.calls()
    assert call == {
        "model_name_or_path": "hub/im",
        "save_dir": "elsewhere/im/humaneval_t0.2",
        "temperature": "0.2",
        "top_p": "0.95",
        "unbiased_sampling_size_n": "3",
        "eval_pass_at_ks": "1 2 3",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model is given"),
        (("a/it", "b/it/"), "would both write to results/eval/it"),
        (("--use_vllm", "it"), "after the models"),
    ],
)
def test_the_script_refuses_what_it_cannot_keep_apart(
    checkout: Checkout, arguments: tuple[str, ...], said: str
) -> None:
    process = checkout.start(*arguments)
    assert said in process.communicate(timeout=30)[0] and process.returncode == 2
    assert checkout.calls() == []


def test_an_interrupt_stops_the_script_as_a_whole(checkout: Checkout) -> None:
    process = checkout.start("first", "second", SLEEPING="temperature 0.1")
    until = time.monotonic() + 20
    while not checkout.calls() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)
    assert [call["model_name_or_path"] for call in checkout.calls()] == ["first"]
