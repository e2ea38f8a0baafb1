"""What runs have left that were made before an option, a field or a layout was there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model
from training_runs import finetune, run, same_bits, sample_rows, write_rows

from instruction_modelling.errors import UserError
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.runs.fingerprint import (
    PRECISION,
    RUN_OPTIONS,
    RunInputs,
    check_same_run,
    run_fingerprint,
)
from instruction_modelling.sweeps.options import AllSweepOptions
from instruction_modelling.sweeps.rows import differences, make_rows

INPUTS = RunInputs("data", "tokens", "model", "no", 8, 1, False)


def fingerprint(**changes: Any) -> dict[str, Any]:
    options = FinetuneOptions("m", train_file=["f"], **changes).with_recipe()
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


@pytest.mark.parametrize("older", [without(fingerprint()), without(fingerprint(), PRECISION)])
def test_a_run_in_float32_does_not_go_on_in_a_gpus_default(older: dict[str, Any]) -> None:
    check_same_run(Path("step_2"), older, fingerprint())
    now = run_fingerprint(
        FinetuneOptions("m", train_file=["f"]).with_recipe().as_dict(), replace(INPUTS, precision="bf16")
    )
    with pytest.raises(UserError, match=r"mixed precision: 'no' then, 'bf16' now\nA GPU .*sion no goes"):
        check_same_run(Path("step_2"), older, now)


def test_a_kl_term_from_before_there_was_a_choice_is_exact() -> None:
    """Under the released recipe too, whose KL term is now another one."""
    older = without(fingerprint(recipe="released", apply_kl_div_loss=True), "kl_estimator")
    with pytest.raises(UserError, match="kl_estimator: 'exact' then, 'released' now"):
        check_same_run(Path("step_2"), older, fingerprint(recipe="released", apply_kl_div_loss=True))
    exact = fingerprint(recipe="released", apply_kl_div_loss=True, kl_estimator="exact")
    check_same_run(Path("step_2"), older, exact)
    alone = fingerprint(recipe="released")
    check_same_run(Path("step_2"), without(alone, "kl_estimator"), alone)


def test_a_date_that_a_checkpoint_does_not_know_is_in_the_hash_of_its_tokens() -> None:
    options = FinetuneOptions("m", train_file=["f"]).with_recipe().as_dict()
    now = run_fingerprint(options, replace(INPUTS, template_date="2026-01-02"))
    check_same_run(Path("step_2"), without(now, "template date"), now)
    other = run_fingerprint(options, replace(INPUTS, template_date="2026-01-03", tokens_sha256="other"))
    with pytest.raises(UserError, match="tokens and weights sha256: 'tokens' then, 'other' now"):
        check_same_run(Path("step_2"), without(now, "template date"), other)
    with pytest.raises(UserError, match="template date: '2026-01-02' then, '2026-01-03' now"):
        check_same_run(Path("step_2"), {"fingerprint": now}, {**now, "template date": "2026-01-03"})


# -- what lies in folders ----------------------------------------------------------------------------------

# Options and fields that came after the first runs were made.
NEWER_OPTIONS = (
    *("chat_template_kwargs", "columns", "loss_weights", "kl_estimator"),
    *("use_dora", "lora_target_modules", "lora_modules_to_save"),
)
NEWER_DATA = ("sequences", "context_tokens", "turns_cut", "prompts_differ", "template_date", "tokens_cut")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, rows and a run of two epochs, each with its checkpoint."""
    folder = tmp_path_factory.mktemp("older")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(8))
    tune(folder, folder / "run")
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Path:
    shared = ("--checkpointing_steps", "epoch", "--num_train_epochs", 2, "--learning_rate", 1e-3)
    return finetune(place / "model", place / "rows.jsonl", folder, *shared, *arguments)


def aged(place: Path, folder: Path) -> Path:
    """A copy of the run as if it had been made before the newer options and fields."""
    shutil.copytree(place / "run", folder)
    for path in folder.glob("*/checkpoint.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        state["fingerprint"] = {k: v for k, v in state["fingerprint"].items() if k not in NEWER_OPTIONS}
        path.write_text(json.dumps(state), encoding="utf-8")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["options"] = {k: v for k, v in record["options"].items() if k not in NEWER_OPTIONS}
    record["data"] = {k: v for k, v in record["data"].items() if k not in NEWER_DATA}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_an_older_checkpoint_goes_on_to_the_same_model_and_with_a_newer_option_it_does_not(
    place: Path, tmp_path: Path
) -> None:
    folder = aged(place, tmp_path / "run")
    shutil.rmtree(folder / "epoch_2")
    (folder / "model.safetensors").unlink()
    tune(place, folder, "--resume_from_checkpoint", "latest")
    assert same_bits(folder, place / "run")
    assert f"resuming from {folder / 'epoch_1'}" in (folder / "train.log").read_text(encoding="utf-8")
    other = aged(place, tmp_path / "other")
    shutil.rmtree(other / "epoch_2")
    asked = (
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        other,
    )
    newer = ("--num_train_epochs", 2, "--learning_rate", 1e-3, "--loss_weights", "user=0.5")
    outcome = run("finetune", *asked, *newer, "--resume_from_checkpoint", "latest")
    assert outcome.code == 2 and "belongs to another run" in outcome.err
    assert "  - loss_weights: None then, 'user=0.5' now" in outcome.err


def test_an_older_run_folder_is_measured_answered_and_reported(place: Path, tmp_path: Path) -> None:
    folder = aged(place, tmp_path / "run")
    test = write_rows(tmp_path / "test.jsonl", sample_rows(2, "brief_answers_test"))
    out = folder / "eval" / "test"
    asked = ("--model_name_or_path", folder, "--eval_file", test, "--output_dir", out)
    for script, arguments in (
        ("compute_loss", asked),
        ("generate", (*asked, "--max_new_tokens", 4)),
        ("report", ("--runs", folder, "--output_dir", tmp_path / "report")),
    ):
        outcome = run(script, *arguments)
        assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
    (found,) = results["runs"]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert found["options"] == record["options"] and "use_dora" not in found["options"]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert results["runs"][0]["measures"]["test_response_nll"] == pytest.approx(
        summary["mean_over_examples"]["response"]
    )


def test_a_sweep_knows_an_older_run_for_its_own(place: Path, tmp_path: Path) -> None:
    folder = aged(place, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    options = record["options"]
    sweep = AllSweepOptions(
        name="older",
        model_path=options["model_name_or_path"],
        model_name="tiny",
        data_names=["rows"],
        data_root=str(place),
        num_gpus=0,
        batch_size_per_gpu=8,
        total_batch_size=8,
        learning_rates=["1e-3"],
    )
    (row,) = make_rows(sweep, ())
    assert differences(row, record, 8) == []
    (other,) = make_rows(sweep, ("--loss_weights", "user=0.5"))
    assert differences(other, record, 8) == ["loss_weights: None there, 'user=0.5' here"]
