"""Flags made of dataclasses, and the training script's options: none undocumented, no wrong combination let
through."""

import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from script_loader import load_script

from instruction_modelling.command_line import (
    field_docs,
    make_parser,
    option_groups,
    options_table,
    parse_options,
)
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.fingerprint import LAYOUT_OPTIONS, RUN_OPTIONS

SCRIPTS = {"finetune": FinetuneOptions, "compute_loss": load_script("compute_loss").LossOptions}
OLD_FLAGS = shlex.split("""--model_name_or_path --tokenizer_name --use_slow_tokenizer --use_flash_attn
    --train_file --max_seq_length --preprocessing_num_workers --per_device_train_batch_size
    --gradient_accumulation_steps --learning_rate --lr_scheduler_type --warmup_ratio --weight_decay
    --checkpointing_steps --num_train_epochs --max_train_steps --output_dir --with_tracking --report_to
    --logging_steps --use_lm_loss --neftune_alpha --use_lora --lora_rank --lora_alpha --lora_dropout
    --use_qlora --gradient_checkpointing --clip_grad_norm --use_8bit_optimizer --low_cpu_mem_usage
    --padding_side --use_lm_modelling --block_size --apply_kl_div_loss --kl_penalty_ctl --dataset_name
    --dataset_config_name --config_name --overwrite_cache --seed --resume_from_checkpoint""")


# -- dataclasses as command lines --------------------------------------------------------------------------


@dataclass
class First:
    """First things."""

    name: str
    """What it is called,
    over two lines."""
    size: int | None = None
    """Its size (100 % of it)."""
    shape: Literal["round", "square"] = "round"
    """Its shape."""
    loud: bool = False
    """Whether it is loud."""
    quick: bool = True
    """Do not hurry."""
    shared: float = 1.0
    """Said here first."""


@dataclass
class Both(First):
    """Second things."""

    tags: list[str] = field(default_factory=list)
    """Words for it."""
    shared: float = 2.0
    """Said again."""

    def check(self) -> list[str]:
        """Its problems."""
        return [
            word for word, wrong in (("too big", (self.size or 0) > 9), ("no name", not self.name)) if wrong
        ]


def test_defaults_and_values() -> None:
    assert parse_options(Both, ["--name", "x"]) == Both("x")
    found = parse_options(
        Both,
        [
            "--name",
            "x",
            "--size",
            "3",
            "--shape",
            "square",
            "--loud",
            "--no_quick",
            "--tags",
            "a",
            "b",
            "--shared",
            "0.5",
        ],
    )
    assert found == Both("x", 3, "square", True, False, 0.5, ["a", "b"])


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--name", "x", "--shape", "flat"],
        ["--name", "x", "--size", "big"],
        ["--name", "x", "--lou"],
        ["--name", "x", "--quick"],
        ["--name", "x", "--loud", "yes"],
    ],
    ids=str,
)
def test_what_argparse_refuses(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_options(Both, argv)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


def test_a_file_without_its_flag_is_told_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my rows.csv"
    path.write_text("a,b\n")
    given = ["--model_name_or_path", "m", "--output_dir", "o"]
    for argv, said in (
        ([*given, str(path)], f"{path}: belongs to no option; did you mean --train_file '{path}'?"),
        ([*given, f"{path}x"], f"{path}x: belongs to no option\n"),
        (
            [*given, "--train_file", "t", "--eval_file", "e", "--use_lm_loss", str(path)],
            f"{path}: belongs to no option\n",
        ),
        (
            [*given, "--use_lm_loss", "True", "--packing=false"],
            "--packing: takes no value, so leave out 'false'; the flag alone says yes, and without it the",
        ),
        (
            [*given, "--use_lm_loss", "True"],
            "--use_lm_loss: takes no value, so leave out 'True'; the flag alone",
        ),
        ([*given, "--lr", "1"], "--lr: no such option; did you mean --learning_rate?"),
        ([*given, "--train_data", "x"], "--train_data: no such option; did you mean --train_file?"),
        ([*given, "--batch-size", "8"], "did you mean --per_device_train_batch_size?"),
    ):
        with pytest.raises(SystemExit):
            parse_options(FinetuneOptions, argv)
        assert said in capsys.readouterr().err


def test_every_problem_at_once() -> None:
    with pytest.raises(UserError) as raised:
        parse_options(Both, ["--name", "", "--size", "10"])
    assert "  - too big\n  - no name" in str(raised.value)


def test_help_says_group_doc_and_default() -> None:
    text = " ".join(make_parser(Both, "About it.").format_help().split())
    assert "About it." in text
    for words in (
        "First things:",
        "Second things:",
        "What it is called, over two lines.",
        "Its size (100 % of it).",
        "Its shape. (default: round)",
        "--no_quick Do not hurry.",
        "Said again. (default: 2.0)",
    ):
        assert words in text, words
    assert "Said here first" not in text


def test_docs_groups_and_table() -> None:
    assert field_docs(Both) == {
        "name": "What it is called, over two lines.",
        "size": "Its size (100 % of it).",
        "shape": "Its shape.",
        "loud": "Whether it is loud.",
        "quick": "Do not hurry.",
        "shared": "Said again.",
        "tags": "Words for it.",
    }
    groups = [(title, [f.name for f in fields]) for title, fields in option_groups(Both)]
    assert groups == [
        ("First things", ["name", "size", "shape", "loud", "quick"]),
        ("Second things", ["shared", "tags"]),
    ]
    table = options_table(Both)
    assert "| `--name` | `required` | What it is called, over two lines. |" in table
    assert "| `--shape {round,square}` | `round` | Its shape. |" in table
    assert "| `--no_quick` |  | Do not hurry. |" in table
    assert table.count("`--shared`") == 1


# -- the scripts' options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_every_option_is_documented_in_help_and_table(cls: Any) -> None:
    docs, table = field_docs(cls), options_table(cls)
    text = " ".join(make_parser(cls, "x").format_help().split())
    for each in dataclasses.fields(cls):
        assert docs.get(each.name, "").endswith((".", ")")), each.name
        flag = f"--no_{each.name}" if each.default is True else f"--{each.name}"
        assert flag in text and f"`{flag}" in table
        assert docs[each.name].split("(")[0].strip() in text, each.name


def test_the_flags_of_the_released_code() -> None:
    known = {flag for action in make_parser(FinetuneOptions, "x")._actions for flag in action.option_strings}
    assert set(OLD_FLAGS) <= known


def test_the_commands_of_the_released_code_parse_to_these_values() -> None:
    argv = shlex.split("""--model_name_or_path M --use_flash_attn --tokenizer_name M --use_slow_tokenizer
        --train_file F --max_seq_length 2048 --preprocessing_num_workers 16 --per_device_train_batch_size 1
        --gradient_accumulation_steps 64 --learning_rate 2e-5 --lr_scheduler_type linear --warmup_ratio 0.03
        --weight_decay 0. --checkpointing_steps epoch --num_train_epochs 2 --output_dir O --with_tracking
        --report_to tensorboard --logging_steps 1""")
    found = parse_options(FinetuneOptions, argv)
    assert (found.learning_rate, found.weight_decay, found.warmup_ratio) == (2e-5, 0.0, 0.03)
    assert found.arm() == "IT" and found.with_recipe().mask_style == "exact"
    assert parse_options(FinetuneOptions, [*argv, "--use_lm_loss"]).arm() == "IM"
    assert parse_options(FinetuneOptions, [*argv, "--loss_denominator", "messages"]).arm() == "reweighted IT"
    assert parse_options(FinetuneOptions, [*argv, "--neftune_alpha", "5"]).arm() == "IT+NEFTune"


def test_a_continuation_is_compared_by_options_there_are() -> None:
    names = {each.name for each in dataclasses.fields(FinetuneOptions)}
    assert set(RUN_OPTIONS) <= names and set(LAYOUT_OPTIONS) <= names
    assert not set(RUN_OPTIONS) & set(LAYOUT_OPTIONS)
    # What is in neither never changes a run's numbers, is held by the data's digest, or is compared by other
    # means.
    assert names - set(RUN_OPTIONS) - set(LAYOUT_OPTIONS) == {
        "model_name_or_path",
        "config_name",
        "check_answers",
        "push_to_hub",
        "hub_public",
        "tokenizer_name",
        "overwrite_output",
        "train_file",
        "columns",
        "dataset_name",
        "dataset_config_name",
        "use_slow_tokenizer",
        "preprocessing_num_workers",
        "overwrite_cache",
        # Compared by what the file holds.
        "loss_patterns",
        "max_bad_rows",
        "use_flash_attn",
        "low_cpu_mem_usage",
        "gradient_checkpointing",
        "gradient_accumulation_steps",
        "output_dir",
        "dry_run",
        "logging_steps",
        "with_tracking",
        "report_to",
        "checkpointing_steps",
        "save_total_limit",
        "resume_from_checkpoint",
        "lost_after",
        "save_dtype",
        "eval_file",
        "eval_steps",
        "eval_kl",
        "mixed_precision",
        "sample_file",
        "sample_steps",
        "sample_tokens",
        # Compared by what it goes by.
        "task_score",
        # Compared by the examples of each file an epoch.
        "proportions",
    }


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["--train_file FILE or --dataset_name NAME"]),
        (["--train_file", "f", "--dataset_name", "d"], ["--train_file FILE or --dataset_name NAME"]),
        (["--train_file", "f", "--use_lm_loss", "--instruction_loss_weight", "0.5"], ["--use_lm_loss means"]),
        (
            ["--train_file", "f", "--mask_style", "released", "--template_loss_weight", "0.5"],
            ["--mask_style released"],
        ),
        (["--train_file", "f", "--instruction_loss_weight", "-1"], ["--instruction_loss_weight -1.0"]),
        (["--train_file", "f", "--response_loss_weight", "inf"], ["--response_loss_weight inf"]),
        (["--train_file", "f", "--learning_rate", "nan"], ["--learning_rate nan"]),
        (
            ["--train_file", "f", "--num_train_epochs", "0", "--save_total_limit", "0"],
            ["--num_train_epochs 0", "--save_total_limit 0"],
        ),
        (["--train_file", "f", "--checkpointing_steps", "0"], ["--checkpointing_steps 0"]),
        (["--train_file", "f", "--lost_after", "4"], ["--lost_after 4"]),
        (["--train_file", "f", "--clip_grad_norm", "-2"], ["--clip_grad_norm -2.0"]),
        (["--train_file", "f", "--max_seq_length", "1"], ["--max_seq_length"]),
        (["--train_file", "f", "--use_lora", "--lora_dropout", "1.5"], ["--lora_dropout 1.5"]),
        (["--train_file", "f", "--adam_beta2", "1"], ["--adam_beta2 1.0"]),
        (["--train_file", "f", "--adam_epsilon", "-1"], ["--adam_epsilon -1.0"]),
        (["--train_file", "f", "--max_bad_rows", "-1"], ["--max_bad_rows -1"]),
        (["--train_file", "f", "--use_lm_modelling", "--block_size", "1"], ["--block_size 1"]),
        (
            ["--train_file", "f", "--block_size", "64", "--lora_alpha", "32", "--eval_steps", "5"],
            [
                "--lora_alpha: give --use_lora or --use_qlora too",
                "--block_size: give --use_lm_modelling too",
                "--eval_steps: give --eval_file too",
            ],
        ),
        (
            ["--train_file", "f", "--dataset_config_name", "c"],
            ["--dataset_config_name: give --dataset_name too"],
        ),
        (
            ["--train_file", "f", "--use_lm_modelling", "--loss_denominator", "response"],
            ["--loss_denominator response: blocks of --use_lm_modelling have no messages"],
        ),
        (
            ["--train_file", "f", "--loss_denominator", "messages", "--loss_normalization", "token"],
            ["--loss_denominator messages divides each example by its own tokens"],
        ),
        (["--train_file=f", "--use_lm_modelling", "--loss_denominator", "response", "--use_lm_loss"], []),
        (["--train_file", "f", "--use_qlora", "--use_lora"], []),
        (["--train_file", "f", "--lora_rank", "64", "--lora_alpha", "16", "--kl_penalty_ctl", "1"], []),
        (
            ["--train_file", "f", "--kl_penalty_ctl", "0.5", "--kl_direction", "tuned_to_base"],
            [
                "--kl_penalty_ctl: give --apply_kl_div_loss too",
                "--kl_direction: give --apply_kl_div_loss too",
            ],
        ),
        (
            [
                "--train_file=f",
                "--apply_kl_div_loss",
                "--recipe",
                "released",
                "--kl_direction",
                "tuned_to_base",
            ],
            ["--kl_direction tuned_to_base: the released code's KL term has no direction"],
        ),
        (
            ["--train_file", "f", "--recipe", "released", "--template_loss_weight", "0.5"],
            ["leave out --template_loss_weight, or add --mask_style exact"],
        ),
    ],
    ids=lambda value: " ".join(value[2:]) if value and value[0].startswith("--train_file") else None,
)
def test_wrong_combinations_are_refused(argv: list[str], words: list[str]) -> None:
    if not words:
        assert parse_options(FinetuneOptions, ["--model_name_or_path", "m", *argv]).check() == []
        return
    with pytest.raises(UserError) as raised:
        parse_options(FinetuneOptions, ["--model_name_or_path", "m", *argv])
    assert str(raised.value).count("\n  - ") == len(words)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "arm"),
    [
        ({}, "IT"),
        ({"use_lm_loss": True}, "IM"),
        ({"instruction_loss_weight": 1.0}, "IM"),
        ({"instruction_loss_weight": 0.0}, "IT"),
        ({"instruction_loss_weight": 0.25}, "IM w=0.25"),
        ({"response_loss_weight": 0.0, "use_lm_loss": True}, "prompt only"),
        ({"response_loss_weight": 0.5}, "IT r=0.5"),
        ({"template_loss_weight": 1.0, "use_lm_loss": True}, "IM t=1"),
        ({"use_lm_modelling": True}, "LM"),
        ({"use_lm_modelling": True, "use_lm_loss": True}, "LM IM"),
        ({"use_lm_modelling": True, "recipe": "released"}, "LM IT (released)"),
        ({"use_lm_modelling": True, "response_loss_weight": 0.5}, "LM IT r=0.5"),
        ({"neftune_alpha": 5.0, "use_lm_loss": True}, "IM+NEFTune"),
        ({"apply_kl_div_loss": True, "kl_penalty_ctl": 0.1}, "IT+KL 0.1"),
        ({"apply_kl_div_loss": True, "recipe": "released"}, "IT+released KL 1 (released)"),
        ({"apply_kl_div_loss": True, "kl_estimator": "released"}, "IT+released KL 1"),
        ({"apply_kl_div_loss": True, "recipe": "released", "kl_estimator": "exact"}, "IT+KL 1 (released)"),
        ({"recipe": "released"}, "IT (released)"),
    ],
    ids=str,
)
def test_the_name_of_the_arm(changes: dict[str, Any], arm: str) -> None:
    assert FinetuneOptions("m", train_file=["f"], **changes).with_recipe().arm() == arm


@given(weight=st.one_of(st.none(), st.floats(0, 2)), flag=st.booleans())
def test_the_instruction_weight(weight: float | None, flag: bool) -> None:
    chosen = FinetuneOptions("m", train_file=["f"], use_lm_loss=flag, instruction_loss_weight=weight)
    assert chosen.instruction_weight() == (weight if weight is not None else float(flag))
    assert chosen.policy().instruction == chosen.instruction_weight()
    assert bool(chosen.weight_problems()) == (flag and weight not in (None, 1.0))


def test_options_that_are_given_are_known_with_their_defaults_value_too() -> None:
    argv = ["--model_name_or_path", "m", "--train_file", "f"]
    plain = parse_options(FinetuneOptions, argv)
    assert plain.given == {"model_name_or_path", "train_file"}
    more = parse_options(FinetuneOptions, [*argv, "--response_loss_weight", "1", "--packing", "--seed=0"])
    assert more.given - plain.given == {"response_loss_weight", "packing", "seed"}
    assert more.with_recipe().given == more.given
    assert "given" not in more.as_dict()


@pytest.mark.parametrize(
    ("flags", "keeps"),
    [
        ((), False),
        (("--loss_normalization", "token"), False),
        (("--recipe", "paper"), False),
        (("--response_loss_weight", "1"), True),
        (("--instruction_loss_weight", "0"), True),
        (("--template_loss_weight", "0"), True),
        (("--loss_weights", "user=0"), True),
        (("--use_lm_loss",), True),
        (("--mask_style", "exact"), True),
        (("--recipe", "released"), True),
    ],
    ids=str,
)
def test_blocks_keep_weights_where_one_is_given(flags: tuple[str, ...], keeps: bool) -> None:
    argv = ["--model_name_or_path", "m", "--train_file", "f", "--use_lm_modelling", *flags]
    options = parse_options(FinetuneOptions, argv).with_recipe()
    assert options.blocks_keep_weights() == keeps
    assert (options.arm() == "LM") != keeps
