"""A checkpoint in the middle of a run becomes a model like the one at its end; a finished run is not
replaced."""

import json
from pathlib import Path

import pytest
import torch
from checkpoint_runs import ARGUMENTS, place, tune  # noqa: F401 (a fixture)
from safetensors.torch import load_file
from tiny import make_tiny_model
from training_runs import Outcome, run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def export(checkpoint: Path, *arguments: object) -> Outcome:
    return run("export_checkpoint", checkpoint, *arguments)


@pytest.fixture(scope="module")
def tuned(place: Path) -> Path:  # noqa: F811
    """A run of six steps with checkpoints after two, four and six."""
    return tune(place, place / "tuned", "--use_lm_loss", "--neftune_alpha", 5)


def test_the_last_checkpoint_is_the_saved_model_to_the_bit(tuned: Path, tmp_path: Path) -> None:
    assert export(tuned / "step_6", "--output_dir", tmp_path / "end").code == 0
    there, saved = weights(tmp_path / "end"), weights(tuned)
    assert there.keys() == saved.keys() and all(torch.equal(there[name], saved[name]) for name in saved)
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json", "config.json"):
        assert (tmp_path / "end" / name).read_bytes() == (tuned / name).read_bytes()


def test_a_checkpoint_in_the_middle_is_measured_like_a_run(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "middle"
    outcome = export(tuned / "step_4", "--output_dir", folder)
    assert outcome.code == 0 and "IM+NEFTune after 4 steps (1.33 epochs)" in outcome.out
    stored = load_file(tuned / "step_4" / "state-000-0000.safetensors")
    for name, weight in weights(folder).items():
        assert torch.equal(weight, stored[f"weight/model.{name}"])
    record = json.loads((folder / "run.json").read_text())
    assert (record["steps"], record["finished"], record["arm"]) == (4, True, "IM+NEFTune")
    arguments = ("--model_name_or_path", folder, "--eval_file", tuned.parent / "rows.jsonl")
    assert run("compute_loss", *arguments, "--output_dir", tmp_path / "eval").code == 0
    assert json.loads((tmp_path / "eval" / "summary.json").read_text())["rows_scored"] == 20


def test_adapters_are_merged_as_the_run_merges_them(place: Path, tmp_path: Path) -> None:  # noqa: F811
    tuned = tune(place, tmp_path / "lora", "--use_lora", "--lora_rank", 4)
    assert export(tuned / "step_6", "--output_dir", tmp_path / "end").code == 0
    there, saved = weights(tmp_path / "end"), weights(tuned)
    assert all(torch.equal(there[name], saved[name]) for name in saved)
    assert (tmp_path / "end" / "adapter" / "adapter_config.json").exists()


def test_another_base_model_or_a_damaged_checkpoint_is_refused(tuned: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)
    given = ("--output_dir", tmp_path / "out", "--model_name_or_path", other)
    outcome = export(tuned / "step_2", *given)
    assert outcome.code == 2 and "is not the model that" in outcome.err and not (tmp_path / "out").exists()
    outcome = export(tuned, "--output_dir", tmp_path / "out")
    assert outcome.code == 2 and "is not a whole checkpoint" in outcome.err
    outcome = export(tuned / "step_2", "--output_dir", tuned)
    assert outcome.code == 2 and "--overwrite_output" in outcome.err


def test_what_a_checkpoint_comes_from_is_never_written_over(tuned: Path) -> None:
    before = weights(tuned)
    for folder in (tuned, tuned / "step_2", tuned / "step_4" / "model", tuned.parent / "model"):
        outcome = export(tuned / "step_2", "--output_dir", folder, "--overwrite_output")
        assert outcome.code == 2 and "which would be lost" in outcome.err
    assert all(torch.equal(weights(tuned)[name], before[name]) for name in before)


def test_a_finished_run_is_replaced_only_where_that_is_asked_for(place: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "run"
    tune(place, folder, "--max_train_steps", 1)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    given = (
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        folder,
        *ARGUMENTS,
        "--use_lm_loss",
        "--max_train_steps",
        1,
    )
    outcome = run("finetune", *given)
    assert outcome.code == 2 and "holds a finished run (IT)" in outcome.err
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before | {"train.log": after["train.log"]}
    assert run("finetune", *given, "--overwrite_output").code == 0
    assert json.loads((folder / "run.json").read_text())["arm"] == "IM"
