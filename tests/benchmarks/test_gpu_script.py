"""The GPU's script on a CPU: every part runs, its results are there line by line, and its count of operations
is torch's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from step_samples import random_data, tiny_llama, weigh
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from benchmarks.gpu_parts import correctness, peer, throughput
from benchmarks.gpu_parts.notes import RESULTS, Notes
from benchmarks.gpu_parts.operations import Sizes, peak_tflops
from benchmarks.gpu_parts.setting import LENGTHS, Setting, made_up_rows
from instruction_modelling.models.adapters import add_lora
from instruction_modelling.training.batches import step_micro_batches
from instruction_modelling.training.loss_model import LossModel
from instruction_modelling.training.plan import GlobalBatch, Layout

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(Notes(tmp_path, "tried"), toy=True)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {line["part"]: line for line in map(json.loads, (folder / RESULTS).read_text().splitlines())}


def test_the_command_runs_its_groups_and_says_how_each_ended(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--output_dir", str(tmp_path), "--dry_run_on_cpu"]
    done = subprocess.run(
        [*command, "--groups", "right"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    assert found["machine"]["versions"]["torch"] == torch.__version__ and found["group"]["exit_code"] == 0
    assert found["product and copy"]["product_tflops"] > 0
    errors = {name: line["gradient_error"] for name, line in found.items() if "gradient_error" in line}
    assert errors.keys() == {f"{p}, {way}" for p in ("float32", "bfloat16") for way in ("packed", "padded")}
    assert errors["float32, packed"] == 0 and 0 < errors["float32, padded"] < 1e-5
    assert all(found[name]["right"] for name in errors)
    assert found["waits in a step"]["micro_batches"] > 1 and found["waits in a step"]["waits"] == 0


def test_what_is_over_its_time_is_ended_and_what_has_not_begun_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["gpu.py", "--output_dir", str(tmp_path), "--dry_run_on_cpu", "--stop_after", "0.5"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--groups", "full-1b", "trl"])
    assert gpu.main() == 1
    ended, not_begun = map(json.loads, (tmp_path / RESULTS).read_text().splitlines())
    assert (ended["group"], ended["ended"]) == ("full-1b", "0 seconds were over")
    assert not_begun["group"] == "trl" and "not_begun" in not_begun


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (throughput.lora_7b, ("7B LoRA, packs of 4096", "7B LoRA, packs of 4096, Liger")),
        (throughput.full_7b, ("7B full, --weights_in bf16, packs of 8192, gradient checkpointing, Liger",)),
        (throughput.full_1b, ("1B IM, packs of 8192", "1B IM, packs of 2048, Liger")),
    ],
)
def test_throughput_by_its_parts(tmp_path: Path, part: Any, names: tuple[str, ...]) -> None:
    """Compiled parts, which take half a minute each, are left out here."""
    setting = Setting(Notes(tmp_path, "tried"), toy=True, only=names)
    part(setting)
    found = results(setting.notes.folder)
    assert found.keys() == set(names) and not [line for line in found.values() if "failed" in line]
    rows = setting.lengths("lima", 128)
    for name in names:
        line = found[name]
        assert line["tokens"] == sum(rows) and line["attention"] == "sdpa_per_example"
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
        instructions = sum(max(1, length // 4) for length in rows) if " IT" in name else len(rows)
        assert line["tokens_with_loss"] == sum(rows) - instructions
        assert 5 < line["loss"] < 7 and line["model_tflops"] > 0
    if part is throughput.full_1b:
        assert "aten::mm" in (setting.notes.folder / "profile-1b-im--packs-of-8192.txt").read_text()


@pytest.mark.slow
def test_a_continued_run_is_compared_bit_for_bit(setting: Setting) -> None:
    correctness.resume(setting)
    (line,) = results(setting.notes.folder).values()
    assert line["part"] == "resume --deterministic: continued"
    assert line["same_bits"] is True and line["largest_difference"] == 0


def test_trl_trains_on_the_same_rows(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "WAYS", [way for way in peer.WAYS if way[0] == "padded 8"])
    peer.trl(setting)
    (line,) = results(setting.notes.folder).values()
    # All steps but the first.
    assert line["tokens"] == (peer.STEPS - 1) * sum(setting.lengths("lima", 64))
    assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])


def test_a_part_that_fails_is_a_result_and_the_next_goes_on(setting: Setting) -> None:
    with setting.notes.part("first"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    setting.notes.add("second", value=1.0)
    first, second = results(setting.notes.folder).values()
    assert first["failed"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    assert (second["group"], second["value"]) == ("tried", 1.0)
    assert "Traceback" in (setting.notes.folder / "errors.txt").read_text()


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "LoRA"])
def test_operations_are_those_that_torch_counts(adapters: bool) -> None:
    model = tiny_llama("sdpa_per_example", num_hidden_layers=8)
    config = model.config
    if adapters:
        model = add_lora(model, 4, 8.0, 0.0)
    sizes, data = Sizes.of(model, config), random_data()
    wrapped, rows = LossModel(model), weigh(data)
    (batch,) = step_micro_batches(rows, GlobalBatch(0, np.arange(len(data))), Layout(True, 1, 1000))
    with FlopCounterMode(display=False) as counter:
        wrapped(**batch.tensors())["loss"].backward()
    lengths, with_loss = data.lengths.tolist(), batch.tokens_with_loss
    attention = sum(n * (n + 1) for n in lengths) * 6 * 8 * 24
    assert sizes.heads_width == 24
    products = sizes.operations(lengths, with_loss) - attention
    of_torch = sum(
        count for op, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(op)
    )
    if not adapters:
        # The head's own gradient is added up in place (addmm_), which torch's counter does not know.
        of_torch += 2 * sizes.head * with_loss
    # Adapters: no gradient goes through the first layer to the embeddings, which are frozen.
    assert of_torch == pytest.approx(products, rel=0.06 if adapters else 1e-9)


def test_operations_by_hand_and_peaks_by_name() -> None:
    sizes = Sizes(layers=16, heads_width=2048, matrices=973_078_528, head=128256 * 2048)
    # 7.66 GFLOP a token where all have a loss and rows have the lengths of LIMA.
    tokens = sum(LENGTHS["lima"])
    assert sizes.operations(LENGTHS["lima"], tokens) / tokens == pytest.approx(7.66e9, rel=0.03)
    assert sizes.operations([10], 0) == 6 * 973_078_528 * 10 + 6 * 16 * 2048 * 110
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989.4 and peak_tflops("Tesla T4") is None


def test_rows_have_their_lengths_and_under_it_a_loss_on_responses_alone() -> None:
    rows = made_up_rows([8, 4], 100, "it")
    assert rows.data.lengths.tolist() == [8, 4] and int(rows.data.ids.max()) < 100
    assert rows.weights.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1]
