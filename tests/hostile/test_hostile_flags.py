"""Impossible values of every flag of every script: each is refused by name, before anything is read."""

import contextlib
import io
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from script_loader import load_script

from instruction_modelling.command_line import parse_options
from instruction_modelling.comparison.options import ComparisonOptions
from instruction_modelling.errors import UserError
from instruction_modelling.generation.respond import GenerateOptions
from instruction_modelling.options import FinetuneOptions

NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "-0",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "1e-320",
    "9" * 30,
    "-" + "9" * 30,
    "1.5",
    "0x10",
    "",
)
TEXTS = (
    "",
    " ",
    "x",
    "\n",
    "a=b",
    "-",
    "=",
    ",",
    "{",
    "[]",
    "null",
    "\u202e",
    "a\0b",
    "x" * 5000,
    "/dev/null",
    "..",
)
SCRIPTS: Mapping[str, Any] = {
    "finetune": FinetuneOptions,
    "generate": GenerateOptions,
    "compare": ComparisonOptions,
    "compute_loss": load_script("compute_loss").LossOptions,
    "inspect_weights": load_script("inspect_weights").InspectOptions,
    "report": load_script("report").ReportOptions,
    "chat": load_script("chat").TalkOptions,
    "analyze_data": load_script("analyze_data").AnalyzeOptions,
    "try_im": load_script("try_im").TryOptions,
    "measure_memorisation": load_script("measure_memorisation").MemorisationOptions,
    "select_data": load_script("select_data").SelectOptions,
    "sample_data": load_script("sample_data").SampleOptions,
}
# Given where no drawn flag says it: what the options ask for in words of their own.
ALSO = {
    "finetune": ("--train_file", "given_rows"),
    "inspect_weights": ("--train_file", "given_rows", "--tokenizer_name", "given_model"),
    "select_data": ("--train_file", "given_rows"),
    "sample_data": ("--train_file", "given_rows", "--rows", "3"),
}


def plain(hint: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def required(cls: Any) -> list[str]:
    """A value for each flag that has to be given."""
    words: list[str] = []
    hints = get_type_hints(cls)
    for field in fields(cls):
        if field.default is not MISSING or field.default_factory is not MISSING:
            continue
        kind = plain(hints[field.name])
        kind = get_args(kind)[0] if get_origin(kind) is list else kind
        value = (
            get_args(kind)[0]
            if get_origin(kind) is Literal
            else "1"
            if kind in (int, float)
            else f"given_{field.name}"
        )
        words += ([] if field.metadata.get("positional") else [f"--{field.name}"]) + [str(value)]
    return words


@st.composite
def some_flags(draw: st.DrawFn, cls: Any) -> list[list[str]]:
    """A few flags, each with a value that may be impossible."""
    hints = get_type_hints(cls)
    named = [field for field in fields(cls) if not field.metadata.get("positional")]
    words = []
    for field in draw(st.lists(st.sampled_from(named), min_size=1, max_size=3, unique_by=lambda f: f.name)):
        kind = plain(hints[field.name])
        several = get_origin(kind) is list
        kind = get_args(kind)[0] if several else kind
        if kind is bool:
            words.append([f"--no_{field.name}" if field.default is True else f"--{field.name}"])
            continue
        values = (
            NUMBERS
            if kind in (int, float)
            else (*get_args(kind), "x", "")
            if get_origin(kind) is Literal
            else TEXTS
        )
        count = draw(st.integers(1, 3)) if several else 1
        # A value behind the sign of equality, so that one with a minus is no flag.
        first, *more = [str(draw(st.sampled_from(values))) for _ in range(count)]
        words.append([f"--{field.name}={first}"] if not more else [f"--{field.name}", first, *more])
    return words


def outcome(cls: Any, words: list[str]) -> tuple[Any, str]:
    """The options that words make, or None and what is said of them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_options(cls, words, description="a script"), ""
    except UserError as error:
        return None, str(error)
    except SystemExit as ended:
        assert ended.code == 2
        return None, said.getvalue()


@pytest.mark.parametrize("script", SCRIPTS)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_impossible_values_are_refused_by_the_name_of_their_flag(script: str, data: st.DataObject) -> None:
    cls = SCRIPTS[script]
    flags = data.draw(some_flags(cls))
    needed = [*required(cls), *ALSO.get(script, ())]
    options, words = outcome(cls, [*needed, *(word for flag in flags for word in flag)])
    if options is None:
        names = [flag[0].partition("=")[0].removeprefix("--no_").removeprefix("--") for flag in flags]
        assert any(name in words for name in names), words
        assert "Traceback" not in words
        return
    for field in fields(cls):
        value = getattr(options, field.name)
        for one in value if isinstance(value, list) else [value]:
            assert not (isinstance(one, float) and not math.isfinite(one)), field.name
            if isinstance(one, str) and field.default != "" and not field.metadata.get("may_be_empty"):
                assert one.strip(), field.name


def test_a_rank_wider_than_any_layer_is_refused_before_a_model_is_loaded() -> None:
    words = ["--model_name_or_path", "m", "--train_file", "f", "--use_lora", "--lora_rank"]
    assert outcome(FinetuneOptions, [*words, "65536"])[1] == ""
    assert outcome(FinetuneOptions, [*words, "65537"])[1] == (
        "the options do not fit together:\n  - --lora_rank 65537: at most 65,536, more than any layer is wide"
    )
