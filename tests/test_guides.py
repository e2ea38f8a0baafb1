"""The guides do what they say: each command runs where a reader would run it, and each message is one that
the code has."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from guides import FOLDER, GUIDES, Command, clone, commands, is_said, script_of, source_texts
from tiny import make_tiny_model
from training_runs import ROOT, run, sample_rows, write_rows

MODEL = "models/SmolLM2-135M-Instruct"
# 2: nothing was wrong but the answers of a random model (check_answers warns of them).
WARNS = {"check_answers": 3}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like a clone that is set up, a tiny model in the place of the embedded one, and a few rows of
    one's own."""
    clone(tmp_path)
    make_tiny_model(tmp_path / MODEL)
    write_rows(tmp_path / "mine.jsonl", sample_rows(24))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def in_a_shell(text: str) -> None:
    """Run a command line as a reader does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=1500, env=environment)
    script = re.search(r"src/(\w+)\.py", text)
    allowed = (0, WARNS.get(script[1], 0) if script else 0)
    assert done.returncode in allowed, f"{text}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def outputs(command: Command) -> list[str]:
    """Return the files and folders that a command is told to write."""
    words = shlex.split(command.text)
    return [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("--output_dir", "--html")]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_quick_commands_of_a_guide_run_and_write_what_they_say(guide: Path, place: Path) -> None:
    """In one process where they are scripts of src/; a tiny model is in the embedded one's place."""
    for command in commands(guide):
        if command.kind:
            continue
        own = script_of(command)
        if own is None:
            in_a_shell(command.text)
            continue
        outcome = run(own[0], *own[1])
        assert outcome.code == 0, f"{command.text}\n{outcome.err}"
        if "--dry_run" not in own[1]:
            assert all((place / name).exists() for name in outputs(command)), command.text


# Some commands make eight models and measure them: minutes, and more beside other work.
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_all_commands_of_a_guide_run_one_after_another(guide: Path, place: Path) -> None:
    for command in commands(guide):
        if not command.kind.startswith("not run"):
            in_a_shell(command.text)


def test_every_guide_is_short_and_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(GUIDES) == 7
    for guide in GUIDES:
        # Two printed pages are about 120 lines of this width.
        assert len(guide.read_text(encoding="utf-8").splitlines()) <= 120, guide.name
        assert f"docs/guides/{guide.name}" in readme
        assert guide.stem != "troubleshooting" or not commands(guide)


def test_every_message_of_the_troubleshooting_page_is_in_the_source() -> None:
    page = (FOLDER / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) >= 30 and len(set(messages)) == len(messages)
    texts = source_texts()
    assert [message for message in messages if not is_said(message, texts)] == []
    # The search does find what is not there.
    assert not is_said("holds an unfinished …", texts)
