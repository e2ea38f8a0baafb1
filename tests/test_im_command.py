"""The command `im`: it runs the scripts by short names, in this process and once installed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from script_loader import load_script

from instruction_modelling import called
from instruction_modelling.errors import run_main

ROOT = Path(__file__).resolve().parents[1]


def run_im(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Return the exit code of `im` with these words."""
    monkeypatch.setattr(sys, "argv", ["im", *words])
    monkeypatch.setattr(called, "_within", [])
    with pytest.raises(SystemExit) as stopped:
        run_main(load_script("im").run)
    return int(stopped.value.code or 0)


def test_every_script_has_a_command_and_every_command_a_script() -> None:
    im = load_script("im")
    scripts = {path.stem for path in (ROOT / "src").glob("*.py")} - {"im"}
    assert set(im.COMMANDS.values()) == scripts
    assert len(set(im.COMMANDS)) == len(scripts)
    # A command that is another script's name would leave that one without its own.
    assert all(im.COMMANDS.get(name, name) == name for name in scripts)


def test_the_overview_says_of_each_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_im(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:]}
    assert shown["train"] == "Tune a language model on conversations, with the loss where you want it"
    assert set(shown) == set(load_script("im").COMMANDS) and all(len(words) > 20 for words in shown.values())


def test_a_command_runs_its_script_and_calls_itself_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_im(monkeypatch, "train", "--lerning_rate", "1") == 2
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "usage: im train --model_name_or_path STR [options]",
        "every option: im train --help",
        "error: --lerning_rate: no such option; did you mean --learning_rate?",
        "       missing: --model_name_or_path",
    ]
    # By the script's own name too.
    assert run_im(monkeypatch, "finetune", "--help") == 0
    assert "--use_lm_loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "error: im trian: no such command; did you mean train?"),
        (["zzz"], 2, "error: im zzz: no such command (im lists them)"),
        (["where", "train"], 0, str(ROOT / "src" / "finetune.py")),
        (["where", "trai"], 2, "did you mean train?"),
    ],
    ids=str,
)
def test_other_words(
    words: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_im(monkeypatch, *words) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err


@pytest.mark.slow
def test_an_installation_has_the_command_the_scripts_and_all_their_files(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    copy, target = tmp_path / "copy", tmp_path / "target"
    for name in tracked.stdout.splitlines():
        if name.startswith(("src/", "eval/")) or name in ("setup.py", "pyproject.toml"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    install = [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
        str(copy),
    ]
    subprocess.run([sys.executable, *install], check=True)
    names = {
        str(path.relative_to(copy)) for path in copy.rglob("*") if path.suffix != ".pyc" and path.is_file()
    }
    names = {name for name in names if "build/" not in name and ".egg-info" not in name} - {
        "setup.py",
        "pyproject.toml",
    }
    for name in names:
        inner = Path(name).relative_to("src") if name.startswith("src/") else Path(name)
        where = inner if len(inner.parts) > 1 else Path("instruction_modelling_scripts") / inner
        assert (target / where).is_file(), name

    def im(*words: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(target)}
        command = [sys.executable, str(target / "bin" / "im"), *words]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert "train " in im().stdout and im("--version").stdout == "0.1.0\n"
    assert im("where", "train").stdout.strip() == str(
        target / "instruction_modelling_scripts" / "finetune.py"
    )
    made = im(
        "tiny-model",
        "--train_file",
        str(ROOT / "data/sample/brief_answers_train.jsonl"),
        "--output_dir",
        "tiny",
    )
    assert (made.returncode, (tmp_path / "tiny" / "config.json").is_file()) == (0, True), made.stderr
    assert im("train", "--model_name_or_path", "tiny").stderr == (
        "error: the options do not fit together:\n"
        "  - give --train_file FILE or --dataset_name NAME, one of them\n"
    )
