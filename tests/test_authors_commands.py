"""The README's table of the authors' commands: each command on its right is one that runs here, and the flags
on its left that are taken are taken."""

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from script_loader import load_script
from test_docs import _Asked

from instruction_modelling.command_line import make_parser, parse_options

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = README[README.index("| theirs | here |") :].split("\n\n")[0].splitlines()[2:]
ROWS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in TABLE]
# What stands for a path, a name or a number of the reader's.
COMMANDS = [
    command
    for _, here in ROWS
    for command in re.findall(r"`([^`]+)`", here)
    if re.match(r"(?:src/|python |bash |sh |\.venv/)", command) and not command.endswith("finetune.py")
]


def options_of(program: str, monkeypatch: pytest.MonkeyPatch) -> type:
    """The options class that a program of this repository parses."""
    name = program.removeprefix("src/").removesuffix(".py")
    module: Any = load_script(name) if program.startswith("src/") else importlib.import_module(program)

    def ask(cls: type, *arguments: object, **named: object) -> None:
        raise _Asked(cls)

    monkeypatch.setattr(module, "parse_options", ask)
    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(_Asked) as asked:
        module.main()
    monkeypatch.undo()
    return asked.value.args[0]  # type: ignore[no-any-return]


def test_the_table_has_a_row_for_every_command_and_every_row_two_cells() -> None:
    assert all(len(row) == 2 and all(row) for row in ROWS)
    theirs = " ".join(row[0] for row in ROWS)
    for name in (
        "python=3.10",
        "gen_model_answer.py",
        "gen_judgment.py",
        "show_result.py",
        "sft_eval",
        "xwin",
        "zephyr",
        "eval.tydiqa",
        "--openai_engine",
        "compute_loss.py",
        "select_data.py",
    ):
        assert name in theirs, name
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_the_right_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    if words[0] in ("bash", "sh"):
        assert (ROOT / words[1]).is_file()
        return
    if words[:3] == [".venv/bin/python", "-m", "lm_eval"]:
        tasks = Path(str(importlib.import_module("lm_eval").__file__)).parent / "tasks"
        names = words[words.index("--tasks") + 1].split(",")
        assert all(next(tasks.glob(f"**/{name}.yaml"), None) for name in names)
        return
    program, given = (words[0], words[1:]) if words[0].startswith("src/") else (words[2], words[3:])
    assert make_parser(options_of(program, monkeypatch), "x").parse_args(given)


def test_the_group_of_tasks_is_in_the_folder_that_the_table_names() -> None:
    here = next(here for theirs, here in ROWS if "sft_eval" in theirs)
    folder = re.findall(r"--include_path (\S+?)`", here)[0]
    assert "group: sft_eval\n" in (ROOT / folder / "sft_eval.yaml").read_text()


@pytest.mark.parametrize(
    ("program", "given", "options"),
    [
        (
            "src/generate.py",
            "--model_name_or_path m --data_dir data --data_path processed/lima --save_dir out "
            "--tokenizer_name_or_path t --eval_batch_size 20 --max_new_tokens 8192 --use_vllm",
            {"eval_file": "processed/lima", "output_dir": "out", "tokenizer_name": "t", "batch_size": 20},
        ),
        (
            "src/select_data.py",
            "--dir data --data tulu --alpha 10 --target_count 3000",
            {"data_dir": "data", "train_file": "tulu", "ratio": [10.0], "rows": [3000]},
        ),
        (
            "src/compute_loss.py",
            "--model_name_or_path m --use_flash_attn --tokenizer_name m --use_slow_tokenizer --eval_file f "
            "--max_seq_length 2048 --preprocessing_num_workers 16 --per_device_eval_batch_size 1 "
            "--output_dir output_loss/m_f",
            {"eval_file": "f", "per_device_eval_batch_size": 1},
        ),
        (
            "eval.alpaca_farm.run_eval",
            "--model_name_or_path m --save_dir s --eval_batch_size 20 --use_vllm --use_chat_format "
            "--chat_formatting_function eval.templates.create_prompt_with_tulu_chat_format",
            {"save_dir": "s", "eval_batch_size": 20},
        ),
    ],
)
def test_the_authors_flags_are_taken_under_their_own_names(
    monkeypatch: pytest.MonkeyPatch, program: str, given: str, options: dict[str, Any]
) -> None:
    taken = vars(parse_options(options_of(program, monkeypatch), given.split(), "x"))
    assert {name: taken[name] for name in options} == options


def test_humanevals_command_is_taken_and_what_is_not_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from eval.codex_humaneval.options import HumanEvalOptions
    from eval.codex_humaneval.run_eval import SHORT_NAMES
    from instruction_modelling.command_line import long_names

    given = "--data_file H --eval_pass_at_ks 1 --unbiased_sampling_size_n 20 --temperature 0.1 --gptq"
    given += " --save_dir results_humaneval/m_t01 --model m --tokenizer m --use_vllm"
    options = parse_options(HumanEvalOptions, long_names(given.split(), SHORT_NAMES), "x")
    assert options.check() == [] and options.model_name_or_path == "m"
    assert HumanEvalOptions(openai_engine="gpt-4").check() == []
    assert any("--load_in_8bit" in said for said in HumanEvalOptions("m", load_in_8bit=True).check())


def test_a_file_is_found_as_the_authors_name_it(tmp_path: Path) -> None:
    from instruction_modelling.rows.files import file_in

    (tmp_path / "a.parquet").touch()
    assert file_in(None, "x/a.jsonl") == "x/a.jsonl"
    assert file_in(str(tmp_path), "p/lima") == str(tmp_path / "p" / "lima.jsonl")
    assert file_in(str(tmp_path), "a.parquet") == str(tmp_path / "a.parquet")
