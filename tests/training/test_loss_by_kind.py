"""The loss by span kind and by data set, while training and on held-out rows, is that of plain transformers,
token by token."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from row_nlls import row_nlls
from tiny import make_tiny_model
from training_runs import finetune, metrics, run, sample_rows, write_rows

from instruction_modelling.chat.spans import KIND_NAMES
from instruction_modelling.runs.folder import scalars
from instruction_modelling.training.step_totals import MOST_DATASETS, NllSums

# A model that stays what it is: every step's loss is that of the model before tuning.
STILL = ("--learning_rate", 0, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2)
DATASETS = ("flan", "flan", "code.v2", None)
WEIGHTS = {"user": 0.3, "system": 0.3, "assistant": 1.0, "end": 1.0}
TIMES = {"seconds", "tokens_per_second"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, and twelve rows of three data sets, one of which is the file's name; one has its answers
    masked."""
    folder = tmp_path_factory.mktemp("by_kind")
    make_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", rows())
    return folder


def rows() -> list[dict[str, Any]]:
    made = sample_rows(12)
    for number, row in enumerate(made):
        row.pop("dataset", None)
        if name := DATASETS[number % len(DATASETS)]:
            row["dataset"] = name
    for message in made[2]["messages"]:
        if message["role"] == "assistant":
            message["weight"] = 0
    return made


def expected(folder: Path, weights: dict[str, float]) -> dict[str, dict[str, float]]:
    """What a line must say of steps that held every row once."""
    nlls: dict[str, dict[str, list[float]]] = {"nll": {}, "dataset_nll": {}}
    for row in rows():
        by_kind = row_nlls(folder, row)
        if any("weight" in message for message in row["messages"]):
            by_kind = {kind: nll for kind, nll in by_kind.items() if kind not in ("assistant", "end")}
        for kind in by_kind.keys() & {kind for kind, weight in weights.items() if weight}:
            nlls["nll"].setdefault(kind, []).extend(by_kind[kind])
            nlls["dataset_nll"].setdefault(row.get("dataset", "rows"), []).extend(by_kind[kind])
    return {
        **{name: {key: sum(values) / len(values) for key, values in of.items()} for name, of in nlls.items()},
        **{f"{name}_tokens": {key: len(values) for key, values in of.items()} for name, of in nlls.items()},
    }


def check(line: dict[str, Any], values: Mapping[str, Mapping[str, float]], prefix: str = "") -> None:
    for name, of in values.items():
        assert line[prefix + name] == pytest.approx(of, abs=1e-5), name


@pytest.mark.parametrize("layout", [("--packing",), ()], ids=["packed", "padded"])
def test_a_line_has_the_mean_of_each_kind_and_data_set_over_the_steps_since_the_line_before(
    place: Path, tmp_path: Path, layout: tuple[str, ...]
) -> None:
    """Three steps an epoch, so a line every third step speaks of every row once, whatever its step had."""
    arguments = (*STILL, "--instruction_loss_weight", 0.3, "--logging_steps", 3, *layout)
    folder = finetune(place / "model", place / "rows.jsonl", tmp_path, *arguments)
    lines = metrics(folder)
    assert [line["step"] for line in lines] == [3, 6]
    for line in lines:
        check(line, expected(place / "model", WEIGHTS))


def test_a_run_that_goes_on_between_two_lines_logs_the_same(place: Path, tmp_path: Path) -> None:
    arguments = ("--logging_steps", 4, "--checkpointing_steps", 1, "--learning_rate", 1e-3, *STILL[2:])
    whole = finetune(place / "model", place / "rows.jsonl", tmp_path / "run", *arguments)
    lines = [{key: value for key, value in line.items() if key not in TIMES} for line in metrics(whole)]
    assert [line["step"] for line in lines] == [4, 6]
    for step in (3, 4, 5, 6):
        shutil.rmtree(whole / f"step_{step}")
    resumed = finetune(
        place / "model", place / "rows.jsonl", whole, *arguments, "--resume_from_checkpoint", "latest"
    )
    again = [{key: value for key, value in line.items() if key not in TIMES} for line in metrics(resumed)]
    assert again == lines


def test_held_out_rows_are_measured_by_kind_and_data_set(place: Path, tmp_path: Path) -> None:
    """Every token counts there, masked or not; data sets are told apart on their responses."""
    held_out = ("--eval_file", place / "rows.jsonl", "--max_train_steps", 1)
    tracked = ("--with_tracking", "--report_to", "tensorboard")
    folder = finetune(place / "model", place / "rows.jsonl", tmp_path, *STILL, *held_out, *tracked)
    kinds: dict[str, list[float]] = {}
    sets: dict[str, list[float]] = {}
    for row in rows():
        by_kind = row_nlls(place / "model", row)
        sets.setdefault(row.get("dataset", "rows"), []).extend(by_kind.pop("response"))
        for kind, nll in by_kind.items():
            kinds.setdefault(kind, []).extend(nll)
    values: dict[str, dict[str, float]] = {
        "nll": {kind: sum(nll) / len(nll) for kind, nll in kinds.items()},
        "nll_tokens": {kind: len(nll) for kind, nll in kinds.items()},
        "dataset_nll": {name: sum(nll) / len(nll) for name, nll in sets.items()},
        "dataset_nll_tokens": {name: len(nll) for name, nll in sets.items()},
    }
    (line,) = [line for line in metrics(folder) if "eval_rows" in line]
    check(line, values, "eval_")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "instruction_modelling"))
    events.Reload()
    first = metrics(folder)[0]
    name = next(iter(first["dataset_nll"]))
    for tag, value in (
        ("nll/assistant", first["nll"]["assistant"]),
        (f"dataset_nll/{name}", first["dataset_nll"][name]),
        ("eval_dataset_nll/flan", line["eval_dataset_nll"]["flan"]),
    ):
        assert events.Scalars(tag)[0].value == pytest.approx(value, rel=1e-6)


def test_a_files_losses_by_data_set(place: Path, tmp_path: Path) -> None:
    import json

    arguments = ("--model_name_or_path", place / "model", "--eval_file", place / "rows.jsonl")
    outcome = run("compute_loss", *arguments, "--output_dir", tmp_path)
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["dataset"] for line in lines] == [row.get("dataset", "rows") for row in rows()]
    assert list(summary["by_dataset"]) == ["flan", "code.v2", "rows"]
    for name, found in summary["by_dataset"].items():
        nlls = [row_nlls(place / "model", row) for row in rows() if row.get("dataset", "rows") == name]
        assert found["rows_scored"] == len(nlls)
        for kind in ("user", "response"):
            every = [value for row in nlls for value in row[kind]]
            assert found["tokens"][kind] == len(every)
            assert found["mean_over_tokens"][kind] == pytest.approx(sum(every) / len(every), abs=1e-5)
            means = [sum(row[kind]) / len(row[kind]) for row in nlls]
            assert found["mean_over_examples"][kind] == pytest.approx(sum(means) / len(means), abs=1e-5)
    assert (
        f"responses of flan: {summary['by_dataset']['flan']['mean_over_examples']['response']:.4f} "
        in (tmp_path / "train.log").read_text()
    )


def test_data_sets_beyond_the_largest_hundred_and_blocks_of_several_are_counted_together() -> None:
    names = ["large", "large", ""]
    names += [f"small {number}" for number in range(MOST_DATASETS + 20)]
    sums = NllSums(names)
    examples = torch.arange(len(names))
    nll = torch.arange(len(names), dtype=torch.float64)
    step = torch.zeros(2, sums.columns, dtype=torch.float64)
    for columns in sums.columns_of(torch.full_like(examples, KIND_NAMES.index("user")), examples):
        step[0].index_add_(0, columns, nll)
        step[1] += torch.bincount(columns, minlength=sums.columns)
    sums.add(step)
    means = sums.means()
    assert means["nll_tokens"] == {"user": len(names)} and means["nll"] == {"user": float(nll.mean())}
    assert len(means["dataset_nll"]) == MOST_DATASETS + 1
    assert means["dataset_nll"]["large"] == 0.5 and means["dataset_nll"]["(several)"] == 2
    # One place of the hundred is the large set's and one that of the blocks: 98 small sets have their own.
    assert means["dataset_nll_tokens"]["(other)"] == 22
    assert means["dataset_nll"]["(other)"] == float(nll[-22:].mean())
    again = NllSums(names)
    again.restore(sums.state())
    assert again.means() == means
    sums.clear()
    assert sums.state() == {} and sums.means()["nll"] == {}
    line = {"step": 1, "eval_response_nll": None, **means}
    assert scalars(line).keys() >= {"step", "nll/user", "dataset_nll/(other)"}
    assert "eval_response_nll" not in scalars(line)
