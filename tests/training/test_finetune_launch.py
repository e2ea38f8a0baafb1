"""Runs on several processes: the commands of the paper's authors as they stand, and that they are the
one-process run."""

from pathlib import Path

import pytest
from tiny import make_tiny_model
from training_runs import (
    Outcome,
    farthest,
    finetune,
    free_port,
    launch,
    losses,
    metrics,
    record,
    sample_rows,
    weights,
    write_rows,
)

# Not a multiple of the step's 8: the last step of an epoch has 3 rows, and one process of two an empty
# micro-batch.
ROWS = 19


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", sample_rows(ROWS))
    return folder


def zero3(
    place: Path, folder: Path, processes: int, accumulation: int, *arguments: object, precision: str = "bf16"
) -> Outcome:
    """The command of the authors' README, with the model, the file and the number of processes of this
    test."""
    command = f"""accelerate launch --mixed_precision {precision} --num_machines 1 --num_processes
        {processes} --use_deepspeed --main_process_port {free_port()} --deepspeed_config_file
        ds_configs/stage3_no_offloading_accelerate.conf src/finetune.py --model_name_or_path {place}/model
        --use_flash_attn --tokenizer_name {place}/model --use_slow_tokenizer --train_file {place}/rows.jsonl
        --max_seq_length 2048 --preprocessing_num_workers 16 --per_device_train_batch_size 1
        --gradient_accumulation_steps {accumulation} --learning_rate 2e-5 --lr_scheduler_type linear
        --warmup_ratio 0.03 --weight_decay 0. --checkpointing_steps epoch --num_train_epochs 2 --output_dir
        {folder} --with_tracking --report_to tensorboard --logging_steps 1"""
    return launch([*command.split(), *arguments])


def alone(place: Path, folder: Path, *arguments: object) -> Path:
    """The same on one process without DeepSpeed."""
    return finetune(
        place / "model",
        place / "rows.jsonl",
        folder,
        "--mixed_precision",
        "bf16",
        "--per_device_train_batch_size",
        1,
        "--gradient_accumulation_steps",
        8,
        *arguments,
    )


def check_zero3_run(place: Path, folder: Path, outcome: Outcome, plain: Path) -> None:
    assert outcome.code == 0, outcome.err[-3000:]
    assert "Traceback" not in outcome.err
    # bfloat16 has 8 bits of mantissa, and ZeRO-3 computes in it what autocast leaves in float32.
    assert losses(folder) == pytest.approx(losses(plain), rel=0.02)
    assert [line["tokens_with_loss"] for line in metrics(folder)] == [
        line["tokens_with_loss"] for line in metrics(plain)
    ]
    assert [line["learning_rate"] for line in metrics(folder)] == [
        line["learning_rate"] for line in metrics(plain)
    ]
    for line, other in zip(metrics(folder), metrics(plain), strict=True):
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.1)
        assert line["nll"] == pytest.approx(other["nll"], rel=0.05)
    assert {name: tuple(w.shape) for name, w in weights(folder).items()} == {
        name: tuple(w.shape) for name, w in weights(place / "model").items()
    }
    # A step moves a weight by about the learning rate; both runs, in bfloat16's steps.
    assert farthest(folder, plain) < 0.02
    assert {path.name for path in folder.iterdir()} >= {
        "epoch_1",
        "epoch_2",
        "metrics.jsonl",
        "run.json",
        "train.log",
        "README.md",
        "tokenizer.json",
        "generation_config.json",
    }
    assert (
        record(folder)["finished"] is True
        and record(folder)["model"]["parameters"] == record(plain)["model"]["parameters"]
    )


@pytest.mark.slow
def test_the_instruction_tuning_command(place: Path, tmp_path: Path) -> None:
    outcome = zero3(place, tmp_path / "run", 1, 8)
    check_zero3_run(place, tmp_path / "run", outcome, alone(place, tmp_path / "plain"))
    assert record(tmp_path / "run")["arm"] == "IT"


@pytest.mark.slow
def test_the_instruction_modelling_command(place: Path, tmp_path: Path) -> None:
    outcome = zero3(place, tmp_path / "run", 2, 4, "--use_lm_loss")
    check_zero3_run(place, tmp_path / "run", outcome, alone(place, tmp_path / "plain", "--use_lm_loss"))
    assert record(tmp_path / "run")["arm"] == "IM"


@pytest.mark.slow
def test_in_float32_zero_3_on_two_processes_is_one_process(place: Path, tmp_path: Path) -> None:
    """What bfloat16 hides: the losses, the clipping and the updates are the same."""
    arguments = ("--use_lm_loss", "--learning_rate", 1e-3)
    outcome = zero3(place, tmp_path / "run", 2, 4, *arguments, "--checkpointing_steps", 1000, precision="no")
    assert outcome.code == 0, outcome.err[-3000:]
    plain = alone(place, tmp_path / "plain", *arguments, "--mixed_precision", "no")
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=1e-6)
    assert losses(plain)[-1] < 0.9 * losses(plain)[0]
    for line, other in zip(metrics(tmp_path / "run"), metrics(plain), strict=True):
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    assert farthest(tmp_path / "run", plain) < 5e-5 < 1e-3 < farthest(place / "model", plain)


@pytest.mark.slow
def test_the_neftune_command_and_its_continuation(place: Path, tmp_path: Path) -> None:
    outcome = zero3(place, tmp_path / "run", 2, 4, "--neftune_alpha", 5)
    plain = alone(place, tmp_path / "plain", "--neftune_alpha", 5)
    check_zero3_run(place, tmp_path / "run", outcome, plain)
    before = losses(tmp_path / "run")
    again = zero3(
        place,
        tmp_path / "run",
        2,
        4,
        "--neftune_alpha",
        5,
        "--resume_from_checkpoint",
        tmp_path / "run" / "epoch_1",
    )
    assert again.code == 0, again.err[-3000:]
    assert losses(tmp_path / "run") == pytest.approx(before, rel=1e-6)


def two_processes(place: Path, folder: Path, *arguments: object) -> Path:
    command = f"""torchrun --nproc_per_node 2 --master_port {free_port()} src/finetune.py
        --model_name_or_path {place}/model --train_file {place}/rows.jsonl --output_dir {folder}
        --learning_rate 1e-3"""
    outcome = launch([*command.split(), *arguments])
    assert outcome.code == 0, outcome.err[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False], ids=["packed", "padded"])
def test_two_processes_are_one(place: Path, tmp_path: Path, packing: bool) -> None:
    more = ("--use_lm_loss", "--neftune_alpha", 5, *(["--packing"] if packing else []))
    two = two_processes(place, tmp_path / "two", "--per_device_train_batch_size", 4, *more)
    one = finetune(place / "model", place / "rows.jsonl", tmp_path / "one", "--learning_rate", 1e-3, *more)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert [line["examples"] for line in metrics(two)] == [8, 8, 3] * 2
    for line, other in zip(metrics(two), metrics(one), strict=True):
        assert line["nll"] == pytest.approx(other["nll"], rel=1e-5)
        assert line["dataset_nll"] == pytest.approx(other["dataset_nll"], rel=1e-5)
        for tokens in ("nll_tokens", "dataset_nll_tokens"):
            assert line[tokens] == other[tokens] and sum(line[tokens].values()) == line["tokens_with_loss"]
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
        assert (line["tokens"], line["tokens_with_loss"]) == (other["tokens"], other["tokens_with_loss"])
    assert farthest(two, one) < 1e-3


@pytest.mark.slow
def test_a_step_with_more_processes_than_rows(place: Path, tmp_path: Path) -> None:
    rows = write_rows(place / "one.jsonl", sample_rows(3))
    two = two_processes(
        place, tmp_path / "two", "--per_device_train_batch_size", 1, "--train_file", rows, "--packing"
    )
    one = finetune(
        place / "model",
        rows,
        tmp_path / "one",
        "--learning_rate",
        1e-3,
        "--per_device_train_batch_size",
        2,
        "--packing",
    )
    assert [line["examples"] for line in metrics(two)] == [2, 1] * 2
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


def fsdp2(place: Path, folder: Path, *arguments: object) -> Outcome:
    command = f"""accelerate launch --config_file fsdp_configs/fsdp2.yaml --num_processes 2
        --main_process_port {free_port()} src/finetune.py --model_name_or_path {place}/model --train_file
        {place}/rows.jsonl --output_dir {folder} --per_device_train_batch_size 4"""
    return launch([*command.split(), *arguments])


@pytest.mark.slow
def test_fsdp_2_in_bfloat16_and_its_saved_model(place: Path, tmp_path: Path) -> None:
    arguments = ("--use_lm_loss", "--learning_rate", 2e-5, "--mixed_precision", "bf16", "--packing")
    outcome = fsdp2(place, tmp_path / "run", *arguments)
    plain = finetune(
        place / "model",
        place / "rows.jsonl",
        tmp_path / "plain",
        *arguments,
        "--checkpointing_steps",
        "epoch",
    )
    assert outcome.code == 0, outcome.err[-3000:]
    assert "Traceback" not in outcome.err
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=0.02)
    assert farthest(tmp_path / "run", plain) < 0.02
    assert record(tmp_path / "run")["model"]["parameters"] == record(plain)["model"]["parameters"]


@pytest.mark.slow
def test_what_fsdp_2_cannot_shard_is_said_in_one_line(place: Path, tmp_path: Path) -> None:
    outcome = fsdp2(place, tmp_path / "run", "--use_8bit_optimizer")
    assert outcome.code != 0
    assert (
        outcome.err.count("error: --use_8bit_optimizer: 8-bit optimiser states cannot be sharded by FSDP")
        == 1
    )
    assert 'finetune.py", line' not in outcome.err


def test_a_process_that_says_nothing_waits_for_the_one_that_speaks(tmp_path: Path) -> None:
    """Else its launcher would end that one before it has said a word."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, time\nfrom instruction_modelling.errors import UserError, run_main\n\ndef main():\n"
        "    time.sleep(1.5 if os.environ['RANK'] == '0' else 0)\n    raise UserError('rows: not there')\n\n"
        "run_main(main)\n"
    )
    outcome = launch(["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port()), str(script)])
    assert outcome.code != 0 and outcome.err.count("error: rows: not there") == 1


def test_an_error_is_said_once_without_a_traceback_of_ours(place: Path, tmp_path: Path) -> None:
    command = f"""torchrun --nproc_per_node 2 --master_port {free_port()} src/finetune.py
        --model_name_or_path {place}/model --train_file {place}/absent.jsonl --output_dir {tmp_path}"""
    outcome = launch(command.split(), ACCELERATE_USE_CPU="true")
    assert outcome.code != 0
    assert outcome.err.count("absent.jsonl: there is no such file") == 1
    assert 'finetune.py", line' not in outcome.err
