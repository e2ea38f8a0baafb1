"""A user's mistakes: said in words, before time is lost, and never as a traceback."""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model
from training_runs import ROOT, Outcome, finetune, losses, metrics, record, run, sample_rows, write_rows

from instruction_modelling.models import loading


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    make_tiny_model(folder / "model")
    rows = sample_rows(12)
    write_rows(folder / "rows.jsonl", rows)
    (folder / "bad.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[:6])
        + '{"messages": []}\n{"nonsense": 1}\n'
        + "".join(json.dumps(row) + "\n" for row in rows[6:])
    )
    return folder


def tune(place: Path, folder: Path, *arguments: object) -> Outcome:
    return run(
        "finetune",
        "--model_name_or_path",
        place / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        folder,
        *arguments,
    )


def check_said(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2, outcome.out
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    for word in words:
        assert word in outcome.err


needs_no_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed here"
)
needs_no_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is not None, reason="wandb is installed here"
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--train_file", "/absent/rows.jsonl"), ("/absent/rows.jsonl", "no such file")),
        (("--eval_file", "/absent/held_out.jsonl"), ("/absent/held_out.jsonl", "no such file")),
        (("--model_name_or_path", "/absent/model"), ("/absent/model",)),
        (("--tokenizer_name", "/absent/tokenizer"), ("/absent/tokenizer: there is no such folder",)),
        (("--config_name", "/absent/config"), ("/absent/config",)),
        (("--chat_format", "/absent/format.jinja"), ("/absent/format.jinja",)),
        (("--output_dir", "/dev/null/run"), ("--output_dir /dev/null/run",)),
        (("--max_seq_length", 5), ("no row has a token to train on", "inspect_weights")),
        (("--packing", "--max_tokens_per_device", 50), ("--max_tokens_per_device 50", "longest row")),
        pytest.param(("--use_qlora",), ("--use_qlora needs bitsandbytes",), marks=needs_no_bitsandbytes),
        pytest.param(
            ("--use_8bit_optimizer",),
            ("--use_8bit_optimizer needs bitsandbytes",),
            marks=needs_no_bitsandbytes,
        ),
        (("--with_tracking", "--report_to", "carrier_pigeon"), ("--report_to carrier_pigeon",)),
        pytest.param(
            ("--with_tracking", "--report_to", "wandb"),
            ("--report_to wandb", "not installed"),
            marks=[needs_no_wandb, pytest.mark.filterwarnings("ignore:`log_with=wandb`")],
        ),
        (("--mask_style", "released", "--chat_format", "tokenizer"), ("chat_format",)),
        (("--resume_from_checkpoint", "/absent/step_3"), ("/absent/step_3", "there is no such folder")),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else None,
)
def test_mistakes_are_named(
    place: Path, tmp_path: Path, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    check_said(tune(place, tmp_path / "run", *arguments), *words)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_data_set_that_is_not_there(place: Path, tmp_path: Path) -> None:
    outcome = run(
        "finetune",
        "--model_name_or_path",
        place / "model",
        "--dataset_name",
        tmp_path / "absent",
        "--output_dir",
        tmp_path / "run",
    )
    check_said(outcome, "absent", "there is no such file", "NAME:CONFIG:SPLIT")


def test_a_folder_without_a_model(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    check_said(
        tune(place, tmp_path / "run", "--model_name_or_path", tmp_path / "half"),
        "no causal language model",
        "half",
    )
    (tmp_path / "half" / "model.safetensors").write_bytes(b"not tensors")
    check_said(tune(place, tmp_path / "run", "--model_name_or_path", tmp_path / "half"), "half")


def test_a_model_without_all_of_its_weights(place: Path, tmp_path: Path) -> None:
    """What is missing would be random."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "half")
    path = tmp_path / "half" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"], tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    check_said(
        tune(place, tmp_path / "run", "--model_name_or_path", tmp_path / "half"),
        "lm_head.weight",
        "model.layers.0.mlp.up_proj.weight",
        "random",
    )


def test_a_configuration_of_another_size(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "wide")
    settings = json.loads((tmp_path / "wide" / "config.json").read_text())
    (tmp_path / "wide" / "config.json").write_text(json.dumps({**settings, "hidden_size": 48}))
    check_said(tune(place, tmp_path / "run", "--config_name", tmp_path / "wide"), "wide")


def test_every_problem_of_the_options_in_one_message(tmp_path: Path) -> None:
    outcome = run(
        "finetune",
        "--model_name_or_path",
        "m",
        "--output_dir",
        tmp_path,
        "--learning_rate",
        -1,
        "--max_seq_length",
        1,
        "--warmup_ratio",
        2,
        "--use_lm_loss",
        "--instruction_loss_weight",
        0.5,
        "--checkpointing_steps",
        "often",
        "--clip_grad_norm",
        0,
        "--seed",
        -1,
        "--gradient_accumulation_steps",
        0,
        "--response_loss_weight",
        "nan",
    )
    check_said(
        outcome,
        "--train_file FILE or --dataset_name",
        "--learning_rate -1.0",
        "--max_seq_length",
        "--warmup_ratio 2.0",
        "--use_lm_loss",
        "--checkpointing_steps often",
        "--clip_grad_norm 0.0",
        "--seed -1",
        "--gradient_accumulation_steps 0",
        "--response_loss_weight nan",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no_such_flag",),
        ("--learning_rate", "fast"),
        ("--loss_normalization", "mean"),
        ("--learning",),
        ("--packing", "yes"),
    ],
    ids=str,
)
def test_unknown_flags_and_values(place: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = tune(place, tmp_path / "run", *arguments)
    assert outcome.code == 2 and any(words in outcome.err for words in (arguments[0], "yes: belongs to no"))
    assert not (tmp_path / "run").exists()


# -- rows --------------------------------------------------------------------------------------------------


def never(*arguments: Any, **named: Any) -> Any:
    raise AssertionError("the model was loaded")


def test_bad_rows_stop_it_before_the_model_is_loaded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_model", never)
    outcome = tune(place, tmp_path, "--train_file", place / "bad.jsonl")
    check_said(outcome, "bad.jsonl:7", "bad.jsonl:8", "--max_bad_rows")
    listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
    assert [(line["row"], line["line"]) for line in listed] == [(6, 7), (7, 8)]
    assert all(line["reason"] and line["detail"] for line in listed)
    check_said(tune(place, tmp_path, "--train_file", place / "bad.jsonl", "--max_bad_rows", 1), "bad.jsonl:7")
    check_said(tune(place, tmp_path, "--eval_file", place / "bad.jsonl"), "bad.jsonl:7")


def test_bad_rows_within_the_limit_are_counted_and_the_rest_is_the_run(place: Path, tmp_path: Path) -> None:
    folder = finetune(place / "model", place / "bad.jsonl", tmp_path / "bad", "--max_bad_rows", 2)
    good = finetune(place / "model", place / "rows.jsonl", tmp_path / "good")
    assert losses(folder) == losses(good)
    data = record(folder)["data"]
    assert (data["rows"], data["used"], sum(data["bad_rows"].values())) == (14, 12, 2)
    assert len((folder / "bad_rows.jsonl").read_text().splitlines()) == 2


def test_rows_without_a_loss_are_left_out_and_listed(place: Path, tmp_path: Path) -> None:
    rows = sample_rows(6)
    for message in rows[2]["messages"]:
        message["weight"] = 0
    folder = finetune(place / "model", write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run")
    (line,) = (json.loads(line) for line in (folder / "bad_rows.jsonl").read_text().splitlines())
    assert (
        line["row"] == 2 and line["id"] == rows[2]["id"] and line["reason"] == "no token with a loss weight"
    )
    assert record(folder)["data"]["used"] == 5
    assert record(folder)["data"]["dropped"] == {"no token with a loss weight": 1}


# -- losses that are no numbers ----------------------------------------------------------------------------


def test_a_model_with_a_nan_stops_at_the_first_step_and_names_its_rows(place: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    outcome = run(
        "finetune",
        "--model_name_or_path",
        tmp_path / "model",
        "--train_file",
        place / "rows.jsonl",
        "--output_dir",
        tmp_path / "run",
    )
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert "nan" in outcome.err.lower()
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_weights_that_the_last_update_broke_are_not_saved_as_a_model(place: Path, tmp_path: Path) -> None:
    """No later step would have seen what they make of a loss."""
    outcome = tune(place, tmp_path, "--learning_rate", 1e39, "--max_train_steps", 1)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert "the last update made weights infinite or not a number (" in outcome.err
    assert "lower --learning_rate" in outcome.err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_that_explodes_stops_and_names_step_rows_and_checkpoint(place: Path, tmp_path: Path) -> None:
    from instruction_modelling.runs.checkpoint_folders import read_manifest
    from instruction_modelling.training.plan import StepPlan

    outcome = tune(
        place,
        tmp_path,
        "--learning_rate",
        1e30,
        "--checkpointing_steps",
        1,
        "--per_device_train_batch_size",
        4,
    )
    rows = sorted(StepPlan(12, 4, 0, 6).batch(1).tolist())
    check_said(
        outcome,
        "step 2: the loss is",
        f"in this step: {', '.join(map(str, rows))}.",
        str(tmp_path / "step_1"),
        "--learning_rate",
    )
    assert len(metrics(tmp_path)) == 1
    assert read_manifest(tmp_path / "step_1")["step"] == 1
    assert "starting from the beginning" not in outcome.out
    assert record(tmp_path)["finished"] is False


# -- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["finetune", "compute_loss"])
def test_help_is_quick(script: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, ROOT / "src" / f"{script}.py", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "--max_seq_length" in done.stdout
    # Processor seconds: a busy machine has nothing to do with it.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 2


def test_scripts_import_nothing_heavy() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['finetune.py', '--help']\ntry:\n    "
        "runpy.run_path('src/finetune.py', run_name='__main__')\n"
        "except SystemExit:\n    pass\nprint(sorted({'torch', 'transformers', 'accelerate', 'deepspeed'} & "
        "set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
