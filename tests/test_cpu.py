"""How torch waits and multiplies on a CPU."""

import ctypes
import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from instruction_modelling import cpu
from instruction_modelling.errors import UserError, run_main

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# A script that loads torch, whose OpenMP then says on standard error what it has read.
SCRIPT = "import instruction_modelling, torch"


def wait_policy_of_a_script(**environment: str) -> str:
    own = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**own, "OMP_DISPLAY_ENV": "TRUE", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = [line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line]
    return line.split("'")[1]


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is torch's on Linux")
def test_threads_of_a_script_sleep_while_they_wait_unless_told_otherwise() -> None:
    assert wait_policy_of_a_script() == "PASSIVE"
    assert wait_policy_of_a_script(OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


@pytest.mark.parametrize("name", WAITING)
def test_an_own_setting_of_how_to_wait_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for each in WAITING:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "7")
    cpu.wait_asleep()
    assert {each: os.environ[each] for each in WAITING if each in os.environ} == {name: "7"}


# Prints the pages that the system had to give for a block that was freed and asked for again four times.
ALLOCATION = """
import resource
import torch
from instruction_modelling.cpu import keep_freed_memory
kept = keep_freed_memory()
for mebibytes in (1, 8, 30):
    for number in range(5):
        if number == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = torch.empty(mebibytes * 2**18).fill_(1.0)
        del block
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_a_block(**environment: str) -> tuple[str, int]:
    own = {name: value for name, value in os.environ.items() if name not in cpu._ALLOCATOR}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATION],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    kept, pages = pages_of_a_block()
    if kept == "False":
        pytest.skip("another allocator than glibc's")
    # 30 MiB are 7,680 pages of 4 KiB; the first block freed may be cut once by something that stays.
    assert pages < 2 * 7680
    # What the environment says of the allocator holds: each block goes back.
    kept, pages = pages_of_a_block(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept == "False" and pages >= 4 * 7680


@pytest.fixture
def amd_with_avx512(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine on which it pays, as far as torch and Linux say."""
    (tmp_path / "cpuinfo").write_text("processor : 0\nvendor_id : AuthenticAMD\n")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield tmp_path / "cpuinfo"
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("amd_with_avx512")
def test_products_stay_float32_whatever_library_computes_them() -> None:
    """On any machine: where the other library would round the factors, it is not asked."""
    cpu.use_quicker_float32()
    draw = torch.Generator().manual_seed(1)
    left, right = torch.randn(300, 500, generator=draw), torch.randn(500, 200, generator=draw)
    exact, size = left.double() @ right.double(), left.double().abs() @ right.double().abs()

    def error(product: torch.Tensor) -> float:
        return float(((product.double() - exact).abs() / size).max())

    assert error(left @ right) < 2e-6
    assert error(left.bfloat16() @ right.bfloat16()) > 2e-5


@pytest.mark.usefixtures("amd_with_avx512")
def test_a_library_that_rounds_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "largest_error", lambda: 1e-5)
    assert not cpu.use_quicker_float32()
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(cpu, "largest_error", lambda: 3e-7)
    assert cpu.use_quicker_float32()
    assert torch.get_float32_matmul_precision() == "medium"


def test_nothing_changes_where_mkl_is_quick_or_torch_was_told(
    amd_with_avx512: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "largest_error", lambda: 3e-7)
    torch.set_float32_matmul_precision("high")
    assert not cpu.use_quicker_float32()
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not cpu.use_quicker_float32()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    amd_with_avx512.write_text("processor : 0\nvendor_id : GenuineIntel\n")
    assert not cpu.use_quicker_float32()
    amd_with_avx512.unlink()
    assert not cpu.use_quicker_float32()
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def nothing_left_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    was_for_good = cpu._for_good
    monkeypatch.setattr(cpu, "_for_good", False)
    gc.unfreeze()
    yield
    gc.unfreeze()
    if was_for_good:
        gc.freeze()


def test_objects_made_in_the_block_are_searched_for_cycles_and_older_ones_again_afterwards(
    nothing_left_alone: None,
) -> None:
    class Node:
        itself: object

    older = Node()
    older.itself, gone = older, weakref.ref(older)
    with cpu.old_objects_left_alone():
        del older
        younger = Node()
        younger.itself, gone_inside = younger, weakref.ref(younger)
        del younger
        gc.collect()
        assert gone() is not None and gone_inside() is None
    gc.collect()
    assert gone() is None and gc.get_freeze_count() == 0


def test_a_script_looks_for_cycles_seldom_until_its_imports_are_over_or_it_ends() -> None:
    usual, seen = gc.get_threshold(), []

    def main() -> int:
        seen.append(gc.get_threshold())
        cpu.imports_are_over()
        seen.append(gc.get_threshold())
        return 3

    def broken() -> int:
        raise UserError("no such row")

    for script, code in ((main, 3), (broken, 2)):
        with pytest.raises(SystemExit) as ended:
            run_main(script)
        assert ended.value.code == code and gc.get_threshold() == usual
    assert seen == [(100_000, *usual[1:]), usual]


def test_what_a_script_had_when_its_imports_were_over_is_looked_through_no_more_and_later_things_are(
    nothing_left_alone: None,
) -> None:
    cpu.imports_are_over()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    model = [object()]
    model.append(model)
    cpu.imports_are_over()
    with cpu.old_objects_left_alone():
        assert 10_000 < gc.get_freeze_count() <= frozen and gc.is_tracked(model)
    assert 10_000 < gc.get_freeze_count() <= frozen


def test_a_block_in_a_block_ends_nothing(nothing_left_alone: None) -> None:
    with cpu.old_objects_left_alone():
        with cpu.old_objects_left_alone():
            pass
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def test_imports_that_are_over_within_a_block_are_left_alone_after_it_too(nothing_left_alone: None) -> None:
    with cpu.old_objects_left_alone():
        cpu.imports_are_over()
    assert gc.get_freeze_count() > 10_000


def test_blocks_that_end_in_the_order_they_began_leave_objects_alone_until_the_last_has_ended(
    nothing_left_alone: None,
) -> None:
    first, second = cpu.old_objects_left_alone(), cpu.old_objects_left_alone()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_freeze_count() > 10_000
    second.__exit__(None, None, None)
    assert gc.get_freeze_count() == 0


def test_what_others_have_frozen_stays_frozen(nothing_left_alone: None) -> None:
    gc.freeze()
    with cpu.old_objects_left_alone():
        pass
    assert gc.get_freeze_count() > 10_000


def test_a_block_takes_no_time_to_speak_of_however_many_objects_are_left_alone(
    nothing_left_alone: None,
) -> None:
    kept: list[list[int]] = [[] for _ in range(1_000_000)]
    cpu.imports_are_over()
    started = time.process_time()
    for _ in range(1000):
        with cpu.old_objects_left_alone():
            pass
    assert time.process_time() - started < 0.5 and kept


def test_freed_memory_is_given_back_between_two_pieces_of_work() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("not glibc")
    process = psutil.Process()
    # Every other block is freed: none lies at the end, where the allocator would give it back by itself.
    blocks = [bytearray(60_000) for _ in range(2_000)]
    del blocks[::2]
    before = process.memory_info().rss
    cpu.give_back_freed_memory()
    assert before - process.memory_info().rss > 40e6
    assert len(blocks) == 1_000
