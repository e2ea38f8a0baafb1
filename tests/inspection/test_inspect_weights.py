"""The options of src/inspect_weights.py, its errors, and data sets of the hub."""

import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from inspections import CHATML, GOOD
from script_loader import SRC, load_script, run_script

from instruction_modelling.command_line import make_parser, parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions


def inspect_options(*arguments: str) -> Any:
    """The options the script makes of these arguments."""
    return parse_options(load_script("inspect_weights").InspectOptions, arguments, "")


def test_every_option_of_training_is_accepted_and_none_needs_a_model() -> None:
    flags = {action.dest: action for action in make_parser(FinetuneOptions, "")._actions}
    own = {
        action.dest: action
        for action in make_parser(load_script("inspect_weights").InspectOptions, "")._actions
    }
    assert {field.name for field in fields(FinetuneOptions)} <= set(own)
    for name, action in flags.items():
        assert own[name].option_strings == action.option_strings
        assert own[name].choices == action.choices
    assert not any(action.required for action in own.values())
    options = inspect_options("--train_file", "f", "--tokenizer_name", "t", "--use_lm_loss", "--use_lora")
    assert options.model_name_or_path is None
    assert options.num_examples == 2
    assert options.policy().instruction == 1.0


def test_the_training_option_is_still_required_in_training() -> None:
    required = [action.dest for action in make_parser(FinetuneOptions, "")._actions if action.required]
    assert required == ["model_name_or_path"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_file", "f"], "give --tokenizer_name"),
        (["--tokenizer_name", "t"], "give --train_file"),
        (["--train_file", "f", "--tokenizer_name", "t", "--num_examples", "-1"], "--num_examples -1"),
        (["--train_file", "f", "--tokenizer_name", "t", "--html", "./f"], "is the file of --train_file too"),
        (
            ["--train_file", "f", "--tokenizer_name", "t", "--html", "x", "--output_file", "x"],
            "--output_file x: is the file of --html too",
        ),
        (["--train_file", "f", "--tokenizer_name", "t", "--response_loss_weight", "nan"], "a loss weight"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        inspect_options(*arguments)


def test_the_model_names_the_tokenizer_where_no_other_is_given(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(GOOD) + "\n")
    arguments = ["--train_file", tmp_path / "rows.jsonl", "--model_name_or_path", tiny_tokenizer]
    assert run_script(monkeypatch, "inspect_weights", *arguments) == 0
    assert f"tokenizer: {tiny_tokenizer}" in capsys.readouterr().out


def run_for_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> str:
    """The error message of a call that must fail."""
    assert run_script(monkeypatch, "inspect_weights", *arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_errors_are_messages(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    base = ["--train_file", file, "--tokenizer_name", tiny_tokenizer]
    (tmp_path / "taken").mkdir()
    error = run_for_error(monkeypatch, capsys, *base, "--output_file", tmp_path / "taken")
    assert f"{tmp_path / 'taken'} could not be written: Is a directory" in error
    error = run_for_error(monkeypatch, capsys, *base, "--html", file / "below" / "page.html")
    assert "could not be written: Not a directory" in error
    (tmp_path / "chatml.jinja").write_text(CHATML)
    error = run_for_error(
        monkeypatch, capsys, *base, "--recipe", "released", "--chat_format", tmp_path / "chatml.jinja"
    )
    assert "--mask_style released" in error
    error = run_for_error(monkeypatch, capsys, "--train_file", tmp_path / "no", *base[2:])
    assert "there is no such file" in error


def test_help_is_quick_and_says_what_a_share_is() -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, SRC / "inspect_weights.py", "--help"], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - begin < 4
    assert "share of the loss of a kind is the sum of its tokens' coefficients" in " ".join(
        done.stdout.split()
    )
    assert "The first token of a row is predicted by nothing" in done.stdout
    assert done.stdout.index("Inspection:") < done.stdout.index("Model:")
