"""Options in files: what a YAML file or a former run's run.json gives, what wins over it, and what is
refused, with its line."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions


@dataclass
class Cooking:
    """Cooking."""

    dish: str
    """What is cooked."""
    minutes: int = 10
    """For how long."""
    heat: float | None = None
    """How hot."""
    lid: bool = False
    """Cover it."""
    stir: bool = True
    """Do not stir."""
    oven: Literal["no", "fan", "grill"] | None = None
    """Which oven."""
    herbs: list[str] = field(default_factory=list)
    """What goes in."""
    portions: list[int] = field(default_factory=lambda: [2])
    """For how many."""
    amounts: str | None = field(default=None, metadata={"mapping": "pairs"})
    """How much of what."""
    extra: str | None = field(default=None, metadata={"mapping": "json"})
    """What the cook should know."""
    taste: str | None = field(default=None, metadata={"without_value": "now"})
    """When it is tasted."""
    pans: list[str] = field(default_factory=list, metadata={"positional": "PAN"})
    """Where it is cooked."""

    given: ClassVar[frozenset[str]] = frozenset()
    """What was asked for."""

    def check(self) -> list[str]:
        """Return what is wrong."""
        return ["nothing is cooked in no time"] if self.minutes == 0 else []


def cook(tmp_path: Path, text: str, *flags: str) -> Cooking:
    """Return the options by a file and flags."""
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return parse_options(Cooking, ["--config", str(file), *flags])


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("minutes: 25", "minutes", 25),
        # Of YAML 1.1 this would be 8.
        ("minutes: 010", "minutes", 10),
        ("heat: 180", "heat", 180.0),
        # Of YAML 1.1 this would be a word.
        ("heat: 2e-5", "heat", 2e-5),
        ("heat: -1.5E+3", "heat", -1500.0),
        ("heat: null", "heat", None),
        ("heat:", "heat", None),
        ("lid: true", "lid", True),
        ("lid: yes", "lid", True),
        ("stir: false", "stir", False),
        # Of YAML 1.1 this would be false.
        ("oven: no", "oven", "no"),
        ("herbs: [basil, no, 1e-5]", "herbs", ["basil", "no", "1e-5"]),
        ("herbs:\n  - basil\n  - 'sage'", "herbs", ["basil", "sage"]),
        ("herbs: basil", "herbs", ["basil"]),
        ("portions: [4, 6]", "portions", [4, 6]),
        ("amounts: salt=1", "amounts", "salt=1"),
        ("amounts: {salt: 1, pepper: 0.5}", "amounts", "salt=1,pepper=0.5"),
        ("extra: {hot: true, how: [1]}", "extra", '{"hot": true, "how": [1]}'),
        ("taste: true", "taste", "now"),
        ("taste: 1:30", "taste", "1:30"),
        ("pans: [wok]", "pans", ["wok"]),
        ("taste: &t soon\nextra: *t", "extra", "soon"),
    ],
)
def test_a_value_is_read_as_yaml_1_2_and_the_option_say(
    line: str, name: str, value: Any, tmp_path: Path
) -> None:
    options = cook(tmp_path, f"# Supper.\ndish: stew\n{line}\n")
    assert getattr(options, name) == value and options.dish == "stew"
    assert {"dish", name} <= options.given <= {"dish", name, "taste"}


def test_flags_win_over_the_file_and_take_flags_without_a_value_back(tmp_path: Path) -> None:
    text = "dish: stew\nminutes: 25\nlid: true\nstir: false\nherbs: [a]\npans: [wok]\n"
    options = cook(tmp_path, text, "--minutes", "5", "--no_lid", "--stir", "--herbs", "b", "c")
    assert (options.minutes, options.lid, options.stir) == (5, False, True)
    assert (options.herbs, options.pans, options.dish) == (["b", "c"], ["wok"], "stew")
    # A list that stands alone wins too, behind flags as well.
    assert cook(tmp_path, text, "--minutes", "5", "pot", "pan").pans == ["pot", "pan"]
    assert cook(tmp_path, text, "pot", "--minutes", "5").pans == ["pot"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dish: a\nminuets: 3\n", ["line 2: minuets: no such option; did you mean minutes?"]),
        ("dish: a\nzzz: 3\n", ["line 2: zzz: no such option"]),
        ("dish: a\nminutes: 2.5\n", ["line 2: minutes: a whole number is expected, not 2.5"]),
        ("dish: a\nminutes: true\n", ["line 2: minutes: a whole number is expected, not true"]),
        ("dish: a\nminutes: null\n", ["line 2: minutes: a whole number is expected, not nothing"]),
        ("dish: a\nheat: hot\n", ["line 2: heat: a number is expected, not hot"]),
        ("dish: a\nheat: '180'\n", ["line 2: heat: a number is expected, not 180"]),
        ("dish: a\nlid: 1\n", ["line 2: lid: true or false is expected, not 1"]),
        (
            "dish: a\noven: fann\n",
            ["line 2: oven: one of no, fan, grill is expected, not fann; did you mean fan"],
        ),
        ("dish: a\noven: true\n", ["line 2: oven: one of no, fan, grill is expected, not true"]),
        ("dish: [a]\n", ["line 1: dish: a text is expected, not a list"]),
        ("dish: a\nportions: [1, x]\n", ["line 2: portions: a list, each a whole number is expected, not x"]),
        ("dish: a\nextra: [1]\n", ["line 2: extra: a text or a mapping is expected, not a list"]),
        ("dish: a\nminutes: 1\ndish: b\n", ["line 3: dish: stands twice"]),
        ("dish: a\nextra: {x: 1, x: 2}\n", ["line 2: x: stands twice"]),
        ("lid: 1\nminuts: 2\ndish: a\n", ["line 1: lid:", "line 2: minuts:"]),
        ("- a\n", ["its lines are NAME: VALUE"]),
        ("just words\n", ["its lines are NAME: VALUE"]),
        ("dish: a: b\n", ["line 1: no YAML: mapping values are not allowed here"]),
        ("dish: a\nherbs: [x\n", ["no YAML"]),
        ("dish: a\n---\ndish: b\n", ["line 2: no YAML"]),
        ("dish: !!python/name:os.system\n", ["line 1: no YAML: could not determine a constructor"]),
        ("dish: &d [*d]\n", ["too deep"]),
        ("[" * 5000, ["too deep"]),
        ("dish: \x00\n", ["no YAML"]),
        ("dish: a\nminutes: 0\n", ["nothing is cooked in no time"]),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_a_file_says_wrong_is_refused_with_its_line(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        cook(tmp_path, text)
    said = str(raised.value)
    assert [word for word in words if word not in said] == []
    if "nothing was started" in said:
        assert said.count("\n  - ") == len(words)


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("dish: stew\n")
    with pytest.raises(
        UserError, match=rf"mine.yml: No such file or directory; did you mean {tmp_path}/mine.yaml\?$"
    ):
        parse_options(Cooking, ["--config", str(tmp_path / "mine.yml")])
    with pytest.raises(UserError, match="No such file"):
        parse_options(Cooking, ["--config", str(tmp_path / "none.yaml")])
    run = tmp_path / "a run"
    run.mkdir()
    with pytest.raises(UserError, match=r"a run: Is a directory$"):
        parse_options(Cooking, ["--config", str(run)])
    (run / "run.json").write_text("{}")
    for name in ("a run", "a rnu"):
        with pytest.raises(UserError, match=rf"; did you mean {run}/run.json\?$"):
            parse_options(Cooking, ["--config", str(tmp_path / name)])
    (tmp_path / "bytes.yaml").write_bytes(b"dish: \xff\xfe")
    with pytest.raises(UserError, match="no text in UTF-8"):
        parse_options(Cooking, ["--config", str(tmp_path / "bytes.yaml")])


def test_what_the_file_does_not_give_is_still_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cook(tmp_path, "minutes: 3\n")
    assert "error: missing: --dish" in capsys.readouterr().err
    assert cook(tmp_path, "", "--dish", "stew").dish == "stew"
    assert "run.yaml: 0 options" in capsys.readouterr().err
    # Without a file there is nothing to take back.
    with pytest.raises(SystemExit):
        parse_options(Cooking, ["--dish", "stew", "--no_lid"])
    assert "--no_lid: no such option" in capsys.readouterr().err


# -- the record of a run -----------------------------------------------------------------------------------


def record_of(tmp_path: Path, flags: str, **changes: Any) -> tuple[FinetuneOptions, str]:
    """Return the options of a run, and the path of what its run.json says of them."""
    options = parse_options(FinetuneOptions, shlex.split(flags)).with_recipe()
    record = {"options": options.as_dict(), "options_given": sorted(options.given), "steps": 9, **changes}
    path = tmp_path / "run.json"
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not ...}, indent=1))
    return options, str(path)


@pytest.mark.parametrize("says_given", [True, False])
@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--learning_rate 1e-05 --use_lm_loss --packing --overlong drop",
        "--recipe released --apply_kl_div_loss",
        "--use_lm_modelling",
        "--use_lm_modelling --mask_style released",
        "--use_lora --lora_target_modules q_proj v_proj --loss_weights user=0.1,system=0",
        '--chat_template_kwargs \'{"x": "\\ud83d\\ude00"}\'',
    ],
)
def test_a_run_json_makes_the_same_run(flags: str, says_given: bool, tmp_path: Path) -> None:
    given = f"--model_name_or_path m --train_file f --output_dir o {flags}"
    options, path = record_of(tmp_path, given, **({} if says_given else {"options_given": ...}))
    again = parse_options(FinetuneOptions, ["--config", path]).with_recipe()
    assert again.as_dict() == options.as_dict() and again.arm() == options.arm()
    if says_given:
        assert again.given == options.given


def test_a_default_that_was_given_is_still_given(tmp_path: Path) -> None:
    flags = "--model_name_or_path m --train_file f --use_lm_modelling --response_loss_weight 1"
    options, path = record_of(tmp_path, flags)
    assert parse_options(FinetuneOptions, ["--config", path]).arm() == options.arm() == "LM IT"


def test_the_recipe_decides_anew_and_one_starts_flags_are_left(tmp_path: Path) -> None:
    flags = (
        "--model_name_or_path m --train_file f --overwrite_output --dry_run --resume_from_checkpoint latest"
    )
    _, path = record_of(tmp_path, flags)
    again = parse_options(FinetuneOptions, ["--config", path, "--recipe", "released"]).with_recipe()
    assert (again.mask_style, again.adam_beta2, again.clip_grad_norm) == ("released", 0.999, -1.0)
    assert (again.overwrite_output, again.dry_run, again.resume_from_checkpoint) == (False, False, None)


def test_how_many_options_were_taken_and_which_are_unknown_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"options": {"dish": "stew", "minutes": 7, "spoon": 1}, "arm": "x"}')
    assert parse_options(Cooking, ["--config", str(path)]) == Cooking("stew", 7)
    said = capsys.readouterr().err
    assert (
        f"{path}: 2 options of a former run; left out, for there are none of these names here: spoon" in said
    )
    path.write_text('{"options": {"dish": "stew", "minutes": "7"}}')
    with pytest.raises(UserError, match=r"options\.minutes: a whole number is expected, not 7"):
        parse_options(Cooking, ["--config", str(path)])
