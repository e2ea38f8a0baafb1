"""Sweeps: the paper's rows by their scripts, what they will need, and what a runner does with finished,
interrupted and failing ones."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest
from script_loader import load_script
from tiny import make_tiny_model
from training_runs import ROOT, Outcome, launch, losses, record, same_bits, sample_rows, write_rows

from instruction_modelling.command_line import parse_options
from instruction_modelling.errors import UserError
from instruction_modelling.files.locks import locked
from instruction_modelling.options import FinetuneOptions
from instruction_modelling.processes.signals import StopSignals
from instruction_modelling.rows.conversations import read_conversations
from instruction_modelling.rows.mixture import row_files
from instruction_modelling.sweeps.options import NOT_FOR_ALL, SET_BY, AllSweepOptions
from instruction_modelling.sweeps.rows import differences, last_metrics, make_rows, select
from instruction_modelling.sweeps.runner import LOCK, RowResult, in_all, needs, run_row

SCRIPTS = ROOT / "scripts"
LESS = "adam_sim_trainp0.05_seed3_p0.05"
SEVEN = {
    "lima_data": "lima_data",
    "alpagasus_3k_dolly": "alpagasus_3k_dolly",
    "alpagasus_9k_dolly": "alpagasus_9k_dolly",
    "alpagasus_claude_t45_alpaca": "alpagasus_claude_t45_alpaca",
    "tydiqa": f"tydiqa_{LESS}",
    "mmlu_chat": f"mmlu-chat_{LESS}",
    "bbh_icl": f"bbh-icl_{LESS}",
}
PATHS = {**SEVEN, "tulu_v2_data": "processed/tulu_v2/tulu_v2_data"}
SIZES = (1000, 2000, 3000, 4000, 5000, 7500, 10000, 12500, 15000, 17500, 20000, 22500, 25000, 27500, 35000)


def folders(
    names: Iterable[str], end: str = "", model: str = "llama2_7b", epochs: tuple[int, ...] = (2,)
) -> list[str]:
    return [
        f"model/{name}_{model}_bs128_lr2e-5_ml2048_ep{epoch}_bf16{end}" for name in names for epoch in epochs
    ]


PAPER = {
    "instruction_tuning": folders(SEVEN),
    "instruction_modelling": folders(SEVEN, "_im"),
    "neftune": folders(SEVEN, "_alpha5"),
    "im_neftune": folders(SEVEN, "_im_alpha5"),
    "kl": [folders(["lima_data"], f"_kl{weight}")[0] for weight in ("0.01", "0.1", "1.0")],
    "opt_6_7b": folders(SEVEN, model="opt_6.7b"),
    "llama2_13b": folders(SEVEN, model="llama2_13b"),
    "epochs": folders(
        ("lima_data", "alpagasus_9k_dolly", "alpagasus_3k_dolly", "mmlu_chat", "tydiqa"),
        epochs=(2, 4, 6, 8, 10),
    ),
    "tulu_fractions": folders(("tulu_dataset_01", "tulu_dataset_02", "tulu_dataset_05", "tulu_v2_data")),
    "length_ratio": folders([f"tulu_ratio_{ratio}_3000" for ratio in (5, 10, 15)]),
    "data_size": folders([f"tulu_ratio_10_{size}" for size in SIZES]),
    "fractional_weights": [
        f"{folder}_w{weight}" for folder in folders(SEVEN) for weight in ("0.01", "0.1", "0.2", "0.3", "0.5")
    ],
}


def script(name: str, *arguments: object, **environment: str) -> Outcome:
    return launch(["bash", SCRIPTS / f"train_{name}.sh", *arguments], 150, **environment)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if "src/finetune.py" in line]


def flags(command: list[str]) -> dict[str, str]:
    words = command[command.index("src/finetune.py") + 1 :]
    return {
        word: "" if following.startswith("--") else following
        for word, following in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


# -- the paper's rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER)
def test_each_script_prints_the_papers_rows(name: str) -> None:
    outcome = script(name, "--dry_run")
    assert outcome.code == 0, outcome.err
    found = [flags(command) for command in commands(outcome.out)]
    assert [each["--output_dir"] for each in found] == PAPER[name]
    for each in found:
        assert (each["--learning_rate"], each["--max_seq_length"], each["--per_device_train_batch_size"]) == (
            "2e-5",
            "2048",
            "1",
        )
        gpus = 4 if name == "llama2_13b" else 2
        assert int(each["--gradient_accumulation_steps"]) * gpus == 128
        assert f"_ep{each['--num_train_epochs']}_" in each["--output_dir"]
        assert ("--use_lm_loss" in each) == ("_im" in each["--output_dir"])
        stem = re.sub(r"_(llama2|opt)_.*", "", Path(each["--output_dir"]).name)
        assert each["--train_file"] == f"data/{PATHS.get(stem, stem)}.jsonl"
    models = {"opt_6_7b": "facebook/opt-6.7b", "llama2_13b": "meta-llama/Llama-2-13b-hf"}
    assert {each["--model_name_or_path"] for each in found} == {models.get(name, "meta-llama/Llama-2-7b-hf")}


def test_arms_weights_recipe_and_seeds_are_flags_and_folder_names() -> None:
    environment = {
        "DATA_NAME_LIST": "lima_data",
        "SEEDS": "0 1",
        "LR": "1e-5 2e-5",
        "RECIPE": "released",
        "NUM_GPUS": "4",
    }
    outcome = script("instruction_modelling", "--dry_run", "--", "--packing", **environment)
    found = commands(outcome.out)
    base = "model/lima_data_llama2_7b_bs128_lr"
    assert [flags(command)["--output_dir"] for command in found] == [
        f"{base}{rate}_ml2048_ep2_bf16_im_released{seed}"
        for rate in ("1e-5", "2e-5")
        for seed in ("", "_seed1")
    ]
    assert ["--seed" in command for command in found] == [False, True] * 2
    assert all(command[-1] == "--packing" and flags(command)["--recipe"] == "released" for command in found)
    assert all(flags(command)["--gradient_accumulation_steps"] == "32" for command in found)
    assert found[0][found[0].index("--num_processes") + 1] == "4" and Path(found[0][0]).name == "accelerate"
    weights = commands(
        script("kl", "--dry_run", DATA_NAME_LIST="alpagasus_9k_dolly", KL_PENALTY_CTL="1.0").out
    )
    assert [flags(command)["--kl_penalty_ctl"] for command in weights] == [
        "1.0"
    ] and "--apply_kl_div_loss" in weights[0]
    assert "--recipe" not in weights[0]
    assert "--use_lm_loss" in flags(commands(script("opt_6_7b", "--dry_run", ARM="im").out)[0])


def test_a_mistyped_arm_is_refused_and_not_trained_as_the_other() -> None:
    done = script("opt_6_7b", "--dry_run", ARM="IM")
    assert done.code == 2 and "error: ARM=IM: it or im is expected" in done.err and not done.out
    done = script("opt_6_7b", "--dry_run", ARM="im", EPOCH="2 two")
    assert done.code == 2 and "error: EPOCH=2 two: two is no number" in done.err and not done.out


@pytest.mark.parametrize(
    ("name", "own", "other"),
    [
        ("instruction_tuning", "it", "im"),
        ("instruction_modelling", "im", "it"),
        ("neftune", "it", "im"),
        ("im_neftune", "im", "it"),
        ("kl", "it", "im"),
        ("fractional_weights", None, "it"),
    ],
)
def test_a_script_of_one_arm_refuses_to_train_it_under_the_name_of_another(
    name: str, own: str | None, other: str
) -> None:
    refused = script(name, "--list", ARM=other)
    assert refused.code == 2 and not refused.out
    assert (
        f"error: ARM={other}: train_{name}.sh has an arm of its own, whatever ARM says; leave ARM out"
        in refused.err
    )
    if own:
        assert script(name, "--list", ARM=own).code == 0


@pytest.mark.parametrize(
    ("name", "environment", "said"),
    [
        ("kl", {"KL_PENALTY_CTL": "0.1 abc"}, "KL_PENALTY_CTL=0.1 abc: abc is no number"),
        ("fractional_weights", {"INSTRUCTION_LOSS_WEIGHTS": "-1"}, "INSTRUCTION_LOSS_WEIGHTS=-1: -1 is no"),
        ("neftune", {"NEFTUNE_ALPHA": "five"}, "NEFTUNE_ALPHA=five: five is no number"),
        ("data_size", {"SIZES": "1000 2k"}, "SIZES=1000 2k: 2k is no number"),
        ("kl", {"KL_PENALTY_CTL": "0.1 0.10"}, "KL_PENALTY_CTL) names one value twice: 0.1 0.10"),
    ],
)
def test_weights_that_are_no_numbers_or_stand_twice_are_refused(
    name: str, environment: dict[str, str], said: str
) -> None:
    outcome = script(name, "--list", **environment)
    assert outcome.code == 2 and said in outcome.err and not outcome.out


def test_files_of_a_sweep_are_found_where_its_script_is_called(tmp_path: Path) -> None:
    for folder in ("my model", "rows"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine.toml").write_text('[half]\nflags = ["--instruction_loss_weight", "0.5"]\n')
    (tmp_path / "held.jsonl").write_text("{}\n")
    given = {"MODEL_PATH": "my model", "DATA_ROOT": "rows", "DATA_NAME_LIST": "a", "OUTPUT_ROOT": "outs"}
    asked = ["--dry_run", "--arms", "half", "--arms_file=mine.toml", "--", "--eval_file", "held.jsonl"]
    done = subprocess.run(
        ["bash", SCRIPTS / "train_instruction_tuning.sh", *asked],
        cwd=tmp_path,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
    )
    (command,) = commands(done.stdout)
    found = flags(command)
    assert found["--model_name_or_path"] == str(tmp_path / "my model")
    assert found["--train_file"] == str(tmp_path / "rows" / "a.jsonl")
    assert found["--eval_file"] == str(tmp_path / "held.jsonl") and "--instruction_loss_weight" in found
    # Results stay the repository's, and it is said.
    assert found["--output_dir"].startswith("outs/a_") and f"results go to {ROOT}/outs\n" in done.stderr


def test_arms_by_name_are_a_row_each_with_the_flags_of_the_table(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[half]\nflags = ["--instruction_loss_weight", "0.5"]\n')
    arguments = ["--dry_run", "--arms", "reweighted-IT", "half", "--arms_file", mine]
    found = commands(script("instruction_tuning", *arguments, DATA_NAME_LIST="lima_data").out)
    base = "model/lima_data_llama2_7b_bs128_lr2e-5_ml2048_ep2_bf16_"
    assert [(flags(each)["--output_dir"], each[-2:]) for each in found] == [
        (f"{base}reweighted-IT", ["--loss_denominator", "messages"]),
        (f"{base}half", ["--instruction_loss_weight", "0.5"]),
    ]
    refused = script("instruction_modelling", "--dry_run", "--arms", "IM", "other", "IT-matched-KL")
    assert "--use_lm_loss beside --arms" in refused.err and "--arms other: not one of IT, IM" in refused.err
    assert "has stop_at: its steps follow from runs of another arm" in refused.err


def test_tables_3_and_7_as_the_authors_ran_them() -> None:
    out = script("kl", "--dry_run", RECIPE="released").out
    found = commands(out)
    assert [flags(command)["--kl_penalty_ctl"] for command in found] == ["0.01", "0.1", "1.0"]
    for command in found:
        words = command[command.index("src/finetune.py") + 1 :]
        options = parse_options(FinetuneOptions, words).with_recipe()
        assert options.kl_estimator == options.mask_style == "released" and options.adam_beta2 == 0.999
        assert f"arm: IT+released KL {options.kl_penalty_ctl:g} (released)\n" in out
        assert options.output_dir.endswith("_released")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"TOTAL_BATCH_SIZE": "100", "NUM_GPUS": "3"},
            "TOTAL_BATCH_SIZE 100 is no multiple of NUM_GPUS x BATCH_SIZE_PER_GPU = 3",
        ),
        ({"DATASET_PATH_LIST": "a b"}, "7 data names and 2 data set paths"),
        ({"SEEDS": "0 0"}, "SEEDS names one value twice"),
        ({"RECIPE": "other"}, "paper or released"),
    ],
)
def test_settings_that_do_not_fit_are_refused(environment: dict[str, str], said: str) -> None:
    outcome = script("instruction_tuning", "--dry_run", **environment)
    assert outcome.code == 2 and said in outcome.err and "Traceback" not in outcome.err


def test_flags_the_training_script_does_not_know_are_refused() -> None:
    outcome = script("instruction_tuning", "--", "--no_such_flag")
    assert outcome.code == 2 and "--no_such_flag" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--seed", "7"], "--seed behind the --: --seeds, before the --, sets it for each row"),
        (["--learning_rate=1e-3"], "--learning_rates, before the --, sets it"),
        (["--output_dir", "x"], "--output_root, before the --, sets it"),
        (["--use_lm_loss"], "--use_lm_loss, before the --, sets it"),
        (["--packing", "--config", "x.yaml"], "may set what the rows' folders are named by"),
        (["--overwrite_output"], "a row goes on from what its folder holds"),
        (["--push_to_hub", "me/mine"], "the rows would replace one another there"),
        (["--loss_denominator", "response"], "the arm reweighted-IT sets it"),
    ],
)
def test_no_flag_for_all_rows_overrides_what_names_a_row_or_is_its_own(extra: list[str], said: str) -> None:
    given = options(arms=["reweighted-IT"] if "--loss_denominator" in extra else [])
    (problem,) = given.extra_problems(extra)
    assert said in problem
    allowed = ["--packing", "--weight_decay", "0.1", "--max_train_steps", "2", "--save_total_limit", "9"]
    assert given.extra_problems(allowed) == []


def test_every_option_that_a_sweep_sets_is_one_of_the_training_script_and_of_the_sweep() -> None:
    known = {field.name for field in fields(FinetuneOptions)}
    assert {*SET_BY, *NOT_FOR_ALL} - {"config"} <= known
    assert {name.removeprefix("--") for name in SET_BY.values()} <= {f.name for f in fields(AllSweepOptions)}


def test_the_flags_of_every_row_are_checked_before_the_first_one_starts() -> None:
    check = load_script("sweep").check_flags
    for given, wrong in ((["0.1", "abc"], "abc: a number is expected"), (["0.1", "nan"], "must be a finite")):
        rows = make_rows(options(data_names=["a"], kl_weights=given), [])
        with pytest.raises(
            UserError, match=f"(?s)^row 2, model/a_.*_kl{given[1]}: src/finetune.py .*{wrong}"
        ):
            check(rows)
        check(rows[:1])


def test_a_run_without_a_launcher_computes_in_what_its_folder_is_named_by() -> None:
    for precision, end in (("bf16", "_bf16"), ("no", "")):
        (row,) = make_rows(options(data_names=["a"], num_gpus=0, mixed_precision=precision), [])
        assert row.options().mixed_precision == precision and row.folder.name.endswith(f"_ep2{end}")


def options(**given: object) -> AllSweepOptions:
    plain = {"name": "s", "model_path": "m", "model_name": "m", "data_names": ["a", "b", "c", "d", "e"]}
    return AllSweepOptions(**{**plain, **given})  # type: ignore[arg-type]


def test_an_array_of_jobs_shares_the_rows() -> None:
    rows = make_rows(options(), [])
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert [row.number for row in select(rows, "2-3,5", None)] == [2, 3, 5]
    shards = [[row.number for row in select(rows, None, f"{place}/3")] for place in (1, 2, 3)]
    assert shards == [[1, 4], [2, 5], [3]]
    for chosen, shard in (("6", None), ("0", None), ("x", None), (None, "4/3"), (None, "1")):
        with pytest.raises(Exception, match="the rows are 1 to 5"):
            select(rows, chosen, shard)


# -- what they need ----------------------------------------------------------------------------------------


def test_the_estimate_is_printed_and_a_small_gpu_warned_of() -> None:
    outcome = script("llama2_13b", "--dry_run", "--gpu_memory", "40")
    assert outcome.out.count("needs, by estimate: 4 GPUs, about") == 7
    assert "more than a GPU's 40 GB" in outcome.out and "data/lima_data.jsonl is not there yet" in outcome.out


def test_a_mixture_is_a_data_set_and_its_files_are_looked_for(tmp_path: Path) -> None:
    for name, count in (("a", 6), ("b", 10)):
        write_rows(tmp_path / f"{name}.jsonl", sample_rows(count))
    mixture = tmp_path / "mixed.yaml"
    mixture.write_text("files: {a.jsonl: 3, b.jsonl: 1}\n")
    (tmp_path / "lacking.yml").write_text("files: [a.jsonl, c.jsonl, an/name:of:the_hub]\n")
    # A file of rows comes first.
    (tmp_path / "a.yaml").write_text("files: [b.jsonl]\n")
    given = options(
        data_names=["mixed", "lacking", "a", "none"],
        data_root=str(tmp_path),
        output_root=str(tmp_path / "out"),
    )
    mixed, lacking, plain, none = rows = make_rows(given, [])
    assert [row.data.name for row in rows] == ["mixed.yaml", "lacking.yml", "a.jsonl", "none.jsonl"]
    assert mixed.options().training_files().proportions == (0.75, 0.25)
    assert mixed.absent() == [] and lacking.absent() == [Path("c.jsonl")] and plain.absent() == []
    assert mixed.folder.name.startswith("mixed_") and none.absent() == [tmp_path / "none.jsonl"]
    assert "c.jsonl is not there yet" in needs(given, lacking) and "not there" not in needs(given, mixed)
    said = "\n".join(in_all(given, rows))
    assert "# c.jsonl: there is no such file" in said and "mixed" not in said
    with StopSignals() as stop:
        refused = run_row(given, lacking, stop)
    assert refused.status == "refused" and "no c.jsonl: make it first" in refused.reason
    # Of the run that a row made, its data are known again, and a changed file of it is seen.
    read = read_conversations(row_files([str(mixture)]))
    record = {"data": {"sha256": read.sha256}}
    assert differences(mixed, record, 128) == []
    write_rows(tmp_path / "b.jsonl", sample_rows(9))
    assert differences(mixed, record, 128) == [f"the contents of {mixture}"]


# -- running -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_tiny_model(folder / "model")
    write_rows(folder / "good.jsonl", sample_rows(12))
    write_rows(folder / "long.jsonl", sample_rows(90))
    (folder / "bad.jsonl").write_text('{"messages": []}\n')
    return folder


def sweep(place: Path, root: Path, names: str, *arguments: object, **environment: str) -> Outcome:
    return script("instruction_modelling", *arguments, **settings(place, root, names, **environment))


def settings(place: Path, root: Path, names: str, **environment: str) -> dict[str, str]:
    return {
        "MODEL_PATH": str(place / "model"),
        "MODEL_NAME": "tiny",
        "NUM_GPUS": "0",
        "TOTAL_BATCH_SIZE": "4",
        "MIXED_PRECISION": "no",
        "DATA_ROOT": str(place),
        "DATA_NAME_LIST": names,
        "OUTPUT_ROOT": str(root),
        **environment,
    }


def statuses(root: Path, part: str = "") -> list[str]:
    return [
        line["status"] for line in json.loads((root / f"instruction_modelling{part}.sweep.json").read_text())
    ]


@pytest.fixture(scope="module")
def first_sweep(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A sweep of a row that fails, one without its data and a good one: its OUTPUT_ROOT and outcome."""
    root = tmp_path_factory.mktemp("first")
    return root, sweep(place, root, "bad absent good")


def test_a_sweep_goes_on_after_failures_and_begins_nothing_twice(
    place: Path, first_sweep: tuple[Path, Outcome]
) -> None:
    root, outcome = first_sweep
    assert outcome.code == 1 and "Traceback" not in outcome.out + outcome.err
    assert statuses(root) == ["failed", "refused", "finished"]
    table = (root / "instruction_modelling.sweep.md").read_text()
    assert "absent.jsonl: make it first" in table and "bad.jsonl" in table
    folder = root / "good_tiny_bs4_lr2e-5_ml2048_ep2_im"
    assert record(folder)["finished"] and len(losses(folder)) == 6
    made = (folder / "model.safetensors").stat().st_mtime_ns
    again = sweep(place, root, "good")
    assert again.code == 0 and statuses(root) == ["skipped"]
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    # The same folder, but not the same run.
    other = sweep(place, root, "good", "--", "--weight_decay", 0.1)
    assert (
        other.code == 1 and "weight_decay: 0.0 there, 0.1 here" in other.out and statuses(root) == ["refused"]
    )
    with locked(folder / LOCK):
        busy = sweep(place, root, "good", "--rows", 1)
    assert busy.code == 1 and statuses(root, ".1") == ["busy"]


def test_a_record_without_options_or_weights_is_no_finished_run_and_is_not_skipped(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", sample_rows(3))
    given = options(
        data_names=["a"], data_root=str(tmp_path), output_root=str(tmp_path), num_gpus=0, total_batch_size=4
    )
    (row,) = make_rows(given, [])
    row.folder.mkdir()
    whole = {"finished": True, "options": row.options().as_dict(), "data": 3}

    def run(said: object, weights: str = "") -> RowResult:
        (row.folder / "run.json").write_text(json.dumps(said))
        if weights:
            (row.folder / weights).parent.mkdir(exist_ok=True)
            (row.folder / weights).write_bytes(b"")
        with StopSignals() as stop:
            return run_row(given, row, stop)

    for said, lacks in (
        ({"finished": True}, "names no options and has no weights beside it"),
        ({**whole, "options": [1]}, "names no options and has no weights beside it"),
    ):
        found = run(said)
        assert found.status == "refused" and found.reason.endswith("to have the row trained again")
        assert found.reason.startswith(
            f"run.json says that the run is finished, but {lacks}: move the folder"
        )
        assert in_all(given, [row])[0].startswith("in all: 1 run to do of 1")
    deleted = run(whole)
    assert (deleted.status, deleted.reason) == ("skipped", "finished, and its weights were deleted since")
    found = run(whole, "adapter/adapter_model.safetensors")
    assert (found.status, found.reason) == ("skipped", "")
    assert in_all(given, [row])[0].startswith("in all: 0 runs to do of 1")


@pytest.mark.slow
def test_a_stopped_sweep_saves_its_row_and_goes_on(place: Path, tmp_path: Path) -> None:
    environment = settings(place, tmp_path / "runs", "long good", EPOCH="40")
    process = subprocess.Popen(
        ["bash", SCRIPTS / "train_instruction_modelling.sh", "--rows", "1"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    folder = tmp_path / "runs" / "long_tiny_bs4_lr2e-5_ml2048_ep40_im"
    deadline = time.monotonic() + 100
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert (
        statuses(tmp_path / "runs", ".1") == ["stopped"] and record(folder)["stopped"]["signal"] == "SIGTERM"
    )
    done = record(folder)["stopped"]["step"]
    assert (folder / f"step_{done}").is_dir()
    # Goes on where it was; the rest of a long run is cut short by another signal.
    process = subprocess.Popen(
        ["bash", SCRIPTS / "train_instruction_modelling.sh"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    while len(losses(folder)) <= done:
        assert process.poll() is None and time.monotonic() < deadline + 60
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "1 rows not begun" in out
    assert f"resuming from {folder}/step_{done}" in (folder / "train.log").read_text()
    assert [
        line["step"] for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    ] == list(range(1, record(folder)["stopped"]["step"] + 1))


def test_what_stopped_a_run_before_is_not_taken_for_what_ended_it_now(place: Path, tmp_path: Path) -> None:
    """A run that was stopped, and then fails before its first step: its run.json still says stopped."""
    folder = tmp_path / "bad_tiny_bs4_lr2e-5_ml2048_ep2_im"
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps({"finished": False, "stopped": {"signal": "SIGTERM", "step": 3}})
    )
    outcome = sweep(place, tmp_path, "bad")
    assert outcome.code == 1 and statuses(tmp_path) == ["failed"] and "No usable row is left" in outcome.out


def test_a_row_is_the_run_its_command_makes(
    place: Path, first_sweep: tuple[Path, Outcome], tmp_path: Path
) -> None:
    """The printed command, run by hand, ends at the same bits."""
    printed = commands(sweep(place, tmp_path, "good", "--dry_run").out)[0]
    assert printed[0] == str(Path(sys.executable)) or Path(printed[0]).samefile(sys.executable)
    assert launch(printed).code == 0
    name = "good_tiny_bs4_lr2e-5_ml2048_ep2_im"
    assert same_bits(first_sweep[0] / name, tmp_path / name)


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    assert last_metrics(tmp_path) == (0, None)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 3.5}\n{"step": 2, "loss": 2.5}\n{"step": 2, "eval_loss": 1.0}\n{"step": 3, "lo'
    )
    assert last_metrics(tmp_path) == (2, 2.5)


def test_a_full_disk_is_noticed_before(place: Path, tmp_path: Path) -> None:
    """A model of 10^15 parameters fits no disk."""
    (tmp_path / "huge").mkdir()
    (tmp_path / "huge" / "config.json").write_text(
        json.dumps(
            {
                "num_hidden_layers": 10**6,
                "hidden_size": 10**4,
                "num_attention_heads": 1,
                "intermediate_size": 10**4,
                "vocab_size": 1,
            }
        )
    )
    outcome = sweep(place, tmp_path / "runs", "good", MODEL_PATH=str(tmp_path / "huge"))
    assert outcome.code == 1 and "GB are free: make room, or add --ignore_room" in outcome.out
    assert not list((tmp_path / "runs").glob("*/run.json"))
