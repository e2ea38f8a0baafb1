"""The model of training past one machine, against the same sums by hand."""

import re
from dataclasses import replace

import pytest

from benchmarks import scale_out
from benchmarks.scale_out import (
    ScaleOptions,
    bytes_moved,
    costs,
    cpu_hours,
    fits,
    memory_gb,
    micro_batch_time,
    ring_seconds,
    step_time,
    table,
)
from instruction_modelling.runs.estimates import KNOWN, ModelSize

# A billion parameters in ten layers, on GPUs of 100 TFLOP/s that move 100 GB/s within a machine, 10 without.
SIZE = ModelSize(1e9, 10, 1000, 500, 4000, True)
OPTIONS = ScaleOptions(
    peak_tflops=200,
    utilisation=0.5,
    nvlink_gbs=100,
    link_gbs=10,
    nvlink_us=1,
    link_us=10,
    overlap=0.75,
    tokens=1000,
    tokens_per_row=100,
    batch_size=80,
)


def test_bytes_are_two_gathers_and_one_reduction() -> None:
    # 2 x 2 GB of weights, and gradients of 4 GB in float32, of 2 GB in bfloat16; 7/8 from others.
    assert bytes_moved(SIZE, 8, "fsdp2") == 8e9 * 7 / 8
    assert bytes_moved(SIZE, 8, "zero3") == 6e9 * 7 / 8
    assert bytes_moved(SIZE, 1, "zero3") == 0


def test_a_message_goes_around_a_ring_of_machines() -> None:
    assert ring_seconds(8, OPTIONS) == pytest.approx(7e-6)
    # 16 GPUs: 14 steps within the two machines, 2 between them.
    assert ring_seconds(16, OPTIONS) == pytest.approx((14 + 2 * 10) * 1e-6)
    assert ring_seconds(512, OPTIONS) == pytest.approx((448 + 64 * 10) * 1e-6)


def test_a_micro_batch_by_hand() -> None:
    within = micro_batch_time(SIZE, 8, "fsdp2", OPTIONS)
    # 1,000 tokens x (6e9 + 6 x 10 x 1,000 x 100) operations at 1e14 a second.
    assert within.computing == pytest.approx(1000 * (6e9 + 6e6) / 1e14)
    assert within.moving == pytest.approx(7e9 / 100e9)
    assert within.waiting == pytest.approx(3 * 11 * 7e-6)
    # It moves for longer than it computes; a quarter of the computing does not hide.
    assert within.whole == pytest.approx(0.07 + 231e-6 + 0.25 * 0.06006)
    assert within.efficiency == pytest.approx(0.06006 / within.whole)
    between = micro_batch_time(SIZE, 16, "fsdp2", OPTIONS)
    assert between.moving == pytest.approx(8e9 * 15 / 16 / 10e9)
    # Where activations do not fit, the forward pass is computed again.
    again = micro_batch_time(SIZE, 8, "fsdp2", replace(OPTIONS, memory_gb=2.7))
    assert again.computing == pytest.approx(within.computing * 4 / 3)
    alone = micro_batch_time(SIZE, 1, "fsdp2", OPTIONS)
    assert alone.whole == alone.computing and alone.efficiency == 1


def test_a_step_of_fewer_tokens_than_the_gpus_hold_moves_all_the_same() -> None:
    # 80 rows of 100 tokens: one micro-batch of 1,000 on each of 8 GPUs, two of 1,000 on each of 4.
    whole = micro_batch_time(SIZE, 8, "zero3", OPTIONS).whole
    assert step_time(SIZE, 8, "zero3", OPTIONS) == (pytest.approx(whole), 1.0)
    seconds, fill = step_time(SIZE, 4, "zero3", OPTIONS)
    assert fill == 1.0 and seconds == pytest.approx(2 * micro_batch_time(SIZE, 4, "zero3", OPTIONS).whole)
    # 64 GPUs: 125 tokens each, and a model to move.
    seconds, fill = step_time(SIZE, 64, "zero3", OPTIONS)
    assert fill == 0.125
    moving = micro_batch_time(SIZE, 64, "zero3", OPTIONS)
    assert seconds == pytest.approx(moving.moving + moving.waiting + 0.25 * moving.computing / 8)


def test_memory_by_hand() -> None:
    # Under DeepSpeed a layer is in bfloat16, under FSDP2 its stream is in float32.
    token, of_layer = 10 * (20 * 1000 + 4 * 500 + 8 * 4000), 32 * 1000 + 4 * 500 + 8 * 4000
    gathered = 2 * 2e9 / 10
    assert memory_gb(SIZE, 8, "zero3", OPTIONS, False) == pytest.approx(
        (18e9 / 8 + gathered + 1000 * token) / 1e9
    )
    checkpointed = 1000 * (of_layer + 4 * 1000 * 10)
    assert memory_gb(SIZE, 8, "fsdp2", OPTIONS, True) == pytest.approx(
        (16e9 / 8 + gathered + checkpointed) / 1e9
    )
    assert fits(SIZE, 8, 2.6, OPTIONS) and not fits(SIZE, 8, 2.4, OPTIONS)


def test_hours_of_a_core_are_scaled_by_operations() -> None:
    small = KNOWN["smollm2-135m"]
    options = replace(OPTIONS, cpu_rate=100.0)
    assert cpu_hours(small, 360_000, 100, options) == pytest.approx(1.0)
    ratio = (6e9 + 6e6) / (6 * 134.5e6 + 6 * 30 * 576 * 100)
    assert cpu_hours(SIZE, 360_000, 100, options) == pytest.approx(ratio)


def test_the_tables_have_every_cell() -> None:
    lines = table(ScaleOptions()).splitlines()
    assert len(lines) == 2 + 3 * 3 * 2 and len({line.count("|") for line in lines}) == 1
    assert "too much" in lines[14] and lines[14].startswith("| 70B | 8 |")
    lines = costs(ScaleOptions()).splitlines()
    assert len(lines) == 2 + 3 * 4 and len({line.count("|") for line in lines}) == 1
    (cell,) = [line for line in lines if line.startswith("| LIMA") and "| 7B |" in line]
    # 748,504 tokens x (6 x 6.738e9 + 6 x 32 x 4096 x 726.7) at 0.42 x 989e12 x 8, in seconds.
    seconds = 748_506 * (6 * 6.738e9 + 6 * 32 * 4096 * 726.7) / (0.42 * 989e12 * 8)
    # Of 8 GPUs nearly all; of 64 what the network leaves.
    few, many = (int(text) for text in re.findall(r"(\d+) s", cell)[-2:])
    assert few == pytest.approx(seconds / 0.98, abs=0.6) and seconds / 8 < many < few
    assert scale_out.MODELS.keys() == {"1B", "7B", "70B"}
