"""src/compute_loss.py: the NLL of every row by span kind against plain transformers, in any layout, on any
processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from row_nlls import row_nlls
from tiny import make_tiny_model
from training_runs import free_port, launch, run, sample_rows, write_rows

WEIGHTS_DO_NOT_COUNT = 0.25


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, and `rows.jsonl`: sample rows with and without a system message, of one turn and of more."""
    folder = tmp_path_factory.mktemp("compute_loss")
    make_tiny_model(folder / "model")
    rows = sample_rows(16)
    roles = [[message["role"] for message in row["messages"]] for row in rows]
    assert any("system" in each for each in roles) and any(len(each) > 3 for each in roles)
    rows[3]["messages"][0]["weight"] = WEIGHTS_DO_NOT_COUNT
    write_rows(folder / "rows.jsonl", rows)
    return folder


def compute(
    place: Path, folder: Path, *arguments: object, rows: str = "rows.jsonl"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """losses.jsonl and summary.json of a run that must succeed."""
    outcome = run(
        "compute_loss",
        "--model_name_or_path",
        place / "model",
        "--eval_file",
        place / rows,
        "--output_dir",
        folder,
        *arguments,
    )
    assert outcome.code == 0, outcome.err
    made = read(folder)
    # What is said begins with the response's loss.
    log = (folder / "train.log").read_text().splitlines()
    assert log[-1].endswith(f"written to {folder}: losses.jsonl, summary.json")
    said = [line for line in log if " nats a token (mean" in line]
    response = made[1]["mean_over_examples"].get("response")
    assert response is None or f" response   {response:8.4f} nats a token" in said[0]
    return made


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def packed(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return compute(place, tmp_path_factory.mktemp("packed"))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_every_row_and_kind_is_that_of_plain_transformers(
    place: Path, packed: tuple[list[dict[str, Any]], dict[str, Any]]
) -> None:
    lines, summary = packed
    rows = sample_rows(16)
    assert [(line["row"], line["id"], line["dataset"]) for line in lines] == [
        (i, row["id"], row["dataset"]) for i, row in enumerate(rows)
    ]
    every: dict[str, list[list[float]]] = {}
    for line, row in zip(lines, rows, strict=True):
        expected = row_nlls(place / "model", row)
        assert line["tokens"] == {kind: len(values) for kind, values in expected.items()}
        assert line["nll"] == pytest.approx(
            {kind: mean(values) for kind, values in expected.items()}, abs=1e-5
        )
        for kind, values in expected.items():
            every.setdefault(kind, []).append(values)
    assert set(every) == {"template", "system", "user", "assistant", "end", "response"}
    assert summary["mean_over_examples"] == pytest.approx(
        {k: mean([mean(v) for v in rows]) for k, rows in every.items()}, abs=1e-5
    )
    assert summary["mean_over_tokens"] == pytest.approx(
        {k: mean([x for v in rows for x in v]) for k, rows in every.items()}, abs=1e-5
    )
    assert summary["tokens"] == {k: sum(map(len, rows)) for k, rows in every.items()}
    assert (summary["rows"], summary["rows_scored"], summary["dropped"]) == (16, 16, {})
    assert (summary["dtype"], summary["max_seq_length"], summary["truncated_rows"]) == ("float32", 2048, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no_packing",),
        ("--no_packing", "--per_device_eval_batch_size", 1),
        ("--max_tokens_per_device", 2),
        ("--overwrite_cache", "--use_flash_attn"),
    ],
    ids=str,
)
def test_the_layout_does_not_matter(
    place: Path, tmp_path: Path, packed: Any, arguments: tuple[object, ...]
) -> None:
    lines, summary = compute(place, tmp_path, *arguments)
    for line, other in zip(lines, packed[0], strict=True):
        assert line["tokens"] == other["tokens"]
        assert line["nll"] == pytest.approx(other["nll"], abs=1e-5)
    assert summary["mean_over_tokens"] == pytest.approx(packed[1]["mean_over_tokens"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "rows"),
    [
        ("torchrun --nproc_per_node 2 --master_port {port}", 16),
        ("torchrun --nproc_per_node 2 --master_port {port}", 1),
        (
            "accelerate launch --use_deepspeed --deepspeed_config_file "
            "ds_configs/stage3_no_offloading_accelerate.conf "
            "--num_machines 1 --num_processes 2 --mixed_precision no --main_process_port {port}",
            16,
        ),
        (
            "accelerate launch --config_file fsdp_configs/fsdp2.yaml --num_processes 2 "
            "--main_process_port {port}",
            16,
        ),
    ],
    ids=["plain", "plain, one row", "ZeRO-3", "FSDP2"],
)
def test_two_processes(place: Path, tmp_path: Path, packed: Any, launcher: str, rows: int) -> None:
    """One row for two processes leaves one of them without any; sharded, the model is on none of them
    whole."""
    write_rows(tmp_path / "rows.jsonl", sample_rows(rows))
    command = f"""{launcher.format(port=free_port())} src/compute_loss.py --model_name_or_path {place}/model
        --eval_file {tmp_path}/rows.jsonl --output_dir {tmp_path}/two"""
    outcome = launch(command.split())
    assert outcome.code == 0, outcome.err[-2000:]
    lines, summary = read(tmp_path / "two")
    assert [line["row"] for line in lines] == list(range(rows))
    for line, other in zip(lines, packed[0], strict=False):
        assert line["tokens"] == other["tokens"]
        assert line["nll"] == pytest.approx(other["nll"], abs=1e-5)
    assert summary["rows_scored"] == rows


def test_rows_that_cannot_be_scored_keep_their_place(place: Path, tmp_path: Path, packed: Any) -> None:
    rows = sample_rows(3)
    (place / "bad.jsonl").write_text(
        json.dumps(rows[0])
        + "\n"
        + '{"id": "odd", "messages": []}\n'
        + json.dumps(rows[1])
        + "\n\n"
        + '{"nonsense": 1}\n'
        + json.dumps(rows[2])
        + "\n"
    )
    outcome = run(
        "compute_loss",
        "--model_name_or_path",
        place / "model",
        "--eval_file",
        place / "bad.jsonl",
        "--output_dir",
        tmp_path,
    )
    assert outcome.code == 2 and "bad.jsonl:2" in outcome.err and "--max_bad_rows" in outcome.err
    assert not (tmp_path / "losses.jsonl").exists()
    lines, summary = compute(place, tmp_path, "--max_bad_rows", 2, rows="bad.jsonl")
    assert [line["row"] for line in lines] == list(range(5))
    assert [bool(line.get("dropped")) for line in lines] == [False, True, False, True, False]
    assert [lines[i]["nll"] for i in (0, 2, 4)] == [
        pytest.approx(line["nll"], abs=1e-5) for line in packed[0][:3]
    ]
    assert lines[1]["id"] == "odd" and lines[1]["nll"] == {}
    assert (summary["rows"], summary["rows_scored"], sum(summary["dropped"].values())) == (5, 3, 2)


def test_long_rows_are_cut_and_counted(place: Path, tmp_path: Path) -> None:
    lines, summary = compute(place, tmp_path, "--max_seq_length", 60)
    assert summary["truncated_rows"] > 0 and summary["tokens_cut"] > 0
    assert all(
        sum(count for kind, count in line["tokens"].items() if kind != "response") <= 59 for line in lines
    )
    # Where the response was cut off there is none to score.
    assert any("response" not in line["nll"] for line in lines)
    scored = [line["nll"]["response"] for line in lines if "response" in line["nll"]]
    if scored:
        assert summary["mean_over_examples"]["response"] == pytest.approx(mean(scored))


def test_half_precision(place: Path, tmp_path: Path, packed: Any) -> None:
    _, summary = compute(place, tmp_path, "--dtype", "bfloat16")
    assert summary["dtype"] == "bfloat16"
    assert summary["mean_over_tokens"]["user"] == pytest.approx(
        packed[1]["mean_over_tokens"]["user"], rel=0.01
    )
    assert summary["mean_over_tokens"] != packed[1]["mean_over_tokens"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--eval_file", "/absent/rows.jsonl"), "no such file"),
        (("--model_name_or_path", "/absent/model"), "/absent/model"),
        (("--max_seq_length", 1), "--max_seq_length 1"),
        (("--output_dir", "/dev/null/x"), "--output_dir"),
        (("--per_device_eval_batch_size", 0), "--per_device_eval_batch_size 0"),
    ],
    ids=str,
)
def test_mistakes_are_named(place: Path, tmp_path: Path, arguments: tuple[object, ...], words: str) -> None:
    outcome = run(
        "compute_loss",
        "--model_name_or_path",
        place / "model",
        "--eval_file",
        place / "rows.jsonl",
        "--output_dir",
        tmp_path,
        *arguments,
    )
    assert outcome.code == 2 and words in outcome.err and "Traceback" not in outcome.err
