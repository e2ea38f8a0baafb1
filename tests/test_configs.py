"""Every file of configs/ is read by the program that its head names, says what the shell scripts say, and
runs."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from script_loader import load_script, run_script
from tiny import make_tiny_model

from instruction_modelling.command_line import parse_options
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.sweeps.options import AllSweepOptions

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
CLASSES: dict[str, Any] = {"finetune": FinetuneOptions, "sweep": AllSweepOptions}
SAMPLE = ROOT / "data" / "sample" / "brief_answers_train.jsonl"


def program_of(path: Path) -> str:
    """Return the script of src/ that the command in a file's head names."""
    name = str(path.relative_to(ROOT))
    found = re.findall(rf"^# .*?src/(\w+)\.py --config {re.escape(name)}", path.read_text(), re.MULTILINE)
    assert len(found) == 1, name
    return str(found[0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_by_its_program_and_says_what_it_is(path: Path) -> None:
    program = program_of(path)
    cls = CLASSES.get(program) or load_script(program).ComparisonOptions
    options = parse_options(cls, ["--config", str(path)])
    keys = re.findall(r"^(\w+):", path.read_text(), re.MULTILINE)
    assert len(keys) >= 5 and all(hasattr(options, key) for key in keys)
    assert path.read_text().startswith("# ")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scripts whose Python prints what it is given."""
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/bash\nshift\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name == "paper" and program_of(path) == "sweep"],
    ids=lambda path: path.stem,
)
def test_a_paper_row_is_that_of_its_script(path: Path, stand_in: Path) -> None:
    script = re.findall(r"scripts/(train_\w+\.sh)", path.read_text())[0]
    # A script whose name says its arm takes no other.
    has_own = "own_arm" in (ROOT / "scripts" / script).read_text()
    arm = {} if has_own else {"ARM": "im" if path.stem.endswith("_im") else "it"}
    said = subprocess.run(
        ["bash", str(stand_in / "scripts" / script)],
        env={"PATH": "/usr/bin:/bin", **arm},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = parse_options(AllSweepOptions, said.stdout.splitlines())
    found = parse_options(AllSweepOptions, ["--config", str(path)])
    assert (found.dataset_paths or found.data_names) == expected.dataset_paths
    assert vars(found) | {"dataset_paths": 0} == vars(expected) | {"dataset_paths": 0}


def test_every_script_of_the_paper_has_a_file() -> None:
    said = "\n".join(path.read_text() for path in FILES)
    assert [path.name for path in (ROOT / "scripts").glob("train_*.sh") if path.name not in said] == []


def test_the_authors_three_commands() -> None:
    arms = {
        name: parse_options(FinetuneOptions, ["--config", str(ROOT / f"configs/paper/authors_{name}.yaml")])
        for name in ("it", "im", "neftune")
    }
    assert {name: options.arm() for name, options in arms.items()} == {
        "it": "IT",
        "im": "IM",
        "neftune": "IT+NEFTune",
    }
    assert all(options.gradient_accumulation_steps == 64 for options in arms.values())


@pytest.mark.parametrize("name", ["cpu_trial", "own_chats", "lora_one_gpu"])
def test_a_job_can_be_run_dry(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_model(tmp_path / "model")
    flags = [
        "--model_name_or_path",
        tmp_path / "model",
        "--train_file",
        SAMPLE,
        "--output_dir",
        tmp_path / "run",
    ]
    config = ["--config", ROOT / "configs" / f"{name}.yaml", "--dry_run", "--mixed_precision", "no"]
    assert run_script(monkeypatch, "finetune", *config, *flags) == 0
    assert not (tmp_path / "run").exists()
