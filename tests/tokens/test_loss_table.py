"""--loss_weights: each kind of text weighs what the table says, and what it does not name as before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import finetune_runs
import numpy as np
import pytest
from finetune_runs import tune
from hypothesis import given
from hypothesis import strategies as st
from training_runs import losses, record, run, same_bits

from instruction_modelling.chat.spans import RESPONSE_KINDS, SpanKind
from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.tokens.weighted import denominators
from instruction_modelling.tokens.weights import TABLE_KINDS, WeightPolicy, read_loss_weights, written_table

place = finetune_runs.place
ALL = "template system user assistant end tool tools tool_calls reasoning opening user_end"
WEIGHTS = st.dictionaries(st.sampled_from(sorted(TABLE_KINDS)), st.floats(0, 3).map(abs))


def options(*flags: str) -> FinetuneOptions:
    return parse_options(FinetuneOptions, ["--model_name_or_path", "m", "--train_file", "f", *flags])


def weights_of(*flags: str) -> dict[str, float]:
    """Return what each kind weighs, those that weigh something."""
    by_kind = options(*flags).with_recipe().policy().by_kind()
    return {
        kind.name.lower(): pytest.approx(float(by_kind[kind]))  # type: ignore[misc]
        for kind in SpanKind
        if by_kind[kind] and kind != SpanKind.TEXT
    }


def test_the_table_is_over_all_kinds() -> None:
    assert set(TABLE_KINDS) == set(ALL.split())


RESPONSE = dict.fromkeys(["assistant", "end", "tool_calls", "reasoning", "opening"], 1.0)


@pytest.mark.parametrize(
    ("flags", "weights"),
    [
        ("--loss_weights user=0.1", RESPONSE | {"user": 0.1}),
        ("--loss_weights user=0,system=0,template=0,tools=0,tool=0", RESPONSE),
        ("--use_lm_loss --loss_weights system=0", RESPONSE | {"user": 1}),
        ("--instruction_loss_weight 0.3 --loss_weights user=0.1", RESPONSE | {"user": 0.1, "system": 0.3}),
        (
            "--loss_weights reasoning=0.5,end=2,opening=0",
            RESPONSE | {"reasoning": 0.5, "end": 2, "opening": 0},
        ),
        (
            "--response_loss_weight 0.5 --loss_weights assistant=1",
            dict.fromkeys(RESPONSE, 0.5) | {"assistant": 1},
        ),
        ("--template_loss_weight 1 --loss_weights tools=0", RESPONSE | {"template": 1}),
        ("--loss_weights tool=0.2,tools=0.25", RESPONSE | {"tool": 0.2, "tools": 0.25}),
        ("--loss_weights tool = 1e-1, user =2.", RESPONSE | {"tool": 0.1, "user": 2}),
    ],
)
def test_each_kind_weighs_what_the_table_says(flags: str, weights: dict[str, float]) -> None:
    table = flags.partition("--loss_weights ")[2]
    argv = [*flags.removesuffix(table).split(), table]
    assert weights_of(*argv) == {kind: weight for kind, weight in weights.items() if weight}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--loss_weights users=0.1", "no kind of text is called 'users'; did you mean user? (the kinds are"),
        ("--loss_weights text=1", "no kind of text is called 'text'"),
        (
            "--loss_weights instruction=0.3",
            "instruction is no kind of text but a group (user, system): give --instruction_loss_weight 0.3",
        ),
        ("--loss_weights response=0", "reasoning, tool_calls, opening): give --response_loss_weight 0"),
        ("--loss_weights user=0.1,system=0,user=0.1", "user stands there twice"),
        ("--loss_weights user=-1", "user=-1: a loss weight is a finite number, 0 or more"),
        ("--loss_weights user=nan", "user=nan: a loss weight is"),
        ("--loss_weights user=inf", "user=inf: a loss weight is"),
        ("--loss_weights user=1e999", "user=1e999: a loss weight is"),
        ("--loss_weights user=much", "user=much: a loss weight is"),
        ("--loss_weights user", "'user' is no entry; write KIND=WEIGHT"),
        ("--loss_weights user=", "'user=' is no entry"),
        ("--loss_weights user=1,,system=1", "'' is no entry"),
        ("--loss_weights user:0.1", "'user:0.1' is no entry"),
        ("--use_lm_loss --loss_weights user=0.1,system=0", "--use_lm_loss would change nothing"),
        (
            "--instruction_loss_weight 0 --loss_weights user=1,system=1",
            "--instruction_loss_weight would change",
        ),
        (
            "--template_loss_weight 1 --loss_weights tools=0,template=0",
            "gives template and tools other weights",
        ),
        (
            "--mask_style released --loss_weights user=0.1",
            "leave out --loss_weights, or add --mask_style exact",
        ),
        ("--recipe released --loss_weights user=0.1", "leave out --loss_weights, or add --mask_style exact"),
        ("--recipe released --template_loss_weight 1", "leave out --template_loss_weight"),
    ],
)
def test_a_table_that_cannot_hold_is_refused_in_words(flags: str, words: str) -> None:
    with pytest.raises(UserError) as raised:
        options(*flags.split())
    assert words in str(raised.value) and str(raised.value).count("\n  - ") == 1


def test_the_recipe_of_the_released_code_with_exact_masks_takes_a_table() -> None:
    flags = ("--recipe", "released", "--mask_style", "exact", "--loss_weights", "user=0.5")
    assert weights_of(*flags) == RESPONSE | {"user": 0.5}


@pytest.mark.parametrize(
    ("flags", "arm"),
    [
        ("--loss_weights user=0.1", "IM w=0.1 [system=0]"),
        ("--loss_weights user=1,system=1", "IM"),
        ("--loss_weights user=0,tool=0", "IT"),
        ("--loss_weights tool=0.2,reasoning=0.5", "IT [tool=0.2,reasoning=0.5]"),
        ("--use_lm_loss --loss_weights system=0", "IM [system=0]"),
        ("--loss_weights assistant=0,end=0", "IT r=0 [tool_calls=1,reasoning=1,opening=1]"),
        ("--use_lm_loss --response_loss_weight 0 --loss_weights user=0.25,system=0.25", None),
        ("--response_loss_weight 0 --loss_weights user=0.25,system=0.25", "prompt only w=0.25"),
        ("--loss_weights user=0.1,system=0.1 --neftune_alpha 5", "IM w=0.1+NEFTune"),
        ("--use_lm_modelling --loss_weights tools=1", "LM IT [tools=1]"),
        ("--use_lm_modelling --loss_weights user=0", "LM IT"),
    ],
)
def test_the_arm_is_named_by_what_the_kinds_weigh(flags: str, arm: str | None) -> None:
    if arm is None:
        with pytest.raises(UserError, match="--use_lm_loss would change nothing"):
            options(*flags.split())
        return
    assert options(*flags.split()).with_recipe().arm() == arm


@given(one=WEIGHTS, other=WEIGHTS)
def test_arms_of_one_name_weigh_alike(one: dict[str, float], other: dict[str, float]) -> None:
    policies = [
        WeightPolicy(table=read_loss_weights(",".join(f"{k}={w!r}" for k, w in table.items()) or None))
        for table in (one, other)
    ]
    same_name = policies[0].name() == policies[1].name()
    same_weights = bool((policies[0].by_kind() == policies[1].by_kind()).all())
    assert same_weights or not same_name
    assert read_loss_weights(written_table(policies[0].table) or None) == policies[0].table


def test_two_ways_to_write_a_table_are_one_run() -> None:
    one, other = options("--loss_weights", "user=0.10, end=2"), options("--loss_weights", "end=2.0,user=1e-1")
    assert one.with_recipe().loss_weights == other.with_recipe().loss_weights == "user=0.1,end=2"
    assert one.with_recipe().given == {"model_name_or_path", "train_file", "loss_weights"}


def test_the_response_denominator_counts_response_kinds_that_weigh_something() -> None:
    kinds = np.array([kind for kind in SpanKind for _ in range(3)], dtype=np.int8)
    policy = WeightPolicy(table=read_loss_weights("user=0.5,tool=1,template=2,reasoning=0,end=0.1"))
    weights = policy.by_kind()[kinds]
    counted = [kind for kind in RESPONSE_KINDS if kind != SpanKind.REASONING]
    assert denominators([weights], [kinds], "response").tolist() == [3 * len(counted)]
    # Running text weighs 1 whatever the table says.
    others = {SpanKind.USER, SpanKind.TOOL, SpanKind.TEMPLATE, SpanKind.TEXT}
    assert denominators([weights], [kinds], "nonzero").tolist() == [3 * len({*counted, *others})]


def test_columns_it_and_im_of_the_inspector_hold_their_own_weights() -> None:
    policy = WeightPolicy(table=read_loss_weights("user=0.5,end=0,tool=0.25,template=0.125"))
    found = policy.with_groups(1.0, 1.0).by_kind()
    expected: dict[Any, float] = dict.fromkeys((*RESPONSE_KINDS, SpanKind.USER, SpanKind.SYSTEM), 1.0)
    expected |= {SpanKind.TOOL: 0.25, SpanKind.TEMPLATE: 0.125, SpanKind.TEXT: 1.0}
    assert {kind: float(found[kind]) for kind in SpanKind if found[kind]} == expected
    assert replace(policy, table=()).by_kind()[SpanKind.USER] == 0


@pytest.fixture(scope="module")
def plain(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Instruction Modelling without a table."""
    return tune(place, tmp_path_factory.mktemp("table") / "im", "--use_lm_loss")


def test_a_weight_of_0_is_off_to_the_bit(place: Path, plain: Path, tmp_path: Path) -> None:
    zeros = tune(place, tmp_path / "zeros", "--use_lm_loss", "--loss_weights", "template=0,tools=0,tool=0")
    assert same_bits(zeros, plain) and losses(zeros) == losses(plain)
    it = tune(place, tmp_path / "it")
    off = tune(place, tmp_path / "off", "--loss_weights", "user=0,system=0")
    assert same_bits(off, it) and losses(off) == losses(it) != losses(plain)
    assert record(off)["arm"] == "IT" and record(off)["options"]["loss_weights"] == "system=0,user=0"


def test_a_table_that_says_what_a_flag_says_is_the_same_run(place: Path, plain: Path, tmp_path: Path) -> None:
    table = tune(place, tmp_path / "table", "--loss_weights", "user=1,system=1")
    assert same_bits(table, plain) and record(table)["arm"] == "IM"
    card = (table / "README.md").read_text()
    assert "| loss weights of single kinds | system=1, user=1 |\n| masks | exact |" in card
    assert "## Warning" in card and "single kinds" not in (plain / "README.md").read_text()


def test_another_table_is_another_run(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tune(place, folder, "--loss_weights", "user=0.5", "--checkpointing_steps", 2)
    manifest = folder / "step_2" / "checkpoint.json"
    assert json.loads(manifest.read_text())["fingerprint"]["loss_weights"] == "user=0.5"
    again = ("--resume_from_checkpoint", folder / "step_2", "--loss_weights")
    arguments = (
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
    )
    other = run("finetune", *arguments, folder, *finetune_runs.ARGUMENTS, *again, "user=0.25")
    assert other.code == 2 and "loss_weights: 'user=0.5' then, 'user=0.25' now" in other.err
