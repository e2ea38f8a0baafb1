"""Interrupted runs: that a continuation is the uninterrupted run bit for bit, or is refused with the
reason."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import ARGUMENTS, ARMS, RESUME, ROWS, STEPS, Killed, attempt, interrupt, tune
from tiny import make_tiny_model
from training_runs import ROOT, SAMPLE, losses, metrics, record, same_bits, sample_rows, write_rows

from instruction_modelling.runs import checkpoints

# The fixtures of this module.
place, stopped, copy, whole, quiet = (
    checkpoint_runs.place,
    checkpoint_runs.stopped,
    checkpoint_runs.copy,
    checkpoint_runs.whole,
    checkpoint_runs.quiet,
)


# -- the same run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())
def test_a_continued_run_is_the_uninterrupted_one(
    place: Path, tmp_path: Path, arm: tuple[object, ...]
) -> None:
    one = tune(place, tmp_path / "one", *arm)
    interrupt(place, tmp_path / "two", 3, *arm)
    assert not (tmp_path / "two" / "model.safetensors").exists()
    assert record(tmp_path / "two")["finished"] is False
    torch.manual_seed(77)
    two = tune(place, tmp_path / "two", *arm, *RESUME)
    assert same_bits(one, two)
    assert losses(one) == losses(two)
    assert [line["grad_norm"] for line in metrics(one)] == [line["grad_norm"] for line in metrics(two)]
    assert "resuming from" in (two / "train.log").read_text()
    assert record(two)["finished"] is True


def test_interrupted_twice_and_at_once_after_a_checkpoint(place: Path, whole: Path, tmp_path: Path) -> None:
    interrupt(place, tmp_path, 2)
    interrupt(place, tmp_path, 3, *RESUME)
    assert same_bits(tune(place, tmp_path, *RESUME), whole)


def test_a_process_killed_by_the_system(place: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a run of another process, resumed in this one."""
    command = [
        sys.executable,
        ROOT / "src" / "finetune.py",
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        tmp_path / "run",
        *ARGUMENTS,
    ]
    # The process stops itself, at the moment its second checkpoint has its name, as hard as it can be
    # stopped.
    patch = (
        "import os, runpy, signal, sys\nfrom instruction_modelling.runs import checkpoint_folders\nreal = "
        "checkpoint_folders.prune\n"
        "def prune(folder, *more):\n    real(folder, *more)\n    if (folder / 'step_4').exists():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint_folders.prune = prune\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], "
        "run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", patch, *map(str, command[1:])],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(losses(tmp_path / "run")) == 4
    with (tmp_path / "run" / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 5, "lo')
    run_folder = tune(place, tmp_path / "run", *RESUME)
    assert same_bits(run_folder, whole)
    assert losses(run_folder) == losses(whole)


def test_a_save_cut_off_halfway_is_never_picked_up(
    place: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checkpoints.seal

    def dying(aside: Path, state: dict[str, Any], files: dict[str, Any]) -> None:
        if state["step"] == 4:
            raise Killed
        real(aside, state, files)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "seal", dying)
        with pytest.raises(Killed):
            attempt(place, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*step_*")) == [".step_4.saving", "step_2"]
    folder = tune(place, tmp_path, *RESUME)
    assert f"resuming from {tmp_path / 'step_2'}" in (folder / "train.log").read_text()
    assert same_bits(folder, whole)
    assert sorted(path.name for path in tmp_path.glob("*step_*")) == ["step_2", "step_4", "step_6"]


def test_a_named_checkpoint_and_metrics_cut_back_to_it(place: Path, whole: Path, copy: Path) -> None:
    assert len(losses(copy)) == 5
    outcome = attempt(place, copy, "--resume_from_checkpoint", copy / "step_2")
    assert outcome.code == 0, outcome.err
    assert [line["step"] for line in metrics(copy)] == list(range(1, STEPS + 1))
    assert losses(copy) == losses(whole)
    assert same_bits(copy, whole)


def test_going_back_and_being_killed_loses_no_metrics(place: Path, whole: Path, copy: Path) -> None:
    """The later checkpoints of before are still there when the run goes on from an earlier one and stops at
    once."""
    before = sorted(path.name for path in copy.glob("step_*"))
    assert before == ["step_2", "step_4"]
    with pytest.MonkeyPatch.context() as patch:

        def dying(*arguments: object) -> None:
            raise Killed

        patch.setattr(checkpoints, "save_checkpoint", dying)
        with pytest.raises(Killed):
            attempt(place, copy, "--resume_from_checkpoint", copy / "step_2")
    assert len(losses(copy)) == 4
    (copy / "metrics.jsonl").write_text("")
    folder = tune(place, copy, *RESUME)
    assert f"resuming from {copy / 'step_4'}" in (folder / "train.log").read_text()
    assert losses(folder) == losses(whole) and same_bits(folder, whole)


def test_a_model_is_for_all_who_may_read_the_users_files(whole: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in whole.iterdir() if path.is_file()}
    assert modes["model.safetensors"] == modes["train.log"]


def test_evaluations_are_cut_back_with_the_steps(place: Path, tmp_path: Path) -> None:
    measured = ("--eval_file", SAMPLE / "brief_answers_test.jsonl", "--eval_steps", 1)
    one = tune(place, tmp_path / "one", *measured)
    interrupt(place, tmp_path / "two", 3, *measured)
    two = tune(place, tmp_path / "two", *measured, *RESUME)
    timing = {"seconds", "tokens_per_second"}
    strip = [
        [{name: value for name, value in line.items() if name not in timing} for line in metrics(each)]
        for each in (one, two)
    ]
    assert strip[0] == strip[1]


def test_a_finished_run_resumed_does_nothing_more(place: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    folder = tune(place, tmp_path / "run", *RESUME)
    assert same_bits(folder, whole) and losses(folder) == losses(whole)


def test_latest_without_a_checkpoint_starts_from_the_beginning(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tune(place, tmp_path, *RESUME)
    assert same_bits(folder, whole)
    assert "starting from the beginning" in (folder / "train.log").read_text()


# -- another run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--seed", 1), "seed: 0 then, 1 now"),
        (("--use_lm_loss",), "use_lm_loss: False then, True now"),
        (("--instruction_loss_weight", 0.5), "instruction_loss_weight: None then, 0.5 now"),
        (("--loss_normalization", "token"), "loss_normalization: 'example' then, 'token' now"),
        (("--learning_rate", 1e-4), "learning_rate: 0.001 then, 0.0001 now"),
        (("--num_train_epochs", 3), "num_train_epochs: 2 then, 3 now"),
        (("--neftune_alpha", 5), "neftune_alpha: None then, 5.0 now"),
        (("--gradient_accumulation_steps", 1), "examples a step: 8 then, 4 now"),
        (("--max_seq_length", 1000), "max_seq_length: 2048 then, 1000 now"),
        (("--chat_format", "tulu"), "chat_format: 'auto' then, 'tulu' now"),
    ],
)
def test_another_run_is_refused_and_what_differs_is_named(
    place: Path, stopped: Path, tmp_path: Path, arguments: tuple[object, ...], name: str
) -> None:
    before = (stopped / "metrics.jsonl").read_bytes()
    outcome = attempt(place, tmp_path, *arguments, "--resume_from_checkpoint", stopped / "step_4")
    assert outcome.code == 2 and name in outcome.err and "Traceback" not in outcome.err
    # Nothing else differs but what follows from it.
    assert outcome.err.count(" then, ") == 1 + outcome.err.count("tokens and weights sha256")
    assert ("tokens and weights sha256" in outcome.err) == ("loss_weight" in name or "use_lm_loss" in name)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_a_refused_continuation_leaves_the_folder_as_it_was(place: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    names = ("run.json", "bad_rows.jsonl", "metrics.jsonl", "README.md")
    (folder / "bad_rows.jsonl").write_text('{"row": 3}\n')
    before = {name: (folder / name).read_bytes() for name in names}
    outcome = attempt(place, folder, "--use_lm_loss", *RESUME)
    assert outcome.code == 2 and "use_lm_loss: False then, True now" in outcome.err
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_other_data_is_refused(place: Path, copy: Path) -> None:
    write_rows(place / "other.jsonl", sample_rows(ROWS, "long_answers_train"))
    outcome = attempt(place, copy, *RESUME, rows="other.jsonl")
    assert outcome.code == 2 and "data sha256" in outcome.err


def test_a_changed_template_is_refused(place: Path, tmp_path: Path) -> None:
    """Same file name, other contents."""
    template = tmp_path / "format.jinja"
    text = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    )
    template.write_text(text)
    interrupt(place, tmp_path / "run", 3, "--chat_format", template)
    template.write_text(text.replace("[{{", "<{{"))
    outcome = attempt(place, tmp_path / "run", "--chat_format", template, *RESUME)
    assert outcome.code == 2 and "tokens and weights sha256" in outcome.err
    template.write_text(text)
    assert attempt(place, tmp_path / "run", "--chat_format", template, *RESUME).code == 0


@pytest.mark.parametrize("arm", [(), ("--use_lora", "--lora_rank", 4)], ids=["all weights", "LoRA"])
def test_a_model_may_move_but_not_change(place: Path, tmp_path: Path, arm: tuple[object, ...]) -> None:
    """Another model's weights in the same folder, then in another one; then the same model elsewhere."""
    shutil.copytree(place / "model", tmp_path / "model")
    interrupt(place, tmp_path / "run", 3, *arm, "--model_name_or_path", tmp_path / "model")
    make_tiny_model(tmp_path / "model", seed=1)
    outcome = attempt(place, tmp_path / "run", *arm, "--model_name_or_path", tmp_path / "model", *RESUME)
    assert (
        outcome.code == 2
        and outcome.err.count(" then, ") == 1
        and "model before tuning sha256" in outcome.err
    )
    assert attempt(place, tmp_path / "run", *arm, *RESUME).code == 0


def test_the_precision_is_the_runs_whether_the_script_or_the_launcher_says_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as launcher:
        launcher.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        interrupt(place, tmp_path, 3)
    outcome = attempt(place, tmp_path, *RESUME)
    assert (
        outcome.code == 2
        and "mixed precision: 'bf16' then, 'no' now" in outcome.err
        and outcome.err.count(" then, ") == 1
    )
    assert attempt(place, tmp_path, "--mixed_precision", "bf16", *RESUME).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--packing",),
        ("--packing", "--max_tokens_per_device", 3000),
        ("--padding_side", "left"),
        ("--per_device_train_batch_size", 8, "--gradient_accumulation_steps", 1),
        ("--logging_steps", 1, "--save_total_limit", 1),
        ("--checkpointing_steps", "epoch"),
    ],
    ids=str,
)
def test_what_does_not_decide_the_run_may_change(
    place: Path, whole: Path, copy: Path, arguments: tuple[object, ...]
) -> None:
    folder = tune(place, copy, *arguments, *RESUME)
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-4)


def test_with_dropout_the_layout_decides_too(place: Path, tmp_path: Path) -> None:
    lora = ("--use_lora", "--lora_rank", 4)
    interrupt(place, tmp_path, 3, *lora)
    outcome = attempt(place, tmp_path, *lora, "--packing", *RESUME)
    assert outcome.code == 2 and "packing: False then, True now" in outcome.err
    assert attempt(place, tmp_path, *lora, *RESUME).code == 0


def test_an_option_that_an_older_checkpoint_does_not_know_is_its_default(tmp_path: Path) -> None:
    """Checkpoints saved before there was an option go on where it is not given, and nowhere else."""
    from instruction_modelling.errors import UserError
    from instruction_modelling.options import FinetuneOptions
    from instruction_modelling.runs.fingerprint import RunInputs, check_same_run, run_fingerprint

    def facts(**options: Any) -> dict[str, Any]:
        inputs = RunInputs("data", "tokens", "model", "no", 8, 1, dropout=False)
        return run_fingerprint(FinetuneOptions("m", **options).with_recipe().as_dict(), inputs)

    for recipe in ("paper", "released"):
        now = facts(recipe=recipe)
        for name in ("lora_target_modules", "use_dora", "lora_alpha", "adam_beta2", "mask_style"):
            older = {key: value for key, value in now.items() if key != name}
            check_same_run(tmp_path, {"fingerprint": older}, now)
    older = {key: value for key, value in facts().items() if key not in ("use_dora", "lora_target_modules")}
    with pytest.raises(UserError, match="use_dora: False then, True now"):
        check_same_run(tmp_path, {"fingerprint": older}, facts(use_dora=True))
    with pytest.raises(UserError, match="lora_target_modules: None then, \\['q_proj'\\] now"):
        check_same_run(tmp_path, {"fingerprint": older}, facts(lora_target_modules=["q_proj"]))
    # A whole number was saved as one.
    check_same_run(tmp_path, {"fingerprint": {**facts(), "lora_alpha": 16}}, facts())
