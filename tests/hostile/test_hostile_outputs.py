"""Hostile output folders: a line before any work, or the folder that was asked for, whatever its name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import Outcome, run, sample_rows, write_rows

ODD = "a \"b\" 'c'\n$x `u` \u05e9\u202e \u00fc;#%\\"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows, a file, a link to itself and a link to nothing."""
    folder = tmp_path_factory.mktemp("outputs")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(4))
    (folder / "file").write_text("kept")
    os.symlink("loop", folder / "loop")
    os.symlink("absent/x", folder / "nowhere")
    return folder


def commands(place: Path, output: object) -> dict[str, tuple[object, ...]]:
    """Each script that writes to a folder, with this one."""
    model, rows = ("--model_name_or_path", place / "model"), place / "rows.jsonl"
    return {
        "finetune": (*model, "--train_file", rows, "--max_train_steps", 1, "--output_dir", output),
        "compute_loss": (*model, "--eval_file", rows, "--output_dir", output),
        "generate": (*model, "--eval_file", rows, "--max_new_tokens", 2, "--output_dir", output),
        "compare": (*model, "--train_file", rows, "--output_dir", output),
        "report": ("--runs", place / "run", "--output_dir", output),
    }


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda place: place / "file", "{}: cannot be made: {} is a file"),
    "a file above it": (lambda place: place / "file" / "x", "{}: cannot be made: Not a directory"),
    "a link to itself": (
        lambda place: place / "loop",
        "{}: cannot be made: Too many levels of symbolic links",
    ),
    "a link to itself above it": (
        lambda place: place / "loop" / "x",
        "{}: cannot be made: Too many levels of symbolic links",
    ),
    "a link to nothing": (
        lambda place: place / "nowhere",
        "{}: cannot be made: {} is a link that leads to nothing",
    ),
    "a device": (lambda place: Path("/dev/null"), "{}: cannot be made: {} is a file"),
    "a name too long": (
        lambda place: Path("/" + "x" * 250 + "y" * 20),
        "{}: cannot be made: File name too long",
    ),
    "a path too long": (
        lambda place: "/" + "/".join(["x" * 99] * 50),
        ": cannot be made: File name too long",
    ),
}


def said(outcome: Outcome) -> str:
    """The one line of a refusal."""
    assert outcome.code == 2 and outcome.out == ""
    return outcome.err


@pytest.mark.parametrize("script", ["finetune", "compute_loss", "generate", "compare", "report"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_in_a_line(name: str, script: str, place: Path) -> None:
    make, words = FOLDERS[name]
    folder = make(place)
    line = said(run(script, *commands(place, folder)[script]))
    assert line.startswith("error: --output_dir ") and line.endswith(words.replace("{}", str(folder)) + "\n")
    assert line.count("\n") == 1 and len(line) < 700
    assert (place / "file").read_text() == "kept"


def test_a_model_is_not_written_over_what_it_begins_with(place: Path) -> None:
    before = {path.name: path.read_bytes() for path in (place / "model").iterdir()}
    link = place / "other_name"
    link.symlink_to("model")
    for folder in (place / "model", link, place / "model" / ".." / "model"):
        line = said(run("finetune", *commands(place, folder)["finetune"]))
        assert line == (
            f"error: --output_dir {folder}: is the folder of --model_name_or_path too, whose files would be "
            "replaced; choose another\n"
        )
    assert {path.name: path.read_bytes() for path in (place / "model").iterdir()} == before


def test_all_that_is_wrong_is_said_at_once_before_anything_is_loaded(place: Path) -> None:
    flags = (
        "--learning_rate",
        "nan",
        "--eval_file",
        place / "absent.jsonl",
        "--eval_file",
        place / "rows.jsnl",
    )
    outcome = run(
        *("finetune", "--model_name_or_path", place / "modle", "--train_file", "", "--seed", -1),
        *("--output_dir", place / "file", "--resume_from_checkpoint", place / "step_9", *flags),
    )
    title, *problems = said(outcome).replace(str(place), "DIR").splitlines()
    assert title == "error: the options do not fit together:"
    assert sorted(problems) == [
        "  - --eval_file DIR/rows.jsnl: there is no such file; did you mean DIR/rows.jsonl?",
        "  - --learning_rate nan: must be a finite number, 0 or more",
        "  - --model_name_or_path DIR/modle: there is no such folder; did you mean DIR/model?",
        "  - --output_dir DIR/file: cannot be made: DIR/file is a file",
        "  - --resume_from_checkpoint DIR/step_9: there is no such folder",
        "  - --seed -1: 0 or more",
        "  - --train_file: an empty text stands behind it; give a value, or leave it out",
    ]


def test_a_folder_of_any_name_holds_what_was_asked_for(place: Path) -> None:
    folder = place / ODD
    assert run("finetune", *commands(place, folder)["finetune"]).code == 0
    assert json.loads((folder / "run.json").read_text())["finished"]
    scored = (folder / "losses", folder / "answers")
    tuned = ("--model_name_or_path", folder, "--eval_file", place / "rows.jsonl")
    assert run("compute_loss", *tuned, "--output_dir", scored[0]).code == 0
    assert run("generate", *tuned, "--max_new_tokens", 2, "--output_dir", scored[1]).code == 0
    assert len((scored[0] / "losses.jsonl").read_text().splitlines()) == 4
    assert len((scored[1] / "responses.jsonl").read_text().splitlines()) == 4
    assert run("report", "--runs", folder, "--output_dir", folder / "report").code == 0
    assert (folder / "report" / "report.html").stat().st_size > 1000
