"""What runs have left that were made before an option, a field or a layout was there."""

from pathlib import Path
from typing import Any

import pytest

from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.fingerprint import RUN_OPTIONS, RunInputs, check_same_run, run_fingerprint

INPUTS = RunInputs("data", "tokens", "model", "no", 8, 1, False)


def fingerprint(**changes: Any) -> dict[str, Any]:
    options = FinetuneOptions("m", train_file="f", **changes).with_recipe()
    return run_fingerprint(options.as_dict(), INPUTS)


def without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {"fingerprint": {name: value for name, value in facts.items() if name not in names}}


@pytest.mark.parametrize("recipe", ["paper", "released"])
@pytest.mark.parametrize("name", [*RUN_OPTIONS])
def test_an_option_that_a_checkpoint_does_not_know_is_its_default(name: str, recipe: Any) -> None:
    if name != "recipe":
        now = fingerprint(recipe=recipe)
        check_same_run(Path("step_2"), without(now, name), now)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lora_rank", 8), ("use_dora", True), ("chat_template_kwargs", '{"a": 1}'), ("adam_beta2", 0.5)],
)
def test_a_value_other_than_the_default_is_another_run(name: str, value: Any) -> None:
    default = fingerprint()[name]
    with pytest.raises(UserError) as refused:
        check_same_run(Path("step_2"), without(fingerprint(), name), fingerprint(**{name: value}))
    assert f"  - {name}: {default!r} then, {value!r} now" in str(refused.value)


def test_a_kl_term_from_before_there_was_a_choice_is_exact() -> None:
    """Under the released recipe too, whose KL term is now another one."""
    older = without(fingerprint(recipe="released", apply_kl_div_loss=True), "kl_estimator")
    with pytest.raises(UserError, match="kl_estimator: 'exact' then, 'released' now"):
        check_same_run(Path("step_2"), older, fingerprint(recipe="released", apply_kl_div_loss=True))
    exact = fingerprint(recipe="released", apply_kl_div_loss=True, kl_estimator="exact")
    check_same_run(Path("step_2"), older, exact)
    alone = fingerprint(recipe="released")
    check_same_run(Path("step_2"), without(alone, "kl_estimator"), alone)
